//! Nested replies of several shards put together by their names: MEMORY STATS, LATENCY HISTOGRAM and
//! LATENCY LATEST. Not flat ones: those are [`super::gather`]'s own.

use super::{class::Resp, reply, table::Tree, tree::Value, wire};
use std::collections::{BTreeMap, HashMap};

/// A merged value.
enum Merged<'a> {
    Text(&'a [u8]),
    Integer(i64),
    Array(Vec<Self>),
    /// Names and values in turn.
    Map(Vec<Self>),
}

/// Writes the merged reply of `parts`, which were measured before, for a reader of `resp`. The parts
/// themselves are in RESP2.
pub(super) fn merge(how: Tree, resp: Resp, parts: &[Vec<u8>], out: &mut Vec<u8>) {
    let parsed: Option<Vec<Value<'_>>> = parts.iter().map(|part| Value::parse(part)).collect();
    let Some(values) = parsed else {
        return reply::raw_error(out, reply::OTHER_KIND);
    };
    let merged = match how {
        Tree::Stats | Tree::Histogram => by_name(&values),
        Tree::Latest => latest(&values),
    };
    write(&merged, resp, out);
}

/// Integers are added up, arrays of names and values merged name by name; of all else the first.
fn by_name<'a>(values: &[Value<'a>]) -> Merged<'a> {
    if let Some(numbers) = values.iter().map(Value::integer).collect::<Option<Vec<i64>>>() {
        return Merged::Integer(numbers.into_iter().fold(0, i64::saturating_add));
    }
    if let Some(bounds) = values.iter().map(bounds).collect::<Option<Vec<_>>>() {
        return up_to(&bounds);
    }
    let Some(lists) = values.iter().map(pairs).collect::<Option<Vec<_>>>() else {
        return values.first().map_or_else(|| Merged::Array(Vec::new()), Merged::of);
    };
    let mut places: HashMap<&'a [u8], usize> = HashMap::new();
    let mut merged: Vec<(&'a [u8], Vec<Value<'a>>)> = Vec::new();
    for (name, value) in lists.into_iter().flatten() {
        let place = *places.entry(name).or_insert(merged.len());
        match merged.get_mut(place) {
            Some((_, all)) => all.push(value),
            None => merged.push((name, vec![value])),
        }
    }
    let each = merged.into_iter().flat_map(|(name, all)| [Merged::Text(name), by_name(&all)]);
    Merged::Map(each.collect())
}

/// An array of names and values.
fn pairs<'a>(value: &Value<'a>) -> Option<Vec<(&'a [u8], Value<'a>)>> {
    let (pairs, []) = value.array()?.as_chunks::<2>() else { return None };
    let pair = |[name, value]: &[Value<'a>; 2]| match name {
        Value::Text(name) => Some((*name, value.clone())),
        _ => None,
    };
    pairs.iter().map(pair).collect()
}

/// An array of bounds, which rise, and how many are up to each.
fn bounds(value: &Value<'_>) -> Option<Vec<(i64, i64)>> {
    let (pairs, []) = value.array()?.as_chunks::<2>() else { return None };
    if pairs.len() > MOST_BOUNDS {
        return None;
    }
    let all = pairs.iter().map(|[bound, count]| Some((bound.integer()?, count.integer()?)));
    let all: Vec<_> = all.collect::<Option<_>>()?;
    (!all.is_empty() && all.is_sorted_by_key(|(bound, _)| *bound)).then_some(all)
}

/// A server leaves out a bound up to which there are no more than up to the one before.
fn up_to<'a>(parts: &[Vec<(i64, i64)>]) -> Merged<'a> {
    let all: BTreeMap<i64, i64> = parts
        .iter()
        .flatten()
        .map(|&(bound, _)| {
            let of = |part: &Vec<(i64, i64)>| {
                part.iter().take_while(|(other, _)| *other <= bound).last().map_or(0, |one| one.1)
            };
            (bound, parts.iter().map(of).fold(0, i64::saturating_add))
        })
        .collect();
    let flat = all.into_iter().flat_map(|(a, b)| [Merged::Integer(a), Merged::Integer(b)]);
    Merged::Map(flat.collect())
}

/// Of each event when it was last seen, how long that took, and the longest.
fn latest<'a>(values: &[Value<'a>]) -> Merged<'a> {
    let mut events: BTreeMap<&'a [u8], [i64; 3]> = BTreeMap::new();
    for event in values.iter().filter_map(Value::array).flatten() {
        let Some([Value::Text(name), time, last, longest]) = event.array() else { continue };
        let seen = [time, last, longest].map(|number| number.integer().unwrap_or(0));
        let all = events.entry(*name).or_insert(seen);
        let longest = all[2].max(seen[2]);
        *all = (*all).max(seen);
        all[2] = longest;
    }
    let event = |(name, seen): (&'a [u8], [i64; 3])| {
        let numbers = seen.map(Merged::Integer);
        Merged::Array(std::iter::once(Merged::Text(name)).chain(numbers).collect())
    };
    Merged::Array(events.into_iter().map(event).collect())
}

impl<'a> Merged<'a> {
    /// One value as it is.
    fn of(value: &Value<'a>) -> Self {
        match value {
            Value::Text(text) => Self::Text(text),
            Value::Integer(number) => Self::Integer(*number),
            Value::Array(values) => Self::Array(values.iter().map(Self::of).collect()),
        }
    }
}

fn write(value: &Merged<'_>, resp: Resp, out: &mut Vec<u8>) {
    match value {
        Merged::Text(text) => wire::bulk(out, text),
        Merged::Integer(number) => wire::integer(out, *number),
        Merged::Array(values) => {
            wire::array(out, values.len());
            values.iter().for_each(|value| write(value, resp, out));
        }
        Merged::Map(pairs) => {
            wire::map(out, resp, pairs.len() / 2);
            pairs.iter().for_each(|value| write(value, resp, out));
        }
    }
}

/// latency.c: one for each power of two.
const MOST_BOUNDS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(how: Tree, parts: &[&str]) -> String {
        let parts: Vec<Vec<u8>> =
            parts.iter().map(|part| part.replace(' ', "\r\n").into_bytes()).collect();
        let mut out = Vec::new();
        merge(how, Resp::Two, &parts, &mut out);
        String::from_utf8(out).unwrap().replace("\r\n", " ")
    }

    #[test]
    fn numbers_are_added_name_by_name() {
        let one = "*6 $1 a :1 $1 r $3 0.5 $2 db *2 $1 k :2 ";
        let two = "*6 $1 a :10 $1 r $3 0.7 $3 db1 *2 $1 k :5 ";
        assert_eq!(
            merged(Tree::Stats, &[one, two]),
            "*8 $1 a :11 $1 r $3 0.5 $2 db *2 $1 k :2 $3 db1 *2 $1 k :5 "
        );
        assert!(merged(Tree::Stats, &["*1 ", one]).starts_with("-ERR sluice"));
    }

    #[test]
    fn a_bound_that_a_shard_leaves_out_has_what_is_below_it() {
        let one = "*2 $3 get *4 $5 calls :5 $4 hist *4 :1 :2 :8 :5 ";
        let two = "*2 $3 get *4 $5 calls :3 $4 hist *2 :4 :3 ";
        assert_eq!(
            merged(Tree::Histogram, &[one, two]),
            "*2 $3 get *4 $5 calls :8 $4 hist *6 :1 :2 :4 :5 :8 :8 "
        );
    }

    #[test]
    fn an_event_is_told_once_with_its_newest_and_its_longest() {
        let one = "*1 *4 $4 fork :100 :7 :90 ";
        let two = "*2 *4 $3 aof :5 :6 :6 *4 $4 fork :200 :8 :8 ";
        assert_eq!(
            merged(Tree::Latest, &[one, two]),
            "*2 *4 $3 aof :5 :6 :6 *4 $4 fork :200 :8 :90 "
        );
    }
}
