//! What is wrong with a configuration, all of it at once, each with its place in the file and the
//! line shown. Not what to do about it: the command line decides that.

use std::{fmt, ops::Range};

/// More findings than this are counted, not kept: nobody reads the hundredth.
const MAX_FINDINGS: usize = 100;

/// A longer line (in bytes) is not shown: no person wrote it.
const MAX_LINE: usize = 8 * 1024;

/// Columns of a line shown around a finding.
const MAX_EXCERPT: usize = 120;

/// Bytes of the file, from start to end.
pub(super) type Span = Range<usize>;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// It is wrong.
    Error,
    /// It is right, and this version cannot do it yet. An error all the same.
    NotSupported,
    /// It works and is probably not what was meant. The configuration is accepted.
    Hint,
}

/// A place in the file, both from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// One thing to say about a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    /// `None` when it is about the file as a whole.
    pub position: Option<Position>,
    /// Where in the tree: `clusters.cache.reads.from`; empty at its root.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
    excerpt: Option<Excerpt>,
}

/// The line of a finding as shown: passwords masked, control characters replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    text: String,
    indent: usize,
    carets: usize,
}

/// Everything found in one file, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    file: String,
    list: Vec<Finding>,
    /// Errors beyond those kept.
    more: usize,
}

impl Findings {
    /// The file's name as the user gave it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// True when nothing stands against using the configuration.
    pub fn accepted(&self) -> bool {
        self.errors() == 0
    }

    /// How many findings are not hints.
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|finding| finding.level != Level::Hint).count() + self.more
    }

    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.list.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// What a user sees: `file:line:column: path: what is wrong`, then the line with carets below.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.list {
            write!(f, "{}", self.file)?;
            if let Some(Position { line, column }) = finding.position {
                write!(f, ":{line}:{column}")?;
            }
            writeln!(f, ": {finding}")?;
            let (Some(Position { line, .. }), Some(excerpt)) = (finding.position, &finding.excerpt)
            else {
                continue;
            };
            let Excerpt { text, indent, carets } = excerpt;
            writeln!(f, "{line:>5} | {text}")?;
            writeln!(f, "      | {:indent$}{}", "", "^".repeat(*carets))?;
        }
        if self.more > 0 {
            writeln!(f, "{}: and {} more", self.file, self.more)?;
        }
        Ok(())
    }
}

/// Without file, position and excerpt.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.level == Level::Hint {
            f.write_str("hint: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean '{suggestion}'?"),
            None => Ok(()),
        }
    }
}

/// Collects findings while a file is read, and turns byte offsets into lines at the end.
#[derive(Debug)]
pub(super) struct Notes<'a> {
    file: &'a str,
    text: &'a str,
    lines: Vec<usize>,
    list: Vec<(Option<Span>, Finding)>,
    more: usize,
    errors: usize,
}

impl<'a> Notes<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        let starts = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        Self { file, text, lines, list: Vec::new(), more: 0, errors: 0 }
    }

    /// Says that something at `at` is wrong.
    pub(super) fn error(&mut self, at: &Span, path: &str, message: impl Into<String>) {
        self.add(Level::Error, Some(at), path, message.into(), None);
    }

    /// Says that something at `at` is wrong and what was probably meant.
    pub(super) fn mistaken(
        &mut self,
        at: &Span,
        path: &str,
        message: impl Into<String>,
        meant: Option<&str>,
    ) {
        self.add(Level::Error, Some(at), path, message.into(), meant.map(str::to_owned));
    }

    /// Says that `what` is for a later version.
    pub(super) fn not_supported(&mut self, at: &Span, path: &str, what: &str) {
        let message = format!("`{what}` is not supported yet");
        self.add(Level::NotSupported, Some(at), path, message, None);
    }

    /// Says that something works and is probably not what was meant.
    pub(super) fn hint(&mut self, at: &Span, path: &str, message: impl Into<String>) {
        self.add(Level::Hint, Some(at), path, message.into(), None);
    }

    /// Says that the file as a whole cannot be used.
    pub(super) fn whole_file(&mut self, message: impl Into<String>) {
        self.add(Level::Error, None, "", message.into(), None);
    }

    /// How many findings so far are not hints.
    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    /// True when what is added is only counted: the words for it need no work then.
    pub(super) fn full(&self) -> bool {
        self.list.len() >= MAX_FINDINGS
    }

    /// The place of a byte of the file.
    pub(super) fn position(&self, at: usize) -> Position {
        let line = self.lines.partition_point(|start| *start <= at).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..at).map_or(0, |before| before.chars().count()) + 1;
        Position { line, column }
    }

    /// All of it, in the order of the file.
    pub(super) fn finish(mut self) -> Findings {
        let mut list = std::mem::take(&mut self.list);
        for (span, finding) in &mut list {
            let Some(span) = span else { continue };
            let position = self.position(span.start);
            finding.position = Some(position);
            finding.excerpt = self.excerpt(span, position);
        }
        list.sort_by_key(|(_, finding)| finding.position);
        Findings {
            file: self.file.to_owned(),
            list: list.into_iter().map(|(_, finding)| finding).collect(),
            more: self.more,
        }
    }

    fn add(
        &mut self,
        level: Level,
        at: Option<&Span>,
        path: &str,
        message: String,
        suggestion: Option<String>,
    ) {
        if level != Level::Hint {
            self.errors += 1;
        }
        if self.full() {
            self.more += usize::from(level != Level::Hint);
            return;
        }
        let path = path.to_owned();
        let finding = Finding { level, position: None, path, message, suggestion, excerpt: None };
        self.list.push((at.cloned(), finding));
    }

    fn excerpt(&self, span: &Span, position: Position) -> Option<Excerpt> {
        let start = *self.lines.get(position.line - 1)?;
        let line = self.text.get(start..)?.lines().next().unwrap_or_default();
        if line.len() > MAX_LINE {
            return None;
        }
        let end = span.end.min(start + line.len());
        let marked = self.text.get(span.start..end).map_or(0, |marked| marked.chars().count());
        let first = position.column - 1;
        let fits = line.chars().count() <= MAX_EXCERPT;
        let skip = if fits { 0 } else { first.saturating_sub(MAX_EXCERPT / 2) };
        let shown = |c: char| if c.is_control() { ' ' } else { c };
        let text: String = mask(line).chars().map(shown).skip(skip).take(MAX_EXCERPT).collect();
        let indent = first - skip;
        Some(Excerpt {
            text: text.trim_end().to_owned(),
            indent,
            // A finding at the end of a line that just fits points behind the excerpt.
            carets: marked.clamp(1, MAX_EXCERPT.saturating_sub(indent).max(1)),
        })
    }
}

/// The line with `*` for every character of what looks like a password, a typing mistake in its
/// key included; a `${VARIABLE}` stays, it is no secret.
fn mask(line: &str) -> String {
    const SECRETS: [&str; 4] = ["pas", "pwd", "token", "secret"];
    let mut masked = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((key, value)) = rest.split_once(':') {
        masked.push_str(key);
        masked.push(':');
        let word = key.rsplit([' ', ',', '{', '"', '\'']).find(|word| !word.is_empty());
        let word = word.unwrap_or_default().to_ascii_lowercase();
        rest = value;
        if word == "keys" {
            let (shown, after) = mask_keys(value);
            masked.push_str(&shown);
            rest = after;
            continue;
        }
        if !SECRETS.iter().any(|secret| word.contains(secret)) || word.ends_with("_file") {
            continue;
        }
        let trimmed = value.trim_start_matches([' ', '"', '\'']);
        let (lead, _) = value.split_at(value.len() - trimmed.len());
        masked.push_str(lead);
        rest = trimmed;
        if trimmed.starts_with("${") {
            continue;
        }
        let stop = match lead.trim_start().chars().next() {
            Some(quote) => closing(trimmed, quote),
            None if masked.contains('{') => trimmed.find([',', '}']),
            None => trimmed.find(" #"),
        };
        let (secret, after) = trimmed.split_at(stop.unwrap_or(trimmed.len()));
        masked.extend(secret.chars().map(|_| '*'));
        rest = after;
    }
    masked + rest
}

/// The value of `keys` masked, and what follows it. A list of numbers is not of secrets: it is the
/// key positions of a command.
fn mask_keys(value: &str) -> (String, &str) {
    let end = match value.trim_start().chars().next() {
        Some('{') => 0,
        Some('[') => value.find(']').unwrap_or(value.len()),
        _ => value.find([',', '}', '#']).unwrap_or(value.len()),
    };
    let (keys, after) = value.split_at(end);
    let number = |item: &str| item.trim_matches([' ', '[']).parse::<i32>().is_ok();
    if keys.contains('[') && keys.split(',').all(number) {
        return (keys.to_owned(), after);
    }
    let hide = |c: char| if matches!(c, ' ' | ',' | '[' | '"' | '\'') { c } else { '*' };
    (keys.chars().map(hide).collect(), after)
}

/// Where a quoted text ends: `\"` and `''` are inside it.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            '\'' if quote == '\'' && chars.peek().is_some_and(|(_, next)| *next == '\'') => {
                chars.next();
            }
            _ if c == quote => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_shows_its_line_with_a_caret() {
        let text = "a: 1\nbé: wrong # why\n";
        let mut notes = Notes::new("f.yaml", text);
        let at = text.find("wrong").unwrap();
        notes.mistaken(&(at..at + 5), "bé", "'wrong' is no number", Some("1"));
        let findings = notes.finish();
        assert_eq!(
            findings.to_string(),
            "f.yaml:2:5: bé: 'wrong' is no number; did you mean '1'?\n    2 | bé: wrong # why\n      |     ^^^^^\n"
        );
        assert!(!findings.accepted());
    }

    #[test]
    fn findings_come_in_the_order_of_the_file_and_hints_are_no_errors() {
        let mut notes = Notes::new("f.yaml", "a\nb\n");
        notes.hint(&(2..3), "b", "later");
        notes.hint(&(0..1), "a", "first");
        let findings = notes.finish();
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["hint: a: first", "hint: b: later"]);
        assert!(findings.accepted());
    }

    #[test]
    fn a_flood_is_counted_not_kept() {
        let mut notes = Notes::new("f.yaml", "a");
        for _ in 0..1_000 {
            notes.error(&(0..1), "a", "no");
        }
        let findings = notes.finish();
        assert_eq!(findings.errors(), 1_000);
        assert_eq!(findings.iter().count(), MAX_FINDINGS);
        assert!(findings.to_string().ends_with("f.yaml: and 900 more\n"));
    }

    #[test]
    fn passwords_are_masked_and_long_lines_cut() {
        for (line, shown) in [
            ("x: { password: hunter2, b: 1 }", "x: { password: *******, b: 1 }"),
            ("pasword: \"hun,ter2\" # c", "pasword: \"********\" # c"),
            ("  password: a, b}c # why", "  password: ****** # why"),
            ("{ password: 'a''b', c: 1", "{ password: '****', c: 1"),
            (r#"{ password: "a\"b", c: 1"#, r#"{ password: "****", c: 1"#),
            ("password: ${SECRET} ", "password: ${SECRET} "),
            ("password_file: /run/x", "password_file: /run/x"),
            ("bind: 127.0.0.1:99", "bind: 127.0.0.1:99"),
            ("keys: [\"ab\", cd], mode: x", "keys: [\"**\", **], mode: x"),
            ("{ keys: ab, mode: x }", "{ keys: **, mode: x }"),
            ("{ access: read, keys: [1, -1, 2] }", "{ access: read, keys: [1, -1, 2] }"),
            ("keys: { a: b }", "keys: { a: b }"),
            ("keys: [ab", "keys: [**"),
            ("keys:", "keys:"),
        ] {
            assert_eq!(mask(line), shown);
        }
        for (spaces, lines) in [(5_000, 3), (100_000, 1)] {
            let text = format!("{}x", " ".repeat(spaces));
            let mut notes = Notes::new("f.yaml", &text);
            notes.error(&(spaces..spaces + 1), "", "here");
            let shown = notes.finish().to_string();
            assert!(shown.len() < 500 && shown.lines().count() == lines, "{shown}");
        }
    }

    #[test]
    fn a_finding_behind_a_line_of_the_full_width_has_its_caret() {
        let text = "x".repeat(MAX_EXCERPT);
        let mut notes = Notes::new("f.yaml", &text);
        notes.error(&(MAX_EXCERPT..MAX_EXCERPT), "", "more was expected");
        let shown = notes.finish().to_string();
        assert!(shown.ends_with(&format!("{}^\n", " ".repeat(MAX_EXCERPT))), "{shown}");
    }

    #[test]
    fn positions_outside_the_text_do_not_panic() {
        for text in ["", "é", "a\r\nb"] {
            for at in 0..10 {
                for end in 0..10 {
                    let mut notes = Notes::new("f", text);
                    notes.error(&(at..end), "", "x");
                    let _ = notes.finish().to_string();
                }
            }
        }
    }
}
