//! The yardstick: two real nginx, eight clients, 400 requests a second, and one of the backends
//! killed or hung. What the clients see is counted, and printed.

use crate::harness::{
    PATIENCE, Setup, Sluice, during, eventually, figure,
    web::{HttpConn, Nginx, Origin},
};
use std::{
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const CLIENTS: usize = 8;
/// Of each client: 400 requests a second together.
const PACE: Duration = Duration::from_millis(20);
const SLOW: Duration = Duration::from_millis(500);

/// One request of a client.
#[derive(Clone, Debug)]
struct Sample {
    at_ms: u64,
    took: Duration,
    client: usize,
    /// Who answered, or what was said instead.
    said: Result<String, String>,
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// Asks at that pace on keep-alive connections while `act` runs.
fn under_load<T>(sluice: &Sluice, method: &str, act: impl FnOnce() -> T) -> (T, Vec<Sample>) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let load = |go_on: &dyn Fn() -> bool| {
        let client = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut conn = HttpConn::open(&sluice.address());
        let (mut samples, mut due) = (Vec::new(), Instant::now());
        while go_on() {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            due = (due + PACE).max(Instant::now() - PACE);
            let (start, at_ms) = (Instant::now(), now_ms());
            let path = format!("/{client}/{}", samples.len());
            conn.send(format!(
                "{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"
            ));
            let said = match conn.try_response() {
                Ok(answer) if answer.status < 400 => {
                    let name = answer.header("x-server").or_else(|| answer.header("x-origin"));
                    Ok(name.unwrap_or("").to_owned())
                }
                Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
                Err(broken) => {
                    conn = HttpConn::open(&sluice.address());
                    Err(broken.to_string())
                }
            };
            samples.push(Sample { at_ms, took: start.elapsed(), client, said });
        }
        samples
    };
    let (result, samples) = during(CLIENTS, load, act);
    (result, samples.concat())
}

/// When that backend got to that state, at or after `from_ms`, by the event.
fn event_ms(sluice: &Sluice, backend: &str, to: &str, from_ms: u64) -> u64 {
    eventually(&format!("{backend} is {to}\n{}", sluice.log()), PATIENCE, || {
        let status = sluice.status();
        let mut events = status["events"].as_array().unwrap().iter().filter_map(|event| {
            let at = event["time_ms"].as_u64()?;
            (event["backend"] == backend && event["to"] == to && at >= from_ms).then_some(at)
        });
        events.next()
    })
}

fn failures(samples: &[Sample]) -> Vec<&Sample> {
    samples.iter().filter(|sample| sample.said.is_err()).collect()
}

fn slowest(samples: &[Sample]) -> Duration {
    samples.iter().map(|sample| sample.took).max().unwrap()
}

#[test]
fn a_killed_nginx_costs_no_get_its_answer() {
    let mut nginx = [Nginx::start("one"), Nginx::start("two")];
    let sluice = Setup::http(nginx.iter().map(Nginx::address)).start();
    nginx.iter().for_each(|nginx| sluice.expect_log(nginx.address()));
    let address = nginx[0].address();
    let ((), samples) = under_load(&sluice, "GET", || {
        thread::sleep(Duration::from_secs(1));
        nginx[0].kill();
        sluice.wait_for(&address, false);
        thread::sleep(Duration::from_secs(1));
        nginx[0].restart();
        sluice.wait_for(&address, true);
        thread::sleep(Duration::from_secs(1));
    });
    let failed = failures(&samples);
    figure(format_args!(
        "killed: {} GETs, {} failed, slowest {:?}",
        samples.len(),
        failed.len(),
        slowest(&samples)
    ));
    assert!(failed.is_empty(), "{failed:?}");
    assert!(samples.len() > 600, "{}", samples.len());
    let last: Vec<_> = samples.iter().rev().take(40).map(|sample| &sample.said).collect();
    assert!(last.contains(&&Ok("one".to_owned())), "it answers again: {last:?}");
}

/// `check`: what the probes ask.
fn hang(check: &str) {
    let nginx = [Nginx::start("one"), Nginx::start("two")];
    let sluice = Setup::http(nginx.iter().map(Nginx::address)).check(check).start();
    nginx.iter().for_each(|nginx| sluice.expect_log(nginx.address()));
    let address = nginx[0].address();
    let ((stopped, ejected, back), samples) = under_load(&sluice, "GET", || {
        thread::sleep(Duration::from_secs(2));
        let stopped = now_ms();
        nginx[0].stop();
        let ejected = event_ms(&sluice, &address, "ejected", stopped);
        thread::sleep(Duration::from_secs(2));
        let resumed = now_ms();
        nginx[0].cont();
        sluice.wait_for(&address, true);
        let back = now_ms() - resumed;
        thread::sleep(Duration::from_secs(1));
        (stopped, ejected, back)
    });
    let failed = failures(&samples);
    let slow: Vec<_> = samples.iter().filter(|sample| sample.took > SLOW).collect();
    let late: Vec<_> = slow.iter().filter(|sample| sample.at_ms > ejected).collect();
    let of_one = (0..CLIENTS).map(|client| slow.iter().filter(|s| s.client == client).count());
    let most = of_one.max().unwrap();
    figure(format_args!(
        "hung: {} GETs, {} failed, ejected after {} ms, {} slow ({most} of one client), {} of them \
         after the ejection, slowest {:?}, back {back} ms after it went on",
        samples.len(),
        failed.len(),
        ejected - stopped,
        slow.len(),
        late.len(),
        slowest(&samples),
    ));
    assert!(failed.is_empty(), "{failed:?}");
    assert!(ejected - stopped < 1_000, "ejected after {} ms", ejected - stopped);
    assert!(late.is_empty(), "{late:?}");
    assert!(most <= 1, "{slow:?}");
    let last: Vec<_> = samples.iter().rev().take(40).map(|sample| &sample.said).collect();
    assert!(last.contains(&&Ok("one".to_owned())), "it answers again: {last:?}");
}

#[test]
fn a_hung_nginx_is_ejected_within_a_second_and_costs_no_get_its_answer() {
    hang("{ http: { path: /health } }");
}

/// The kernel accepts connections for a process that is stopped: probes that only connect found
/// nothing wrong, and each client waited for its deadline.
#[test]
fn a_hung_nginx_is_found_also_by_probes_that_only_connect() {
    hang("{ interval: 2s }");
}

/// A body that its client is slow to send is no silence of the backend's: each of its waits brought
/// a probe.
#[test]
fn a_slow_upload_makes_nobody_suspect() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).start();
    let mut conn = HttpConn::open(&sluice.address());
    conn.send("POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: 20\r\n\r\n");
    for _ in 0..20 {
        conn.send("x");
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(conn.response().text(), "POST /up 20");
    assert_eq!(origin.count(), 1, "one request, and no HEAD of a probe's");
}

/// A slow page is asked about, and ever less often.
#[test]
fn a_slow_reply_is_asked_about_now_and_then() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).start();
    let answer = HttpConn::open(&sluice.address()).get("/slow/6000");
    assert_eq!(answer.status, 200);
    let asked = origin.count() - 1;
    figure(format_args!("{asked} HEADs in six seconds"));
    assert!((1..=7).contains(&asked), "{asked}");
    assert_eq!(sluice.metrics().sum("sluice_backend_ejections_total", &[]), 0.0);
}

/// Each POST is at an origin once, if it was answered well; never twice.
#[test]
fn writes_are_honest_when_a_backend_dies() {
    let origins = [Origin::start("one"), Origin::start("two")];
    let sluice = Setup::http(origins.iter().map(Origin::address)).start();
    origins.iter().for_each(|origin| sluice.expect_log(origin.address()));
    let address = origins[0].address();
    let ((), samples) = under_load(&sluice, "POST", || {
        thread::sleep(Duration::from_secs(1));
        origins[0].kill();
        sluice.wait_for(&address, false);
        thread::sleep(Duration::from_millis(300));
        origins[0].restart();
        sluice.wait_for(&address, true);
        thread::sleep(Duration::from_millis(500));
    });
    let mut seen: Vec<String> = origins
        .iter()
        .flat_map(Origin::seen)
        .map(|seen| seen.head.request().1.to_owned())
        .collect();
    let total = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), total, "a write was sent twice");
    let failed = failures(&samples);
    figure(format_args!(
        "{} POSTs, {} failed, {total} at the origins",
        samples.len(),
        failed.len()
    ));
    let honest = |said: &str| said.contains("executed or not");
    assert!(
        failed.iter().all(|one| one.said.as_ref().is_err_and(|said| honest(said))),
        "{failed:?}"
    );
    assert!(total >= samples.len() - failed.len() && failed.len() <= CLIENTS, "{failed:?}");
}

#[test]
fn a_hung_backend_leaves_writes_to_their_deadline() {
    let nginx = [Nginx::start("one"), Nginx::start("two")];
    let sluice =
        Setup::http(nginx.iter().map(Nginx::address)).cluster("timeouts: { request: 3s }").start();
    nginx.iter().for_each(|nginx| sluice.expect_log(nginx.address()));
    let address = nginx[0].address();
    let (stopped, samples) = under_load(&sluice, "POST", || {
        thread::sleep(Duration::from_secs(1));
        let stopped = now_ms();
        nginx[0].stop();
        let ejected = event_ms(&sluice, &address, "ejected", stopped);
        thread::sleep(Duration::from_millis(3_500));
        (stopped, ejected)
    });
    nginx[0].cont();
    let (stopped, ejected) = stopped;
    let failed = failures(&samples);
    figure(format_args!(
        "hung: {} POSTs, {} failed, ejected after {} ms, slowest {:?}",
        samples.len(),
        failed.len(),
        ejected - stopped,
        slowest(&samples)
    ));
    assert!(ejected - stopped < 1_000, "ejected after {} ms", ejected - stopped);
    assert!(failed.len() <= CLIENTS, "{failed:?}");
    assert!(
        failed.iter().all(|one| one.at_ms <= ejected
            && one.said.as_ref().is_err_and(|said| said.starts_with("504"))),
        "{failed:?}"
    );
}
