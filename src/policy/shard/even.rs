//! Which shard owns a slot when the configuration leaves it to us. Not the slot of a key: that is
//! [`slot`](super::super::slot).

use crate::policy::slot::SLOTS;

/// The owner of every slot: `even_slots(n)[slot]` is the index of a shard. Contiguous ranges in
/// the order of the shards, whose sizes differ by at most one, cut where `redis-cli --cluster
/// create` cuts (`clusterManagerCommandCreate`: shard i ends at `lround((i + 1) * 16384 / n - 1)`),
/// so three shards own 0-5460, 5461-10922 and 10923-16383. redis-cli adds up in single precision
/// and so is off by one slot here and there from 78 shards on; this is exact.
///
/// `shards` is 1 to 16,384. None gives an empty table; more are as 16,384, for a slot has one owner.
pub fn even_slots(shards: usize) -> Vec<u16> {
    let shards = u16::try_from(shards).unwrap_or(SLOTS).min(SLOTS);
    let mut slots = Vec::with_capacity(usize::from(SLOTS));
    for shard in 0..shards {
        slots.resize(end(shard, shards), shard);
    }
    slots
}

/// The first slot behind a shard: (shard + 1) * SLOTS / shards, halves rounded up as lround does.
fn end(shard: u16, shards: u16) -> usize {
    let doubled = 2 * (usize::from(shard) + 1) * usize::from(SLOTS) + usize::from(shards);
    doubled / (2 * usize::from(shards))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The last slot of each shard by redis-cli's own arithmetic, single precision included.
    fn redis_cli(shards: usize) -> Vec<usize> {
        let per_shard = 16_384.0 / shards as f32;
        let mut cursor = 0.0_f32;
        let mut lasts = Vec::new();
        for shard in 0..shards {
            let last = f64::from(cursor + per_shard - 1.0).round() as usize;
            lasts.push(if shard + 1 == shards { 16_383 } else { last });
            cursor += per_shard;
        }
        lasts
    }

    fn lasts(slots: &[u16]) -> Vec<usize> {
        let next = slots.iter().skip(1).copied().map(Some).chain([None]);
        let ends = slots.iter().zip(next).enumerate();
        ends.filter(|(_, (owner, next))| Some(**owner) != *next).map(|(slot, _)| slot).collect()
    }

    #[test]
    fn three_shards_are_cut_as_everybody_knows_them() {
        assert_eq!(lasts(&even_slots(3)), [5_460, 10_922, 16_383]);
    }

    #[test]
    fn cut_as_redis_cli_cuts() {
        for shards in 1..78 {
            assert_eq!(lasts(&even_slots(shards)), redis_cli(shards), "{shards} shards");
        }
    }

    #[test]
    fn the_ends_of_the_range() {
        assert!(even_slots(0).is_empty());
        assert!(even_slots(1).iter().all(|owner| *owner == 0));
        let every: Vec<u16> = (0..SLOTS).collect();
        assert_eq!(even_slots(16_384), every);
        assert_eq!(even_slots(usize::MAX), every);
    }

    proptest! {
        #[test]
        fn every_slot_has_an_owner_and_every_shard_an_even_run(shards in 1_usize..=16_384) {
            let slots = even_slots(shards);
            prop_assert_eq!(slots.len(), usize::from(SLOTS));
            prop_assert!(slots.is_sorted(), "ranges are not contiguous");
            let mut sizes = vec![0_usize; shards];
            for owner in &slots {
                sizes[usize::from(*owner)] += 1;
            }
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            prop_assert!(*least >= 1 && most - least <= 1, "{least} to {most} slots");
        }
    }
}
