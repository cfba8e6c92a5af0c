//! Reads one map of the tree by its key table: unknown keys, wrong types and bad values become
//! findings, and reading goes on with the default. Not the rules over several values: see `check`.

use super::{
    env::{Env, substitute},
    file::{Node, Value, join, short},
    finding::{Notes, Span},
    keys::{Key, Kind, Scope},
    nearest::nearest,
    values::{self, Wrong},
    words::Words,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Reads sections; holds what all of them share.
#[derive(Debug)]
pub(super) struct Reader<'a, 't> {
    pub(super) notes: Notes<'t>,
    env: Env<'a>,
    /// Where the file lies; `password_file` is relative to it.
    folder: &'a Path,
}

/// One map of the tree, with the table of its keys; empty when it was not written.
#[derive(Debug)]
pub(super) struct Section<'n> {
    scope: &'static Scope,
    pub(super) path: String,
    pub(super) at: Span,
    entries: &'n [(super::file::Key, Node)],
    /// Keys that an unknown key was probably meant to be.
    meant: Vec<&'static str>,
}

/// A key that was written.
#[derive(Clone, Debug)]
pub(super) struct Field<'n> {
    pub(super) node: &'n Node,
    pub(super) path: String,
    /// Where the key stands.
    pub(super) key_at: Span,
}

impl<'n> Section<'n> {
    /// The key of that name as it was written.
    pub(super) fn field(&self, name: &str) -> Option<Field<'n>> {
        let (key, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        Some(Field { node, path: join(&self.path, name), key_at: key.at.clone() })
    }

    /// Every key as it was written.
    pub(super) fn entries(&self) -> &'n [(super::file::Key, Node)] {
        self.entries
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, _)| key.name == name)
    }

    /// The scalar of that key as it was written; empty for anything else.
    fn scalar(&self, name: &str) -> &'n str {
        match self.field(name).map(|field| &field.node.value) {
            Some(Value::Scalar(text)) => text,
            _ => "",
        }
    }

    /// True when that key is written, or something that was probably meant to be it.
    pub(super) fn has_or_meant(&self, name: &str) -> bool {
        self.has(name) || self.meant.contains(&name)
    }

    fn key(&self, name: &str) -> &'static Key {
        self.scope.find(name).expect("every key that is read is in its scope's table")
    }
}

impl<'a, 't> Reader<'a, 't> {
    pub(super) fn new(notes: Notes<'t>, env: Env<'a>, folder: &'a Path) -> Self {
        Self { notes, env, folder }
    }

    /// The map at `node`, its unknown and later keys told; `None` when it is no map.
    pub(super) fn open<'n>(
        &mut self,
        node: &'n Node,
        scope: &'static Scope,
        path: &str,
        at: &Span,
    ) -> Option<Section<'n>> {
        let Value::Map(entries) = &node.value else {
            self.wrong_type(node, path, "a map of keys and values");
            return None;
        };
        let mut meant = Vec::new();
        for (key, _) in entries {
            let path = join(path, &key.name);
            match scope.find(&key.name) {
                Some(Key { kind: Kind::Later, name, .. }) => {
                    self.notes.not_supported(&key.at, &path, name);
                }
                Some(_) => {}
                None => meant.extend(self.unknown_key(key, scope, &path)),
            }
        }
        let section = Section { scope, path: path.to_owned(), at: at.clone(), entries, meant };
        for group in scope.required {
            self.demand(&section, group);
        }
        Some(section)
    }

    /// The section under a key; empty when it was not written or is no map.
    pub(super) fn section<'n>(&mut self, parent: &Section<'n>, name: &str) -> Section<'n> {
        let Kind::Map(scope) = &parent.key(name).kind else {
            unreachable!("{name} is a section in its table")
        };
        let path = join(&parent.path, name);
        let written = parent.field(name);
        let section = written.and_then(|field| self.open(field.node, scope, &path, &field.key_at));
        section.unwrap_or_else(|| Section {
            scope,
            path,
            at: parent.at.clone(),
            entries: &[],
            meant: Vec::new(),
        })
    }

    /// A value by its key, else its default; `None` when it has none or what is written is wrong.
    pub(super) fn value<T>(
        &mut self,
        section: &Section<'_>,
        name: &str,
        parse: impl Fn(&str, &Kind) -> Result<T, Wrong>,
    ) -> Option<T> {
        let key = section.key(name);
        if let Some(field) = section.field(name) {
            return self.parse(field.node, &field.path, &key.kind, parse);
        }
        if key.default.is_empty() { None } else { parse(key.default, &key.kind).ok() }
    }

    /// One scalar as a value of a kind.
    pub(super) fn parse<T>(
        &mut self,
        node: &Node,
        path: &str,
        kind: &Kind,
        parse: impl Fn(&str, &Kind) -> Result<T, Wrong>,
    ) -> Option<T> {
        let Value::Scalar(raw) = &node.value else {
            self.wrong_type(node, path, kind.expected());
            return None;
        };
        let text = match substitute(raw, &self.env) {
            Ok(text) => text,
            Err(wrong) => {
                wrong.into_iter().for_each(|message| self.notes.error(&node.at, path, message));
                return None;
            }
        };
        match parse(&text, kind) {
            Ok(value) => return Some(value),
            Err(Wrong::Later) => self.notes.not_supported(&node.at, path, &short(&text)),
            Err(Wrong::Value(message, meant)) => {
                self.notes.mistaken(&node.at, path, message, meant.as_deref());
            }
        }
        None
    }

    pub(super) fn duration(&mut self, section: &Section<'_>, name: &str) -> Duration {
        self.value(section, name, values::duration).unwrap_or_default()
    }

    /// A number that its table keeps within `T`.
    pub(super) fn integer<T: TryFrom<i64>>(
        &mut self,
        section: &Section<'_>,
        name: &str,
    ) -> Option<T> {
        let number = self.value(section, name, values::integer).flatten()?;
        T::try_from(number).ok()
    }

    pub(super) fn switch(&mut self, section: &Section<'_>, name: &str) -> bool {
        self.value(section, name, values::switch).unwrap_or_default()
    }

    pub(super) fn size(&mut self, section: &Section<'_>, name: &str) -> Option<u64> {
        self.value(section, name, values::size).flatten()
    }

    pub(super) fn choice<T: Copy + Default>(
        &mut self,
        section: &Section<'_>,
        name: &str,
        words: Words<T>,
    ) -> T {
        self.value(section, name, |text, kind| values::meaning(text, kind, words))
            .unwrap_or_default()
    }

    /// Any text but the empty one.
    pub(super) fn text(&mut self, section: &Section<'_>, name: &str) -> Option<String> {
        self.value(section, name, |text, _| match text {
            "" => Err("it is empty; leave the key out".to_owned().into()),
            _ => Ok(text.to_owned()),
        })
    }

    /// The items of a list and their paths; too many of them is a finding.
    pub(super) fn items<'n>(
        &mut self,
        section: &Section<'n>,
        name: &str,
    ) -> impl Iterator<Item = (String, &'n Node)> + use<'n> {
        let Kind::List(_, limit) = section.key(name).kind else {
            unreachable!("{name} is a list in its table")
        };
        let field = section.field(name);
        let path = join(&section.path, name);
        let items = match field.as_ref().map(|field| &field.node.value) {
            None => &[][..],
            Some(Value::List(items)) => items,
            Some(_) => {
                if let Some(field) = &field {
                    self.wrong_type(field.node, &path, "a list");
                }
                &[]
            }
        };
        if let (true, Some(field)) = (items.len() > limit, &field) {
            let message = format!("it has {} items; the most is {limit}", items.len());
            self.notes.error(&field.key_at, &path, message);
        }
        let numbered = items.iter().take(limit).enumerate();
        numbered.map(move |(index, node)| (format!("{path}[{index}]"), node))
    }

    /// The entries of a map from names to something.
    pub(super) fn named<'n>(
        &mut self,
        section: &Section<'n>,
        name: &str,
    ) -> &'n [(super::file::Key, Node)] {
        match section.field(name) {
            None => &[],
            Some(Field { node: Node { value: Value::Map(entries), .. }, .. }) => entries,
            Some(field) => {
                self.wrong_type(field.node, &field.path, "a map of names");
                &[]
            }
        }
    }

    /// A file's path; a relative one begins at the configuration's folder.
    pub(super) fn path(&mut self, section: &Section<'_>, name: &str) -> Option<PathBuf> {
        self.text(section, name).map(|path| self.folder.join(path))
    }

    /// Whether the files of certificates and keys are to be looked into.
    pub(super) fn reads_certificates(&self) -> bool {
        self.env.certificates
    }

    /// `password`, or what `password_file` holds without its last line end.
    pub(super) fn password(&mut self, section: &Section<'_>) -> Option<String> {
        self.secret(section, "password", "password_file")
    }

    /// The text under `own`, or what the file under `in_file` holds without its last line end.
    pub(super) fn secret(
        &mut self,
        section: &Section<'_>,
        own: &str,
        in_file: &str,
    ) -> Option<String> {
        let (password, file) = (section.field(own), section.field(in_file));
        if let (Some(_), Some(file)) = (&password, &file) {
            let message = format!("`{own}` is given too; keep one of the two");
            self.notes.error(&file.key_at, &file.path, message);
        }
        if password.is_some() {
            return self.text(section, own);
        }
        let text = self.file_text(section, in_file)?;
        let password = text.strip_suffix('\n').unwrap_or(&text);
        let password = password.strip_suffix('\r').unwrap_or(password);
        if let (true, Some(file)) = (password.is_empty(), file) {
            let name = section.scalar(in_file);
            let message = format!("the file '{}' is empty", short(name));
            self.notes.error(&file.node.at, &file.path, message);
            return None;
        }
        Some(password.to_owned())
    }

    /// What the file holds that a key names.
    pub(super) fn file_text(&mut self, section: &Section<'_>, name: &str) -> Option<String> {
        let file = self.text(section, name)?;
        let field = section.field(name)?;
        match (self.env.file)(&self.folder.join(&file)) {
            Ok(text) => Some(text),
            Err(error) => {
                let message = format!("the file '{}' cannot be read: {error}", short(&file));
                self.notes.error(&field.node.at, &field.path, message);
                None
            }
        }
    }

    /// Says that something else was expected.
    pub(super) fn wrong_type(&mut self, node: &Node, path: &str, expected: &str) {
        let found = match &node.value {
            Value::Null => "nothing",
            Value::Scalar(text) => &format!("'{}'", short(text)),
            // A line such as `bind: [::]:6380` is a list to YAML.
            Value::List(_) if expected.contains("address") => {
                "a list; quote an IPv6 address: \"[::1]:6379\""
            }
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        };
        // A whole block shown as wrong hides where it begins.
        let at = match &node.value {
            Value::List(_) | Value::Map(_) => node.at.start..node.at.start + 1,
            _ => node.at.clone(),
        };
        self.notes.error(&at, path, format!("expected {expected}, found {found}"));
    }

    fn demand(&mut self, section: &Section<'_>, group: &[&str]) {
        if group.iter().any(|name| section.has_or_meant(name)) {
            return;
        }
        let message = match group {
            [name] => {
                format!("`{name}` is missing; it takes {}", section.key(name).kind.expected())
            }
            _ => format!("it needs exactly one of {}", group.join(", ")),
        };
        self.notes.error(&section.at, &section.path, message);
    }

    fn unknown_key(
        &mut self,
        key: &super::file::Key,
        scope: &'static Scope,
        path: &str,
    ) -> Option<&'static str> {
        if self.notes.full() {
            self.notes.error(&key.at, path, "unknown key");
            return None;
        }
        let old = OLD_WORDS.iter().find(|(old, new)| *old == key.name && scope.find(new).is_some());
        let meant = old
            .map(|(_, new)| *new)
            .or_else(|| nearest(&key.name, scope.keys.iter().map(|key| key.name)));
        let mut message = match key.name.as_str() {
            "<<" => "merge keys are not understood; write the keys out".to_owned(),
            name => format!("unknown key `{}`", short(name)),
        };
        if meant.is_none() {
            let known: Vec<&str> = scope.now().map(|key| key.name).collect();
            message += &format!("; the keys here are {}", known.join(", "));
        }
        self.notes.mistaken(&key.at, path, message, meant);
        meant
    }
}

/// What other programs call what we have another word for.
const OLD_WORDS: [(&str, &str); 5] = [
    ("master", "primary"),
    ("slave", "replicas"),
    ("slaves", "replicas"),
    ("servers", "shards"),
    ("pools", "clusters"),
];
