//! Who owns each slot where the servers say so, and may say something else at any time. Not how
//! they are asked.

use crate::policy::slot::SLOTS;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
};

/// The owner of every slot, shared by all workers and kept for as long as the shards are the same.
///
/// Whoever changes what requests go by counts a turn first, so that who has looked an owner up and
/// then finds no new turn has seen no newer owner than those before it.
pub struct SlotTable {
    owners: Box<[AtomicU16]>,
    /// Of this table and those before and after it.
    turns: Arc<AtomicU64>,
}

impl Default for SlotTable {
    /// Nobody owns anything.
    fn default() -> Self {
        Self::with(Arc::default(), |_| None)
    }
}

impl SlotTable {
    fn with(turns: Arc<AtomicU64>, owner: impl Fn(u16) -> Option<usize>) -> Self {
        let owners = (0..SLOTS).map(|slot| AtomicU16::new(number(owner(slot)))).collect();
        Self { owners, turns }
    }

    /// The next table of the same cluster, whose shards stand in other places; `owner` tells the
    /// shard of a slot, `None` where nobody owns it.
    #[must_use]
    pub fn next(&self, owner: impl Fn(u16) -> Option<usize>) -> Self {
        self.turn();
        Self::with(Arc::clone(&self.turns), owner)
    }

    /// The shard that owns a slot.
    #[inline]
    pub fn owner(&self, slot: u16) -> Option<usize> {
        let owner = self.owners.get(usize::from(slot))?.load(Ordering::Acquire);
        (owner != NOBODY).then_some(usize::from(owner))
    }

    /// From now on `shard` owns a slot. Whether another one did.
    pub fn set(&self, slot: u16, shard: Option<usize>) -> bool {
        let Some(owner) = self.owners.get(usize::from(slot)) else { return false };
        let shard = number(shard);
        if owner.load(Ordering::Acquire) == shard {
            return false;
        }
        self.turn();
        owner.store(shard, Ordering::Release);
        true
    }

    /// Something is about to change by which requests find their server.
    pub fn turn(&self) {
        self.turns.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts the changes. Look the owner up first.
    #[inline]
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Acquire)
    }

    /// The owners in the order of the slots.
    pub fn owners(&self) -> impl Iterator<Item = Option<usize>> + '_ {
        (0..SLOTS).map(|slot| self.owner(slot))
    }
}

impl fmt::Debug for SlotTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owned = self.owners().flatten().count();
        f.debug_struct("SlotTable").field("owned", &owned).field("turns", &self.turns()).finish()
    }
}

fn number(shard: Option<usize>) -> u16 {
    shard.and_then(|shard| u16::try_from(shard).ok()).unwrap_or(NOBODY)
}

/// No cluster has so many shards: there are fewer slots.
const NOBODY: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_changes_and_is_counted_once() {
        let first = SlotTable::default();
        assert_eq!((first.owner(0), first.turns()), (None, 0));
        let table = first.next(|slot| (slot < 100).then_some(usize::from(slot % 2)));
        assert_eq!([table.owner(0), table.owner(1), table.owner(100)], [Some(0), Some(1), None]);
        assert_eq!((table.turns(), first.turns()), (1, 1), "who has the old one sees it too");
        assert!(table.set(100, Some(7)) && !table.set(100, Some(7)));
        assert_eq!((table.owner(100), table.turns()), (Some(7), 2));
        assert!(table.set(100, None));
        assert_eq!((table.owner(100), table.owners().flatten().count()), (None, 100));
        assert_eq!((table.owner(SLOTS), table.set(SLOTS, Some(1))), (None, false));
    }
}
