//! Sentinels instead of shards.

use super::{LISTENER, SHARDS, cluster, each, file, good, told};

fn sentinel(written: &str) -> String {
    file(LISTENER, &format!("sentinel: {{ {written} }}"))
}

#[test]
fn masters_are_shards_of_which_nobody_is_known() {
    let text = sentinel("addresses: [a:1, b:2], masters: [one, two], password: p");
    let config = good(&text.replace(
        " } } }",
        " }, sharding: { by: directory, keys: { a: two } }, upstream: { password: q } } }",
    ));
    let cluster = &config.clusters[0];
    let written = cluster.sentinel.as_ref().unwrap();
    assert_eq!((written.addresses.len(), written.credentials.password.as_deref()), (2, Some("p")));
    let names: Vec<_> = cluster.shards.iter().map(|shard| shard.name.as_str()).collect();
    assert_eq!((names, cluster.members()), (vec!["one", "two"], 0));
    assert_eq!(cluster.sharding.keys, [("a".to_owned(), 1)]);
}

#[test]
fn what_makes_no_sense_is_told() {
    let two = "addresses: [a:1, b:1], masters: [m]";
    each(&[
        (sentinel("addresses: [a:1, b:1]"), "clusters.c.sentinel: `masters` is missing"),
        (sentinel("masters: [m]"), "clusters.c.sentinel: `addresses` is missing"),
        (
            sentinel("addresses: [], masters: [m]"),
            "clusters.c.sentinel.addresses: it is empty; give it at least one of the addresses",
        ),
        (
            sentinel("addresses: [a:1, b:1], masters: []"),
            "clusters.c.sentinel.masters: it is empty",
        ),
        (
            sentinel("addresses: [a:1, b:1], masters: [m, m]"),
            "clusters.c.sentinel.masters[1]: 'm' is in this list already",
        ),
        (
            sentinel("addresses: [a:1, a:1, b:1], masters: [m]"),
            "clusters.c.sentinel.addresses[1]: 'a:1' is in this list already",
        ),
        (
            sentinel("addresses: [a, b:1, c:1], masters: [m]"),
            "clusters.c.sentinel.addresses[0]: 'a' has no port",
        ),
        (sentinel("addresses: [a:1, b:1], masters: [\"a b\"]"), "clusters.c.sentinel.masters[0]: "),
        (
            sentinel(&format!("{two}, user: u")),
            "clusters.c.sentinel.user: a user needs `password` or `password_file`",
        ),
        (
            sentinel(&format!("{two}, password: p")),
            "hint: clusters.c.sentinel: its password is for the Sentinels alone",
        ),
        (
            sentinel("addresses: [a:1], masters: [m]"),
            "hint: clusters.c.sentinel: while its one Sentinel is away nobody tells of a failover",
        ),
        (
            cluster(&format!("sentinel: {{ {two} }}")),
            "clusters.c: it has 2 of backends, shards, sentinel",
        ),
        (
            sentinel(two).replace(" } } }", " }, balance: p2c } }"),
            "clusters.c.balance: it is for a cluster with `backends`; this one has `sentinel`",
        ),
        (
            sentinel(two).replace("protocol: redis", "protocol: tcp"),
            "listeners[0].cluster: a tcp listener needs a cluster with `backends`, this one has `sentinel`",
        ),
        (
            sentinel(two).replace("protocol: redis", "protocol: http"),
            "listeners[0].cluster: a http listener needs a cluster with `shards`, this one has `sentinel`",
        ),
    ]);
    assert!(told(&file(LISTENER, SHARDS)).is_empty());
}
