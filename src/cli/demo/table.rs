//! The live table as text, at most 100 columns wide. Not where it is printed.

use super::status::{Backend, Status};
use std::collections::HashMap;

/// Requests by backend when the table was made last, for rates.
pub(super) type Totals = HashMap<String, u64>;

/// The table of `status`; rates are over `seconds` since `before`.
pub(super) fn text(status: &Status, before: &Totals, seconds: f64, color: bool) -> String {
    let mut text = format!(
        "{:<6} {:<16} {:<18} {:<10} {:>9} {:>9} {:>8} {:>10}  {}\n",
        "SHARD", "BACKEND", "ROLE", "STATE", "READS", "WRITES", "PER SEC", "IN FLIGHT", "LAG"
    );
    for shard in status.shards() {
        for backend in &shard.backends {
            text += &format!(
                "{:<6} {:<16} {:<18} {} {:>9} {:>9} {:>8} {:>10}  {}\n",
                shard.name,
                backend.name,
                backend.role,
                state(&backend.state, color),
                backend.reads,
                backend.writes,
                rate(backend, before, seconds),
                backend.in_flight,
                lag(backend),
            );
        }
    }
    text
}

/// What the next table's rates start from.
pub(super) fn totals(status: &Status) -> Totals {
    status.backends().map(|backend| (backend.name.clone(), requests(backend))).collect()
}

fn requests(backend: &Backend) -> u64 {
    backend.reads.saturating_add(backend.writes)
}

fn rate(backend: &Backend, before: &Totals, seconds: f64) -> String {
    let Some(before) = before.get(&backend.name).filter(|_| seconds > 0.0) else {
        return "-".to_owned();
    };
    let more = u32::try_from(requests(backend).saturating_sub(*before)).unwrap_or(u32::MAX);
    format!("{:.0}", f64::from(more) / seconds)
}

fn state(state: &str, color: bool) -> String {
    let code = match state {
        _ if !color => return format!("{state:<10}"),
        "ready" => 32,
        "unhealthy" | "ejected" => 31,
        _ => 33,
    };
    format!("\x1b[{code}m{state:<10}\x1b[0m")
}

fn lag(backend: &Backend) -> String {
    match (backend.lag_ms, backend.lag_bytes) {
        (Some(ms), Some(0)) if ms < 1000 => "0".to_owned(),
        (Some(ms), _) => format!("{ms} ms"),
        (None, Some(bytes)) => format!("{bytes} B"),
        (None, None) => "-".to_owned(),
    }
}
