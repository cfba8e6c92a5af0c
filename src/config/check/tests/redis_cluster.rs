//! The seeds of a Redis Cluster instead of shards.

use super::{LISTENER, each, file, good};
use crate::topology::Spoof;

fn seeds(written: &str, more: &str) -> String {
    file(LISTENER, &format!("redis_cluster: {{ {written} }}{more}"))
}

#[test]
fn seeds_are_where_to_ask() {
    let text = seeds("seeds: [a:1, b:2], spoof: list, announce: [c:3, d:4]", "");
    let config = good(&text);
    let written = config.clusters[0].redis_cluster.as_ref().unwrap();
    assert_eq!((written.seeds.len(), written.announce.len()), (2, 2));
    assert_eq!((written.accept_unknown, written.spoof), (true, Spoof::List));
    assert_eq!(config.clusters[0].shards.len(), 0);
    good(&seeds("seeds: [a:1]", ", reads: { from: prefer_replica }"));
}

#[test]
fn what_makes_no_sense_is_told() {
    let at = "clusters.c.redis_cluster";
    let expected = |key: &str, text: &str| format!("{at}{key}: {text}");
    let table = [
        (seeds("spoof: self", ""), expected("", "`seeds` is missing")),
        (seeds("seeds: []", ""), expected(".seeds", "it is empty")),
        (seeds("seeds: [a:1, a:1]", ""), expected(".seeds[1]", "'a:1' is there already")),
        (seeds("seeds: [\"unix:/a\"]", ""), expected(".seeds[0]", "'unix:/a' is no address")),
        (seeds("seeds: [a:0]", ""), expected(".seeds[0]", "'a:0' cannot be connected to")),
        (
            seeds("seeds: [a:1], announce: [b:1]", ""),
            expected(".announce", "it says nothing without `spoof: self`"),
        ),
        (
            seeds("seeds: [a:1], spoof: self, announce: [b:1, b:2]", ""),
            expected(".announce", "with `spoof: self` it has one address"),
        ),
        (
            seeds("seeds: [a:1], spoof: list", ""),
            expected(".spoof", "`spoof: list` needs `announce`"),
        ),
        (
            seeds("seeds: [a:1]", ", upstream: { mode: dedicated }"),
            "clusters.c.upstream.mode: dedicated is not for redis_cluster".to_owned(),
        ),
        (
            seeds("seeds: [a:1]", ", reads: { from: prefer_replica, consistency: key }"),
            "clusters.c.reads.consistency: it is not supported yet with redis_cluster".to_owned(),
        ),
        (
            seeds("seeds: [a:1]", ", sharding: { by: ketama }"),
            "clusters.c.sharding: it is for a cluster with `shards`".to_owned(),
        ),
    ];
    let table: Vec<_> = table.iter().map(|(text, told)| (text.clone(), told.as_str())).collect();
    each(&table);
}
