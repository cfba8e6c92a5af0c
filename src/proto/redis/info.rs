//! `INFO` over several shards: one text as of one server, in which what can be added up is.
//! Not our own metrics: those are at the admin address.

use super::{class::Resp, wire};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// Fields that are the sum over the shards; every other field is the first shard's.
const SUMMED: &[&str] = &[
    "blocked_clients",
    "connected_slaves",
    "evicted_keys",
    "expired_keys",
    "instantaneous_ops_per_sec",
    "keyspace_hits",
    "keyspace_misses",
    "maxmemory",
    "total_commands_processed",
    "total_error_replies",
    "total_net_input_bytes",
    "total_net_output_bytes",
    "used_memory",
    "used_memory_dataset",
    "used_memory_rss",
];

/// Writes the merged reply of `parts`, each an INFO reply or empty for a shard that did not answer,
/// behind `header`.
pub(super) fn merge(header: &str, parts: &[Vec<u8>], out: &mut Vec<u8>) {
    let texts: Vec<_> = parts.iter().filter(|p| !p.is_empty()).map(|p| text(p)).collect();
    let sums = sums(&texts);
    let mut merged = format!("{header}sluice_shards_answering:{}\r\n\r\n", texts.len());
    let mut databases = Some(databases(&texts));
    for line in texts.first().map(|first| first.lines()).into_iter().flatten() {
        match line.split_once(':') {
            Some((name, _)) if database(name).is_some() => {}
            Some((name, _)) if sums.contains_key(name) => {
                let _ = write!(merged, "{name}:{}\r\n", sums.get(name).copied().unwrap_or(0));
            }
            _ => {
                let _ = write!(merged, "{line}\r\n");
            }
        }
        if line == "# Keyspace" {
            merged.push_str(&databases.take().unwrap_or_default());
        }
    }
    let resp =
        if parts.iter().any(|part| part.starts_with(b"=")) { Resp::Three } else { Resp::Two };
    wire::verbatim(out, resp, merged.as_bytes());
}

fn sums<'a>(texts: &[std::borrow::Cow<'a, str>]) -> HashMap<&'static str, u64> {
    let mut sums = HashMap::new();
    for line in texts.iter().flat_map(|text| text.lines()) {
        let Some((name, value)) = line.split_once(':') else { continue };
        let Some(name) = SUMMED.iter().find(|summed| **summed == name) else { continue };
        if let Ok(value) = value.trim().parse::<u64>() {
            let sum = sums.entry(*name).or_insert(0u64);
            *sum = sum.saturating_add(value);
        }
    }
    sums
}

/// `db0:keys=3,expires=1,avg_ttl=0` of every database that any shard has.
fn databases(texts: &[std::borrow::Cow<'_, str>]) -> String {
    let mut databases: BTreeMap<u32, [u64; 2]> = BTreeMap::new();
    for line in texts.iter().flat_map(|text| text.lines()) {
        let Some((name, values)) = line.split_once(':') else { continue };
        let Some(number) = database(name) else { continue };
        let field = |field: &str| {
            values
                .split(',')
                .find_map(|pair| pair.strip_prefix(field)?.strip_prefix('=')?.parse().ok())
                .unwrap_or(0u64)
        };
        let sums = databases.entry(number).or_default();
        for (sum, count) in sums.iter_mut().zip([field("keys"), field("expires")]) {
            *sum = sum.saturating_add(count);
        }
    }
    databases.iter().fold(String::new(), |mut lines, (n, [keys, expires])| {
        let _ = write!(lines, "db{n}:keys={keys},expires={expires},avg_ttl=0\r\n");
        lines
    })
}

/// The number in `db0`.
fn database(name: &str) -> Option<u32> {
    name.strip_prefix("db")?.parse().ok()
}

/// The text of a bulk or verbatim reply.
fn text(part: &[u8]) -> std::borrow::Cow<'_, str> {
    let start = memchr::memchr(b'\n', part).map_or(part.len(), |end| end + 1);
    let text = part.get(start..).unwrap_or_default();
    String::from_utf8_lossy(text.strip_prefix(b"txt:").unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_added_and_the_rest_is_the_first_shards() {
        let part = |keys: u32| {
            let text = format!(
                "# Server\r\nredis_version:7.0.15\r\nused_memory:{keys}\r\n# Keyspace\r\ndb0:keys={keys},expires=1,avg_ttl=9\r\n"
            );
            format!("${}\r\n{text}\r\n", text.len()).into_bytes()
        };
        let mut out = Vec::new();
        merge("# Sluice\r\n", &[part(2), part(40)], &mut out);
        let merged = String::from_utf8(out).unwrap();
        for expected in
            ["# Sluice", "redis_version:7.0.15", "used_memory:42", "db0:keys=42,expires=2"]
        {
            assert!(merged.contains(expected), "{merged}");
        }
        assert_eq!(merged.matches("db0").count(), 1);
    }

    #[test]
    fn in_resp3_it_is_text_for_people() {
        let mut out = Vec::new();
        merge("# Sluice\r\n", &[b"=10\r\ntxt:role:x\r\n".to_vec()], &mut out);
        let merged = String::from_utf8(out).unwrap();
        assert!(merged.starts_with("=") && merged.contains("\r\ntxt:# Sluice\r\n"), "{merged}");
        assert_eq!(merged.matches("txt:").count(), 1);
        assert!(merged.contains("\r\nrole:x\r\n"), "{merged}");
    }

    /// Each one was followed by all databases: 1 MB of them made gigabytes.
    #[test]
    fn the_databases_are_told_once() {
        let text = "# Keyspace\r\n".repeat(3) + "db0:keys=18446744073709551615\r\ndb0:keys=1\r\n";
        let mut out = Vec::new();
        merge("", &[format!("${}\r\n{text}\r\n", text.len()).into_bytes()], &mut out);
        let merged = String::from_utf8(out).unwrap();
        assert_eq!(merged.matches("db0:keys=18446744073709551615,").count(), 1, "{merged}");
    }
}
