//! What happened while the table was shown: backends' events and what the demo did itself, each
//! with its time. Not the table.

use super::status::Event;
use std::{
    collections::VecDeque,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The newest notes, oldest first.
#[derive(Debug)]
pub(super) struct Notes {
    start: SystemTime,
    kept: VecDeque<String>,
    /// How many of them were not taken yet.
    fresh: usize,
}

impl Notes {
    /// Times count from now.
    pub(super) fn new() -> Self {
        Self { start: SystemTime::now(), kept: VecDeque::new(), fresh: 0 }
    }

    /// Something that happens now.
    pub(super) fn add(&mut self, text: &str) {
        self.push(SystemTime::now(), text);
    }

    /// A transition of a backend, at its own time.
    pub(super) fn add_event(&mut self, event: &Event) {
        let Event { shard, backend, from, to, cause, detail, time_ms } = event;
        let at = UNIX_EPOCH + Duration::from_millis(*time_ms);
        // Backends that are all alike have a shard without a name.
        let whose = format!("{shard} {backend}");
        self.push(at, &format!("{} {from} -> {to}: {cause}: {detail}", whose.trim_start()));
    }

    /// The lines of the newest notes, at most so many and so long.
    pub(super) fn newest(&self, columns: usize, lines: usize) -> Vec<String> {
        let mut all: Vec<String> = self.kept.iter().flat_map(|note| wrap(note, columns)).collect();
        all.split_off(all.len().saturating_sub(lines))
    }

    /// The lines of what was added since this was asked last.
    pub(super) fn take_fresh(&mut self, columns: usize) -> Vec<String> {
        let old = self.kept.len().saturating_sub(std::mem::take(&mut self.fresh));
        self.kept.iter().skip(old).flat_map(|note| wrap(note, columns)).collect()
    }

    fn push(&mut self, at: SystemTime, text: &str) {
        let after = at.duration_since(self.start).unwrap_or_default().as_secs_f64();
        self.kept.push_back(format!("{after:>6.1}s  {text}"));
        self.fresh += 1;
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }
}

/// Breaks a note at spaces; what follows stands under the text, not under the time.
fn wrap(note: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in note.split_inclusive(' ') {
        let longer = line.chars().count() + word.trim_end().chars().count();
        if longer > columns && line.len() > INDENT.len() {
            lines.push(line.trim_end().to_owned());
            line = INDENT.to_owned();
        }
        line += word;
    }
    lines.push(line.trim_end().to_owned());
    lines
}

const KEPT: usize = 32;
/// As wide as the time and one step more.
const INDENT: &str = "           ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_notes_are_broken_at_spaces_and_lose_nothing() {
        let note = "   5.0s  s0 127.0.0.1:1 ready -> ejected: hung: no answer to 2 probes";
        let lines = wrap(note, 40);
        assert_eq!(
            lines,
            [
                "   5.0s  s0 127.0.0.1:1 ready ->",
                "           ejected: hung: no answer to 2",
                "           probes"
            ]
        );
        assert_eq!(wrap(note, 100), [note]);
        assert_eq!(wrap(&"x".repeat(50), 20), ["x".repeat(50)]);
    }

    #[test]
    fn the_newest_are_shown_and_each_is_fresh_once() {
        let mut notes = Notes::new();
        (0..50).for_each(|n| notes.add(&format!("note {n}")));
        assert_eq!(notes.newest(80, 2).len(), 2);
        assert!(notes.newest(80, 2)[1].ends_with("note 49"));
        assert_eq!(notes.take_fresh(80).len(), KEPT);
        assert!(notes.take_fresh(80).is_empty());
        notes.add("one more");
        assert_eq!(notes.take_fresh(80).len(), 1);
    }
}
