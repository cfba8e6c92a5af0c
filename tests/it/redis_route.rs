//! Requests reach the shard that owns their keys, one by one, split or refused. Not which member
//! of the shard: that is redis_reads.

use crate::harness::{Cluster, Conn, PATIENCE, Redis, Sluice, Value, bulk, eventually};

fn three_shards() -> (Cluster, Sluice, Conn) {
    let cluster = Cluster::start(3, 0);
    let sluice = cluster.sluice().start();
    let conn = sluice.conn();
    (cluster, sluice, conn)
}

/// The shard of `key` by the server's own CLUSTER KEYSLOT, for three shards.
fn keyslot_owner(conn: &mut Conn, key: &str) -> usize {
    let slot = conn.cmd(&["CLUSTER", "KEYSLOT", key]).int();
    [5_460, 10_922, 16_383].iter().position(|last| slot <= *last).unwrap()
}

#[test]
fn keys_live_where_cluster_keyslot_says() {
    let (cluster, _sluice, mut conn) = three_shards();
    let reference = Redis::with_args(&["--cluster-enabled", "yes"]);
    let mut reference = reference.conn();
    let keys: Vec<String> = (0..150)
        .map(|n| format!("user:{n}"))
        .chain((0..20).map(|n| format!("{{tag{n}}}:a")))
        .chain(["".into(), "{}x".into(), "a{b}{c}".into(), "{".into(), "a b".into()])
        .collect();
    let sets: Vec<_> = keys.iter().map(|key| vec!["SET", key, key]).collect();
    assert!(conn.pipeline(&sets).iter().all(|reply| *reply == "OK"));
    for key in &keys {
        let owner = &cluster.shards[keyslot_owner(&mut reference, key)].primary;
        assert_eq!(owner.cmd(&["GET", key]), key.as_str(), "{key:?}");
        assert_eq!(conn.cmd(&["GET", key]), key.as_str(), "{key:?}");
    }
    let held: i64 = cluster.servers().map(|server| server.cmd(&["DBSIZE"]).int()).sum();
    assert_eq!(held, i64::try_from(keys.len()).unwrap());
}

#[test]
fn commands_of_every_type_answer_as_the_server_does() {
    let direct = Redis::start();
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    let script = "SET s 10|GET s|GETSET s 11|INCR s|DECRBY s 5|INCRBYFLOAT s 1.5|APPEND s x|STRLEN s|GETRANGE s 0 1|\
        SETRANGE s 1 zz|SETEX e 100 v|PSETEX e 100000 v|SETNX e w|TTL e|PERSIST e|EXPIRE e 50|GETEX e PERSIST|GETDEL e|\
        SETBIT b 7 1|GETBIT b 7|BITCOUNT b|BITPOS b 1|BITFIELD b INCRBY u8 0 3|BITFIELD_RO b GET u8 0|\
        LPUSH l a b c|RPUSH l d|LLEN l|LRANGE l 0 -1|LINDEX l 1|LSET l 0 z|LPOS l d|LINSERT l BEFORE d q|LREM l 1 q|LTRIM l 0 2|LPOP l|RPOP l 1|\
        HSET h a 1 b 2|HGET h a|HMGET h a b c|HGETALL h|HINCRBY h a 4|HDEL h b|HLEN h|HEXISTS h a|HKEYS h|HVALS h|HSETNX h a 3|HSTRLEN h a|HSCAN h 0|HMSET h q 1|\
        SADD t a|SADD t a|SISMEMBER t a|SMISMEMBER t a b|SCARD t|SMEMBERS t|SREM t a|SPOP t|SSCAN t 0|\
        ZADD z 1 a 2 b 3 c|ZSCORE z b|ZRANGE z 0 -1 WITHSCORES|ZRANGEBYSCORE z 2 3|ZREVRANGE z 0 0|ZRANK z c|ZINCRBY z 5 a|ZCARD z|ZCOUNT z 1 3|ZREM z b|ZPOPMIN z|ZPOPMAX z|ZSCAN z 0|ZMSCORE z a x|\
        XADD x 1-1 f v|XLEN x|XRANGE x - +|XREAD COUNT 2 STREAMS x 0|XGROUP CREATE x g 0|XREADGROUP GROUP g c STREAMS x >|XACK x g 1-1|XPENDING x g|XINFO STREAM x|XDEL x 1-1|\
        PFADD p a b|PFCOUNT p|GEOADD geo 13.36 38.11 P|GEOPOS geo P|GEODIST geo P P|GEOSEARCH geo FROMMEMBER P BYRADIUS 1 km|\
        TYPE s|TYPE nothing|OBJECT ENCODING s|DUMP nothing|COPY s s2|RENAME s2 s3|EXISTS s3|SORT l|SORT_RO l|MEMORY USAGE nothing|\
        GET l|INCR l|LPUSH s x|GET|GET a b|SET k v NX XX|HSET h a|XADD x bad f v|ZADD z x y|EXPIRE s ten|LRANGE l a b|\
        SUBSTR s 0 1|TOUCH s h|UNLINK s3|DEL s h l|MGET s nothing|MSETNX n1 1 n2 2|MSET a|MSET|DEL|EXISTS|SINTERCARD 1 t|LMPOP 1 l LEFT|ZDIFF 1 z|ZUNION 1 z";
    let requests: Vec<Vec<&str>> =
        script.split('|').map(|line| line.split_whitespace().collect()).collect();
    let expected = direct.conn().pipeline(&requests);
    let replies = sluice.conn().pipeline(&requests);
    for ((request, reply), expected) in requests.iter().zip(replies).zip(expected) {
        assert_eq!(reply, expected, "{request:?}");
    }
}

#[test]
fn split_commands_keep_order_and_duplicates() {
    let (cluster, sluice, mut conn) = three_shards();
    let keys: Vec<String> = (0..30).map(|n| format!("k{n}")).collect();
    let mut mset = vec!["MSET".to_owned()];
    keys.iter().for_each(|key| mset.extend([key.clone(), format!("v-{key}")]));
    mset.extend(["k0".to_owned(), "last".to_owned()]);
    assert_eq!(conn.cmd(&mset), "OK");
    for key in &keys[1..] {
        assert_eq!(cluster.owner(key).primary.cmd(&["GET", key]), format!("v-{key}").as_str());
    }
    assert!(cluster.servers().all(|server| server.calls("mset") == 1), "one MSET a shard");

    let value = |key: &str| bulk(format!("v-{key}"));
    assert_eq!(
        conn.cmd(&["MGET", "k5", "none", "k0", "k5", "k17", "k9"]),
        Value::Array(vec![
            value("k5"),
            Value::Nil,
            bulk("last"),
            value("k5"),
            value("k17"),
            value("k9")
        ])
    );
    let all: Vec<&str> =
        ["EXISTS", "k1", "k1"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    assert_eq!(conn.cmd(&all), 32);
    assert_eq!(conn.cmd(&["TOUCH", "k1", "k2", "k3", "none"]), 3);
    assert_eq!(conn.cmd(&["DEL", "k1", "k1", "k2", "none"]), 2);
    assert_eq!(conn.cmd(&["UNLINK", "k3", "k4", "k5", "k6", "k3"]), 4);
    assert_eq!(conn.cmd(&["EXISTS", "k1", "k3", "k7"]), 1);
    assert!(conn.cmd(&["MSET", "a", "1", "b"]).error().contains("wrong number of arguments"));
    assert!(sluice.metrics().sum("sluice_redis_split_requests_total", &[]) >= 5.0);
}

#[test]
fn other_commands_of_several_keys_stay_within_a_shard() {
    let (cluster, _sluice, mut conn) = three_shards();
    let keys = [cluster.key_of(0, "a"), cluster.key_of(0, "b"), cluster.key_of(1, "c")];
    let [here, also, there] = keys.each_ref().map(String::as_str);
    assert_eq!(conn.cmd(&["SADD", here, "m"]), 1);
    // One shard, two slots: this is no Redis Cluster, so the server takes it.
    assert_eq!(conn.cmd(&["SINTERSTORE", also, here]), 1);
    assert_eq!(conn.cmd(&["RENAME", also, here]), "OK");
    assert_eq!(conn.cmd(&["RENAME", "{t}a", "{t}b"]).error(), "ERR no such key");
    for words in [
        vec!["RENAME", here, there],
        vec!["COPY", here, there],
        vec!["SMOVE", here, there, "m"],
        vec!["SINTER", here, there],
        vec!["SUNIONSTORE", also, here, there],
        vec!["MSETNX", here, "1", there, "2"],
        vec!["LMOVE", here, there, "LEFT", "LEFT"],
        vec!["ZUNIONSTORE", also, "2", here, there],
        vec!["ZDIFF", "2", here, there],
        vec!["PFCOUNT", here, there],
        vec!["BITOP", "AND", also, here, there],
        vec!["LCS", here, there],
        vec!["XREAD", "STREAMS", here, there, "0", "0"],
        vec!["GEOSEARCHSTORE", here, there, "FROMLONLAT", "0", "0", "BYRADIUS", "1", "m"],
    ] {
        let reply = conn.cmd(&words);
        assert_eq!(
            reply.error(),
            "CROSSSLOT Keys in request don't hash to the same slot",
            "{words:?}"
        );
    }
    assert_eq!(conn.cmd(&["SMEMBERS", here]), Value::Array(vec![bulk("m")]));
}

#[test]
fn commands_nobody_knows_need_one_shard_or_a_line_in_the_file() {
    let (cluster, sluice, mut conn) = three_shards();
    let unknown = "ERR sluice: unknown command 'NO.SUCH', add it under redis.commands";
    assert_eq!(conn.cmd(&["NO.SUCH", "k"]).error(), unknown);
    drop(sluice);
    let sluice = cluster
        .sluice()
        .cluster("redis: { commands: { \"NO.SUCH\": { access: write, keys: [1, 1, 1] } } }")
        .start();
    let reply = sluice.conn().cmd(&["no.such", "k"]);
    assert!(reply.error().starts_with("ERR unknown command"), "{reply:?}");
    let one = Cluster::start(1, 0);
    let reply = one.sluice().start().conn().cmd(&["NO.SUCH", "k"]);
    assert!(reply.error().starts_with("ERR unknown command"), "{reply:?}");
}

#[test]
fn a_split_write_that_fails_in_part_says_so() {
    let (cluster, sluice, mut conn) = three_shards();
    let keys: [String; 3] = std::array::from_fn(|shard| cluster.key_of(shard, "k"));
    let [a, b, c] = keys.each_ref().map(String::as_str);
    cluster.shards[1].primary.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(
        conn.cmd(&["MSET", a, "1", b, "2", c, "3"]).error(),
        "ERR sluice: MSET failed on 1 of 3 shards (shard s1: OOM command not allowed when used memory > \
         'maxmemory'.); other keys were written"
    );
    assert_eq!(conn.cmd(&["GET", a]), "1");
    assert_eq!(conn.cmd(&["GET", b]), Value::Nil);
    assert_eq!(conn.cmd(&["GET", c]), "3");
    cluster.shards[1].primary.cmd(&["CONFIG", "SET", "maxmemory", "0"]);

    // A read that fails in part fails whole, with the server's own words.
    assert_eq!(conn.cmd(&["LPUSH", b, "x"]), 1);
    let before = sluice.metrics().sum("sluice_redis_split_requests_total", &[]);
    cluster.shards[1].primary.cmd(&["ACL", "SETUSER", "default", "-mget"]);
    let reply = conn.cmd(&["MGET", a, b, c]);
    assert!(reply.error().starts_with("NOPERM"), "{reply:?}");
    cluster.shards[1].primary.cmd(&["ACL", "SETUSER", "default", "+mget"]);
    let reply = conn.cmd(&["MGET", a, b, c]);
    assert_eq!(reply, Value::Array(vec![bulk("1"), Value::Nil, bulk("3")]));
    eventually("splits are counted", PATIENCE, || {
        let now = sluice.metrics().sum("sluice_redis_split_requests_total", &[]);
        (now == before + 2.0).then_some(())
    });
}
