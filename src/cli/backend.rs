//! `sluice backend`: shows the backends of a running process, takes one out and brings it back. Not
//! what that does to it: that is control's.

use super::{ask::Whom, check::Format, complain, say};
use clap::{Args, Subcommand};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{process::ExitCode, time::Duration};

#[derive(Debug, Subcommand)]
pub(super) enum BackendCommand {
    /// List backends with their states.
    List(ListArgs),
    /// Send nothing new to a backend; sessions that it has stay.
    Drain(DrainArgs),
    /// Send nothing to a backend, and probe it no more; connections that it has stay.
    Disable(DisableArgs),
    /// Take back what drain or disable asked for.
    Ready(Target),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only the backends of this cluster.
    cluster: Option<String>,
    #[command(flatten)]
    rest: Rest,
}

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    target: Target,
    /// Take it back by itself after this time: 10m.
    #[arg(long, value_name = "TIME")]
    ttl: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct DisableArgs {
    #[command(flatten)]
    drain: DrainArgs,
    /// Close the connections that it has, too.
    #[arg(long)]
    kill: bool,
}

#[derive(Debug, Args)]
pub(super) struct Target {
    /// As `sluice backend list` shows it: cache/10.0.0.1:6379, or an id.
    #[arg(value_name = "CLUSTER/BACKEND")]
    backend: String,
    #[command(flatten)]
    rest: Rest,
}

#[derive(Debug, Args)]
struct Rest {
    #[command(flatten)]
    whom: Whom,
    /// How to print the answer: text, or one line of JSON.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A backend as the admin address tells it, as far as it is shown.
#[derive(Debug, Deserialize)]
struct Backend {
    cluster: String,
    shard: String,
    name: String,
    role: String,
    state: String,
    admin: Admin,
    weight: u32,
    in_flight: u64,
    connections: u64,
}

#[derive(Debug, Deserialize)]
struct Admin {
    in_force: String,
    config: String,
    ttl_left_ms: Option<u64>,
}

impl BackendCommand {
    pub(super) fn run(self) -> ExitCode {
        let (rest, ask) = match self {
            Self::List(ListArgs { cluster, rest }) => (rest, Ask::List(cluster)),
            Self::Drain(DrainArgs { target, ttl }) => {
                (target.rest, Ask::Set(target.backend, json!({ "admin": "drain", "ttl": ttl })))
            }
            Self::Disable(DisableArgs { drain: DrainArgs { target, ttl }, kill }) => {
                let wish = json!({ "admin": "disabled", "ttl": ttl, "kill": kill });
                (target.rest, Ask::Set(target.backend, wish))
            }
            Self::Ready(target) => {
                (target.rest, Ask::Set(target.backend, json!({ "admin": "ready" })))
            }
        };
        match rest.answer(ask) {
            Ok(text) => {
                say(&text);
                ExitCode::SUCCESS
            }
            Err(Ok(why)) => {
                complain(&format_args!("sluice backend: {why}"));
                ExitCode::FAILURE
            }
            Err(Err(code)) => code,
        }
    }
}

/// What is asked of the process.
enum Ask {
    /// Of one cluster, or of all.
    List(Option<String>),
    /// The backend, and what is wanted of it.
    Set(String, Value),
}

impl Rest {
    fn answer(self, ask: Ask) -> Result<String, Result<String, ExitCode>> {
        let doors = self.whom.doors()?;
        let asked = async {
            match &ask {
                Ask::List(None) => doors.ask(Method::GET, "/api/v1/backends", String::new()).await,
                Ask::List(Some(cluster)) => {
                    let path = format!("/api/v1/clusters/{}", encoded(cluster));
                    doors.ask(Method::GET, &path, String::new()).await
                }
                Ask::Set(backend, wish) => {
                    let path = format!("/api/v1/backends/{}", encoded(backend));
                    doors.ask(Method::PATCH, &path, wish.to_string()).await
                }
            }
        };
        let answer = crate::server::block_on(asked).map_err(|error| Ok(error.to_string()))?;
        let document = answer.and_then(super::ask::Answer::document).map_err(Ok)?;
        self.format.print(&ask, document).map_err(Ok)
    }
}

impl Format {
    fn print(self, ask: &Ask, document: Value) -> Result<String, String> {
        let document = match ask {
            Ask::List(Some(_)) => of_cluster(&document),
            Ask::List(None) | Ask::Set(..) => document,
        };
        if self == Self::Json {
            return Ok(format!("{document}\n"));
        }
        let odd = |error| format!("the answer is not understood: {error}");
        match ask {
            Ask::List(_) => serde_json::from_value(document).map(|all: Vec<_>| table(&all)),
            Ask::Set(_, wish) => {
                let wanted = wish.get("admin").and_then(Value::as_str).unwrap_or_default();
                serde_json::from_value(document).map(|backend| line(&backend, wanted))
            }
        }
        .map_err(odd)
    }
}

/// The backends of all shards of a cluster's document.
fn of_cluster(cluster: &Value) -> Value {
    let shards = cluster.get("shards").and_then(Value::as_array).into_iter().flatten();
    let backends = shards.filter_map(|shard| shard.get("backends")?.as_array()).flatten();
    Value::Array(backends.cloned().collect())
}

fn table(backends: &[Backend]) -> String {
    let heads =
        ["BACKEND", "SHARD", "ROLE", "STATE", "ADMIN", "WEIGHT", "IN FLIGHT", "CONNECTIONS"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for backend in backends {
        let shard = if backend.shard.is_empty() { "-" } else { &backend.shard };
        let left = left(&backend.admin).map(|left| format!(" ({left} left)"));
        rows.push(vec![
            format!("{}/{}", backend.cluster, backend.name),
            shard.to_owned(),
            backend.role.clone(),
            backend.state.clone(),
            format!("{}{}", backend.admin.in_force, left.unwrap_or_default()),
            backend.weight.to_string(),
            backend.in_flight.to_string(),
            backend.connections.to_string(),
        ]);
    }
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max();
    let widths: Vec<usize> = (0..heads.len()).filter_map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// `cache/10.0.0.1:6379: drain for 10m (state drain, 3 in flight)`
fn line(backend: &Backend, wanted: &str) -> String {
    let Backend { cluster, name, state, admin, in_flight, .. } = backend;
    let now = match left(admin) {
        Some(left) => format!("{} for {left}", admin.in_force),
        None => admin.in_force.clone(),
    };
    let why = match admin.in_force == wanted {
        true => String::new(),
        false => format!(", not {wanted}: its configuration says {}", admin.config),
    };
    format!("{cluster}/{name}: {now}{why} (state {state}, {in_flight} in flight)\n")
}

/// The time that is left, in whole seconds.
fn left(admin: &Admin) -> Option<String> {
    let left = Duration::from_millis(admin.ttl_left_ms?);
    let seconds = left.as_secs_f64().ceil();
    let (minutes, rest) = ((seconds / 60.0).floor(), seconds % 60.0);
    Some(match (minutes, rest) {
        (0.0, rest) => format!("{rest}s"),
        (minutes, 0.0) => format!("{minutes}m"),
        (minutes, rest) => format!("{minutes}m{rest}s"),
    })
}

/// Everything but what a path may hold as it is (RFC 3986, section 3.3) is percent-encoded.
fn encoded(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        match char::from(byte) {
            c if c.is_ascii_alphanumeric() || "-._~/:".contains(c) => path.push(c),
            _ => path += &format!("%{byte:02X}"),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(in_force: &str, config: &str, ttl_left_ms: Option<u64>) -> Backend {
        Backend {
            cluster: "cache".to_owned(),
            shard: String::new(),
            name: "10.0.0.1:6379".to_owned(),
            role: "none".to_owned(),
            state: in_force.to_owned(),
            admin: Admin { in_force: in_force.to_owned(), config: config.to_owned(), ttl_left_ms },
            weight: 1,
            in_flight: 3,
            connections: 4,
        }
    }

    #[test]
    fn a_change_is_told_in_one_line() {
        for (backend, wanted, told) in [
            (backend("drain", "ready", Some(599_400)), "drain", "drain for 10m (state drain"),
            (backend("drain", "ready", Some(1)), "drain", "drain for 1s (state drain"),
            (backend("disabled", "ready", Some(61_000)), "disabled", "disabled for 1m1s (state"),
            (
                backend("drain", "drain", None),
                "ready",
                "drain, not ready: its configuration says drain (state drain",
            ),
        ] {
            let line = line(&backend, wanted);
            assert!(line.starts_with(&format!("cache/10.0.0.1:6379: {told}")), "{line}");
            assert!(line.ends_with(", 3 in flight)\n"), "{line}");
        }
    }

    #[test]
    fn the_list_is_a_table() {
        let text =
            table(&[backend("drain", "ready", Some(5_000)), backend("ready", "ready", None)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(
            lines[1],
            "cache/10.0.0.1:6379  -      none  drain  drain (5s left)  1       3          4"
        );
        assert!(lines[0].starts_with("BACKEND              SHARD  ROLE  STATE  ADMIN "), "{text}");
    }

    #[test]
    fn odd_names_are_encoded() {
        assert_eq!(encoded("cache/[::1]:6379"), "cache/%5B::1%5D:6379");
        assert_eq!(encoded("c/unix:/a b?"), "c/unix:/a%20b%3F");
    }
}
