//! Values are written, read, aged, forged and rotated.

use super::*;
use proptest::prelude::*;

const NOW: u64 = 1_800_000_000;
const ONE: &[u8] = b"0123456789abcdef0123456789abcdef";
const TWO: &[u8] = b"another key of thirty-two bytes!";

fn codec(mode: Mode, keys: &[&[u8]], max_idle: u64, max_life: u64) -> Codec {
    let limit = |seconds| (seconds != 0).then(|| Duration::from_secs(seconds));
    let keys = keys.iter().map(|key| key.to_vec()).collect();
    Codec::new(&Settings { mode, keys, max_idle: limit(max_idle), max_life: limit(max_life) })
}

fn written(codec: &Codec, id: &str, issued: u64, now: u64) -> String {
    let mut value = String::new();
    codec.write(&codec.token(id), issued, now, &mut value);
    value
}

/// `issued`, and whether it is written anew; or why not.
fn read(codec: &Codec, value: &str, now: u64) -> Result<(String, u64, bool), &'static str> {
    match codec.read(value.as_bytes(), now) {
        Verdict::Known(Session { token, issued, reissue }) => {
            Ok((String::from_utf8(token.to_vec()).unwrap(), issued, reissue))
        }
        Verdict::Expired => Err("expired"),
        Verdict::Forged => Err("forged"),
        Verdict::Malformed => Err("malformed"),
    }
}

#[test]
fn values_look_as_they_are_described() {
    let plain = codec(Mode::Plain, &[], 0, 0);
    assert_eq!(written(&plain, "10.0.0.1:80", NOW, NOW), "10.0.0.1:80");
    assert_eq!(written(&plain, "unix:/a b;c|%é", NOW, NOW), "unix:/a%20b%3bc%7c%25%c3%a9");
    let limited = codec(Mode::Plain, &[], 60, 0);
    assert_eq!(written(&limited, "web-1:80", 0x10, 0x1f), "web-1:80|1f|10");
    // printf 'sluice sticky backend 1\0web-1:80' | sha256sum | cut -c-16
    let opaque = codec(Mode::Opaque, &[], 0, 0);
    assert_eq!(written(&opaque, "web-1:80", NOW, NOW), "1.f59b9cc0af7d00ed");
    let limited = codec(Mode::Opaque, &[], 0, 60);
    assert_eq!(written(&limited, "web-1:80", 0x10, 0x1f), "1.f59b9cc0af7d00ed.10.1f");
    // printf '1.f59b9cc0af7d00ed.10.1f' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
    let signed = codec(Mode::Signed, &[ONE], 0, 0);
    assert_eq!(
        written(&signed, "web-1:80", 0x10, 0x1f),
        "1.f59b9cc0af7d00ed.10.1f.68bff46c9517c699dd653f8d2402d626"
    );
}

#[test]
fn what_is_written_is_known_again() {
    for mode in [Mode::Plain, Mode::Opaque, Mode::Signed] {
        for (max_idle, max_life) in [(0, 0), (60, 0), (0, 60), (60, 600)] {
            let codec = codec(mode, &[ONE], max_idle, max_life);
            let jar = Jar::new(&codec, ["a:1", "b:2", "b:2", "c 3"]);
            for (place, id) in [(0, "a:1"), (1, "b:2"), (3, "c 3")] {
                let value = written(&codec, id, NOW - 5, NOW);
                let Verdict::Known(session) = codec.read(value.as_bytes(), NOW) else {
                    panic!("{mode:?}: {value}")
                };
                assert_eq!(jar.index(session.token), Some(place), "{mode:?}");
                assert_eq!(jar.token(place).unwrap().as_str().as_bytes(), session.token);
                assert!(!session.reissue);
                let kept = max_idle + max_life > 0 || mode == Mode::Signed;
                assert_eq!(session.issued, if kept { NOW - 5 } else { NOW });
            }
            assert_eq!((jar.index(b""), jar.index(b"d:4"), jar.token(4)), (None, None, None));
        }
    }
}

#[test]
fn a_session_ends_by_idleness_and_by_age_and_is_renewed_before() {
    for mode in [Mode::Plain, Mode::Opaque, Mode::Signed] {
        let codec = codec(mode, &[ONE], 100, 1_000);
        let at = |issued: u64, seen: u64| {
            let value = written(&codec, "a:1", NOW - issued, NOW - seen);
            read(&codec, &value, NOW).map(|(_, issued, reissue)| (NOW - issued, reissue))
        };
        assert_eq!(at(0, 0), Ok((0, false)));
        assert_eq!(at(25, 25), Ok((25, false)));
        assert_eq!(at(26, 26), Ok((26, true)), "a quarter of max_idle is over");
        assert_eq!(at(100, 100), Ok((100, true)));
        assert_eq!(at(101, 101), Err("expired"));
        assert_eq!(at(1_000, 0), Ok((1_000, false)));
        assert_eq!(at(1_001, 0), Err("expired"));
    }
}

#[test]
fn clocks_may_differ_by_a_day() {
    let codec = codec(Mode::Signed, &[ONE], 100, 1_000);
    let ahead = |by: u64| read(&codec, &written(&codec, "a:1", NOW + by, NOW + by), NOW);
    assert_eq!(ahead(86_400).map(|(_, _, reissue)| reissue), Ok(false));
    assert_eq!(ahead(86_401), Err("expired"));
    assert_eq!(ahead(u64::MAX - NOW), Err("expired"));
}

#[test]
fn a_limit_that_is_new_begins_with_the_next_request() {
    for mode in [Mode::Plain, Mode::Opaque] {
        let (before, after) = (codec(mode, &[], 0, 0), codec(mode, &[], 60, 600));
        let old = written(&before, "a:1", NOW - 9_999, NOW - 9_999);
        let (token, issued, reissue) = read(&after, &old, NOW).unwrap();
        assert_eq!((issued, reissue), (NOW, true));
        let new = written(&after, "a:1", issued, NOW);
        assert_eq!(read(&before, &new, NOW + 9_999).unwrap().0, token, "and a limit may go");
    }
}

#[test]
fn a_key_may_be_replaced_without_losing_a_session() {
    let (old, both, new) = (
        codec(Mode::Signed, &[ONE], 0, 0),
        codec(Mode::Signed, &[TWO, ONE], 0, 0),
        codec(Mode::Signed, &[TWO], 0, 0),
    );
    let value = written(&old, "a:1", NOW, NOW);
    assert_eq!(read(&both, &value, NOW).map(|(.., reissue)| reissue), Ok(true));
    assert_eq!(read(&new, &value, NOW), Err("forged"));
    let value = written(&both, "a:1", NOW, NOW);
    assert_eq!(read(&both, &value, NOW).map(|(.., reissue)| reissue), Ok(false));
    assert_eq!(read(&new, &value, NOW).map(|(.., reissue)| reissue), Ok(false));
    assert_eq!(read(&codec(Mode::Signed, &[], 0, 0), &value, NOW), Err("forged"));
}

#[test]
fn no_part_of_a_signed_value_can_be_changed() {
    let codec = codec(Mode::Signed, &[ONE], 600, 0);
    let value = written(&codec, "a:1", NOW, NOW);
    assert!(read(&codec, &value, NOW).is_ok());
    for at in 0..value.len() {
        for byte in [b'0', b'1', b'f', b'.', b'A', b' ', 0, 0xff] {
            let mut changed = value.clone().into_bytes();
            changed[at] = byte;
            let verdict = codec.read(&changed, NOW);
            let same = changed == value.as_bytes();
            assert_eq!(matches!(verdict, Verdict::Known(_)), same, "{at} {byte}");
        }
        let cut = codec.read(&value.as_bytes()[..at], NOW);
        assert!(matches!(cut, Verdict::Malformed | Verdict::Forged), "{at} {cut:?}");
    }
    for bad in ["", "1.", "a:1", "2.0123456789abcdef.1.1.0123456789abcdef0123456789abcdef"] {
        assert_eq!(read(&codec, bad, NOW), Err("malformed"), "{bad}");
    }
    let stripped = value.rsplit_once('.').unwrap().0;
    assert!(read(&codec, stripped, NOW).is_err());
}

#[test]
fn the_header_has_what_was_asked_for() {
    let header = |attributes: &Attributes, encrypted| {
        SetCookie::new(attributes).header(encrypted, |value| value.push('v'))
    };
    let default = Attributes::named("S");
    assert_eq!(header(&default, false), "S=v; Path=/; HttpOnly; SameSite=Lax");
    assert_eq!(header(&default, true), "S=v; Path=/; HttpOnly; SameSite=Lax; Secure");
    let other = Attributes {
        path: "/app".to_owned(),
        domain: Some("example.org".to_owned()),
        http_only: false,
        same_site: SameSite::None,
        secure: Secure::Always,
        max_age: Some(Duration::from_secs(90)),
        ..default.clone()
    };
    let all = "S=v; Path=/app; Domain=example.org; Max-Age=90; SameSite=None; Secure";
    assert_eq!(header(&other, false), all);
    let never = Attributes { secure: Secure::Never, same_site: SameSite::Strict, ..default };
    assert_eq!(header(&never, true), "S=v; Path=/; HttpOnly; SameSite=Strict");
}

#[test]
fn keys_are_not_shown() {
    let settings = Settings { keys: vec![b"hunter2".to_vec()], ..Settings::default() };
    let shown = format!("{settings:?} {:?}", Codec::new(&settings));
    assert!(!shown.contains("hunter2") && !shown.contains("104, 117"), "{shown}");
}

proptest! {
    #[test]
    fn any_id_gives_a_value_that_a_cookie_may_have(id in ".*") {
        for mode in [Mode::Plain, Mode::Opaque, Mode::Signed] {
            let codec = codec(mode, &[ONE], 60, 600);
            let value = written(&codec, &id, NOW, NOW);
            prop_assert!(value.bytes().all(|byte| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte)));
            let (token, ..) = read(&codec, &value, NOW).unwrap();
            let expected = codec.token(&id);
            prop_assert_eq!(token, expected.as_str());
        }
    }

    #[test]
    fn any_bytes_are_read(data in prop::collection::vec(any::<u8>(), 0..90)) {
        fuzz(&data);
    }
}
