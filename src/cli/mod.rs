//! The command line: what it takes, what it prints, and the exit code. Not what the commands do.

mod against;
mod ask;
mod backend;
mod check;
pub mod demo;
mod explain;

use crate::config::{Config, Env, Findings, import, schema};
use backend::BackendCommand;
use check::Format;
use clap::{Args, Parser, Subcommand};
use std::{
    error::Error,
    ffi::OsString,
    fmt,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// The configuration is wrong (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// What `sluice config example` prints: every key, explained.
const EXAMPLE: &str = include_str!("../../conf/redis-full.yaml");
/// Whose defaults `sluice config print --defaults` prints.
const SMALLEST: &str = include_str!("../../conf/minimal.yaml");

/// A layer-4/7 proxy and load balancer that stands between applications and their storage.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 well, 78 the configuration is wrong, 1 anything else.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until SIGTERM.
    Run(File),
    /// Check configurations and say everything that is wrong with them.
    Check(CheckArgs),
    /// Say where a request would go and why.
    Explain(explain::ExplainArgs),
    /// Write the equivalent of another program's configuration to stdout.
    #[command(subcommand)]
    Import(ImportCommand),
    /// Show, drain, disable and bring back backends of a running process.
    #[command(subcommand)]
    Backend(BackendCommand),
    /// Show configurations.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Start Redis servers behind Sluice in a temporary folder, to look at.
    Demo(demo::DemoOptions),
    /// Print the version.
    Version,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print a configuration as it is understood; passwords are shown as (set).
    Print {
        /// The configuration; without one, the defaults of the smallest.
        #[arg(
            short,
            long = "config",
            value_name = "FILE",
            env = "SLUICE_CONFIG",
            required_unless_present = "defaults"
        )]
        config: Option<PathBuf>,
        /// Print every default too, not only what differs from them.
        #[arg(long)]
        defaults: bool,
    },
    /// Print the JSON Schema of a configuration.
    Schema,
    /// Print an example with every key, explained.
    Example,
}

#[derive(Debug, Subcommand)]
enum ImportCommand {
    /// A file of twemproxy (nutcracker.yml): the same keys at the same servers.
    Twemproxy {
        /// The file to read.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
struct File {
    /// The configuration; - is standard input.
    #[arg(short, long = "config", value_name = "FILE", env = "SLUICE_CONFIG")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// A configuration, - is standard input; may be given several times.
    #[arg(short, long = "config", value_name = "FILE")]
    config: Vec<PathBuf>,
    /// More configurations; without any, the one that SLUICE_CONFIG names.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Compare with this configuration: how many keys would move, and each shard's share of them.
    #[arg(long, value_name = "OLD", conflicts_with = "format")]
    against: Option<PathBuf>,
    /// Keys to count, one a line, where slots do not say it exactly; without any, 100,000 made up
    /// ones, key:0 and so on.
    #[arg(long, value_name = "FILE", requires = "against")]
    keys: Option<PathBuf>,
    /// How to print the result: text, or one line of JSON per file.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Does what the arguments (the program's name first) say.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => cli.command.run(),
        Err(told) => {
            // Help and version come as errors too; those go to stdout and are no failure.
            let _ = told.print();
            if told.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}

impl Command {
    fn run(self) -> ExitCode {
        match self {
            Self::Run(file) => match load(file) {
                Ok(config) => match crate::server::run(config) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => {
                        complain(&format_args!("sluice: {}", chain(&error)));
                        ExitCode::FAILURE
                    }
                },
                Err(code) => code,
            },
            Self::Check(CheckArgs { config, files, against, keys, format }) => {
                let mut all: Vec<PathBuf> = config.into_iter().chain(files).collect();
                if all.is_empty() {
                    all.extend(std::env::var_os("SLUICE_CONFIG").map(PathBuf::from));
                }
                if all.is_empty() {
                    complain(&"sluice check: which file? For example: sluice check -c sluice.yaml");
                    return ExitCode::FAILURE;
                }
                let mut code = check::run(all.iter().cloned(), format);
                if let (Some(old), true) = (against, code == ExitCode::SUCCESS) {
                    code = compare(old, all, keys);
                }
                code
            }
            Self::Explain(args) => explain::run(args),
            Self::Import(ImportCommand::Twemproxy { file }) => import(&file),
            Self::Backend(command) => command.run(),
            Self::Config(command) => command.run(),
            Self::Demo(options) => demo::run(&options),
            Self::Version => {
                say(&format_args!("sluice {}\n", env!("CARGO_PKG_VERSION")));
                ExitCode::SUCCESS
            }
        }
    }
}

impl ConfigCommand {
    fn run(self) -> ExitCode {
        match self {
            Self::Print { config, defaults } => {
                let config = match config {
                    Some(config) => load(File { config }),
                    None => accepted(Config::parse(SMALLEST, "conf/minimal.yaml", Env::empty())),
                };
                match config {
                    Ok(config) => say(&config.to_yaml(defaults)),
                    Err(code) => return code,
                }
            }
            Self::Schema => say(&format_args!("{:#}\n", schema())),
            Self::Example => say(&EXAMPLE),
        }
        ExitCode::SUCCESS
    }
}

/// Keys to count.
enum Keys {
    /// `key:0` and so on.
    Made,
    Of(Vec<Vec<u8>>),
}

impl Keys {
    fn iter(&self) -> Box<dyn Iterator<Item = Vec<u8>> + '_> {
        match self {
            Self::Made => Box::new((0..100_000).map(|n| format!("key:{n}").into_bytes())),
            Self::Of(keys) => Box::new(keys.iter().cloned()),
        }
    }

    fn what(&self) -> &'static str {
        match self {
            Self::Made => "made up keys",
            Self::Of(_) => "keys",
        }
    }
}

/// What each of the files would move.
fn compare(old: PathBuf, files: Vec<PathBuf>, keys: Option<PathBuf>) -> ExitCode {
    let keys = match keys.map(|file| (std::fs::read(&file), file)) {
        None => Keys::Made,
        Some((Ok(text), _)) => {
            let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            Keys::Of(lines.map(<[u8]>::to_vec).collect())
        }
        Some((Err(error), file)) => {
            complain(&format_args!("sluice check: {}: {error}", file.display()));
            return ExitCode::FAILURE;
        }
    };
    let old = match load(File { config: old }) {
        Ok(old) => old,
        Err(code) => return code,
    };
    for file in files {
        match load(File { config: file }) {
            Ok(new) => against::compare(&old, &new, &keys),
            Err(code) => return code,
        }
    }
    ExitCode::SUCCESS
}

fn import(file: &Path) -> ExitCode {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            complain(&format_args!("sluice import: {}: {error}", file.display()));
            return ExitCode::FAILURE;
        }
    };
    let (imported, findings) = import::twemproxy(&text, &file.to_string_lossy());
    report(&findings);
    match imported {
        Some(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        None => ExitCode::from(EXIT_CONFIG),
    }
}

/// The configuration in a file; its findings, hints too, go to stderr.
fn load(file: File) -> Result<Config, ExitCode> {
    accepted(Config::load(&file.config, Env::process()))
}

fn accepted((config, findings): (Option<Config>, Findings)) -> Result<Config, ExitCode> {
    report(&findings);
    config.ok_or_else(|| ExitCode::from(EXIT_CONFIG))
}

fn report(findings: &Findings) {
    let _ = write!(io::stderr().lock(), "{findings}");
}

/// Prints to stdout. A reader that went away (`| head`) is no concern of ours.
fn say(text: &dyn fmt::Display) {
    let mut out = io::stdout().lock();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

fn complain(text: &dyn fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// An error and what caused it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn files_may_follow_check_in_either_way() {
        for arguments in ["sluice check -c a -c b", "sluice check a b", "sluice check -c a b"] {
            let Ok(Cli { command: Command::Check(check) }) =
                Cli::try_parse_from(arguments.split(' '))
            else {
                panic!("{arguments}")
            };
            let files: Vec<PathBuf> = check.config.into_iter().chain(check.files).collect();
            assert_eq!(files, [PathBuf::from("a"), PathBuf::from("b")]);
        }
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("listener cache")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::other("port taken"));
        assert_eq!(chain(&error), "listener cache: port taken");
    }
}
