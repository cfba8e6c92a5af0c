use super::*;

/// What a real twemproxy asked for these keys: see tests/sharding/vectors.py.
const TWEMPROXY: &str = include_str!("../../../tests/sharding/twemproxy.txt");

fn hash(name: &str) -> Hash {
    match name {
        "one_at_a_time" => Hash::OneAtATime,
        "md5" => Hash::Md5,
        "crc16" => Hash::Crc16,
        "crc32" => Hash::Crc32,
        "crc32a" => Hash::Crc32a,
        "fnv1_64" => Hash::Fnv1_64,
        "fnv1a_64" => Hash::Fnv1a64,
        "fnv1_32" => Hash::Fnv1_32,
        "fnv1a_32" => Hash::Fnv1a32,
        "hsieh" => Hash::Hsieh,
        "murmur" => Hash::Murmur,
        "jenkins" => Hash::Jenkins,
        other => panic!("{other} is no hash of twemproxy"),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

#[test]
fn every_key_is_where_twemproxy_has_it() {
    let mut keys = Vec::new();
    let mut compared = 0;
    for line in TWEMPROXY.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        if words[0] == "keys" {
            keys = words[1..].iter().map(|key| unhex(key)).collect();
            continue;
        }
        let [distribution, function, tag, servers, owners] = words[..] else { panic!("{line}") };
        let known = servers.split(',').map(|server| {
            let (name, weight) = server.rsplit_once('*').unwrap();
            (name, weight.parse().unwrap())
        });
        let spread = match distribution {
            "ketama" => Spread::ketama(known),
            _ => Spread::modulo(known),
        };
        let tag = (tag != "-").then(|| [tag.as_bytes()[0], tag.as_bytes()[1]]);
        let sharding = Sharding::Hashed(hash(function), tag, spread);
        for (key, owner) in keys.iter().zip(owners.bytes()) {
            let found = b'a' + u8::try_from(sharding.owner(key)).unwrap();
            assert_eq!(
                char::from(found),
                char::from(owner),
                "{distribution} {function} {servers}: {}",
                key.escape_ascii()
            );
            compared += 1;
        }
    }
    assert!(compared > 12_000, "{compared}");
}

fn known(shards: u16) -> Vec<(String, u32)> {
    (0..shards).map(|n| (format!("shard-{n}"), 1)).collect()
}

fn hashed(kind: &str, shards: u16) -> Sharding {
    let list = known(shards);
    let known = list.iter().map(|(name, weight)| (name.as_str(), *weight));
    let spread = match kind {
        "ketama" => Spread::ketama(known),
        "maglev" => Spread::maglev(known),
        "modulo" => Spread::modulo(known),
        _ => Spread::Jump(shards),
    };
    Sharding::Hashed(Hash::Xxh3, None, spread)
}

fn sample() -> impl Iterator<Item = String> {
    (0..100_000).map(|n| format!("user:{n}:cart"))
}

#[test]
fn one_shard_more_takes_keys_and_moves_no_others() {
    for (kind, most) in [("ketama", 1.35), ("maglev", 1.45), ("jump", 1.05)] {
        for shards in [3_u16, 10, 40] {
            let (old, new) = (hashed(kind, shards), hashed(kind, shards + 1));
            let sides = ((&old, usize::from(shards)), (&new, usize::from(shards) + 1));
            let counts = movement(sides.0, sides.1, sample(), |from, to| from == to);
            let fair = counts.counted as f64 / f64::from(shards + 1);
            let moved = counts.moved as f64;
            assert!(
                moved > 0.6 * fair && moved < most * fair,
                "{kind} {shards}: {moved}, fair {fair}"
            );
        }
    }
}

#[test]
fn keys_are_spread_evenly() {
    for (kind, least, most) in [
        ("ketama", 0.75, 1.3),
        ("maglev", 0.95, 1.05),
        ("jump", 0.95, 1.05),
        ("modulo", 0.95, 1.05),
    ] {
        let sharding = hashed(kind, 10);
        let mut shares = [0_u32; 10];
        sample().for_each(|key| shares[sharding.owner(key.as_bytes())] += 1);
        for share in shares {
            let share = f64::from(share) / 10_000.0;
            assert!((least..most).contains(&share), "{kind}: {shares:?}");
        }
    }
}

#[test]
fn slots_that_move_are_counted_exactly() {
    let (old, new) = (even(2), even(4));
    let counts = movement((&old, 2), (&new, 4), [""; 0].iter(), |from, to| from == to);
    assert_eq!((counts.counted, counts.moved), (16_384, 12_288));
    assert_eq!(counts.before, [8_192, 8_192]);
    assert_eq!(counts.after, [4_096; 4]);
}

#[test]
fn slots_are_told_as_runs() {
    let sharding = Sharding::Slots([0, 0, 1, 1, 0, 2].into());
    assert_eq!(sharding.runs(0), [(0, 1), (4, 4)]);
    assert_eq!(sharding.runs(2), [(5, 5)]);
    assert_eq!(sharding.runs(3), []);
    assert_eq!(Sharding::One.runs(0), [(0, 16_383)]);
    assert_eq!(hashed("jump", 3).runs(0), []);
}

#[test]
fn ranges_end_before_their_bounds() {
    let numeric = |separator: Option<&str>| {
        let separator = separator.map(|text| text.as_bytes().to_vec());
        Sharding::Range(
            None,
            Range { separator, bounds: Bounds::Numeric(vec![-5, 100, 1_000]), default: 3 },
        )
    };
    for (key, owner) in [
        ("user:-6", 0),
        ("user:-5", 1),
        ("user:99:name", 1),
        ("user:100", 2),
        ("user:999", 2),
        ("user:1000", 3),
        ("user:99999999999999999999999", 3),
        ("user:-99999999999999999999999", 0),
        ("user:", 3),
        ("user:-", 3),
        ("nothing", 3),
    ] {
        assert_eq!(numeric(Some(":")).owner(key.as_bytes()), owner, "{key}");
    }
    assert_eq!(numeric(None).owner(b"12"), 1);
    let bounds = Bounds::Lexical(vec![b"g".to_vec(), b"p".to_vec()]);
    let lexical = Sharding::Range(None, Range { separator: None, bounds, default: 0 });
    for (key, owner) in [("", 0), ("fzzz", 0), ("g", 1), ("oz", 1), ("p", 2), ("\u{e9}", 2)] {
        assert_eq!(lexical.owner(key.as_bytes()), owner, "{key}");
    }
}

#[test]
fn a_directory_prefers_the_exact_and_the_longest() {
    let entries = [("cfg", 0), ("tenant-a:*", 1), ("tenant-*", 2), ("tenant-a:x", 3)];
    let sharding = Sharding::Directory(None, Directory::new(entries.into_iter(), 4));
    for (key, owner) in [
        ("cfg", 0),
        ("cfg2", 4),
        ("tenant-a:1", 1),
        ("tenant-b", 2),
        ("tenant-a:x", 3),
        ("tenant", 4),
        ("", 4),
    ] {
        assert_eq!(sharding.owner(key.as_bytes()), owner, "{key}");
    }
}

#[test]
fn the_reason_is_told_in_words() {
    let tag = Some(*b"{}");
    let directory = Directory::new([("a*", 1)].into_iter(), 0);
    let range =
        Range { separator: Some(b":".to_vec()), bounds: Bounds::Numeric(vec![5]), default: 0 };
    for (sharding, key, reason) in [
        (even(3), "foo", "slot 12182"),
        (even(3), "{foo}x", "slot 12182 of foo"),
        (Sharding::One, "foo", "the only shard"),
        (
            Sharding::Hashed(Hash::Crc32a, tag, Spread::Jump(2)),
            "{123456789}x",
            "hash 3421780262 of 123456789",
        ),
        (Sharding::Range(None, range.clone()), "u:7:x", "the range of 7"),
        (Sharding::Range(None, range), "u", "the default: the separator is not in it"),
        (Sharding::Directory(None, directory.clone()), "ab", "the entry a*"),
        (Sharding::Directory(None, directory), "b", "the default: no entry names it"),
    ] {
        assert_eq!(sharding.reason(key.as_bytes()), reason);
    }
}
