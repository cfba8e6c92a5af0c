//! The live part: a table each second, the events between two tables, and the killing of a server
//! when that was asked for. Not the load, which runs beside it, nor what is on the stage.

use super::{
    DemoError,
    load::Tally,
    notes::Notes,
    proxy::Proxy,
    screen::Screen,
    status::{Event, Status},
    table::{self, Totals},
};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// What is behind Sluice.
pub(super) trait Stage {
    /// Kills a server, if that was asked for; what is told of it.
    fn kill(&mut self) -> Option<String>;
    /// Starts it again; what is told of it.
    ///
    /// # Errors
    /// When it cannot be started.
    fn restart(&mut self) -> Result<Option<String>, DemoError>;
    /// How many clients ask.
    fn clients(&self) -> usize;
    /// The backends; rates are over the seconds since the totals before, if there were any.
    fn table(&self, status: &Status, before: Option<(&Totals, f64)>, color: bool) -> String;
}

/// Shows the table until so many seconds are over, or for ever.
///
/// # Errors
/// When Sluice ends, a server cannot be started again, or the output is closed.
pub(super) async fn run(
    seconds: Option<u64>,
    stage: &mut impl Stage,
    proxy: &mut Proxy,
    tally: &Tally,
    screen: &mut Screen,
) -> Result<(), DemoError> {
    let mut show = Show::new(screen.is_terminal());
    let mut pace = interval(EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        show.kill_and_restart(stage)?;
        proxy.must_run()?;
        let last = seconds.is_some_and(|seconds| show.seconds() >= seconds);
        match Status::fetch(proxy.ports().admin).await {
            Ok(status) => show.turn(stage, status, tally, last, screen)?,
            Err(error) => show.notes.add(&format!("/api/v1/status: {error}")),
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
    notes: Notes,
    /// The newest event that was noted.
    last_event: Option<Event>,
    before: Option<Before>,
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
            notes: Notes::new(),
            last_event: None,
            before: None,
            turns: 0,
        }
    }

    fn seconds(&self) -> u64 {
        // The pace may come a hair early.
        (self.start.elapsed() + EVERY / 10).as_secs()
    }

    fn kill_and_restart(&mut self, stage: &mut impl Stage) -> Result<(), DemoError> {
        if !self.killed && self.seconds() >= KILL_AT {
            self.killed = true;
            stage.kill().iter().for_each(|note| self.notes.add(note));
        }
        if !self.restarted && self.seconds() >= RESTART_AT {
            self.restarted = true;
            stage.restart()?.iter().for_each(|note| self.notes.add(note));
        }
        Ok(())
    }

    /// Shows a status. A terminal gets the table and the newest notes in place of the ones before;
    /// a pipe gets each note once and the table every few seconds.
    fn turn(
        &mut self,
        stage: &impl Stage,
        status: Status,
        tally: &Tally,
        last: bool,
        screen: &mut Screen,
    ) -> Result<(), DemoError> {
        // The events of the start are no news.
        if self.turns > 0 {
            let news = status.events_after(self.last_event.as_ref());
            news.iter().for_each(|event| self.notes.add_event(event));
        }
        self.last_event = status.events.last().cloned();
        let (columns, lines) = screen.size();
        let due = last || self.turns.is_multiple_of(PIPE_EVERY);
        self.turns += 1;
        if screen.is_terminal() {
            let mut block = self.table(stage, &status, tally);
            // A block taller than the terminal could not be replaced.
            let room = lines.saturating_sub(block.lines().count() + 1);
            block.extend(self.notes.newest(columns, room).iter().map(|line| format!("{line}\n")));
            screen.draw(&block)
        } else {
            let news = self.notes.take_fresh(columns);
            let mut block: String = news.iter().map(|line| format!("{line}\n")).collect();
            if due {
                block += &self.table(stage, &status, tally);
            }
            screen.draw(&block)
        }
    }

    /// The backends, and below them what the clients saw.
    fn table(&mut self, stage: &impl Stage, status: &Status, tally: &Tally) -> String {
        let (now, requests) = (Instant::now(), tally.requests());
        let before =
            self.before.replace(Before { at: now, totals: table::totals(status), requests });
        let rates = before.as_ref().map(|before| (&before.totals, (now - before.at).as_secs_f64()));
        let mut text = stage.table(status, rates, self.color);
        let rate = before.as_ref().map_or_else(String::new, |before| {
            let rate = table::rate(requests, before.requests, (now - before.at).as_secs_f64());
            format!(" {rate} requests per second,")
        });
        text += &format!(
            "\n{:>6.1}s  {} clients,{rate} slowest reply {:.1} ms, client errors: {}\n",
            self.start.elapsed().as_secs_f64(),
            stage.clients(),
            tally.take_slowest().as_secs_f64() * 1e3,
            tally.errors()
        );
        if let Some(error) = tally.last_error() {
            text += &format!("         the last one: {error}\n");
        }
        text.push('\n');
        text
    }
}

const EVERY: Duration = Duration::from_secs(1);
/// In a pipe, a table each so many turns.
const PIPE_EVERY: u64 = 5;
const KILL_AT: u64 = 5;
const RESTART_AT: u64 = 10;
