//! "Did you mean ...?": the nearest of the allowed words. Not a spelling checker: a word that is
//! not near any gets no suggestion.

/// Longer words are not worth comparing: no word of ours comes near.
const MAX_WORD: usize = 64;

/// The allowed word nearest to `word`, if it is within a third of its length.
pub(crate) fn nearest<'a>(
    word: &str,
    allowed: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if word.len() > MAX_WORD {
        return None;
    }
    let word: Vec<char> = word.to_lowercase().chars().collect();
    let limit = word.len().div_ceil(3);
    allowed
        .into_iter()
        .filter(|other| other.len() <= MAX_WORD)
        .map(|other| (distance(&word, other), other))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, other)| other)
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn distance(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous_a = None;
    for (i, &ca) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        let mut left = i + 1;
        row.push(left);
        let mut previous_b = None;
        for (j, &cb) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX);
            let mut cost = (at(&last, j) + usize::from(ca != cb)).min(at(&last, j + 1) + 1);
            cost = cost.min(left + 1);
            if j > 0 && previous_a == Some(cb) && previous_b == Some(ca) {
                cost = cost.min(at(&before, j - 1) + 1);
            }
            row.push(cost);
            left = cost;
            previous_b = Some(cb);
        }
        before = std::mem::replace(&mut last, row);
        previous_a = Some(ca);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_find_their_word() {
        let words = ["check", "reads", "shards", "timeouts", "prefer_replica", "primary"];
        for (typed, meant) in [
            ("chekc", Some("check")),
            ("Check", Some("check")),
            ("shard", Some("shards")),
            ("timeout", Some("timeouts")),
            ("prefer_replika", Some("prefer_replica")),
            ("prefer-replica", Some("prefer_replica")),
            ("banana", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, words), meant, "{typed}");
        }
        assert_eq!(nearest(&"x".repeat(10_000), words), None);
    }

    #[test]
    fn distances_are_the_known_ones() {
        for (a, b, expected) in [("kitten", "sitting", 3), ("ab", "ba", 1), ("", "abc", 3)] {
            let a: Vec<char> = a.chars().collect();
            assert_eq!(distance(&a, b), expected);
        }
    }
}
