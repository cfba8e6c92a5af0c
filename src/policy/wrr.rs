//! The smooth weighted order of nginx, computed once. Not a pick: [`super::balance`] walks it.

/// The longest order: 64 members of the largest configurable weight, 1,000. Larger weights are
/// scaled down to about this, so that only their ratio's fourth digit is lost.
const LONGEST: u64 = 64_000;

/// A sequence in which each index appears as often as its weight says, spread out: of the weights
/// 5, 1, 1 it is 0 0 1 0 2 0 0 (nginx commit 52327e0627f4, `ngx_http_upstream_get_peer`: everybody
/// earns its weight, the richest is next and pays the sum). A weight of 0 counts as 1. At most 256
/// weights are looked at.
pub fn order(weights: &[u32]) -> Box<[u8]> {
    let weights = shrink(weights);
    let sum: i64 = weights.iter().sum();
    let mut credits = vec![0_i64; weights.len()];
    let mut order = Vec::new();
    for _ in 0..sum {
        let mut best: Option<(u8, &mut i64)> = None;
        for ((i, credit), weight) in (0_u8..=u8::MAX).zip(&mut credits).zip(&weights) {
            *credit += weight;
            if best.as_ref().is_none_or(|(_, richest)| *credit > **richest) {
                best = Some((i, credit));
            }
        }
        if let Some((i, credit)) = best {
            *credit -= sum;
            order.push(i);
        }
    }
    order.into()
}

/// The smallest weights of the same ratio, at least 1 each.
fn shrink(weights: &[u32]) -> Vec<i64> {
    let weights = || weights.iter().take(256).map(|weight| u64::from(*weight).max(1));
    let divisor = weights().fold(0, greatest_common_divisor).max(1);
    let sum = weights().sum::<u64>() / divisor;
    let scaled = weights().map(|weight| {
        let weight = weight / divisor;
        if sum > LONGEST { (weight * LONGEST / sum).max(1) } else { weight }
    });
    scaled.filter_map(|weight| i64::try_from(weight).ok()).collect()
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nginx_s_own_example() {
        assert_eq!(*order(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn the_edges() {
        assert!(order(&[]).is_empty());
        assert_eq!(*order(&[7]), [0]);
        assert_eq!(*order(&[3, 3, 3]), [0, 1, 2]);
        assert_eq!(*order(&[0, 0]), [0, 1]);
        let huge = order(&[u32::MAX, u32::MAX / 3, 1]);
        assert!(huge.len() <= 64_003, "{}", huge.len());
        assert!(huge.contains(&2), "the lightest is never picked");
    }

    proptest! {
        #[test]
        fn everybody_gets_its_weight_evenly_spread(weights in prop::collection::vec(1_u32..30, 1..12)) {
            let order = order(&weights);
            let sum: u32 = weights.iter().sum();
            for (i, weight) in weights.iter().enumerate() {
                let times = order.iter().filter(|at| usize::from(**at) == i).count();
                prop_assert_eq!(times * sum as usize, *weight as usize * order.len());
                // Never far ahead of its share at any prefix (smoothness).
                let mut seen = 0.0;
                for (at, index) in order.iter().enumerate() {
                    seen += f64::from(u8::from(usize::from(*index) == i));
                    let fair = (at + 1) as f64 * f64::from(*weight) / f64::from(sum);
                    prop_assert!((seen - fair).abs() <= 1.0 + weights.len() as f64 / 2.0);
                }
            }
        }
    }
}
