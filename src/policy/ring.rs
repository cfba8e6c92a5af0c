//! Ketama's ring: points of every member on a circle of 2^32, a hash belongs to the next one. Point
//! for point that of twemproxy 0.5 and libmemcached. Not the hash of a key: that is [`super::hash`].

use super::hash::md5_word;

/// Points of a member of average weight, four by each MD5 (twemproxy, nc_ketama.c).
const POINTS: u32 = 160;
const PER_DIGEST: u32 = 4;

/// The points in ascending order, each with the place of its member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring(Box<[(u32, u16)]>);

impl Ring {
    /// The ring of `members`, each with what it is known by and a weight (0 counts as 1); at most
    /// 65,536. A member whose share of the weight is below a fortieth of the average has no point.
    pub fn new<'n>(members: impl Iterator<Item = (&'n str, u32)> + Clone) -> Self {
        let live = members.clone().fold(0.0_f32, |live, _| live + 1.0);
        let total = members.clone().map(|(_, weight)| weight.max(1)).sum::<u32>();
        let mut points = Vec::new();
        for (place, (name, weight)) in (0..=u16::MAX).zip(members) {
            for digest in 0..digests(weight.max(1), total, live) {
                let text = format!("{name}-{digest}");
                points.extend((0..4).map(|word| (md5_word(text.as_bytes(), word), place)));
            }
        }
        // Stable: of two members with one point the first in the file has it.
        points.sort_by_key(|(point, _)| *point);
        Self(points.into())
    }

    /// The place of the member that a hash belongs to; 0 when there are no points.
    pub fn get(&self, hash: u32) -> usize {
        let next = self.0.partition_point(|(point, _)| *point < hash);
        let found = self.0.get(next).or_else(|| self.0.first());
        found.map_or(0, |(_, place)| usize::from(*place))
    }
}

/// How many digests a member has, in twemproxy's single precision.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded as twemproxy rounds; the result is 0 to 40 x 65,536"
)]
fn digests(weight: u32, total: u32, live: f32) -> u32 {
    let share = weight as f32 / total as f32;
    let exact = share * POINTS as f32 / PER_DIGEST as f32 * live;
    ((f64::from(exact) + 0.000_000_000_1) as f32).floor() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(ring: &Ring, members: usize) -> Vec<usize> {
        let mut points = vec![0; members];
        ring.0.iter().for_each(|(_, place)| points[usize::from(*place)] += 1);
        points
    }

    #[test]
    fn members_have_points_by_weight() {
        let ring = Ring::new([("a", 1), ("b", 1), ("c", 2)].into_iter());
        assert_eq!(owners(&ring, 3), [120, 120, 240]);
        let ring = Ring::new([("a", 1), ("b", 1_000)].into_iter());
        assert_eq!(owners(&ring, 2), [0, 316], "as twemproxy: too light for a point");
    }

    #[test]
    fn beyond_the_last_point_comes_the_first() {
        let ring = Ring::new([("a", 1), ("b", 1)].into_iter());
        let (first, last) = (ring.0[0], ring.0[ring.0.len() - 1]);
        assert_eq!(ring.get(first.0), usize::from(first.1));
        assert_eq!(ring.get(last.0), usize::from(last.1));
        assert_eq!(ring.get(last.0.wrapping_add(1)), usize::from(first.1));
        assert_eq!(Ring::new([].into_iter()).get(7), 0);
    }
}
