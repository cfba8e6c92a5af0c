//! YAML text to a tree of nodes, each with its place in the file. Not the meaning of the nodes:
//! a scalar is text here, whatever it looks like.
//!
//! The tree is built from the events of the parser under serde-saphyr, not through its serde
//! side: a `Visitor` over `Spanned` ends at the first duplicate key, and reads `0x10` or `yes` as
//! something other than what was written. The only file that knows the YAML crate.

use super::finding::{Findings, Notes, Position, Span};
use serde_yaml::granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, Tag};
use std::{borrow::Cow, collections::HashMap, fs::File, io::Read, path::Path};

/// The largest file read. A thousand shards with replicas need a tenth of it.
pub(super) const MAX_FILE: usize = 1024 * 1024;

/// Lists and maps inside each other, aliases expanded; the deepest key of ours is at 7.
const MAX_DEPTH: usize = 32;

/// What the tree may weigh with every alias expanded, in bytes: against anchor bombs.
const MAX_TREE: usize = 32 * 1024 * 1024;

/// What a node weighs beside its text.
const NODE: usize = 64;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Span,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// `~`, `null`, or nothing at all.
    Null,
    /// Any other scalar, quoted or not.
    Scalar(String),
    List(Vec<Node>),
    /// In the order of the file, without duplicates.
    Map(Vec<(Key, Node)>),
}

/// A key of a map and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) at: Span,
    pub(super) name: String,
}

/// The text of a file, `-` for standard input; else the one finding that says why not.
pub(super) fn load(path: &Path) -> Result<String, Findings> {
    let name = path.to_string_lossy();
    let fail = |message: String| {
        let mut notes = Notes::new(&name, "");
        notes.whole_file(message);
        Err(notes.finish())
    };
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_FILE).unwrap_or(u64::MAX).saturating_add(1);
    let path = if path == Path::new("-") { Path::new("/dev/stdin") } else { path };
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    if let Err(error) = read {
        return fail(format!("the file cannot be read: {error}"));
    }
    if bytes.len() > MAX_FILE {
        return fail("the file is larger than 1MiB; is it a configuration?".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let bytes = error.as_bytes();
        let good = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(bytes.get(..good).unwrap_or_default());
        let mut notes = Notes::new(&name, &before);
        let byte = bytes.get(good).copied().unwrap_or_default();
        notes.error(&(good..good), "", format!("the byte 0x{byte:02x} is not UTF-8"));
        notes.finish()
    })
}

/// The tree of `text`, or `None` when it is not YAML; what is wrong is in `notes` either way.
pub(super) fn parse(text: &str, notes: &mut Notes<'_>) -> Option<Node> {
    if text.len() > MAX_FILE {
        notes.whole_file("the file is larger than 1MiB; is it a configuration?");
        return None;
    }
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let mut builder =
        Builder { notes, stack: Vec::new(), anchors: HashMap::new(), root: None, weight: 0 };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = match event {
            Ok((event, span)) => (event, span.byte_range().unwrap_or_default()),
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or_default();
                if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
                    return builder.too_deep(&(at..at + 1)).and(None);
                }
                syntax_error(text, at, &error.info(), builder.notes);
                return None;
            }
        };
        builder.take(event, span)?;
    }
    builder.root
}

fn syntax_error(text: &str, at: usize, info: &str, notes: &mut Notes<'_>) {
    let mut message = format!("this is not YAML: {info}");
    // In `{ password: ${X} }` the plain scalar ends at the brace, where the parser stumbles.
    let line = text.get(..at).map_or(0, |before| before.rfind('\n').map_or(0, |end| end + 1));
    let bare = text.get(line..=at).and_then(bare_variable);
    let ipv6 = text.get(line..=at).is_some_and(|line| line.contains("[:") && line.ends_with("]:"));
    let span = match bare {
        Some(start) => {
            message = "inside { } and [ ] a value with ${...} needs quotes: \"${VAR}\"".to_owned();
            line + start..line + start + 2
        }
        None if ipv6 => {
            message = "this is not YAML: an IPv6 address needs quotes: \"[::]:6380\"".to_owned();
            at..at + 1
        }
        None => at..at + 1,
    };
    notes.error(&span, "", message);
}

/// Where a `${` stands outside quotes.
fn bare_variable(line: &str) -> Option<usize> {
    let mut quote = None;
    let mut previous = None;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (None, '{') if previous == Some('$') => return Some(at - 1),
            _ => {}
        }
        previous = Some(c);
    }
    None
}

/// Turns events into nodes without recursion.
struct Builder<'n, 'a> {
    notes: &'n mut Notes<'a>,
    stack: Vec<Frame>,
    /// Complete anchored nodes by the parser's number for them.
    anchors: HashMap<usize, Built>,
    root: Option<Node>,
    weight: usize,
}

/// A list or map that is not closed yet.
struct Frame {
    at: Span,
    anchor: usize,
    /// The depth and weight of what is in it so far.
    depth: usize,
    weight: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, names: HashMap<String, Span>, key: Expect },
}

/// What a map waits for.
enum Expect {
    Key,
    Value(Key),
    /// The value of a key that was refused.
    Nothing,
}

#[derive(Clone)]
struct Built {
    node: Node,
    depth: usize,
    weight: usize,
}

impl Builder<'_, '_> {
    /// `None` ends the reading.
    fn take(&mut self, event: Event<'_>, at: Span) -> Option<()> {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                self.notes.error(
                    &at,
                    "",
                    "a second document begins here; one file is one document",
                );
                None
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag, &at);
                let weight = NODE + text.len();
                self.charge(weight, &at)?;
                let null = style == ScalarStyle::Plain
                    && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if null { Value::Null } else { Value::Scalar(text.into_owned()) };
                self.add(Built { node: Node { at, value }, depth: 0, weight }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag, &at);
                self.open(at, anchor, Content::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag, &at);
                let (entries, names) = (Vec::new(), HashMap::new());
                self.open(at, anchor, Content::Map { entries, names, key: Expect::Key })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(&at),
            Event::Alias(anchor) => {
                let Some(built) = self.anchors.get(&anchor).cloned() else {
                    self.notes.error(&at, "", "an alias inside what it stands for never ends");
                    return None;
                };
                self.charge(built.weight, &at)?;
                // Findings inside point to where the value is written.
                self.add(built, 0)
            }
            _ => Some(()),
        }
    }

    /// Counts what is added to the tree.
    fn charge(&mut self, weight: usize, at: &Span) -> Option<()> {
        self.weight += weight;
        if self.weight <= MAX_TREE {
            return Some(());
        }
        self.notes.error(
            at,
            "",
            "there are too many values, each alias counted as what it stands for",
        );
        None
    }

    fn refuse_tag(&mut self, tag: Option<Cow<'_, Tag>>, at: &Span) {
        if let Some(tag) = tag {
            let tag = tag.original();
            self.notes.error(
                at,
                "",
                format!("the tag '{}' has no meaning here; remove it", short(&tag)),
            );
        }
    }

    fn open(&mut self, at: Span, anchor: usize, content: Content) -> Option<()> {
        if self.stack.len() >= MAX_DEPTH {
            return self.too_deep(&at);
        }
        self.charge(NODE, &at)?;
        self.stack.push(Frame { at, anchor, depth: 0, weight: NODE, content });
        Some(())
    }

    fn close(&mut self, end: &Span) -> Option<()> {
        let frame = self.stack.pop()?;
        let value = match frame.content {
            Content::List(items) => Value::List(items),
            Content::Map { entries, .. } => Value::Map(entries),
        };
        let at = frame.at.start..end.end.max(frame.at.end);
        let built =
            Built { node: Node { at, value }, depth: frame.depth + 1, weight: frame.weight };
        self.add(built, frame.anchor)
    }

    fn add(&mut self, built: Built, anchor: usize) -> Option<()> {
        if self.stack.len() + built.depth > MAX_DEPTH {
            return self.too_deep(&built.node.at);
        }
        if anchor != 0 {
            self.charge(built.weight, &built.node.at)?;
            self.anchors.insert(anchor, built.clone());
        }
        let Built { node, depth, weight } = built;
        let duplicate = self.refuse_duplicate(&node);
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Some(());
        };
        frame.depth = frame.depth.max(depth);
        frame.weight += weight;
        match &mut frame.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, names, key } => match std::mem::replace(key, Expect::Key) {
                Expect::Key if duplicate => *key = Expect::Nothing,
                Expect::Key => *key = accept_key(node, names, self.notes),
                Expect::Value(name) => entries.push((name, node)),
                Expect::Nothing => {}
            },
        }
        Some(())
    }

    /// Tells a key that its map has already, with both places; true if it is one.
    fn refuse_duplicate(&mut self, node: &Node) -> bool {
        let Value::Scalar(name) = &node.value else { return false };
        let first = match self.stack.last() {
            Some(Frame { content: Content::Map { names, key: Expect::Key, .. }, .. }) => {
                names.get(name).cloned()
            }
            _ => None,
        };
        let Some(first) = first else { return false };
        if self.notes.full() {
            self.notes.error(&node.at, "", "duplicate key");
            return true;
        }
        let Position { line, column } = self.notes.position(first.start);
        let message = format!(
            "duplicate key `{}`: it is at line {line}, column {column} already",
            short(name)
        );
        self.notes.error(&node.at, &join(&self.path(), name), message);
        true
    }

    /// The path of what is open.
    fn path(&self) -> String {
        self.stack.iter().fold(String::new(), |path, frame| match &frame.content {
            Content::List(items) => format!("{path}[{}]", items.len()),
            Content::Map { key: Expect::Value(key), .. } => join(&path, &key.name),
            Content::Map { .. } => path,
        })
    }

    fn too_deep(&mut self, at: &Span) -> Option<()> {
        let message = format!("lists and maps are nested more than {MAX_DEPTH} deep");
        self.notes.error(at, "", message);
        None
    }
}

fn accept_key(node: Node, names: &mut HashMap<String, Span>, notes: &mut Notes<'_>) -> Expect {
    let at = node.at;
    let Value::Scalar(name) = node.value else {
        notes.error(&at, "", "a key is a word, not a list, a map or nothing");
        return Expect::Nothing;
    };
    names.insert(name.clone(), at.clone());
    Expect::Value(Key { at, name })
}

/// The path of a key under a path.
pub(super) fn join(path: &str, name: &str) -> String {
    let name = short(name);
    if path.is_empty() { name.into_owned() } else { format!("{path}.{name}") }
}

/// A text short enough for a message.
pub(super) fn short(text: &str) -> Cow<'_, str> {
    const MAX: usize = 60;
    let plain = text.chars().all(|c| !c.is_control());
    match text.char_indices().nth(MAX) {
        None if plain => Cow::Borrowed(text),
        cut => {
            let kept = text.get(..cut.map_or(text.len(), |(at, _)| at)).unwrap_or_default();
            let kept: String = kept.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            Cow::Owned(if cut.is_some() { kept + "..." } else { kept })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        let mut notes = Notes::new("f", text);
        let _ = parse(text, &mut notes);
        let positions = notes.finish();
        positions
            .iter()
            .map(|finding| {
                let position = finding.position.unwrap();
                format!("{}:{}: {finding}", position.line, position.column)
            })
            .collect()
    }

    fn tree(text: &str) -> Node {
        let mut notes = Notes::new("f", text);
        let node = parse(text, &mut notes).unwrap();
        assert!(notes.finish().is_empty());
        node
    }

    /// The text that every node's place covers, depth first.
    fn places<'t>(node: &Node, text: &'t str, into: &mut Vec<&'t str>) {
        match &node.value {
            Value::Null | Value::Scalar(_) => into.push(&text[node.at.clone()]),
            Value::List(items) => items.iter().for_each(|item| places(item, text, into)),
            Value::Map(entries) => {
                for (key, value) in entries {
                    into.push(&text[key.at.clone()]);
                    places(value, text, into);
                }
            }
        }
    }

    #[test]
    fn every_node_knows_its_place() {
        let text = "é: [1, \"two\", { three: 'x y' }]\nb:\n  - c: d # e\n    f:\n";
        let mut covered = Vec::new();
        places(&tree(text), text, &mut covered);
        assert_eq!(covered, ["é", "1", "\"two\"", "three", "'x y'", "b", "c", "d", "f", ""]);
    }

    #[test]
    fn scalars_stay_text_and_only_plain_nothing_is_null() {
        let Value::List(items) = tree("[0x10, yes, ~, null, '', \"~\", 1_0]").value else {
            panic!("a list")
        };
        let texts: Vec<Option<&str>> = items
            .iter()
            .map(|item| match &item.value {
                Value::Scalar(text) => Some(&**text),
                _ => None,
            })
            .collect();
        let expected = [Some("0x10"), Some("yes"), None, None, Some(""), Some("~"), Some("1_0")];
        assert_eq!(texts, expected);
    }

    #[test]
    fn duplicates_are_told_with_both_places_and_the_first_wins() {
        let text = "a: 1\nb: { c: 1, c: 2 }\na: 3\n";
        assert_eq!(
            findings(text),
            [
                "2:12: b.c: duplicate key `c`: it is at line 2, column 6 already",
                "3:1: a: duplicate key `a`: it is at line 1, column 1 already",
            ]
        );
    }

    #[test]
    fn syntax_errors_have_a_place_and_a_reason() {
        for (text, position) in
            [("a: [1, 2\n", "1:4: "), ("a: b: c\n", "1:5: "), ("a: 1\n b: 2\n", "2:"), ("'x", "1:")]
        {
            let found = findings(text);
            assert_eq!(found.len(), 1, "{text:?}: {found:?}");
            assert!(found[0].starts_with(position), "{text:?}: {found:?}");
            assert!(found[0].contains("not YAML: ") && found[0].len() > 30, "{found:?}");
        }
    }

    #[test]
    fn a_bare_variable_in_flow_style_is_told_to_be_quoted() {
        for text in [
            "a: { password: ${X} }",
            "a: { b: ${X:-y}, c: 1 }",
            "a: [${X}]",
            "a: [x${X}, b]",
            "a:\n  - { b: \"${OK}\", c: ${X}:6379 }\n",
        ] {
            let found = findings(text);
            assert!(found.iter().any(|f| f.contains("needs quotes")), "{text}: {found:?}");
        }
        assert!(findings("a: ${X:-y}\nb: \"${X}\"\nc: { d: '${X}' }\n").is_empty());
    }

    #[test]
    fn what_yaml_has_and_we_do_not_want_is_refused() {
        for (text, part) in [
            ("a: !!str 1", "tag"),
            ("a: !x { b: c }", "tag"),
            ("? [a, b]\n: c", "a key is a word"),
            ("~: c", "a key is a word"),
            ("a: 1\n---\nb: 2\n", "second document"),
            ("a: &x [*x]", "never ends"),
            ("a: *x", "not YAML"),
        ] {
            let found = findings(text);
            assert!(found.iter().any(|f| f.contains(part)), "{text}: {found:?}");
        }
    }

    #[test]
    fn aliases_stand_for_their_value() {
        let text = "a: &x { b: [1] }\nc: *x\n";
        let mut covered = Vec::new();
        places(&tree(text), text, &mut covered);
        assert_eq!(covered, ["a", "b", "1", "c", "b", "1"]);
    }

    #[test]
    fn bombs_are_defused() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..20 {
            let last = i - 1;
            laughs += &format!("a{i}: &a{i} [*a{last}, *a{last}, *a{last}, *a{last}, *a{last}]\n");
        }
        let chain: String = (1..2_000).map(|i| format!("b{i}: &b{i} [*b{}]\n", i - 1)).collect();
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), "*a, ".repeat(1_000));
        for (text, part) in [
            (laughs, "too many values"),
            (format!("b0: &b0 x\n{chain}"), "nested more than"),
            (long, "too many values"),
            ("[".repeat(500_000), "nested more than"),
            ("{a: ".repeat(200_000), "nested more than"),
            ("- ".repeat(500_000), "nested more than"),
        ] {
            let found = findings(&text);
            assert!(found.iter().any(|f| f.contains(part)), "{part}: {found:?}");
        }
    }

    #[test]
    fn a_large_map_is_read_in_one_go() {
        let text: String = (0..80_000).map(|i| format!("k{i}: 1\n")).collect();
        let Value::Map(entries) = tree(&text).value else { panic!("a map") };
        assert_eq!(entries.len(), 80_000);
    }
}
