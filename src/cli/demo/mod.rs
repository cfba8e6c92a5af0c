//! `sluice demo`: real servers behind Sluice, Redis or web, with a live table, to look at and to break. Not
//! a way to run Sluice: everything is in a temporary folder and gone at the end.

mod client;
mod folder;
mod load;
mod notes;
mod process;
mod proxy;
mod redis;
mod samples;
mod screen;
mod servers;
mod show;
mod status;
mod table;
mod web;

use super::{chain, complain};
use folder::Folder;
use load::Tally;
use redis::RedisStage;
use screen::Screen;
use servers::Fleet;
use std::{
    io::{self, ErrorKind},
    process::ExitCode,
};
use tokio::signal::unix::{SignalKind, signal};
use web::Visits;

/// What the demo is asked to do.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoOptions {
    /// End by itself after so many seconds of the table; exit 1 when a client saw an error.
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
    /// Kill one replica after five seconds, and start it again five seconds later.
    #[arg(long)]
    pub kill_replica: bool,
    /// Web servers and sticky sessions instead of Redis; one server is killed after five seconds and
    /// started again five seconds later.
    #[arg(long, conflicts_with = "kill_replica")]
    pub http: bool,
}

/// Why the demo could not start or go on.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct DemoError {
    what: String,
    source: Option<io::Error>,
}

/// Runs the demo until its time is over or a signal comes; stops and removes what it started.
pub fn run(options: &DemoOptions) -> ExitCode {
    let (tally, visits) = (Tally::default(), Visits::default());
    let mut screen = Screen::new();
    let ended = until_signal(options, &tally, &visits, &mut screen);
    // Everything is stopped and removed by now: the guards went with the future.
    let (why, failed) = match ended {
        Ok(Some(signal)) => (signal, false),
        Ok(None) => (OVER, tally.errors() > 0),
        Err(error) if error.is_broken_pipe() => return ExitCode::SUCCESS,
        Err(error) => {
            complain(&format_args!("sluice demo: {}", chain(&error)));
            return ExitCode::FAILURE;
        }
    };
    let errors = tally.errors();
    let as_promised = !options.http || {
        let (as_promised, verdict) = visits.verdict();
        let _ = screen.say(&verdict);
        as_promised
    };
    let _ = screen
        .say(&format_args!("{why}: all servers stopped, folder removed; client errors: {errors}"));
    if failed {
        complain(&"sluice demo: a client saw an error");
        return ExitCode::FAILURE;
    }
    if why == OVER && !as_promised {
        complain(&"sluice demo: sessions did not stay as they should");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The name of the signal that ended it, if one did. The event loop is one thread's own, so the
/// demo needs neither tasks nor locks.
fn until_signal(
    options: &DemoOptions,
    tally: &Tally,
    visits: &Visits,
    screen: &mut Screen,
) -> Result<Option<&'static str>, DemoError> {
    let set_up = |error| DemoError::io("event loop", error);
    let ended = crate::server::block_on(async {
        let mut term = signal(SignalKind::terminate()).map_err(set_up)?;
        let mut int = signal(SignalKind::interrupt()).map_err(set_up)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(set_up)?;
        tokio::select! {
            done = demo(options, tally, visits, screen) => done.map(|()| None),
            _ = term.recv() => Ok(Some("SIGTERM")),
            _ = int.recv() => Ok(Some("Ctrl-C")),
            _ = hangup.recv() => Ok(Some("SIGHUP")),
        }
    });
    ended.map_err(set_up)?
}

/// From the first server to the last table. Wherever this future is dropped, the guards are
/// dropped in reverse: the load ends, then Sluice, then the servers, then the folder.
async fn demo(
    options: &DemoOptions,
    tally: &Tally,
    visits: &Visits,
    screen: &mut Screen,
) -> Result<(), DemoError> {
    if options.http {
        return web::run(options.seconds, tally, visits, screen).await;
    }
    let folder = Folder::create()?;
    screen.say(&"starting two shards, each one primary and two replicas of redis-server ...")?;
    let fleet = Fleet::start(folder.path()).await?;
    let mut stage = RedisStage::new(fleet, options.kill_replica);
    let mut proxy = stage.front(folder.path()).await?;
    screen.say(&stage.greeting(&proxy))?;
    samples::run(&proxy, screen).await?;
    let ports = proxy.ports();
    tokio::select! {
        never = load::run(ports.front, tally) => match never {},
        shown = show::run(options.seconds, &mut stage, &mut proxy, tally, screen) => shown,
    }
}

/// What is said of an end by `--seconds`.
const OVER: &str = "the time is over";

impl DemoError {
    fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self { what: what.into(), source: Some(source) }
    }

    fn told(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None }
    }

    /// Whoever read our output went away (`| head`): an end like any other.
    fn is_broken_pipe(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.kind() == ErrorKind::BrokenPipe)
            && self.what == screen::OUTPUT
    }
}
