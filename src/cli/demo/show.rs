//! The live part: a table each second, the events between two tables, and the killing of a replica
//! when that was asked for. Not the load, which runs beside it.

use super::{
    DemoError, DemoOptions,
    load::Tally,
    proxy::Proxy,
    screen::Screen,
    servers::Fleet,
    status::{Event, Status},
    table::{self, Totals},
};
use std::{collections::VecDeque, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Shows the table until the time is over, or for ever.
///
/// # Errors
/// When Sluice ends, a server cannot be started again, or the output is closed.
pub(super) async fn run(
    options: &DemoOptions,
    fleet: &mut Fleet,
    proxy: &mut Proxy,
    tally: &Tally,
    screen: &mut Screen,
) -> Result<(), DemoError> {
    let mut show = Show::new(screen.is_terminal());
    let mut pace = interval(EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        if options.kill_replica {
            show.kill_and_restart(fleet)?;
        }
        proxy.must_run()?;
        let last = options.seconds.is_some_and(|seconds| show.seconds() >= seconds);
        match Status::fetch(proxy.ports().admin).await {
            Ok(status) => show.take(status, tally, last, screen)?,
            Err(error) => show.note(format!("/api/v1/status: {error}")),
        }
        if last {
            return Ok(());
        }
    }
}

struct Show {
    start: Instant,
    color: bool,
    killed: bool,
    restarted: bool,
    /// The newest event that was shown.
    last_event: Option<Event>,
    before: Option<Before>,
    notes: VecDeque<String>,
    /// Notes that a pipe has not got yet.
    fresh: usize,
    turns: u64,
}

/// The last table, for rates.
struct Before {
    at: Instant,
    totals: Totals,
    requests: u64,
}

impl Show {
    fn new(terminal: bool) -> Self {
        Self {
            start: Instant::now(),
            color: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            killed: false,
            restarted: false,
            last_event: None,
            before: None,
            notes: VecDeque::new(),
            fresh: 0,
            turns: 0,
        }
    }

    fn seconds(&self) -> u64 {
        // The pace may come a hair early.
        (self.start.elapsed() + EVERY / 10).as_secs()
    }

    fn kill_and_restart(&mut self, fleet: &mut Fleet) -> Result<(), DemoError> {
        if !self.killed && self.seconds() >= KILL_AT {
            self.killed = true;
            if let Some(port) = fleet.kill_replica() {
                self.note(format!("SIGKILL to replica 127.0.0.1:{port}"));
            }
        }
        if !self.restarted && self.seconds() >= RESTART_AT {
            self.restarted = true;
            if let Some(port) = fleet.restart_replica()? {
                self.note(format!("started replica 127.0.0.1:{port} again"));
            }
        }
        Ok(())
    }

    fn note(&mut self, text: String) {
        let at = self.start.elapsed().as_secs_f64();
        self.notes.push_back(format!("{at:>6.1}s  {text}"));
        self.fresh += 1;
        if self.notes.len() > SHOWN_NOTES {
            self.notes.pop_front();
        }
    }

    /// Shows a status: on a terminal always; in a pipe the table every few seconds and each event
    /// once.
    fn take(
        &mut self,
        status: Status,
        tally: &Tally,
        last: bool,
        screen: &mut Screen,
    ) -> Result<(), DemoError> {
        // The events of the start are no news.
        if self.turns > 0 {
            for event in status.events_after(self.last_event.as_ref()).to_vec() {
                self.note(sentence(&event));
            }
        }
        self.last_event = status.events.last().cloned();
        let due = screen.is_terminal() || last || self.turns.is_multiple_of(PIPE_EVERY);
        self.turns += 1;
        let mut text = String::new();
        if !screen.is_terminal() {
            let old = self.notes.len().saturating_sub(self.fresh);
            text.extend(self.notes.iter().skip(old).map(|note| format!("{note}\n")));
        }
        self.fresh = 0;
        if due {
            text += &self.table(&status, tally);
            if screen.is_terminal() {
                text.extend(self.notes.iter().map(|note| format!("{note}\n")));
            }
        }
        screen.draw(&text)
    }

    fn table(&mut self, status: &Status, tally: &Tally) -> String {
        let (now, empty) = (Instant::now(), Totals::new());
        let seconds = self.before.as_ref().map_or(0.0, |before| (now - before.at).as_secs_f64());
        let totals = self.before.as_ref().map_or(&empty, |before| &before.totals);
        let mut text = table::text(status, totals, seconds, self.color);
        let before = self.before.as_ref().map_or(0, |before| before.requests);
        let more = u32::try_from(tally.requests().saturating_sub(before)).unwrap_or(u32::MAX);
        text += &format!(
            "{:>6.1}s  4 clients, {:.0} requests per second, slowest reply {:.1} ms, client errors: {}\n",
            self.start.elapsed().as_secs_f64(),
            if seconds > 0.0 { f64::from(more) / seconds } else { 0.0 },
            tally.take_slowest().as_secs_f64() * 1e3,
            tally.errors()
        );
        if let Some(error) = tally.last_error() {
            text += &format!("  the last one: {error}\n");
        }
        text.push('\n');
        self.before =
            Some(Before { at: now, totals: table::totals(status), requests: tally.requests() });
        text
    }
}

fn sentence(event: &Event) -> String {
    let Event { shard, backend, from, to, cause, detail, .. } = event;
    format!("{shard} {backend}: {from} -> {to}: {cause}: {detail}")
}

const EVERY: Duration = Duration::from_secs(1);
/// In a pipe, a table each so many turns.
const PIPE_EVERY: u64 = 5;
const KILL_AT: u64 = 5;
const RESTART_AT: u64 = 10;
/// What a terminal of 40 lines has room for below the rest.
const SHOWN_NOTES: usize = 8;
