//! Streams, geo, sort, bitfields and looks at objects, over shards whose reads go to replicas: the
//! same answers as from one server, and never a replica's refusal.

use crate::harness::{Cluster, PATIENCE, Redis, Value, eventually};

/// What writes, and is answered the same by any server.
const WRITES: &str = "XADD {k}x 1-1 f v|XADD {k}x 2-1 f w|XADD {k}y 1-1 a b|XGROUP CREATE {k}x g 0|\
    XGROUP CREATECONSUMER {k}x g c|XREADGROUP GROUP g c COUNT 1 STREAMS {k}x >|XACK {k}x g 1-1|\
    XREADGROUP GROUP streams c STREAMS {k}x >|XREADGROUP GROUP g c STREAMS {k}x {k}none > >|\
    XCLAIM {k}x g d 0 2-1 JUSTID|XAUTOCLAIM {k}x g e 0 0 JUSTID|XGROUP SETID {k}x g $|\
    XGROUP DELCONSUMER {k}x g c|XDEL {k}y 1-1|XADD {k}y 3-3 a c|XTRIM {k}y MAXLEN 5|XSETID {k}y 9-9|\
    GEOADD {k}g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania|\
    GEORADIUS {k}g 15 37 200 km STORE {k}gs|GEORADIUSBYMEMBER {k}g Palermo 200 km STOREDIST {k}gd|\
    GEOSEARCHSTORE {k}ge {k}g FROMLONLAT 15 37 BYRADIUS 200 km|RPUSH {k}l 3 1 2|SET {k}w1 9|SET {k}w2 7|\
    SET {k}w3 8|SORT {k}l STORE {k}sorted|SETBIT {k}b 7 1|BITFIELD {k}b SET u8 0 65 GET u8 0 INCRBY u4 0 1|\
    BITFIELD {k}b OVERFLOW FAIL INCRBY u2 0 3|BITOP NOT {k}nb {k}b|PFADD {k}p a b c|PFMERGE {k}pm {k}p|\
    HSET {k}h f 1 g 2|SADD {k}s a|ZADD {k}z 1 a 2 b|SET {k}s1 ohmytext|SET {k}s2 mynewtext|\
    COPY {k}s1 {k}s3|RENAME {k}s3 {k}s4|LMPOP 2 {k}none {k}sorted LEFT|ZMPOP 1 {k}gs MIN|\
    GETEX {k}s1 PERSIST|GETDEL {k}s4|XREADGROUP GROUP g c COUNT x STREAMS {k}x >|SPOP {k}none";

/// What reads.
const READS: &str = "XLEN {k}x|XRANGE {k}x - +|XREVRANGE {k}x + -|XREAD COUNT 5 STREAMS {k}x {k}y 0 0|\
    XREAD STREAMS {k}x $|XREAD STREAMS {k}x|XPENDING {k}x g|XINFO GROUPS {k}x|XINFO STREAM {k}y|XINFO HELP|\
    XGROUP HELP|GEOPOS {k}g Palermo none|GEODIST {k}g Palermo Catania km|GEOHASH {k}g Catania|\
    GEOSEARCH {k}g FROMMEMBER Palermo BYBOX 400 400 km ASC|GEORADIUS {k}g 15 37 200 km WITHDIST ASC|\
    georadius_ro {k}g 15 37 200 km ASC|GEORADIUSBYMEMBER {k}g Palermo 200 km|GEORADIUS {k}g 15 37 x km|\
    GEORADIUSBYMEMBER_RO {k}g Palermo 200 km|ZRANGE {k}gs 0 -1|ZCARD {k}gd|ZCARD {k}ge|SORT {k}l|\
    sort {k}l DESC LIMIT 1 2|SORT {k}l BY {k}w* GET # GET {k}w*|SORT_RO {k}l ALPHA|SORT {k}h|SORT {k}l BY|\
    SORT {k}none|LRANGE {k}sorted 0 -1|BITFIELD {k}b GET u8 0|BITFIELD {k}b GET u4 #1 GET i5 2|BITFIELD {k}b|\
    BITFIELD_RO {k}b GET u8 0|BITFIELD {k}b GET u99 0|BITFIELD {k}l GET u8 0|BITCOUNT {k}b|BITPOS {k}b 1|\
    GETBIT {k}b 7|STRLEN {k}nb|OBJECT ENCODING {k}l|OBJECT REFCOUNT {k}s1|OBJECT HELP|OBJECT ENCODING {k}none|\
    OBJECT FREQ {k}l|MEMORY USAGE {k}s1|MEMORY USAGE {k}none|MEMORY HELP|TOUCH {k}l {k}b {k}none|\
    TYPE {k}x|DUMP {k}s1|EXISTS {k}x {k}none {k}x|PFCOUNT {k}p {k}pm|LCS {k}s1 {k}s2|\
    HRANDFIELD {k}none|HSCAN {k}h 0|SSCAN {k}s 0|ZSCAN {k}z 0|HGETALL {k}none|SINTERCARD 2 {k}s {k}s|\
    ZUNION 2 {k}z {k}z WITHSCORES|ZDIFF 1 {k}z|ZINTERCARD 2 {k}z {k}z LIMIT 1|SINTER {k}s {k}s|\
    ZRANGE {k}z 0 -1 REV|EXPIRETIME {k}s1|SUBSTR {k}s1 0 3|SMISMEMBER {k}s a b|LPOS {k}l 3";

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

#[test]
fn every_form_answers_through_shards_and_replicas_as_one_server_does() {
    let alone = Redis::start();
    let mut server = alone.conn();
    let ask = |conn: &mut crate::harness::Conn, lines: &str, tag: &str| -> Vec<Value> {
        let lines = lines.replace("{k}", tag);
        lines.split('|').map(|line| conn.cmd(&words(line))).collect()
    };
    for (shards, from) in [(1, "prefer_replica"), (3, "replica"), (1, "any")] {
        let cluster = Cluster::start(shards, 1);
        let reads = format!("reads: {{ from: {from} }}");
        let sluice = cluster.sluice().cluster(&reads).start();
        let mut conn = sluice.conn();
        for index in 0..shards {
            server.cmd(&["FLUSHALL"]);
            let tag = format!("{{{}}}", cluster.key_of(index, "t"));
            for lines in [WRITES, READS] {
                let (ours, theirs) = (ask(&mut conn, lines, &tag), ask(&mut server, lines, &tag));
                for (line, (ours, theirs)) in lines.split('|').zip(ours.iter().zip(&theirs)) {
                    assert_eq!(ours, theirs, "{line} over {shards} shards, from {from}");
                }
                cluster.wait_for_replicas();
            }
        }
        let replica = &cluster.shards[0].replicas[0];
        if from == "replica" {
            for command in ["sort_ro", "georadius_ro", "georadiusbymember_ro", "bitfield_ro"] {
                assert!(replica.calls(command) > 1, "{command} was not asked of the replica");
            }
        }
        for command in ["object|encoding", "touch", "hscan", "memory|usage"] {
            assert_eq!(replica.calls(command), 0, "{command} reached a replica");
        }
    }
}

#[test]
fn reads_at_the_primary_keep_their_name() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    assert!(sluice.conn().cmd(&["SORT", "none"]).items().is_empty());
    let server = &cluster.shards[0].primary;
    assert_eq!((server.calls("sort"), server.calls("sort_ro")), (1, 0));
}

#[test]
fn keys_of_several_shards_are_refused_and_what_a_lost_replica_read_is_read_elsewhere() {
    let mut cluster = Cluster::start(2, 1);
    let sluice = cluster.sluice().cluster("reads: { from: prefer_replica }").start();
    let mut conn = sluice.conn();
    let (a, b) = (cluster.key_of(0, "a"), cluster.key_of(1, "b"));
    for line in [
        format!("XREAD STREAMS {a} {b} 0 0"),
        format!("XREADGROUP GROUP g c STREAMS {a} {b} > >"),
        format!("GEORADIUS {a} 1 2 3 m STORE {b}"),
        format!("SORT {a} STORE {b}"),
        format!("ZUNION 2 {a} {b}"),
        format!("BITOP AND {a} {b}"),
    ] {
        assert!(conn.cmd(&words(&line)).error().starts_with("CROSSSLOT"), "{line}");
    }
    assert_eq!(conn.cmd(&["RPUSH", &a, "2", "1"]), 2);
    cluster.wait_for_replicas();
    cluster.shards[0].replicas[0].kill();
    eventually("the primary answers", PATIENCE, || {
        let sorted = conn.cmd(&["SORT", &a]);
        (!sorted.is_error() && sorted.items()[0] == "1").then_some(())
    });
}
