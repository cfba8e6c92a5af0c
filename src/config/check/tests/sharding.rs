//! Ways to spread keys, and which of their keys go together.

use super::{LISTENER, each, file, good};

fn sharding(written: &str) -> String {
    let shards = "shards: [{ name: one, primary: a:1 }, { primary: a:2 }, { primary: a:3 }]";
    file(LISTENER, &format!("{shards}, sharding: {written}"))
}

#[test]
fn every_way_is_accepted() {
    for written in [
        "{ by: slots, hash_tag: \"{}\" }",
        "{ by: ketama, hash: fnv1a_64, hash_tag: \"$$\" }",
        "{ by: maglev }",
        "{ by: jump, hash: murmur }",
        "{ by: modulo, hash: crc32 }",
        "{ by: range, bounds: [g, p] }",
        "{ by: range, bounds: [-5, 100], separator: \":\", default: s2 }",
        "{ by: directory, keys: { a: one, \"b*\": s1 }, default: s2 }",
    ] {
        good(&sharding(written));
    }
}

#[test]
fn what_does_not_go_together_is_told() {
    each(&[
        (sharding("{ hash_tag: \"[]\" }"), "clusters.c.sharding.hash_tag: '[]' is not {}"),
        (sharding("{ by: jump, hash_tag: abc }"), "clusters.c.sharding.hash_tag: 'abc' is not two"),
        (
            sharding("{ hash: md5 }"),
            "clusters.c.sharding.hash: it is for ketama, maglev, jump, modulo; this is by slots",
        ),
        (
            sharding("{ by: jump, bounds: [1] }"),
            "clusters.c.sharding.bounds: it is for range; this is by jump",
        ),
        (
            sharding("{ by: range, bounds: [1] }"),
            "clusters.c.sharding.bounds: 3 shards have 2 `bounds` between them, found 1",
        ),
        (
            sharding("{ by: range }"),
            "clusters.c.sharding: 3 shards have 2 `bounds` between them, found 0",
        ),
        (
            sharding("{ by: range, bounds: [10, 9] }"),
            "clusters.c.sharding.bounds: the bounds do not ascend",
        ),
        (
            sharding("{ by: range, bounds: [1_000, 2_000] }"),
            "clusters.c.sharding.bounds: these look like numbers",
        ),
        (
            file(
                LISTENER,
                "shards: [{ name: a.b, primary: x:1 }, { primary: \"a.b:11211\" }], sharding: { by: ketama }",
            ),
            "clusters.c.shards: two shards are known as 'a.b'",
        ),
        (sharding("{ by: directory }"), "clusters.c.sharding: `keys` is missing"),
        (
            sharding("{ by: directory, keys: { a: oen } }"),
            "clusters.c.sharding.keys.a: 'oen' is no shard of this cluster; did you mean 'one'?",
        ),
        (sharding("{ by: ketma }"), "clusters.c.sharding.by: 'ketma' is not one of"),
        (
            file(LISTENER, "shards: [{ primary: a:1, weight: 2 }]"),
            "clusters.c.shards[0].weight: the weight of a shard is for ketama, maglev and modulo; this is by slots",
        ),
    ]);
}
