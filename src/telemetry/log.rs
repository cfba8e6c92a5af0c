//! Where log lines go: stderr, as text or JSON, through a thread of its own so that a blocked pipe
//! never blocks a worker (lines are dropped instead). Not what is logged.

use std::io::{self, IsTerminal};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// Keeps the log alive; when dropped, what is queued is written (for at most a second).
#[derive(Debug)]
pub struct LogGuard {
    _writer: WorkerGuard,
}

/// From now on a panic is one ERROR line that says where; the session it ends is closed by its
/// worker.
pub fn panics() {
    std::panic::set_hook(Box::new(|info| {
        tracing::error!("panic (a bug in sluice, please report it): {info}");
    }));
}

/// A text that is not a log filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a log filter ({why}); write a level such as info, or sluice=debug")]
pub struct FilterError {
    text: String,
    why: String,
}

/// Sets the log of the process up. `level` is the configured filter; the variable `SLUICE_LOG`
/// wins over it. A bad filter is reported in the log, and `info` is used.
///
/// A second call in one process changes nothing.
pub fn start(json: bool, level: &str) -> LogGuard {
    let variable = std::env::var("SLUICE_LOG").ok().filter(|text| !text.is_empty());
    let wanted = variable.as_deref().unwrap_or(level);
    let (filter, problem) = match filter(wanted) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(ours(DEFAULT_LEVEL)), Some(error)),
    };
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(QUEUED_LINES)
        .thread_name("sluice-log")
        .finish(io::stderr());
    install(json, filter, writer);
    if let Some(error) = problem {
        let source = if variable.is_some() { "SLUICE_LOG" } else { "log.level" };
        tracing::warn!("{source}: {error}; using {DEFAULT_LEVEL}");
    }
    LogGuard { _writer: guard }
}

/// Reads a filter: a level, or `target=level` pairs with commas. A level is that of our own lines:
/// what the libraries say below ERROR is there for whoever names them (`info,h2=debug`), because a
/// client can make some of them warn as often as it likes.
///
/// # Errors
/// When it is none, a lone word that is not a level included: tracing would take that for the name
/// of a module, and then nothing of ours is logged.
pub fn filter(text: &str) -> Result<EnvFilter, FilterError> {
    let error = |why: String| FilterError { text: text.to_owned(), why };
    for part in text.split(',').map(str::trim) {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if !part.contains('[') && (level.is_empty() || level.parse::<LevelFilter>().is_err()) {
            return Err(error(format!("'{level}' is not a level")));
        }
    }
    EnvFilter::builder().parse(ours(text)).map_err(|why| error(why.to_string()))
}

/// The filter with its level for us alone.
fn ours(text: &str) -> String {
    let level = |part: &&str| part.parse::<LevelFilter>().is_ok();
    let parts = text.split(',').map(str::trim);
    let Some(ours) = parts.clone().rfind(level) else { return text.to_owned() };
    let others = if ours.eq_ignore_ascii_case("off") { "off" } else { "error" };
    // What is named later wins over what is named before it.
    let named = parts.filter(|part| !level(part)).map(|part| format!(",{part}"));
    format!("{others},sluice={ours}{}", named.collect::<String>())
}

fn install(json: bool, filter: EnvFilter, writer: NonBlocking) {
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // An error means that a log is set up already (tests do that); it stays.
    let _ = if json {
        log.json().flatten_event(true).try_init()
    } else {
        log.with_ansi(io::stderr().is_terminal()).with_target(false).try_init()
    };
}

const DEFAULT_LEVEL: &str = "info";
/// About 1 MiB of lines of 128 bytes; what comes faster than stderr takes it is dropped.
const QUEUED_LINES: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_tracing_would_misread_are_refused() {
        for good in ["info", "DEBUG", "off", "sluice=debug", "warn,sluice::control=trace"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["inof", "", "warn,verbose", "sluice=loud"] {
            let error = filter(bad).unwrap_err().to_string();
            assert!(error.contains("is not a log filter") && error.contains("info"), "{error}");
        }
    }

    #[test]
    fn a_level_is_for_our_own_lines() {
        for (text, expected) in [
            ("info", "error,sluice=info"),
            ("DEBUG", "error,sluice=DEBUG"),
            ("off", "off,sluice=off"),
            ("info,h2=debug", "error,sluice=info,h2=debug"),
            ("warn, sluice::control=trace", "error,sluice=warn,sluice::control=trace"),
            ("sluice=debug", "sluice=debug"),
        ] {
            assert_eq!(ours(text), expected, "{text}");
        }
    }

    /// h2 warns when a client resets streams too fast: 20,000 times a second if it likes.
    #[test]
    fn what_a_library_warns_of_is_written_for_whoever_asks() {
        let written = |text: &str| {
            let lines = Lines::default();
            let log = tracing_subscriber::fmt().with_env_filter(filter(text).unwrap());
            let sink = lines.clone();
            let log = log.with_ansi(false).with_writer(move || sink.clone()).finish();
            tracing::subscriber::with_default(log, || {
                tracing::info!("ours");
                tracing::warn!(target: "h2::proto::streams", "theirs");
                tracing::error!(target: "rustls", "broken");
            });
            let lines = lines.0.lock().unwrap();
            ["ours", "theirs", "broken"].map(|word| String::from_utf8_lossy(&lines).contains(word))
        };
        assert_eq!(written("info"), [true, false, true]);
        assert_eq!(written("trace"), [true, false, true]);
        assert_eq!(written("info,h2=warn"), [true, true, true]);
        assert_eq!(written("warn"), [false, false, true]);
        assert_eq!(written("off"), [false, false, false]);
    }

    #[derive(Clone, Default)]
    struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
