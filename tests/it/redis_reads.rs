//! Which member of a shard a read goes to while all are well. What happens when one is not is in
//! redis_faults.

use crate::harness::{Cluster, Conn, Setup, Sluice};

const READS: u64 = 120;
const CLIENTS: u64 = 6;

/// How many GETs the primary and each replica saw of `READS`, from `CLIENTS` connections.
fn spread(cluster: &Cluster, sluice: &Sluice) -> Vec<u64> {
    let before: Vec<u64> = cluster.servers().map(|server| server.calls("get")).collect();
    let mut clients: Vec<Conn> = (0..CLIENTS).map(|_| sluice.conn()).collect();
    for _ in 0..READS / CLIENTS {
        for client in &mut clients {
            assert_eq!(client.cmd(&["GET", "k"]), "v");
        }
    }
    let after = cluster.servers().map(|server| server.calls("get"));
    after.zip(before).map(|(after, before)| after - before).collect()
}

/// One shard with two replicas that have `k`.
fn with_a_key() -> Cluster {
    let cluster = Cluster::start(1, 2);
    assert_eq!(cluster.shards[0].primary.cmd(&["SET", "k", "v"]), "OK");
    cluster.wait_for_replicas();
    cluster
}

fn reads(cluster: &Cluster, from: &str, balance: &str) -> Setup {
    cluster.sluice().cluster(&format!("reads: {{ from: {from}, balance: {balance} }}"))
}

const STRATEGIES: [&str; 7] =
    ["round_robin", "least_connections", "p2c", "random", "client_ip", "maglev", "failover"];

#[test]
fn reads_go_where_the_file_says_by_every_strategy() {
    let cluster = with_a_key();
    for balance in STRATEGIES {
        for from in ["primary", "prefer_replica", "replica", "any"] {
            let sluice = reads(&cluster, from, balance).start();
            let seen = spread(&cluster, &sluice);
            let told = format!("from {from} by {balance}: {seen:?}");
            assert_eq!(seen.iter().sum::<u64>(), READS, "{told}");
            let used = seen.iter().filter(|count| **count > 0).count();
            match (from, balance) {
                ("primary", _) => assert_eq!(seen[0], READS, "{told}"),
                // All clients come from one address.
                (_, "client_ip" | "maglev") => assert_eq!(used, 1, "{told}"),
                ("any", "failover") => assert_eq!(seen[0], READS, "{told}"),
                (_, "failover") => assert_eq!(seen[1], READS, "{told}"),
                ("any", _) => assert_eq!(used, 3, "{told}"),
                _ => assert!(seen[0] == 0 && used == 2, "{told}"),
            }
        }
    }
}

#[test]
fn weights_hold_exactly_in_turn_and_roughly_by_chance() {
    let cluster = with_a_key();
    let heavy = cluster.shards[0].replicas[0].address();
    let weighted = |balance| {
        let setup = reads(&cluster, "replica", balance);
        setup.rewrite(&heavy, &format!("{{ address: {heavy}, weight: 3 }}")).start()
    };
    let sluice = weighted("round_robin");
    let mut conn = sluice.conn();
    let before = cluster.shards[0].replicas[0].calls("get");
    (0..80).for_each(|_| assert_eq!(conn.cmd(&["GET", "k"]), "v"));
    assert_eq!(cluster.shards[0].replicas[0].calls("get") - before, 60);
    drop(sluice);
    let sluice = weighted("random");
    let seen = spread(&cluster, &sluice);
    // 90 of 120 expected, with a standard deviation of 4.7.
    assert!((62..=115).contains(&seen[1]), "{seen:?}");
}

#[test]
fn writes_and_what_may_write_go_to_the_primary() {
    let cluster = with_a_key();
    let sluice = reads(&cluster, "replica", "round_robin").start();
    let mut conn = sluice.conn();
    let script = "SET a 1|INCR a|GETSET a 2|GETEX a|GETDEL a|LPUSH l c b a|SORT l ALPHA|BITFIELD n GET u8 0|\
        OBJECT ENCODING l|SPOP s|LPOP l 0|SCAN 0|GEORADIUS g 0 0 1 m|HSCAN h 0|XGROUP CREATE x g $ MKSTREAM|\
        XREADGROUP GROUP g c STREAMS x >|PFCOUNT p|TOUCH l";
    for line in script.split('|') {
        let reply = conn.cmd(&line.split_whitespace().collect::<Vec<_>>());
        assert!(!reply.is_error(), "{line}: {reply:?}");
    }
    for replica in &cluster.shards[0].replicas {
        for command in
            ["getex", "sort", "bitfield", "object|encoding", "spop", "scan", "georadius", "hscan"]
        {
            assert_eq!(replica.calls(command), 0, "{command} reached a replica");
        }
    }
}

#[test]
fn a_pipeline_of_reads_and_writes_answers_in_order_from_all_members() {
    let cluster = with_a_key();
    let sluice = reads(&cluster, "any", "random").workers(2).start();
    let mut conn = sluice.conn();
    let words: Vec<Vec<String>> = (0..500)
        .map(|n| match n % 3 {
            0 => vec!["SET".into(), format!("n{n}"), format!("{n}")],
            1 => vec!["GET".into(), "k".into()],
            _ => vec!["ECHO".into(), format!("{n}")],
        })
        .collect();
    for (n, reply) in conn.pipeline(&words).into_iter().enumerate() {
        match n % 3 {
            0 => assert_eq!(reply, "OK"),
            1 => assert_eq!(reply, "v"),
            _ => assert_eq!(reply, n.to_string().as_str()),
        }
    }
}
