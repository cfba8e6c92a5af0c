//! Maglev's look-up table: which member a hash belongs to, such that few hashes move when a member
//! comes or goes. Not a choice among ready ones: [`super::balance`] hashes again past the others.

use super::dice::mix;

/// Entries: a prime much larger than 100 x the 64 members of a group (Eisenbud et al., "Maglev: A
/// Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4, which uses 65,537 too).
/// The shares of 1,024 shards differ by up to 2 %.
pub const ENTRIES: u64 = 65_537;

/// The table. Two processes that know the same members by the same ids agree on every hash.
#[derive(Clone, Debug)]
pub struct Maglev(Box<[u16]>);

/// A member's walk over the table: its preferences, most wanted first.
struct Walk {
    place: u16,
    at: u64,
    skip: u64,
    weight: u64,
    credit: u64,
}

const FREE: u16 = u16::MAX;

/// The id of a member by its name: two processes agree on it, whatever else they know (FNV-1a,
/// 64 bits, draft-eastlake-fnv).
pub const fn stable_id(name: &[u8]) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    let mut rest = name;
    while let [byte, after @ ..] = rest {
        hash = (hash ^ *byte as u64).wrapping_mul(0x0000_0100_0000_01B3);
        rest = after;
    }
    hash
}

impl Maglev {
    /// The table of `members`, each a stable id and a weight (0 counts as 1). Entries are shared in
    /// proportion to the weights. At most 1,024 members are looked at; no members, an empty table.
    /// Takes some milliseconds: not for the request path.
    pub fn new(members: impl IntoIterator<Item = (u64, u32)>) -> Self {
        let members = (0..1_024).zip(members);
        Self::of_places(members.map(|(place, (id, weight))| (place, id, weight)))
    }

    /// As [`Self::new`] of some members of a list: each is a place in it, an id and a weight.
    pub fn of_places(members: impl Iterator<Item = (u16, u64, u32)>) -> Self {
        let mut walks: Vec<Walk> = members.map(Walk::new).collect();
        let Some(heaviest) = walks.iter().map(|walk| walk.weight).max() else {
            return Self(Box::default());
        };
        let mut table = vec![FREE; usize::try_from(ENTRIES).unwrap_or_default()];
        let mut free = table.len();
        while free > 0 {
            for walk in &mut walks {
                walk.credit += walk.weight;
                if walk.credit >= heaviest && free > 0 {
                    walk.credit -= heaviest;
                    walk.claim(&mut table);
                    free -= 1;
                }
            }
        }
        Self(table.into())
    }

    /// The place of a member in the list given to [`Self::new`]; `None` when there was none.
    #[inline]
    pub fn get(&self, hash: u64) -> Option<usize> {
        let entry = usize::try_from(hash % ENTRIES).ok()?;
        self.0.get(entry).map(|member| usize::from(*member))
    }
}

impl Walk {
    fn new((place, id, weight): (u16, u64, u32)) -> Self {
        let (offset, skip) = (mix(id), mix(!id));
        Self {
            place,
            at: offset % ENTRIES,
            skip: skip % (ENTRIES - 1) + 1,
            weight: u64::from(weight).max(1),
            credit: 0,
        }
    }

    /// Takes the free entry it wants most. There must be one: the length is prime, so a walk meets
    /// every entry.
    fn claim(&mut self, table: &mut [u16]) {
        loop {
            let wanted = usize::try_from(self.at).ok().and_then(|at| table.get_mut(at));
            self.at = (self.at + self.skip) % ENTRIES;
            if let Some(entry) = wanted.filter(|entry| **entry == FREE) {
                *entry = self.place;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_published_function() {
        // Test vectors of draft-eastlake-fnv.
        assert_eq!(stable_id(b""), 0xCBF2_9CE4_8422_2325);
        assert_eq!(stable_id(b"foobar"), 0x8594_4171_F739_67E8);
    }

    fn shares(table: &Maglev, members: usize) -> Vec<usize> {
        let mut shares = vec![0; members];
        (0..ENTRIES).for_each(|hash| shares[table.get(hash).unwrap()] += 1);
        shares
    }

    #[test]
    fn entries_are_shared_evenly() {
        let table = Maglev::new((0..10).map(|id| (id, 1)));
        for share in shares(&table, 10) {
            assert!((6_553..=6_554).contains(&share), "{share}");
        }
    }

    #[test]
    fn entries_are_shared_by_weight() {
        let weights = [1, 2, 5, 0];
        let table = Maglev::new(weights.iter().enumerate().map(|(id, w)| (id as u64, *w)));
        for (share, weight) in shares(&table, 4).into_iter().zip([1, 2, 5, 1]) {
            let fair = 65_537 * weight / 9;
            assert!(share.abs_diff(fair) <= 9, "weight {weight}: {share}, not {fair}");
        }
    }

    #[test]
    fn nobody_gives_an_empty_table() {
        assert_eq!(Maglev::new([]).get(12), None);
    }

    #[test]
    fn members_with_one_id_still_share() {
        let table = Maglev::new([(7, 1), (7, 1)]);
        assert_eq!(shares(&table, 2), [32_769, 32_768]);
    }

    #[test]
    fn removing_one_of_n_moves_about_one_in_n() {
        for members in [3_u64, 10, 40] {
            let ids = |gone: Option<u64>| (100..100 + members).filter(move |id| Some(*id) != gone);
            let before = Maglev::new(ids(None).map(|id| (id, 1)));
            for gone in [100, 100 + members / 2, 99 + members] {
                let after = Maglev::new(ids(Some(gone)).map(|id| (id, 1)));
                let owner =
                    |table: &Maglev, hash, gone| ids(gone).nth(table.get(hash).unwrap()).unwrap();
                let moved = (0..ENTRIES)
                    .filter(|hash| owner(&before, *hash, None) != owner(&after, *hash, Some(gone)))
                    .count() as f64;
                let fair = ENTRIES as f64 / members as f64;
                assert!(
                    (fair - 1.0..1.25 * fair).contains(&moved),
                    "{members} members: {moved} of {ENTRIES} moved, {fair} would be the least"
                );
            }
        }
    }
}
