//! `clusters.<name>.reads` as it would be written.

use super::{Entries, Out};
use crate::{
    config::{
        Cluster, keys,
        words::{self, word},
    },
    topology::{Consistency, Override},
};

pub(super) fn reads(cluster: &Cluster, defaults: bool) -> Entries {
    let written = &cluster.reads;
    let mut entries = Entries::new(&keys::READS, defaults);
    entries
        .text("from", word(words::READ_FROM, &written.from))
        .text("balance", word(words::STRATEGY, &written.balance));
    if cluster.protocol == crate::config::Protocol::Http {
        return entries;
    }
    entries.text("consistency", word(words::CONSISTENCY, &written.consistency));
    if written.consistency == Consistency::Window {
        entries.period("window", written.window);
    }
    if let Some(max_lag) = written.max_lag {
        entries.period("max_lag", max_lag);
    }
    if defaults || !written.overrides.is_empty() {
        let each = written.overrides.iter().map(|one| exception(one, defaults));
        entries.push("overrides", Out::List(each.collect()));
    }
    entries.text("scripts_declare_keys", written.scripts_declare_keys);
    entries
}

fn exception(written: &Override, defaults: bool) -> Out {
    let mut entries = Entries::new(&keys::OVERRIDE, defaults);
    entries
        .optional("prefix", written.prefix.as_deref())
        .optional("command", written.command.as_deref())
        .text("from", word(words::READ_FROM, &written.from));
    Out::Map(entries.list)
}
