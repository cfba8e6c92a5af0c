//! The live table as text, at most 100 columns wide. Not where it is printed.

use super::status::{Backend, Status};
use std::collections::HashMap;

/// Requests by backend when the table was made last, for rates.
pub(super) type Totals = HashMap<String, u64>;

/// The table of `status`; rates are over the seconds since the totals before, if there were any.
pub(super) fn text(status: &Status, before: Option<(&Totals, f64)>, color: bool) -> String {
    let mut text = format!(
        "{:<5} {:<15} {:<17} {:<9} {:>8} {:>8} {:>7} {:>9}  {}\n",
        "SHARD", "BACKEND", "ROLE", "STATE", "READS", "WRITES", "PER SEC", "IN FLIGHT", "LAG"
    );
    for shard in status.shards() {
        for backend in &shard.backends {
            text += &format!(
                "{:<5} {:<15} {:<17} {} {:>8} {:>8} {:>7} {:>9}  {}\n",
                shard.name,
                backend.name,
                backend.role,
                state(&backend.state, color),
                backend.reads,
                backend.writes,
                of_backend(backend, before),
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

/// Requests per second.
pub(super) fn rate(now: u64, before: u64, seconds: f64) -> String {
    let more = u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX);
    format!("{:.0}", f64::from(more) / seconds.max(0.001))
}

/// Requests per second since the totals before.
pub(super) fn of_backend(backend: &Backend, before: Option<(&Totals, f64)>) -> String {
    before
        .and_then(|(totals, seconds)| {
            let before = totals.get(&backend.name)?;
            Some(rate(requests(backend), *before, seconds))
        })
        .unwrap_or_else(|| "-".to_owned())
}

/// A state, padded, in the colour that it has on a terminal.
pub(super) fn state(state: &str, color: bool) -> String {
    let code = match state {
        _ if !color => return format!("{state:<9}"),
        "ready" => 32,
        "unhealthy" | "ejected" => 31,
        _ => 33,
    };
    format!("\x1b[{code}m{state:<9}\x1b[0m")
}

fn lag(backend: &Backend) -> String {
    match (backend.lag_ms, backend.lag_bytes) {
        (Some(ms), Some(0)) if ms < 1000 => "0".to_owned(),
        (Some(ms), _) => format!("{ms} ms"),
        (None, Some(bytes)) => format!("{bytes} B"),
        (None, None) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned_and_fits_in_100_columns() {
        let json = r#"{ "state": "ready", "events": [], "clusters": [{ "shards": [
            { "name": "s0", "slots": [[0, 16383]], "backends": [
                { "name": "127.0.0.1:65535", "role": "replica_link_down", "state": "unhealthy",
                  "reads": 99999999, "writes": 99999999, "in_flight": 12345, "lag_bytes": 1048576,
                  "lag_ms": null },
                { "name": "127.0.0.1:1", "role": "primary", "state": "ready", "reads": 0,
                  "writes": 30, "in_flight": 0, "lag_bytes": null, "lag_ms": null }
            ] } ] }] }"#;
        let status: Status = serde_json::from_str(json).unwrap();
        let before = Totals::from([("127.0.0.1:1".to_owned(), 10)]);
        let text = text(&status, Some((&before, 2.0)), false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.len() <= 100), "{text}");
        let column = lines[0].find("LAG").unwrap();
        assert_eq!((&lines[1][column..], &lines[2][column..]), ("1048576 B", "-"), "{text}");
        assert!(lines[2].contains(" 30      10 "), "{text}");
        assert_eq!(totals(&status)["127.0.0.1:1"], 30);
    }

    #[test]
    fn colours_do_not_shift_the_columns() {
        assert_eq!(state("ready", true), "\x1b[32mready    \x1b[0m");
        assert_eq!(state("ready", false), "ready    ");
    }
}
