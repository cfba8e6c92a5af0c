//! What was asked, what was applied and what was answered, and every way in which the three may
//! not disagree. It sends nothing and knows no socket.

use std::collections::HashMap;

/// Every key that a request names, by number: the number goes with it on the wire.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    mentions: Vec<Mention>,
    /// By database and key: which write made it what it is, and when.
    values: HashMap<(u8, usize), Vec<(u64, usize)>>,
    /// Counts applications: the order of everything that changed a value.
    pub(crate) event: u64,
    pub(crate) violations: Vec<String>,
    trace: Vec<String>,
    pub(crate) now_ms: u64,
    pub(crate) replies: u64,
    pub(crate) errors: u64,
}

/// One key of one request.
#[derive(Clone, Debug)]
pub(crate) struct Mention {
    pub(crate) key: usize,
    pub(crate) db: u8,
    pub(crate) write: bool,
    /// Control's step when it was sent.
    pub(crate) sent_step: usize,
    pub(crate) sent_event: u64,
    pub(crate) applied: u32,
    pub(crate) fate: Fate,
}

/// What the client was told of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing yet.
    Pending,
    /// `+OK`.
    Done,
    /// An error that says that it was not executed.
    Untouched,
    /// An error that says that nobody knows, or the client is gone.
    Unknown,
}

impl Ledger {
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.trace.push(format!("{:>6}ms {}", self.now_ms, text.into()));
    }

    pub(crate) fn violation(&mut self, text: impl Into<String>) {
        let text = format!("{}ms: {}", self.now_ms, text.into());
        self.trace.push(format!("!!! {text}"));
        self.violations.push(text);
    }

    /// The newest lines of the story.
    pub(crate) fn tail(&self) -> String {
        self.trace[self.trace.len().saturating_sub(80)..].join("\n")
    }

    /// A new mention; its number.
    pub(crate) fn mention(&mut self, key: usize, db: u8, write: bool, sent_step: usize) -> usize {
        self.mentions.push(Mention {
            key,
            db,
            write,
            sent_step,
            sent_event: self.event,
            applied: 0,
            fate: Fate::Pending,
        });
        self.mentions.len() - 1
    }

    pub(crate) fn get(&self, id: usize) -> Option<&Mention> {
        self.mentions.get(id)
    }

    /// A server has executed a write.
    pub(crate) fn apply(&mut self, id: usize, server: usize) {
        let mention = &mut self.mentions[id];
        mention.applied += 1;
        let (applied, fate, at) = (mention.applied, mention.fate, (mention.db, mention.key));
        self.event += 1;
        self.values.entry(at).or_default().push((self.event, id));
        if applied > 1 {
            self.violation(format!("write {id} was applied {applied} times, now by b{server}"));
        }
        if fate == Fate::Untouched {
            self.violation(format!("write {id} was applied after its client heard it was not"));
        }
    }

    /// The write that a key has its value from.
    pub(crate) fn current(&self, db: u8, key: usize) -> Option<usize> {
        self.values.get(&(db, key)).and_then(|writes| writes.last()).map(|(_, id)| *id)
    }

    /// A client was told something of a write.
    pub(crate) fn told(&mut self, id: usize, fate: Fate) {
        self.mentions[id].fate = fate;
        let applied = self.mentions[id].applied;
        match (fate, applied) {
            (Fate::Done, 1) | (Fate::Untouched, 0) | (Fate::Unknown, 0 | 1) => {}
            _ => self.violation(format!("write {id}: told {fate:?}, applied {applied} times")),
        }
    }

    /// Whether a key may be seen as the write `found` left it (`None`: as it was before any write)
    /// by a read that was sent with mention `id` and is answered now.
    pub(crate) fn seen(&mut self, id: usize, found: Option<usize>) {
        let Mention { key, db, sent_event, .. } = self.mentions[id];
        let none = Vec::new();
        let writes = self.values.get(&(db, key)).unwrap_or(&none);
        // In force from its own event until the next one of its key.
        let next = match found {
            None => writes.first(),
            Some(found) => match writes.iter().position(|(_, write)| *write == found) {
                Some(at) => writes.get(at + 1),
                None => {
                    let text =
                        format!("read {id} of k{key}/{db} saw write {found}: not of its key");
                    return self.violation(text);
                }
            },
        };
        if next.is_some_and(|(event, _)| *event <= sent_event) {
            self.violation(format!(
                "read {id} of k{key}/{db} saw {found:?}, which was overwritten before it was sent"
            ));
        }
    }

    /// How many of these keys existed when the request was sent, and how many exist now.
    pub(crate) fn existing(&self, ids: &[usize]) -> (usize, usize) {
        let first = |id: usize| {
            let Mention { key, db, .. } = self.mentions[id];
            self.values.get(&(db, key)).and_then(|writes| writes.first()).map(|(event, _)| *event)
        };
        let then = ids
            .iter()
            .filter(|id| first(**id).is_some_and(|event| event <= self.mentions[**id].sent_event));
        (then.count(), ids.iter().filter(|id| first(**id).is_some()).count())
    }

    /// The last look: what clients were told must still be true.
    pub(crate) fn close(&mut self) {
        for id in 0..self.mentions.len() {
            let Mention { applied, fate, write, .. } = self.mentions[id];
            let right = match fate {
                Fate::Done => applied == u32::from(write),
                Fate::Untouched => applied == 0,
                Fate::Pending | Fate::Unknown => applied <= 1,
            };
            if !right {
                self.violation(format!("at the end write {id} is {fate:?}, applied {applied}"));
            }
        }
    }
}

/// A key as it goes over the wire: all mentions of a key hash alike.
pub(crate) fn wire_key(key: usize, id: usize) -> Vec<u8> {
    format!("{{k{key}}}#{id}").into_bytes()
}

/// The key and the mention's number of a key from the wire.
pub(crate) fn parse_key(bytes: &[u8]) -> Option<(usize, usize)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (key, id) = text.strip_prefix("{k")?.split_once("}#")?;
    Some((key.parse().ok()?, id.parse().ok()?))
}

/// What a write writes: one in so many is big enough to be streamed.
pub(crate) fn value(key: usize, db: u8, id: usize) -> Vec<u8> {
    let mut value = format!("k{key}/{db}#{id}!").into_bytes();
    if id.is_multiple_of(BIG_EVERY) {
        value.extend(vec![b'0' + u8::try_from(id % 10).unwrap(); BIG_VALUE]);
    }
    value
}

/// The write that a value comes from.
pub(crate) fn write_of(value: &[u8]) -> Option<usize> {
    let end = value.iter().position(|byte| *byte == b'!')?;
    let start = value.iter().position(|byte| *byte == b'#')?;
    std::str::from_utf8(value.get(start + 1..end)?).ok()?.parse().ok()
}

const BIG_EVERY: usize = 41;
const BIG_VALUE: usize = 120_000;
