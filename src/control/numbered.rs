//! Rows by numbers of which none is given twice: who keeps a number finds the same row under it, or
//! none. Not what the rows are.

use std::collections::BTreeMap;

/// Rows in the order in which they came.
#[derive(Debug)]
pub(super) struct Numbered<T> {
    rows: BTreeMap<usize, T>,
    next: usize,
}

impl<T> Numbered<T> {
    /// The number of the row that comes next.
    pub(super) fn next(&self) -> usize {
        self.next
    }

    /// Adds a row, and gives its number.
    pub(super) fn push(&mut self, row: T) -> usize {
        let number = self.next;
        self.next += 1;
        self.rows.insert(number, row);
        number
    }

    pub(super) fn remove(&mut self, number: usize) -> Option<T> {
        self.rows.remove(&number)
    }

    pub(super) fn get(&self, number: usize) -> Option<&T> {
        self.rows.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.rows.get_mut(&number)
    }

    /// The rows, in the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.rows.values()
    }

    /// The rows and their numbers.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (usize, &T)> + Clone {
        self.rows.iter().map(|(number, row)| (*number, row))
    }

    /// The numbers of the rows that are there now.
    pub(super) fn numbers(&self) -> Vec<usize> {
        self.rows.keys().copied().collect()
    }
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), next: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_once() {
        let mut rows = Numbered::default();
        assert_eq!([rows.push('a'), rows.push('b')], [0, 1]);
        assert_eq!(rows.remove(1), Some('b'));
        assert_eq!((rows.get(1), rows.next()), (None, 2));
        assert_eq!(rows.push('c'), 2);
        assert_eq!(rows.numbers(), [0, 2]);
        assert_eq!(rows.iter().collect::<String>(), "ac");
    }
}
