//! Shards that own ranges of keys, by number or by letter.

use memchr::memmem;

/// Bounds, and the part of a key that is compared with them.
#[derive(Clone, Debug)]
pub struct Range {
    /// What comes after the first of these counts; `None`: the whole key does.
    pub separator: Option<Vec<u8>>,
    pub bounds: Bounds,
    /// The shard of keys that have no such part, or no number in it.
    pub default: usize,
}

/// Where a shard ends and the next begins, ascending: the first shard owns what is below the first
/// bound, the second begins at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bounds {
    Numeric(Vec<i64>),
    /// Compared byte by byte.
    Lexical(Vec<Vec<u8>>),
}

impl Range {
    pub(super) fn owner(&self, key: &[u8]) -> usize {
        let Some(part) = self.part(key) else { return self.default };
        match &self.bounds {
            Bounds::Numeric(bounds) => number(part)
                .map_or(self.default, |number| bounds.partition_point(|bound| *bound <= number)),
            Bounds::Lexical(bounds) => bounds.partition_point(|bound| bound.as_slice() <= part),
        }
    }

    pub(super) fn reason(&self, key: &[u8]) -> String {
        match (self.part(key), &self.bounds) {
            (None, _) => "the default: the separator is not in it".to_owned(),
            (Some(part), Bounds::Lexical(_)) => format!("the range of {}", part.escape_ascii()),
            (Some(part), Bounds::Numeric(_)) => match number(part) {
                Some(number) => format!("the range of {number}"),
                None => "the default: it has no number there".to_owned(),
            },
        }
    }

    fn part<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        let Some(separator) = &self.separator else { return Some(key) };
        let at = memmem::find(key, separator)?;
        key.get(at + separator.len()..)
    }
}

/// The number that a text begins with; one that does not fit is as the largest or smallest.
fn number(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let len = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = digits.get(..len).filter(|digits| !digits.is_empty())?;
    let size = digits
        .iter()
        .fold(0_i64, |size, digit| size.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    Some(if is_negative { -size } else { size })
}
