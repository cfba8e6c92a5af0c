//! Sessions of every kind at once: plain requests, transactions, commands that wait, publish and
//! subscribe in both versions of the protocol, unwanted replies, clients that leave, leases that run
//! out and servers that stall. Each client's replies, and its messages, are held one by one against a
//! model. A failure names its seed; `SLUICE_ORDER_SEED=n` plays that one alone.

mod asks;
mod board;
mod data;
mod model;
mod wire;

use crate::harness::{
    Cluster, Conn, Dice, Fault, FaultProxy, PATIENCE, Setup, Sluice, Value, during, eventually,
    fault::Way, figure, request,
};
use asks::CLIENTS;
use board::Board;
use data::Data;
use model::{Model, Session, Weather, Words};
use std::{
    collections::VecDeque,
    sync::atomic::Ordering::Relaxed,
    thread,
    time::{Duration, Instant},
};
use wire::{Frame, Wire};

/// One client of a story, over as many connections as it takes.
struct Player<'a> {
    sluice: &'a Sluice,
    model: Model<'a>,
    dice: Dice,
    wire: Wire,
    /// Who pushes what it waits for.
    feeder: Conn,
    asked: VecDeque<Words>,
    /// The last replies, for who reads of a failure.
    heard: VecDeque<String>,
}

impl<'a> Player<'a> {
    fn new(sluice: &'a Sluice, board: &'a Board, client: u64, seed: u64, weather: Weather) -> Self {
        let number = usize::try_from(client).unwrap();
        let (data, session) = (Data::new(number), Session::default());
        Self {
            sluice,
            model: Model { client: number, weather, board, data, session },
            dice: Dice::new(seed ^ (client << 32)),
            wire: Wire::open(&sluice.address()),
            feeder: sluice.conn(),
            asked: VecDeque::new(),
            heard: VecDeque::new(),
        }
    }

    fn play(&mut self, rounds: u64) -> Result<(), String> {
        for round in 0..rounds {
            self.round().map_err(|why| {
                let heard: Vec<&str> = self.heard.iter().map(String::as_str).collect();
                format!("round {round}: {why}\nbefore that:\n{}", heard.join("\n"))
            })?;
        }
        Ok(())
    }

    /// Some requests in a write or two, and their replies; or it leaves in the middle.
    fn round(&mut self) -> Result<(), String> {
        self.model.data.renew();
        let mut asked = Vec::new();
        for _ in 0..=self.dice.below(24) {
            self.model.turn(&mut self.dice, &mut asked);
        }
        let plan = self.dice.below(100);
        let (leaves, waits, half_closes) = (plan < 15, plan < 5, (5..9).contains(&plan));
        if waits {
            asked.push(self.model.wait_for_nothing());
            asked.push(self.model.echo());
        } else if half_closes {
            // Who sends no more is not waited for, and listens no more.
            asked.retain(|words| !words[0].starts_with('B') && !words[0].ends_with("SUBSCRIBE"));
            asked.insert(0, vec!["RESET".to_owned()]);
        }
        let bytes: Vec<u8> = asked.iter().flat_map(|words| request(words)).collect();
        let mut end = bytes.len();
        let cut = usize::try_from(self.dice.below(bytes.len() as u64)).unwrap();
        if leaves && !waits && !half_closes {
            end = cut + usize::try_from(self.dice.below((end - cut) as u64)).unwrap();
        }
        self.asked.extend(asked);
        self.wire.send(&bytes[..cut]).map_err(|error| error.to_string())?;
        if self.dice.percent(20) {
            thread::sleep(Duration::from_micros(self.dice.below(500)));
        }
        self.wire.send(&bytes[cut..end]).map_err(|error| error.to_string())?;
        if leaves {
            return self.leave(half_closes);
        }
        self.hear(|_| false)
    }

    /// Hears replies until all are there, or enough of them.
    fn hear(&mut self, is_enough: impl Fn(&[String]) -> bool) -> Result<(), String> {
        while let Some(words) = self.asked.front().cloned() {
            if self.model.is_silent(&words) {
                self.model.pass(&words);
                self.note(&words, "silence");
                self.asked.pop_front();
                continue;
            }
            if is_enough(&words) {
                return Ok(());
            }
            if let Some(keys) = self.model.awaits(&words) {
                self.feed(&words[0], &keys);
            }
            loop {
                let frame = self.wire.read().map_err(|error| format!("{words:?}: {error}"))?;
                self.note(&words, &format!("{:?}", frame.value));
                let told = |why| format!("{words:?} was answered {frame:?}: {why}");
                if is_message(&frame) {
                    self.model.hear(&frame).map_err(told)?;
                } else if self.model.judge(&words, &frame).map_err(told)? {
                    break;
                }
            }
            self.asked.pop_front();
        }
        Ok(())
    }

    /// Gives what is waited for to one of these keys.
    fn feed(&mut self, command: &str, keys: &[String]) {
        thread::sleep(Duration::from_micros(self.dice.below(3_000)));
        let key = &keys[usize::try_from(self.dice.below(keys.len() as u64)).unwrap()];
        let began = Instant::now();
        loop {
            let (number, tag) = self.model.data.tag();
            let reply = match command {
                "BZPOPMIN" => self.feeder.cmd(&["ZADD", key, &number.to_string(), &tag]),
                _ => self.feeder.cmd(&["RPUSH", key, &tag]),
            };
            match reply {
                Value::Int(_) if command == "BZPOPMIN" => {
                    self.model.data.score(key, number, &tag);
                    break;
                }
                Value::Int(_) => {
                    self.model.data.push(key, &tag, true);
                    break;
                }
                other if self.model.weather == Weather::Stalling && other.is_error() => {
                    assert!(began.elapsed() < PATIENCE, "{other:?}");
                    self.model.data.doubt(std::slice::from_ref(key));
                    thread::sleep(Duration::from_millis(5));
                }
                other => panic!("to push was answered {other:?}"),
            }
        }
        self.model.board.count("fed");
    }

    /// It closes the connection, now or once it waits for ever, or sends no more and hears all.
    fn leave(&mut self, half_closes: bool) -> Result<(), String> {
        if half_closes {
            self.model.board.count("half-closed");
            self.wire.finish_sending();
            self.hear(|_| false)?;
            let rest = self.wire.read_to_close();
            if !rest.is_empty() {
                return Err(format!("at the end came {rest}"));
            }
        } else if self.asked.iter().any(|words| is_endless(words)) {
            self.hear(is_endless)?;
            thread::sleep(Duration::from_micros(self.dice.below(3_000)));
            self.model.board.count("left while waiting");
        } else {
            self.model.board.count("left");
        }
        self.wire = Wire::open(&self.sluice.address());
        self.model.leave(self.asked.iter());
        self.asked.clear();
        Ok(())
    }

    /// When nobody publishes any more it has heard all; then it says good-bye and nothing else comes.
    fn finish(&mut self) -> Result<(), String> {
        self.model.board.finish();
        let all = || (self.model.board.done.load(Relaxed) >= CLIENTS).then_some(());
        eventually("all have published", 4 * PATIENCE, all);
        for name in self.model.session.subscriptions.keys().cloned().collect::<Vec<_>>() {
            loop {
                let mut at = self.model.session.subscriptions.get(&name).cloned();
                let subscription = at.as_mut().ok_or("it had subscribed")?;
                if self.model.weather == Weather::Stalling || self.model.board.has_all(subscription)
                {
                    self.model.session.subscriptions.extend(at.map(|at| (name.clone(), at)));
                    break;
                }
                let frame = self.wire.read().map_err(|error| format!("of {name:?}: {error}"))?;
                self.model.hear(&frame).map_err(|why| format!("{frame:?}: {why}"))?;
            }
        }
        let last = ["PING", "PUNSUBSCRIBE", "UNSUBSCRIBE", "QUIT"];
        self.asked.extend(last.map(|word| vec![word.to_owned()]));
        for words in &self.asked {
            self.wire.send(&request(words)).map_err(|error| error.to_string())?;
        }
        self.hear(|_| false)?;
        let rest = self.wire.read_to_close();
        if rest.is_empty() { Ok(()) } else { Err(format!("after the last reply came {rest}")) }
    }

    fn note(&mut self, words: &[String], reply: &str) {
        self.heard.push_back(format!("{} -> {reply}", words.join(" ")));
        if self.heard.len() > 80 {
            self.heard.pop_front();
        }
    }
}

/// Whether nobody will ever push what it waits for.
fn is_endless(words: &[String]) -> bool {
    words.get(1).is_some_and(|key| key.contains(":none"))
}

/// Nobody is to wait for who has failed.
impl Drop for Player<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.model.board.done.fetch_add(CLIENTS, Relaxed);
        }
    }
}

fn is_message(frame: &Frame) -> bool {
    match &frame.value {
        Value::Array(items) => {
            items.first().is_some_and(|verb| *verb == "message" || *verb == "pmessage")
        }
        _ => false,
    }
}

/// One story of all clients.
fn story(sluice: &Sluice, seed: u64, weather: Weather, rounds: u64) -> Board {
    let board = Board::default();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let board = &board;
            scope.spawn(move || {
                let mut player = Player::new(sluice, board, client, seed, weather);
                let result = player.play(rounds).and_then(|()| player.finish());
                if let Err(why) = result {
                    panic!("SLUICE_ORDER_SEED={seed}, {weather:?}, client {client}, {why}");
                }
            });
        }
    });
    let mistakes = board.mistakes();
    if weather != Weather::Stalling {
        assert!(mistakes.is_empty(), "SLUICE_ORDER_SEED={seed}, {weather:?}: {mistakes:#?}");
    }
    figure(format!("seed {seed}, {weather:?}: {}", board.told()));
    board
}

fn seeds(of: std::ops::Range<u64>) -> std::ops::Range<u64> {
    match std::env::var("SLUICE_ORDER_SEED") {
        Ok(seed) => seed.parse::<u64>().map(|seed| seed..seed + 1).unwrap(),
        Err(_) => of,
    }
}

#[track_caller]
fn assert_felt(board: &Board, kinds: &[&'static str]) {
    for kind in kinds {
        assert!(board.counted(kind) > 0, "{kind} did not happen: {}", board.told());
    }
}

/// Of each client.
const ROUNDS: u64 = 120;

const KINDS: [&str; 10] = [
    "silent",
    "messages",
    "confirmations",
    "aborted",
    "broken",
    "executed",
    "fed",
    "half-closed",
    "left while waiting",
    "left",
];

#[test]
fn random_sessions_over_real_shards() {
    let cluster = Cluster::start(3, 0);
    for seed in seeds(0..2) {
        let sluice = cluster.sluice().workers(2).start();
        assert_felt(&story(&sluice, seed, Weather::Fair, ROUNDS), &KINDS);
        cluster.servers().for_each(|server| assert_eq!(server.cmd(&["FLUSHALL"]), "OK"));
    }
}

#[test]
fn random_sessions_while_leases_run_out() {
    let cluster = Cluster::start(3, 0);
    for seed in seeds(10..12) {
        let sluice = cluster
            .sluice()
            .workers(2)
            .cluster("dedicated: { max_per_backend: 1, wait_timeout: 10ms }")
            .start();
        let board = story(&sluice, seed, Weather::Crowded, ROUNDS);
        assert_felt(&board, &KINDS);
        assert_felt(&board, &["errors"]);
        let metrics = sluice.metrics();
        assert!(metrics.sum("sluice_backend_lease_refusals_total", &[]) > 0.0);
        let leased = || sluice.metrics().sum("sluice_backend_connections_leased", &[]) == 0.0;
        eventually("all leases are back", PATIENCE, || leased().then_some(()));
        cluster.servers().for_each(|server| assert_eq!(server.cmd(&["FLUSHALL"]), "OK"));
    }
}

#[test]
fn random_sessions_while_servers_stall() {
    let cluster = Cluster::start(3, 0);
    let faults = [
        Fault::default(),
        Fault { requests: Way::Clean, replies: Way::Late(Duration::from_millis(2)) },
        Fault { requests: Way::Late(Duration::from_millis(1)), replies: Way::Clean },
    ];
    let servers = || cluster.servers().map(|server| server.address());
    let proxies: Vec<_> =
        servers().zip(faults).map(|(address, fault)| FaultProxy::start(&address, fault)).collect();
    for seed in seeds(20..22) {
        let addresses = proxies.iter().map(|proxy| (proxy.address(), vec![]));
        let sluice = Setup::shards(addresses)
            .workers(2)
            .cluster("timeouts: { request: 100ms, stall: 20s }")
            .start();
        proxies.iter().for_each(|proxy| sluice.expect_log(proxy.address()));
        (0..3).for_each(|shard| sluice.expect_log(format!("s{shard}")));
        let stall = |go_on: &dyn Fn() -> bool| {
            let mut dice = Dice::new(seed);
            while go_on() {
                thread::sleep(Duration::from_millis(100 + dice.below(300)));
                let server = &cluster.shards[usize::try_from(dice.below(3)).unwrap()].primary;
                server.stop();
                thread::sleep(Duration::from_millis(110 + dice.below(150)));
                server.cont();
            }
        };
        let (board, _) = during(1, stall, || story(&sluice, seed, Weather::Stalling, ROUNDS / 2));
        assert_felt(&board, &KINDS);
        assert_felt(&board, &["errors"]);
        cluster.servers().for_each(|server| assert_eq!(server.cmd(&["FLUSHALL"]), "OK"));
    }
}
