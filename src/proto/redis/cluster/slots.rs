//! What a node of a Redis Cluster answers to CLUSTER SLOTS and CLUSTER INFO: who owns which slots, and
//! how new that is. Not whether it is right.

use super::turned::address;
use crate::{net::addr::Address, policy::slot::SLOTS, proto::redis::tree::Value};
use std::collections::BTreeMap;

/// The shards of a cluster as one node sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    /// Ascending by their lowest slot.
    pub shards: Vec<Owner>,
}

/// One shard that owns slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub primary: Address,
    /// Without those that the node takes for dead.
    pub replicas: Vec<Address>,
    /// First and last of each run, ascending.
    pub runs: Vec<(u16, u16)>,
}

impl Map {
    /// Reads the reply of the node at `from`, which may call itself by no name. A node without an
    /// address is left out, and a range whose primary has none.
    ///
    /// # Errors
    /// What is wrong with it, for the log.
    pub fn parse(reply: &[u8], from: &Address) -> Result<Self, String> {
        if let Some(error) = reply.strip_prefix(b"-") {
            return Err(String::from_utf8_lossy(error).trim_end().chars().take(SHOWN).collect());
        }
        let value = Value::parse(reply).ok_or("it is no whole reply")?;
        let ranges = value.array().filter(|ranges| ranges.len() <= usize::from(SLOTS));
        let ranges = ranges.ok_or("it is no list of ranges of slots")?;
        let mut owners: BTreeMap<String, Owner> = BTreeMap::new();
        let mut taken = vec![false; usize::from(SLOTS)];
        for range in ranges {
            let [first, last, primary, replicas @ ..] = range.array().unwrap_or_default() else {
                return Err("a range has not a first and a last slot and a node".to_owned());
            };
            let (first, last) = (slot(first)?, slot(last)?);
            let run = taken.get_mut(usize::from(first)..=usize::from(last));
            let run = run.ok_or_else(|| format!("a range goes from {first} to {last}"))?;
            if run.iter().any(|taken| *taken) {
                return Err(format!("a slot from {first} to {last} has two owners"));
            }
            run.fill(true);
            let Some(primary) = node(primary, from)? else { continue };
            let mut others = Vec::new();
            for replica in replicas.iter().take(MOST_REPLICAS) {
                others.extend(node(replica, from)?.filter(|one| *one != primary));
            }
            others.sort_by_key(Address::to_string);
            let owner = owners.entry(primary.to_string()).or_insert_with(|| Owner {
                primary,
                replicas: others,
                runs: Vec::new(),
            });
            owner.runs.push((first, last));
        }
        let mut shards: Vec<Owner> = owners.into_values().collect();
        shards.iter_mut().for_each(|owner| owner.runs.sort_unstable());
        shards.sort_by_key(|owner| owner.runs.first().copied());
        Ok(Self { shards })
    }

    /// How many slots have an owner.
    pub fn covered(&self) -> usize {
        let runs = self.shards.iter().flat_map(|owner| &owner.runs);
        runs.map(|(first, last)| usize::from(last - first) + 1).sum()
    }
}

/// The epoch that CLUSTER INFO tells: the higher, the newer; 0 when it tells none.
pub fn epoch(info: &str) -> u64 {
    let mut lines = info.lines();
    let text = lines.find_map(|line| line.strip_prefix("cluster_current_epoch:"));
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn slot(value: &Value<'_>) -> Result<u16, String> {
    let slot = value.integer().and_then(|slot| u16::try_from(slot).ok());
    slot.filter(|slot| *slot < SLOTS).ok_or_else(|| "a range without two slots".to_owned())
}

/// A node's address: its host, its port, its id, and what else newer versions tell.
fn node(value: &Value<'_>, from: &Address) -> Result<Option<Address>, String> {
    let [host, port, ..] = value.array().unwrap_or_default() else {
        return Err("a node without host and port".to_owned());
    };
    // Null, for whoever asks has come to the right host.
    let host = host.text().or_else(|| host.array().filter(|none| none.is_empty()).map(|_| ""));
    let port = port.integer().and_then(|port| u16::try_from(port).ok());
    let (Some(host), Some(port)) = (host, port) else {
        return Err("a node whose host or port is none".to_owned());
    };
    Ok(address(host, port, from))
}

/// What a fuzzer feeds: whatever comes, there is a map whose slots have one owner each, or an error
/// that can be shown.
pub fn fuzz(data: &[u8]) {
    let from = Address::Tcp { host: "127.0.0.1".to_owned(), port: 1 };
    match Map::parse(data, &from) {
        Ok(map) => {
            assert!(map.covered() <= usize::from(SLOTS));
            assert!(map.shards.iter().all(|owner| !owner.runs.is_empty()));
        }
        Err(error) => assert!(error.chars().count() < 256),
    }
    let _ = epoch(&String::from_utf8_lossy(data));
}

/// Of one shard: fewer than a shard may have members.
const MOST_REPLICAS: usize = 63;
/// As much of a server's error as is told.
const SHOWN: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::redis::scan::Scanner;

    const ANSWER: &[u8] = b"*3\r\n\
        *4\r\n:5461\r\n:10922\r\n\
        *4\r\n$9\r\n127.0.0.1\r\n:7001\r\n$3\r\nbbb\r\n*2\r\n$8\r\nhostname\r\n$6\r\nhost-b\r\n\
        *4\r\n$9\r\n127.0.0.1\r\n:7004\r\n$3\r\neee\r\n*0\r\n\
        *3\r\n:0\r\n:5460\r\n*4\r\n$0\r\n\r\n:7000\r\n$3\r\naaa\r\n*0\r\n\
        *4\r\n:10923\r\n:16383\r\n*3\r\n$-1\r\n:7002\r\n$3\r\nccc\r\n*3\r\n$1\r\n?\r\n:7005\r\n$3\r\nfff\r\n";

    fn from() -> Address {
        "10.0.0.9:7000".parse().unwrap()
    }

    #[test]
    fn the_shards_of_an_answer() {
        let map = Map::parse(ANSWER, &from()).unwrap();
        let shown = |owner: &Owner| {
            let replicas: Vec<_> = owner.replicas.iter().map(Address::to_string).collect();
            format!("{} [{}] {:?}", owner.primary, replicas.join(" "), owner.runs)
        };
        assert_eq!(
            map.shards.iter().map(shown).collect::<Vec<_>>(),
            [
                "10.0.0.9:7000 [] [(0, 5460)]",
                "127.0.0.1:7001 [127.0.0.1:7004] [(5461, 10922)]",
                "10.0.0.9:7002 [] [(10923, 16383)]",
            ]
        );
        assert_eq!(map.covered(), 16_384);
    }

    #[test]
    fn an_answer_is_whole_at_its_last_byte_and_not_before() {
        for cut in 0..ANSWER.len() {
            let part = &ANSWER[..cut];
            assert_eq!(Scanner::default().measure(part), Ok(None), "{cut}");
            Map::parse(part, &from()).unwrap_err();
        }
        assert_eq!(Scanner::default().measure(ANSWER), Ok(Some(ANSWER.len())));
    }

    #[test]
    fn a_shard_has_as_many_ranges_as_it_has_and_nodes_without_port_none() {
        let node = |port| format!("*3\r\n$1\r\nh\r\n:{port}\r\n$1\r\na\r\n");
        let range = |first, last, port| format!("*3\r\n:{first}\r\n:{last}\r\n{}", node(port));
        let all = [range(9, 12, 1), range(0, 3, 1), range(5, 5, 2), range(6, 7, 0)];
        let text = format!("*4\r\n{}", all.concat());
        let map = Map::parse(text.as_bytes(), &from()).unwrap();
        let runs: Vec<_> = map.shards.iter().map(|owner| owner.runs.clone()).collect();
        assert_eq!(runs, [vec![(0, 3), (9, 12)], vec![(5, 5)]]);
        assert_eq!(map.covered(), 9);
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        let node = "*3\r\n$1\r\nh\r\n:1\r\n$1\r\na\r\n";
        for (answer, why) in [
            ("-ERR This instance has cluster support disabled\r\n".to_owned(), "cluster support"),
            ("+OK\r\n".to_owned(), "list of ranges"),
            ("*1\r\n:5\r\n".to_owned(), "first and a last"),
            (format!("*1\r\n*3\r\n:0\r\n:16384\r\n{node}"), "without two slots"),
            (format!("*1\r\n*3\r\n:-1\r\n:5\r\n{node}"), "without two slots"),
            (format!("*1\r\n*3\r\n:7\r\n:5\r\n{node}"), "from 7 to 5"),
            (format!("*2\r\n*3\r\n:0\r\n:9\r\n{node}*3\r\n:9\r\n:10\r\n{node}"), "two owners"),
            ("*1\r\n*3\r\n:0\r\n:9\r\n+x\r\n".to_owned(), "without host and port"),
            ("*1\r\n*3\r\n:0\r\n:9\r\n*2\r\n:1\r\n:1\r\n".to_owned(), "is none"),
        ] {
            let told = Map::parse(answer.as_bytes(), &from()).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn the_epoch_is_the_servers() {
        assert_eq!(epoch("cluster_state:ok\r\ncluster_current_epoch:17\r\n"), 17);
        assert_eq!(epoch("cluster_state:ok\r\n"), 0);
    }

    proptest::proptest! {
        #[test]
        fn no_answer_breaks_it(
            bytes in proptest::collection::vec(proptest::sample::select(&b"*$:-+013459\r\nh?"[..]), 0..120),
        ) {
            fuzz(&bytes);
        }
    }
}
