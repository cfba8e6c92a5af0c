//! `INFO`: one text as of one server, in which what the shards count is added up, behind a section of
//! ours; or one shard's own with `INFO shard NAME`. Not our metrics: those are at the admin address.

use super::{
    args::Args,
    class::Resp,
    dispatch::{Flow, Scene},
    fan_out,
    gather::Merge,
    reply, wire,
};
use crate::policy::access::Access;
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt::Write,
};

/// What we put around the shards' texts.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// Our section; `None` when it was not asked for.
    pub header: Option<String>,
    /// Clients that are connected to us; those of the servers are we.
    pub clients: u64,
    /// Of these, those that wait until CLIENT PAUSE is over; the servers count who waits in them.
    pub paused: u32,
}

/// Fields that are the sum over the shards; every other field is the first shard's. Of one that ends
/// in `_human` it is that of the field without.
const SUMMED: &[&str] = &[
    "active_defrag_hits",
    "active_defrag_misses",
    "aof_base_size",
    "aof_current_size",
    "blocked_clients",
    "connected_slaves",
    "current_eviction_exceeded_time",
    "dump_payload_sanitizations",
    "evicted_clients",
    "evicted_keys",
    "expired_keys",
    "expire_cycle_cpu_milliseconds",
    "instantaneous_input_kbps",
    "instantaneous_ops_per_sec",
    "instantaneous_output_kbps",
    "io_threaded_reads_processed",
    "io_threaded_writes_processed",
    "keyspace_hits",
    "keyspace_misses",
    "lazyfreed_objects",
    "lazyfree_pending_objects",
    "maxmemory",
    "mem_clients_normal",
    "mem_clients_slaves",
    "mem_cluster_links",
    "mem_replication_backlog",
    "number_of_cached_scripts",
    "number_of_functions",
    "number_of_libraries",
    "rdb_changes_since_last_save",
    "rejected_connections",
    "sync_full",
    "sync_partial_ok",
    "sync_partial_err",
    "total_commands_processed",
    "total_connections_received",
    "total_error_replies",
    "total_eviction_exceeded_time",
    "total_net_input_bytes",
    "total_net_output_bytes",
    "total_net_repl_input_bytes",
    "total_net_repl_output_bytes",
    "total_reads_processed",
    "total_writes_processed",
    "tracking_total_items",
    "tracking_total_keys",
    "unexpected_error_replies",
    "used_cpu_sys",
    "used_cpu_sys_children",
    "used_cpu_user",
    "used_cpu_user_children",
    "used_memory",
    "used_memory_dataset",
    "used_memory_functions",
    "used_memory_lua",
    "used_memory_overhead",
    "used_memory_peak",
    "used_memory_rss",
    "used_memory_scripts",
    "used_memory_scripts_eval",
    "used_memory_startup",
    "used_memory_vm_eval",
    "used_memory_vm_functions",
    "used_memory_vm_total",
];

/// Fields that are the largest of the shards': what goes on in a shard, told as 1, and what each
/// counts of the same clients.
const LARGEST: &[&str] = &[
    "aof_rewrite_in_progress",
    "aof_rewrite_scheduled",
    "async_loading",
    "loading",
    "rdb_bgsave_in_progress",
    "tracking_clients",
    "tracking_total_prefixes",
];

/// Answers INFO with its sections.
pub(super) fn answer(scene: &mut Scene<'_>, args: Args<'_>) -> Flow {
    let is = |at: usize, word: &str| {
        args.get(at).is_some_and(|section| section.eq_ignore_ascii_case(word.as_bytes()))
    };
    if is(1, "shard") && args.len() > 2 {
        return of_shard(scene, args);
    }
    let with_header = args.len() == 1
        || (1..args.len())
            .any(|at| ["sluice", "default", "all", "everything"].iter().any(|word| is(at, word)));
    let header = with_header.then(|| header(scene));
    if args.len() == 2 && is(1, "sluice") {
        let resp = scene.state.class.resp;
        return scene.say(|out| {
            wire::verbatim(out, resp, header.unwrap_or_default().as_bytes());
        });
    }
    let workers = &scene.hub.memory.workers;
    let clients = workers.iter().map(|worker| worker.clients.get()).sum();
    let paused: u64 = workers.iter().map(|worker| worker.paused.get()).sum();
    let paused = u32::try_from(paused).unwrap_or(u32::MAX);
    let merge = Merge::Info(Frame { header, clients, paused });
    fan_out::ask_all(scene, "INFO", Access::Read, merge, args.frame)
}

/// `INFO shard NAME [section ...]`: that shard's primary, as it is.
fn of_shard(scene: &mut Scene<'_>, args: Args<'_>) -> Flow {
    let name = args.get(2).unwrap_or_default();
    let Some(shard) = scene.cluster.shards.iter().position(|one| one.name.as_bytes() == name)
    else {
        return scene.say(|out| reply::no_such_shard(out, name));
    };
    let mut frame = Vec::new();
    wire::array(&mut frame, args.len().saturating_sub(2));
    wire::bulk(&mut frame, b"INFO");
    args.iter().skip(3).for_each(|section| wire::bulk(&mut frame, section));
    // A longer one would be handed over as it came.
    if frame.len() > LONGEST_REQUEST {
        return scene.say(|out| out.extend_from_slice(reply::SYNTAX));
    }
    scene.send(shard, Access::Read, true, &frame)
}

fn header(scene: &Scene<'_>) -> String {
    let workers = &scene.hub.memory.workers;
    let (mut clients, mut buffered, mut reads, mut writes) = (0, 0, 0, 0);
    for worker in workers.iter() {
        clients += worker.clients.get();
        buffered += worker.buffered.get();
        if let Some(counted) = worker.clusters.get(scene.cluster.id) {
            reads += counted.reads.ok.get();
            writes += counted.writes.ok.get();
        }
    }
    format!(
        "# Sluice\r\nsluice_version:{}\r\nsluice_cluster:{}\r\nsluice_shards:{}\r\n\
         proxy_workers:{}\r\nproxy_uptime_in_seconds:{}\r\nproxy_connected_clients:{clients}\r\n\
         proxy_buffered_bytes:{buffered}\r\nproxy_reads_ok:{reads}\r\nproxy_writes_ok:{writes}\r\n",
        env!("CARGO_PKG_VERSION"),
        scene.cluster.name,
        scene.cluster.shards.len(),
        workers.len(),
        scene.hub.now_us() / 1_000_000,
    )
}

/// Writes the merged reply of `parts`, each an INFO reply or empty for a shard that did not answer.
pub(super) fn merge(frame: &Frame, parts: &[Vec<u8>], out: &mut Vec<u8>) {
    let texts: Vec<_> = parts.iter().filter(|p| !p.is_empty()).map(|p| text(p)).collect();
    let sums = sums(&texts);
    let mut merged = String::new();
    if let Some(header) = &frame.header {
        merged.push_str(header);
        let _ = write!(merged, "sluice_shards_answering:{}\r\n\r\n", texts.len());
    }
    let mut told = [false; LISTED.len()];
    for line in texts.first().map(|first| first.lines()).into_iter().flatten() {
        let name = line.split_once(':').map_or("", |(name, _)| name);
        let list = LISTED.iter().position(|(heading, _)| *heading == line);
        let sum = sums.get(name.strip_suffix("_human").unwrap_or(name)).copied();
        match (name, sum) {
            (_, None) if LISTED.iter().any(|(_, belongs)| belongs(name)) => {}
            ("connected_clients", _) => {
                let _ = write!(merged, "{name}:{}\r\n", frame.clients);
            }
            ("blocked_clients", Some(sum)) => {
                let _ = write!(merged, "{name}:{:.0}\r\n", sum + f64::from(frame.paused));
            }
            (_, Some(sum)) if name.ends_with("_human") => {
                let _ = write!(merged, "{name}:{}\r\n", human(sum));
            }
            (_, Some(sum)) if sum.fract() == 0.0 && !line.contains('.') => {
                let _ = write!(merged, "{name}:{sum:.0}\r\n");
            }
            (_, Some(sum)) => {
                let _ = write!(merged, "{name}:{sum:.6}\r\n");
            }
            _ => {
                let _ = write!(merged, "{line}\r\n");
            }
        }
        // Each once, however often the heading comes.
        if let Some(list) = list
            && let (Some((_, belongs)), Some(told)) = (LISTED.get(list), told.get_mut(list))
            && !std::mem::replace(told, true)
        {
            listed(&texts, *belongs, &mut merged);
        }
    }
    let resp =
        if parts.iter().any(|part| part.starts_with(b"=")) { Resp::Three } else { Resp::Two };
    wire::verbatim(out, resp, merged.as_bytes());
}

/// Whether a name belongs to a section.
type IsListed = fn(&str) -> bool;

/// Sections whose lines are names with fields, `db0:keys=3,expires=1`, and which names those are.
const LISTED: [(&str, IsListed); 3] = [
    ("# Keyspace", |name| name.strip_prefix("db").is_some_and(|n| n.parse::<u32>().is_ok())),
    ("# Commandstats", |name| name.starts_with("cmdstat_")),
    ("# Errorstats", |name| name.starts_with("errorstat_")),
];

fn sums<'a>(texts: &[Cow<'a, str>]) -> HashMap<&'static str, f64> {
    let mut sums = HashMap::new();
    for line in texts.iter().flat_map(|text| text.lines()) {
        let Some((name, value)) = line.split_once(':') else { continue };
        let wanted = SUMMED.iter().chain(LARGEST).find(|wanted| **wanted == name);
        let (Some(name), Some(value)) = (wanted, number(value)) else { continue };
        let sum = sums.entry(*name).or_insert(0.0f64);
        *sum = if LARGEST.contains(name) { sum.max(value) } else { *sum + value };
    }
    sums
}

/// The lines that any shard has, in the order of their names, their fields added up; averages are
/// weighted by what they are averages of.
fn listed(texts: &[Cow<'_, str>], belongs: fn(&str) -> bool, merged: &mut String) {
    let mut lines: BTreeMap<(usize, &str), Vec<(&str, f64)>> = BTreeMap::new();
    for line in texts.iter().flat_map(|text| text.lines()) {
        let Some((name, values)) = line.split_once(':').filter(|(name, _)| belongs(name)) else {
            continue;
        };
        let fields: Vec<(&str, f64)> = values
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .filter_map(|(field, value)| Some((field, number(value)?)))
            .take(MOST_FIELDS)
            .collect();
        let of = |field: &str| {
            fields.iter().find(|(name, _)| *name == field).map_or(0.0, |(_, value)| *value)
        };
        // db10 comes after db9.
        let sums = lines.entry((name.len(), name)).or_default();
        for &(field, value) in &fields {
            let value = match field {
                "avg_ttl" => value * of("expires"),
                _ => value,
            };
            if let Some((_, sum)) = sums.iter_mut().find(|(known, _)| *known == field) {
                *sum += value;
            } else if sums.len() < MOST_FIELDS {
                sums.push((field, value));
            }
        }
    }
    for ((_, name), sums) in lines {
        let of = |field: &str| {
            sums.iter().find(|(name, _)| *name == field).map_or(0.0, |(_, value)| *value)
        };
        let field = |&(field, sum): &(&str, f64)| match field {
            "avg_ttl" => format!("avg_ttl={:.0}", sum / of("expires").max(1.0)),
            "usec_per_call" => format!("usec_per_call={:.2}", of("usec") / of("calls").max(1.0)),
            _ => format!("{field}={sum:.0}"),
        };
        let fields: Vec<String> = sums.iter().map(field).collect();
        let _ = write!(merged, "{name}:{}\r\n", fields.join(","));
    }
}

/// As servers write numbers: digits, and perhaps some behind a point.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let plain =
        text.len() <= LONGEST_NUMBER && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plain.then(|| text.parse().ok())?
}

/// server.c, bytesToHuman.
fn human(bytes: f64) -> String {
    const UNITS: [(f64, char); 4] = [
        (1_125_899_906_842_624.0, 'P'),
        (1_099_511_627_776.0, 'T'),
        (1_073_741_824.0, 'G'),
        (1_048_576.0, 'M'),
    ];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, letter)) => format!("{:.2}{letter}", bytes / unit),
        None if bytes >= 1_024.0 => format!("{:.2}K", bytes / 1_024.0),
        None => format!("{bytes:.0}B"),
    }
}

/// The text of a bulk or verbatim reply.
pub(super) fn text(part: &[u8]) -> Cow<'_, str> {
    let start = memchr::memchr(b'\n', part).map_or(part.len(), |end| end + 1);
    let text = part.get(start..).unwrap_or_default();
    String::from_utf8_lossy(text.strip_prefix(b"txt:").unwrap_or(text))
}

/// A u64 has 20 digits.
const LONGEST_NUMBER: usize = 20;
/// Redis has six fields to a name.
const MOST_FIELDS: usize = 16;
/// Redis has some twenty sections.
const LONGEST_REQUEST: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(texts: &[&str]) -> String {
        let parts: Vec<Vec<u8>> = texts
            .iter()
            .map(|text| format!("${}\r\n{text}\r\n", text.len()).into_bytes())
            .collect();
        let mut out = Vec::new();
        merge(
            &Frame { header: Some("# Sluice\r\n".to_owned()), clients: 7, ..Frame::default() },
            &parts,
            &mut out,
        );
        String::from_utf8(out).unwrap()
    }

    /// It was the first shard's, and who waited for the end of a rewrite began the next too early.
    #[test]
    fn what_goes_on_in_any_shard_goes_on() {
        let part = |rewrites: u32| {
            let text = format!("# Persistence\r\naof_rewrite_in_progress:{rewrites}\r\n");
            format!("${}\r\n{text}\r\n", text.len()).into_bytes()
        };
        for (shards, wanted) in [([0, 1, 1], 1), ([0, 0, 0], 0)] {
            let mut out = Vec::new();
            merge(&Frame::default(), &shards.map(part), &mut out);
            let merged = String::from_utf8(out).unwrap();
            assert!(merged.contains(&format!("aof_rewrite_in_progress:{wanted}\r\n")), "{merged}");
        }
    }

    #[test]
    fn counts_are_added_and_the_rest_is_the_first_shards() {
        let part = |keys: u32| {
            format!(
                "# Server\r\nredis_version:7.0.15\r\nconnected_clients:2\r\nused_memory:{keys}\r\n\
                 used_memory_human:{keys}B\r\nused_cpu_sys:1.250000\r\n# Keyspace\r\n\
                 db0:keys={keys},expires={keys},avg_ttl=9\r\n"
            )
        };
        let told = merged(&[&part(2_000), &part(40)]);
        for expected in [
            "# Sluice\r\nsluice_shards_answering:2",
            "redis_version:7.0.15\r\n",
            "connected_clients:7\r\n",
            "used_memory:2040\r\n",
            "used_memory_human:1.99K\r\n",
            "used_cpu_sys:2.500000\r\n",
            "db0:keys=2040,expires=2040,avg_ttl=9\r\n",
        ] {
            assert!(told.contains(expected), "{expected} in {told}");
        }
        assert_eq!(told.matches("db0").count(), 1);
    }

    #[test]
    fn commands_of_any_shard_are_listed_with_their_sums() {
        let one =
            "# Commandstats\r\ncmdstat_get:calls=3,usec=30,usec_per_call=10.00,failed_calls=0\r\n";
        let two = "# Commandstats\r\ncmdstat_set:calls=1,usec=1,usec_per_call=1.00,failed_calls=0\r\n\
                   cmdstat_get:calls=1,usec=2,usec_per_call=2.00,failed_calls=1\r\n";
        let told = merged(&[one, two]);
        for expected in [
            "cmdstat_get:calls=4,usec=32,usec_per_call=8.00,failed_calls=1\r\n",
            "cmdstat_set:calls=1,usec=1,usec_per_call=1.00,failed_calls=0\r\n",
        ] {
            assert_eq!(told.matches(expected).count(), 1, "{expected} in {told}");
        }
    }

    #[test]
    fn in_resp3_it_is_text_for_people() {
        let mut out = Vec::new();
        let frame =
            Frame { header: Some("# Sluice\r\n".to_owned()), clients: 1, ..Frame::default() };
        merge(&frame, &[b"=10\r\ntxt:role:x\r\n".to_vec()], &mut out);
        let merged = String::from_utf8(out).unwrap();
        assert!(merged.starts_with("=") && merged.contains("\r\ntxt:# Sluice\r\n"), "{merged}");
        assert_eq!(merged.matches("txt:").count(), 1);
        assert!(merged.contains("\r\nrole:x\r\n"), "{merged}");
    }

    /// Each one was followed by all databases: 1 MB of them made gigabytes.
    #[test]
    fn the_databases_are_told_once() {
        let text = "# Keyspace\r\n".repeat(3) + "db0:keys=18446744073709551615\r\ndb0:keys=1\r\n";
        let told = merged(&[&text]);
        assert_eq!(told.matches("db0:keys=").count(), 1, "{told}");
    }
}
