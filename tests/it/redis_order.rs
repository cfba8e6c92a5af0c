//! Every reply is the one its request asked for, in the order of the requests: random pipelines of
//! tagged values on many clients, checked against a model. A failure names its seed.

use crate::harness::{
    Cluster, Conn, Dice, FakeServer, Fault, FaultProxy, Request, Setup, Sluice, Step, Value, bulk,
    fault::Way, request,
};
use std::{collections::HashMap, thread, time::Duration};

const CLIENTS: u64 = 6;

/// What a client's own keys hold. No other client writes them.
#[derive(Clone, Default)]
struct Model {
    strings: HashMap<String, String>,
}

/// A request and its one right reply.
type Exchange = (Vec<String>, Value);

impl Model {
    /// A random request, or a whole transaction.
    fn next(&mut self, client: u64, tag: &mut u64, dice: &mut Dice) -> Vec<Exchange> {
        *tag += 1;
        if dice.percent(12) {
            return self.transaction(client, tag, dice);
        }
        vec![self.step(&format!("c{client}:"), &format!("{client}/{tag}"), dice)]
    }

    /// Keys of one shard; sometimes watched, sometimes changed after that, sometimes discarded.
    fn transaction(&mut self, client: u64, tag: &mut u64, dice: &mut Dice) -> Vec<Exchange> {
        let keys = format!("{{c{client}}}:");
        let mut asked = Vec::new();
        let mut ask = |line: &str, reply: Value| {
            asked.push((line.split(' ').map(str::to_owned).collect(), reply));
        };
        let ok = || Value::Simple("OK".to_owned());
        let mut changed = false;
        if dice.percent(25) {
            ask(&format!("WATCH {keys}0 {keys}w"), ok());
            changed = dice.percent(30);
            if changed {
                ask(&format!("SET {keys}w {tag}"), ok());
            } else if dice.percent(10) {
                ask("UNWATCH", ok());
            }
        }
        ask("MULTI", ok());
        let mut after = self.clone();
        let mut replies = Vec::new();
        for _ in 0..dice.below(6) {
            *tag += 1;
            let (words, reply) = after.step(&keys, &format!("{client}/{tag}"), dice);
            ask(&words.join(" "), Value::Simple("QUEUED".to_owned()));
            replies.push(reply);
        }
        match dice.below(8) {
            0 => ask("DISCARD", ok()),
            1 => {
                ask("GET", Value::Error("ERR wrong number of arguments for 'get' command".into()));
                let aborted = "EXECABORT Transaction discarded because of previous errors.";
                ask("EXEC", Value::Error(aborted.into()));
            }
            _ if changed => ask("EXEC", Value::Nil),
            _ => {
                ask("EXEC", Value::Array(replies));
                *self = after;
            }
        }
        asked
    }

    /// A random request on keys with that prefix, with that text where it writes.
    fn step(&mut self, prefix: &str, tagged: &str, dice: &mut Dice) -> Exchange {
        let ok = Value::Simple("OK".to_owned());
        let mut key = || format!("{prefix}{}", dice.below(12));
        let keys = [key(), key(), key(), key()];
        let get = |strings: &HashMap<String, String>, key: &String| {
            strings.get(key).map_or(Value::Nil, bulk)
        };
        let words = |name: &str, rest: &[&str]| {
            [name].iter().chain(rest).map(|word| (*word).to_owned()).collect::<Vec<String>>()
        };
        let [a, b, c, d] = keys.each_ref().map(String::as_str);
        match dice.below(12) {
            0..=2 => {
                self.strings.insert(a.to_owned(), tagged.to_owned());
                (words("SET", &[a, tagged]), ok)
            }
            3..=5 => (words("GET", &[a]), get(&self.strings, &keys[0])),
            6 => {
                let items = keys.iter().map(|key| get(&self.strings, key)).collect();
                (words("MGET", &[a, b, c, d]), Value::Array(items))
            }
            7 => {
                self.strings.insert(a.to_owned(), format!("{tagged}a"));
                self.strings.insert(b.to_owned(), format!("{tagged}b"));
                (words("MSET", &[a, &format!("{tagged}a"), b, &format!("{tagged}b")]), ok)
            }
            8 => {
                let gone = keys[..2].iter().filter_map(|key| self.strings.remove(key)).count();
                (words("DEL", &[a, b]), Value::Int(i64::try_from(gone).unwrap()))
            }
            9 => {
                let found = keys.iter().filter(|key| self.strings.contains_key(*key)).count();
                (words("EXISTS", &[a, b, c, d]), Value::Int(i64::try_from(found).unwrap()))
            }
            10 => (words("ECHO", &[tagged]), bulk(tagged)),
            _ => {
                let value = self.strings.entry(a.to_owned()).or_default();
                value.push('+');
                let length = i64::try_from(value.len()).unwrap();
                (words("APPEND", &[a, "+"]), Value::Int(length))
            }
        }
    }
}

/// Random pipelines of one client, each reply exactly the model's.
fn exact(sluice: &Sluice, client: u64, seed: u64, rounds: usize) {
    let mut dice = Dice::new(seed ^ (client << 32));
    let mut model = Model::default();
    let mut conn = sluice.conn();
    let mut tag = 0;
    for round in 0..rounds {
        let mut expected = Vec::new();
        let mut bytes = Vec::new();
        for _ in 0..=dice.below(80) {
            for (words, reply) in model.next(client, &mut tag, &mut dice) {
                bytes.extend(request(&words));
                expected.push((words, reply));
            }
        }
        // Sometimes cut in two, anywhere.
        let cut = usize::try_from(dice.below(bytes.len() as u64)).unwrap();
        conn.send(&bytes[..cut]);
        if dice.percent(20) {
            thread::sleep(Duration::from_micros(dice.below(500)));
        }
        conn.send(&bytes[cut..]);
        for (words, reply) in expected {
            assert_eq!(
                conn.read(),
                reply,
                "{words:?}, seed {seed}, client {client}, round {round}"
            );
        }
    }
}

#[test]
fn random_pipelines_over_real_shards() {
    let cluster = Cluster::start(3, 0);
    for (seed, workers) in [(1, 1), (2, 2)] {
        let sluice = cluster.sluice().workers(workers).start();
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let sluice = &sluice;
                scope.spawn(move || exact(sluice, client, seed, 120));
            }
        });
        drop(sluice);
        cluster.servers().for_each(|server| assert_eq!(server.cmd(&["FLUSHALL"]), "OK"));
    }
}

#[test]
fn random_pipelines_over_late_and_sliced_connections() {
    let cluster = Cluster::start(3, 0);
    let faults = [
        Fault { requests: Way::Slices, replies: Way::Clean },
        Fault { requests: Way::Clean, replies: Way::Slices },
        Fault { requests: Way::Clean, replies: Way::Late(Duration::from_millis(2)) },
    ];
    let proxies: Vec<_> = cluster
        .servers()
        .zip(faults)
        .map(|(server, fault)| FaultProxy::start(&server.address(), fault))
        .collect();
    let sluice =
        Setup::shards(proxies.iter().map(|proxy| (proxy.address(), vec![]))).workers(2).start();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let sluice = &sluice;
            scope.spawn(move || exact(sluice, client, 3, 25));
        }
    });
}

/// A server whose value of a key is that key, told late now and then, or cut off.
fn unreliable(seed: u64) -> FakeServer {
    FakeServer::start(move |asked: &Request| {
        let chance = (seed << 48) ^ ((asked.connection as u64) << 24) ^ asked.number as u64;
        let mut dice = Dice::new(chance);
        let keys = || asked.words[1..].iter();
        let reply = match asked.words[0].to_uppercase().as_str() {
            "MGET" => Value::Array(keys().map(bulk).collect()),
            "EXISTS" | "DEL" => Value::Int(i64::try_from(keys().count()).unwrap()),
            _ => bulk(&asked.words[1]),
        };
        let bytes = reply.encode();
        let late = Step::Wait(Duration::from_micros(dice.below(3_000)));
        match dice.below(1_000) {
            0..=1 => vec![Step::Close],
            2..=3 => vec![Step::Send(bytes[..bytes.len() / 2].to_vec()), Step::Close],
            4..=60 => vec![late, Step::Send(bytes)],
            61..=100 => {
                let (first, second) = bytes.split_at(bytes.len() / 2);
                vec![Step::Send(first.to_vec()), late, Step::Send(second.to_vec())]
            }
            _ => vec![Step::Send(bytes)],
        }
    })
}

/// Pipelines of unique keys on one client. Gives how many replies were values, and errors.
fn tagged(sluice: &Sluice, client: u64, seed: u64) -> (u64, u64) {
    let mut dice = Dice::new(seed ^ (client << 32));
    let mut conn: Conn = sluice.conn();
    let (mut tag, mut values, mut errors) = (0, 0, 0);
    'rounds: for round in 0..60 {
        let mut expected = Vec::new();
        let mut bytes = Vec::new();
        for _ in 0..=dice.below(60) {
            let mut key = || {
                tag += 1;
                format!("{client}.{tag}")
            };
            let (words, reply) = match dice.below(6) {
                0 => {
                    let keys: Vec<String> = (0..4).map(|_| key()).collect();
                    let items = keys.iter().map(bulk).collect();
                    ([vec!["MGET".to_owned()], keys].concat(), Value::Array(items))
                }
                1 => (vec!["DEL".to_owned(), key(), key(), key()], Value::Int(3)),
                2 => {
                    let text = key();
                    (vec!["ECHO".to_owned(), text.clone()], bulk(text))
                }
                _ => {
                    let key = key();
                    (vec!["GET".to_owned(), key.clone()], bulk(key))
                }
            };
            bytes.extend(request(&words));
            expected.push((words, reply));
        }
        conn.send(&bytes);
        for (words, reply) in expected {
            let told = format!("{words:?}, seed {seed}, client {client}, round {round}");
            match conn.try_read() {
                Ok(Value::Error(text)) => {
                    assert!(text.contains("sluice"), "{told}: {text}");
                    errors += 1;
                }
                Ok(got) => {
                    assert_eq!(got, reply, "{told}");
                    values += 1;
                }
                // Half of a reply was passed on before its server cut it: nothing else can end it.
                Err(_) => {
                    conn = sluice.conn();
                    errors += 1;
                    continue 'rounds;
                }
            }
        }
    }
    (values, errors)
}

#[test]
fn tagged_replies_under_delays_and_drops() {
    for seed in [11, 12] {
        let fakes: Vec<_> = (0..3).map(|shard| unreliable(seed * 10 + shard)).collect();
        let sluice = Setup::shards(fakes.iter().map(|fake| (fake.address(), vec![])))
            .workers(2)
            .cluster("timeouts: { request: 5s }")
            .start();
        fakes.iter().for_each(|fake| sluice.expect_log(fake.address()));
        (0..3).for_each(|shard| sluice.expect_log(format!("s{shard}")));
        let counts: Vec<(u64, u64)> = thread::scope(|scope| {
            let sluice = &sluice;
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| scope.spawn(move || tagged(sluice, client, seed)))
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        let values: u64 = counts.iter().map(|(values, _)| values).sum();
        let errors: u64 = counts.iter().map(|(_, errors)| errors).sum();
        assert!(values > errors, "seed {seed}: {values} values, {errors} errors");
        assert!(errors > 0, "seed {seed}: the drops were not felt, so this proved nothing");
    }
}
