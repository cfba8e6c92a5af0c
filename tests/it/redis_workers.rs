//! A day of an application in a few seconds: job queues as Sidekiq has them, taken simply and
//! reliably, messages as Celery sends them, other load beside, and a server that dies in the middle
//! and comes back with its data. `SLUICE_WORKERS_SECONDS=60` makes it a minute.

use crate::harness::{
    Conn, PATIENCE, Redis, Setup, Sluice, Value, during, eventually, figure, request,
};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// One queue, who fills it and who empties it.
struct Jobs {
    queue: &'static str,
    address: String,
    /// Those whose LPUSH was answered.
    pushed: Mutex<HashSet<String>>,
    /// How often each was done.
    done: Mutex<HashMap<String, u64>>,
    /// Requests of workers whose outcome nobody knows, and those of producers.
    cut: AtomicUsize,
    unknown: AtomicUsize,
}

impl Jobs {
    fn new(queue: &'static str, address: String) -> Self {
        let (cut, unknown) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { queue, address, pushed: Mutex::default(), done: Mutex::default(), cut, unknown }
    }

    /// A connection, as soon as there is somebody to connect to.
    fn open(&self) -> Conn {
        eventually("a connection", PATIENCE, || Conn::try_open(&self.address).ok())
    }

    /// What a server or Sluice says; nothing when it is not known what was done, or that it was not.
    fn ask(&self, conn: &mut Conn, words: &[&str], doubts: &AtomicUsize) -> Option<Value> {
        match conn.try_cmd(words) {
            Ok(Value::Error(text)) => {
                let is_known = text.starts_with("CLUSTERDOWN ") || text.starts_with("LOADING ");
                doubts.fetch_add(usize::from(!is_known), Relaxed);
                thread::sleep(Duration::from_millis(10));
                None
            }
            Ok(value) => Some(value),
            Err(_) => {
                doubts.fetch_add(1, Relaxed);
                *conn = self.open();
                None
            }
        }
    }

    fn produce(&self, name: usize, go_on: &dyn Fn() -> bool) {
        let mut conn = self.open();
        for number in 0.. {
            let job = format!("{}:{name}-{number}", self.queue);
            let reply = self.ask(&mut conn, &["LPUSH", self.queue, &job], &self.unknown);
            if matches!(reply, Some(Value::Int(_))) {
                self.pushed.lock().unwrap().insert(job);
            }
            if !go_on() {
                return;
            }
            thread::sleep(Duration::from_micros(500));
        }
    }

    fn finish(&self, job: String) {
        assert!(job.starts_with(self.queue), "{job} in {}", self.queue);
        *self.done.lock().unwrap().entry(job).or_default() += 1;
    }

    /// BRPOP: a job whose reply is lost is lost.
    fn work(&self, go_on: &dyn Fn() -> bool) {
        let (mut conn, mut empty) = (self.open(), 0);
        while empty < 2 {
            match self.ask(&mut conn, &["BRPOP", self.queue, "1"], &self.cut) {
                Some(Value::Array(items)) => self.finish(items[1].text()),
                Some(_) => empty = if go_on() { 0 } else { empty + 1 },
                None => {}
            }
        }
    }

    /// BLMOVE to a list of its own, from which it is removed when it is done. Whoever does not know
    /// what has become of a request looks there.
    fn work_reliably(&self, name: usize, go_on: &dyn Fn() -> bool) {
        let own = format!("{}:at:{name}", self.queue);
        let (mut conn, mut empty) = (self.open(), 0);
        while empty < 2 {
            let words = ["BLMOVE", self.queue, &own, "RIGHT", "LEFT", "1"];
            let moved = match self.ask(&mut conn, &words, &self.cut) {
                Some(Value::Bulk(job)) => vec![String::from_utf8(job).unwrap()],
                Some(_) => {
                    empty = if go_on() { 0 } else { empty + 1 };
                    Vec::new()
                }
                None => {
                    let left = loop {
                        match self.ask(&mut conn, &["LRANGE", &own, "0", "-1"], &self.cut) {
                            Some(items) => break items,
                            None => thread::sleep(Duration::from_millis(10)),
                        }
                    };
                    left.items().iter().map(Value::text).collect()
                }
            };
            for job in moved {
                while self.ask(&mut conn, &["LREM", &own, "1", &job], &self.cut).is_none() {}
                self.finish(job);
            }
        }
    }

    /// Jobs that were acknowledged and never done.
    fn lost(&self) -> usize {
        let done = self.done.lock().unwrap();
        self.pushed.lock().unwrap().iter().filter(|job| !done.contains_key(*job)).count()
    }

    fn twice(&self) -> usize {
        self.done.lock().unwrap().values().filter(|times| **times > 1).count()
    }

    fn told(&self) -> String {
        let (pushed, done) = (self.pushed.lock().unwrap().len(), self.done.lock().unwrap().len());
        let [cut, unknown] = [&self.cut, &self.unknown].map(|count| count.load(Relaxed));
        let (lost, twice) = (self.lost(), self.twice());
        format!(
            "{}: {pushed} acknowledged, {done} done, {lost} lost, {twice} twice; of {cut} requests \
             of workers and {unknown} of producers the outcome was not known",
            self.queue
        )
    }
}

const CHANNELS: [&str; 3] = ["celery.a", "celery.b", "celery.c"];
const LISTENERS: i64 = 4;

/// A message that was published, when that was answered, and how many were said to get it.
struct Published {
    channel: usize,
    number: u64,
    at: Instant,
    receivers: i64,
}

fn publish(sluice: &Sluice, all: &Mutex<Vec<Published>>, go_on: &dyn Fn() -> bool) {
    let mut conn = sluice.conn();
    for number in 1.. {
        for (channel, name) in CHANNELS.iter().enumerate() {
            let reply = conn.cmd(&["PUBLISH", name, &format!("{name} {number}")]);
            if let Value::Int(receivers) = reply {
                let at = Instant::now();
                all.lock().unwrap().push(Published { channel, number, at, receivers });
            }
        }
        if !go_on() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// The numbers that one listener has heard on each channel, in order.
fn listen(sluice: &Sluice, go_on: &dyn Fn() -> bool) -> [Vec<u64>; 3] {
    let mut conn = sluice.conn();
    conn.send(&request(&[&["SUBSCRIBE"], &CHANNELS[..]].concat()));
    CHANNELS.iter().for_each(|name| assert_eq!(conn.read().items()[1], *name));
    conn.patience(Duration::from_millis(250));
    let (mut heard, mut quiet) = ([const { Vec::new() }; 3], 0);
    while quiet < 4 {
        match conn.try_read() {
            Ok(message) => {
                let (name, text) = (message.items()[1].text(), message.items()[2].text());
                let channel = CHANNELS.iter().position(|known| *known == name).unwrap();
                let number = text.strip_prefix(&format!("{name} ")).unwrap().parse().unwrap();
                let last = heard[channel].last().copied().unwrap_or(0);
                assert!(number > last, "{name}: {number} after {last}");
                heard[channel].push(number);
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                panic!("a listener was closed: {error}")
            }
            Err(_) => quiet = if go_on() { 0 } else { quiet + 1 },
        }
    }
    heard
}

/// What others ask meanwhile.
fn ask_on(sluice: &Sluice, go_on: &dyn Fn() -> bool) {
    let mut conn = sluice.conn();
    let pipeline: Vec<_> =
        (0..20).map(|n| vec!["SET".to_owned(), n.to_string(), "x".repeat(100)]).collect();
    while go_on() {
        conn.pipeline(&pipeline);
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_restarted_server_loses_no_job_and_messages_only_while_it_is_away() {
    let seconds = std::env::var("SLUICE_WORKERS_SECONDS").map_or(9, |n| n.parse().unwrap());
    let (half, away) = (Duration::from_secs(seconds) / 2, Duration::from_millis(700));
    // It writes before it replies: what dies is the process, not the machine.
    let mut server = Redis::with_args(&["--appendonly", "yes", "--appendfsync", "no"]);
    let sluice = Setup::shards([(server.address(), vec![])]).workers(2).start();
    sluice.expect_log(server.address());
    sluice.expect_log("s0");
    let queues = [
        Jobs::new("simple", sluice.address()),
        Jobs::new("reliable", sluice.address()),
        Jobs::new("direct", server.address()),
    ];
    let [simple, reliable, direct] = &queues;
    let published = Mutex::new(Vec::new());
    let (places, posts) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let consume = |go_on: &dyn Fn() -> bool| {
        let place = places.fetch_add(1, Relaxed);
        match place {
            0..4 => return Some(listen(&sluice, go_on)),
            4..12 => simple.work(go_on),
            12..18 => reliable.work_reliably(place, go_on),
            _ => direct.work(go_on),
        }
        None
    };
    let supply = |go_on: &dyn Fn() -> bool| match posts.fetch_add(1, Relaxed) {
        0 => publish(&sluice, &published, go_on),
        1 => ask_on(&sluice, go_on),
        post @ 2..5 => simple.produce(post, go_on),
        post @ 5..7 => reliable.produce(post, go_on),
        post => direct.produce(post, go_on),
    };
    let (killed, heard) = during(26, consume, || {
        eventually("all listen", PATIENCE, || {
            let counts = sluice.conn().cmd(&["PUBSUB", "NUMSUB", CHANNELS[2]]);
            (counts.items()[1] == LISTENERS).then_some(())
        });
        during(10, supply, || {
            thread::sleep(half);
            let killed = Instant::now();
            server.kill();
            thread::sleep(away);
            server.restart();
            thread::sleep(half);
            killed
        })
        .0
    });
    queues.iter().for_each(|jobs| figure(jobs.told()));
    for jobs in &queues {
        let [cut, unknown] = [&jobs.cut, &jobs.unknown].map(|count| count.load(Relaxed));
        let (pushed, done) = (jobs.pushed.lock().unwrap().len(), jobs.done.lock().unwrap().len());
        assert!(pushed > 100 && done > 100 && cut + unknown > 0, "{}", jobs.told());
        assert_eq!(jobs.twice(), 0, "{}", jobs.told());
        // A job whose reply was lost is lost; in a list of the worker's own it is found again.
        let may_be_lost = if jobs.queue == "reliable" { 0 } else { cut };
        assert!(jobs.lost() <= may_be_lost, "{}", jobs.told());
        assert!(done + jobs.lost() <= pushed + unknown, "{}", jobs.told());
        assert_eq!(server.cmd(&["EXISTS", jobs.queue]), 0, "{} is not empty", jobs.queue);
    }
    let published = published.into_inner().unwrap();
    let heard: Vec<_> = heard.into_iter().flatten().collect();
    let heard: Vec<[HashSet<u64>; 3]> =
        heard.into_iter().map(|all| all.map(|numbers| numbers.into_iter().collect())).collect();
    // On its way when the server died; a client of the server itself would have missed it as well.
    let on_its_way = |message: &Published| {
        let margin = Duration::from_millis(250);
        message.at + margin > killed && message.at < killed + margin
    };
    let missed = |message: &&Published| {
        heard.iter().any(|heard| !heard[message.channel].contains(&message.number))
    };
    let all_missed: Vec<_> = published.iter().filter(missed).collect();
    for message in &all_missed {
        let Published { channel, number, at, receivers } = message;
        let name = CHANNELS[*channel];
        let after = at.duration_since(killed);
        let told = format!("{name} {number} for {receivers}, {after:?} after the server died");
        assert!(*receivers < LISTENERS || on_its_way(message), "{told}");
        assert!(*at + Duration::from_millis(250) > killed, "{told}");
        assert!(after < away + Duration::from_secs(4), "{told}");
    }
    let metrics = sluice.metrics();
    let gap = metrics.sum("sluice_redis_subscriber_gap_seconds_total", &[]);
    let again = metrics.sum("sluice_redis_resubscriptions_total", &[]);
    figure(format!(
        "{} messages published, {} missed by somebody; {again} resubscriptions, {gap:.3} s of gaps",
        published.len(),
        all_missed.len()
    ));
    assert!(published.len() > 500 && again >= 3.0);
    // Each of two workers was without its connection once.
    assert!(gap >= away.as_secs_f64() && gap < 2.0 * (away.as_secs_f64() + 4.0), "{gap}");
}
