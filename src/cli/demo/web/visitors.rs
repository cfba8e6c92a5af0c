//! Visitors with a cookie jar each, as browsers have: who was answered by which server, and whether
//! that is as sticky sessions promise. Not a benchmark: see benches/.

use super::super::load::Tally;
use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::poll_fn,
    io::{self, ErrorKind},
    task::Poll,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

/// What the visitors have seen.
#[derive(Debug, Default)]
pub(in super::super) struct Visits {
    /// By visitor.
    sessions: RefCell<Vec<Seen>>,
    killed: RefCell<Option<String>>,
    restarted: Cell<bool>,
}

/// One visitor's session.
#[derive(Clone, Debug, Default)]
struct Seen {
    server: String,
    /// It was at the server that was killed, before that one was started again.
    hit: bool,
    moves: u32,
    /// It left a server that had not been killed.
    strayed: bool,
}

impl Visits {
    pub(super) fn count(&self) -> usize {
        self.sessions.borrow().len()
    }

    /// That server was killed just now; how many sessions it had.
    pub(super) fn killed(&self, server: &str) -> usize {
        self.killed.replace(Some(server.to_owned()));
        let mut sessions = self.sessions.borrow_mut();
        let there = sessions.iter_mut().filter(|one| one.server == server);
        there.map(|one| one.hit = true).count()
    }

    /// It is back.
    pub(super) fn restarted(&self) {
        self.restarted.set(true);
    }

    /// Whether exactly those sessions moved, and once, whose server was killed; and that in words.
    pub(in super::super) fn verdict(&self) -> (bool, String) {
        let sessions = self.sessions.borrow();
        let count = |which: fn(&Seen) -> bool| sessions.iter().filter(|one| which(one)).count();
        let (hit, others) = (count(|one| one.hit), count(|one| !one.hit));
        let once = count(|one| one.hit && one.moves == 1);
        let moved = count(|one| !one.hit && one.moves > 0);
        let wrong = count(|one| one.strayed || one.moves > 1);
        let (good, idle) = (moved == 0 && wrong == 0, count(|one| one.hit && one.moves == 0));
        let idle = if idle == 0 { String::new() } else { format!(" ({idle} did not ask since)") };
        let died = match &*self.killed.borrow() {
            Some(name) => {
                format!("{name} was killed: of its {hit} sessions {once} moved, once{idle}")
            }
            None => "no server was killed".to_owned(),
        };
        let end = if good { "as it should be" } else { "NOT as it should be" };
        (good, format!("verdict: {died}; of {others} others {moved} moved; {end}"))
    }

    fn answered(&self, visitor: usize, server: &str) {
        let mut sessions = self.sessions.borrow_mut();
        let Some(one) = sessions.get_mut(visitor) else { return };
        let killed = self.killed.borrow();
        if !one.server.is_empty() && one.server != server {
            one.moves += 1;
            one.strayed |= killed.as_ref() != Some(&one.server);
        }
        server.clone_into(&mut one.server);
        // Its first answer may have been on the way when the server died.
        let dead = killed.as_deref() == Some(server) && !self.restarted.get();
        one.hit |= dead;
    }
}

/// Thirty visitors in the first seconds, then one more each second up to sixty; each asks three
/// times a second.
pub(super) async fn run(port: u16, tally: &Tally, visits: &Visits) -> Infallible {
    let one = |number| Box::pin(visitor(port, number, tally, visits));
    let mut all: Vec<_> = (0..MOST).map(one).collect();
    poll_fn(|context| {
        // They never end; all are asked whenever one may go on, which is nothing for so few.
        all.iter_mut().for_each(|one| _ = one.as_mut().poll(context));
        Poll::Pending
    })
    .await
}

async fn visitor(port: u16, number: usize, tally: &Tally, visits: &Visits) -> Infallible {
    // Not all at once.
    let (soon, late) = (number.min(AT_FIRST), number.saturating_sub(AT_FIRST));
    let times = |n: usize| u32::try_from(n).unwrap_or(0);
    sleep(ARRIVAL * times(soon) + LATE_ARRIVAL * times(late)).await;
    let number = {
        let mut sessions = visits.sessions.borrow_mut();
        sessions.push(Seen::default());
        sessions.len() - 1
    };
    let mut jar = None;
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut conn = None;
    loop {
        pace.tick().await;
        let start = Instant::now();
        let asked = timeout(PATIENCE, ask((port, number), &mut conn, &mut jar)).await;
        tally.answered(start.elapsed());
        match asked {
            Ok(Ok((200, server))) => visits.answered(number, &server),
            Ok(Ok((status, text))) => tally.error(format!("GET /who: {status}: {}", text.trim())),
            Ok(Err(error)) => tally.error(format!("GET /who: {error}")),
            Err(_) => tally.error(format!("GET /who: no answer in {}s", PATIENCE.as_secs())),
        }
    }
}

/// The status and the body of one answer. A visitor has a cookie of the shop's beside ours. The connection is kept when that went well, and the cookie
/// that came with it.
async fn ask(
    (port, number): (u16, usize),
    kept: &mut Option<BufStream<TcpStream>>,
    jar: &mut Option<String>,
) -> io::Result<(u16, String)> {
    let mut conn = match kept.take() {
        Some(conn) => conn,
        None => BufStream::new(TcpStream::connect(("127.0.0.1", port)).await?),
    };
    let ours = jar.as_ref().map(|pair| format!("; {pair}")).unwrap_or_default();
    let head = format!(
        "GET /who HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: visitor={number}{ours}\r\n\r\n"
    );
    conn.write_all(head.as_bytes()).await?;
    conn.flush().await?;
    let first = line(&mut conn).await?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or(ErrorKind::InvalidData)?;
    let mut length = 0_u16;
    loop {
        let line = line(&mut conn).await?;
        let Some((name, value)) = line.split_once(':') else { break };
        match &*name.to_ascii_lowercase() {
            "set-cookie" => *jar = value.trim().split(';').next().map(str::to_owned),
            "content-length" => {
                length = value.trim().parse().map_err(|_| ErrorKind::InvalidData)?;
            }
            _ => {}
        }
    }
    let mut body = vec![0; usize::from(length)];
    conn.read_exact(&mut body).await?;
    *kept = Some(conn);
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

async fn line(conn: &mut BufStream<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    conn.read_line(&mut line).await?;
    if line.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

const AT_FIRST: usize = 30;
const MOST: usize = 60;
const ARRIVAL: Duration = Duration::from_millis(150);
const LATE_ARRIVAL: Duration = Duration::from_secs(1);
/// For each visitor.
const PACE: Duration = Duration::from_millis(333);
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    /// Visitors by what they saw: `a` and `b` are servers, `!` kills a, `+` brings it back.
    fn verdict(story: &[(usize, &str)]) -> (bool, String) {
        let visits = Visits::default();
        visits.sessions.borrow_mut().resize(3, Seen::default());
        for (visitor, what) in story {
            match *what {
                "!" => _ = visits.killed("a"),
                "+" => visits.restarted(),
                server => visits.answered(*visitor, server),
            }
        }
        visits.verdict()
    }

    #[test]
    fn those_of_the_killed_one_move_once_and_no_others() {
        let start = [(0, "a"), (1, "b"), (2, "b"), (0, "a")];
        let told = |rest: &[(usize, &str)]| verdict(&[&start, rest].concat());
        assert_eq!(
            told(&[]),
            (
                true,
                "verdict: no server was killed; of 3 others 0 moved; as it should be".to_owned()
            )
        );
        assert_eq!(
            told(&[(0, "!"), (0, "b"), (1, "b"), (0, "+"), (0, "b")]).1,
            "verdict: a was killed: of its 1 sessions 1 moved, once; of 2 others 0 moved; as it should be"
        );
        for wrong in [
            &[(0, "!"), (0, "b"), (0, "+"), (0, "a")][..],
            &[(0, "!"), (0, "b"), (1, "a")],
            &[(1, "a")],
        ] {
            assert!(!told(wrong).0, "{wrong:?}");
        }
        assert!(
            told(&[(0, "!"), (1, "b")])
                .1
                .contains("1 sessions 0 moved, once (1 did not ask since);")
        );
        let late = [(0, "a"), (0, "!"), (1, "a"), (1, "b"), (0, "b"), (2, "b")];
        assert!(verdict(&late).0, "an answer that was on the way");
    }
}
