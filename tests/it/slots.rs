//! The slot of a key against the server's own `CLUSTER KEYSLOT`.

use crate::harness::{Redis, Value};
use sluice::policy::slot::slot;

#[test]
fn slots_are_the_servers_own() {
    let server = Redis::with_args(&["--cluster-enabled", "yes"]);
    let mut conn = server.conn();
    let mut keys: Vec<Vec<u8>> = [
        "",
        "{",
        "}",
        "{}",
        "{}a",
        "a{}",
        "a{b}",
        "a{b}c",
        "{b}",
        "b",
        "a{{b}}",
        "a{b}{c}",
        "a{b",
        "a}b{c}",
        "{}{b}",
        "{ }",
        "{\0}x",
        "user:{42}:name",
        "foo",
        "123456789",
    ]
    .iter()
    .map(|key| key.as_bytes().to_vec())
    .collect();
    keys.extend((0..=255).map(|byte| vec![byte]));
    keys.extend((0_u32..2_000).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes().to_vec()));
    keys.extend((0..200).map(|n| "k".repeat(n).into_bytes()));
    let asked: Vec<_> = keys
        .iter()
        .map(|key| vec![b"CLUSTER".to_vec(), b"KEYSLOT".to_vec(), key.clone()])
        .collect();
    for (key, answer) in keys.iter().zip(conn.pipeline(&asked)) {
        assert_eq!(Value::Int(slot(key).into()), answer, "{}", key.escape_ascii());
    }
}
