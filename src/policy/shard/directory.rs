//! Shards that own the keys written down for them.

use std::collections::HashMap;

/// Keys and beginnings of keys, each with its shard.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    exact: HashMap<Vec<u8>, usize>,
    /// By length, the longest first.
    prefixes: Vec<(usize, HashMap<Vec<u8>, usize>)>,
    default: usize,
}

impl Directory {
    /// `entries` are keys, or with a `*` at their end beginnings of keys; what no entry names belongs
    /// to `default`.
    pub fn new<'e>(entries: impl Iterator<Item = (&'e str, usize)>, default: usize) -> Self {
        let mut directory = Self { default, ..Self::default() };
        for (entry, shard) in entries {
            let Some(prefix) = entry.strip_suffix('*') else {
                directory.exact.insert(entry.into(), shard);
                continue;
            };
            let known = directory.prefixes.iter().position(|(len, _)| *len == prefix.len());
            let at = known.unwrap_or_else(|| {
                directory.prefixes.push((prefix.len(), HashMap::new()));
                directory.prefixes.len() - 1
            });
            if let Some((_, of_len)) = directory.prefixes.get_mut(at) {
                of_len.insert(prefix.into(), shard);
            }
        }
        directory.prefixes.sort_by_key(|(len, _)| std::cmp::Reverse(*len));
        directory
    }

    /// The exact entry, else that of the longest beginning.
    pub(super) fn owner(&self, key: &[u8]) -> usize {
        let exact = self.exact.get(key).copied();
        exact.or_else(|| self.prefix(key).map(|(_, shard)| shard)).unwrap_or(self.default)
    }

    pub(super) fn reason(&self, key: &[u8]) -> String {
        match self.prefix(key) {
            _ if self.exact.contains_key(key) => "its own entry".to_owned(),
            Some((prefix, _)) => format!("the entry {}*", prefix.escape_ascii()),
            None => "the default: no entry names it".to_owned(),
        }
    }

    fn prefix<'k>(&self, key: &'k [u8]) -> Option<(&'k [u8], usize)> {
        self.prefixes.iter().find_map(|(len, of_len)| {
            let prefix = key.get(..*len)?;
            of_len.get(prefix).map(|shard| (prefix, *shard))
        })
    }
}
