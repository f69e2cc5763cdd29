//! A table of the file, read key by key. A key that nobody asked for is a problem.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::complaint::quote;
use super::node::Node;
use super::secret::mask_all;
use super::suggest::did_you_mean;

/// A table being read.
pub(super) struct Table<'a> {
    pub(super) node: Node<'a>,
    entries: &'a DeTable<'a>,
    asked: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn new(node: Node<'a>, entries: &'a DeTable<'a>) -> Self {
        Self { node, entries, asked: Vec::new() }
    }

    /// The value of a key.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Node<'a>> {
        self.asked.push(key);
        self.entries.get_key_value(key).map(|(key, value)| self.child(key, value))
    }

    /// Whether a key is there, read or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// All entries of a table whose keys are names that the operator chose, in the order of the names.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, Node<'a>)> {
        self.entries.iter().map(|(key, value)| (key.get_ref().as_ref(), self.child(key, value)))
    }

    fn child(&self, key: &'a Spanned<std::borrow::Cow<'a, str>>, value: &'a Spanned<DeValue<'a>>) -> Node<'a> {
        Node {
            ctx: self.node.ctx,
            source: self.node.source,
            path: join(&self.node.path, key.get_ref()),
            key: key.span(),
            span: value.span(),
            value: value.get_ref(),
        }
    }

    /// What `read` makes of a key; nothing if the key is absent.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.get(key) {
            Some(node) => read(&node).map(Some),
            None => Some(None),
        }
    }

    /// What `read` makes of a key; `default` if the key is absent.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Node<'a>) -> Option<T>,
    ) -> Option<T> {
        match self.get(key) {
            Some(node) => read(&node),
            None => Some(default),
        }
    }

    /// What `read` makes of a key that must be there; `why` says what it is for.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        why: &str,
        read: impl FnOnce(&Node<'a>) -> Option<T>,
    ) -> Option<T> {
        match self.get(key) {
            Some(node) => read(&node),
            None => {
                self.node.problem(format!("\"{key}\" is missing: {why}"));
                None
            }
        }
    }

    /// Of several keys that exclude each other, the one that is there. More than one is a problem.
    pub(super) fn one_of(&mut self, keys: &[&'static str]) -> Option<(&'static str, Node<'a>)> {
        let mut found: Option<(&'static str, Node<'a>)> = None;
        for key in keys {
            let Some(node) = self.get(key) else {
                continue;
            };
            match &found {
                None => found = Some((key, node)),
                Some((first, _)) => node.problem_of_key(format!("\"{first}\" is there already: only one can be")),
            }
        }
        found
    }

    /// Nothing may be left. `later` are keys of the language that are to come.
    pub(super) fn finish(self, later: &[&str]) {
        for (key, value) in self.entries {
            let name = key.get_ref().as_ref();
            if self.asked.contains(&name) {
                continue;
            }
            let node = self.child(key, value);
            if later.contains(&name) {
                node.problem_of_key(format!("\"{name}\" is not implemented yet"));
                continue;
            }
            // A misspelt key may hold anything.
            mask_all(&node.ctx.report, node.source, value);
            let known = self.asked.iter().chain(later).copied();
            let place = if self.node.path.is_empty() { "a section".to_owned() } else { "a key here".to_owned() };
            node.problem_of_key(format!("{} is not {place}{}", quote(name), did_you_mean(name, known)));
        }
    }
}

/// A dotted path, one key longer.
pub(super) fn join(path: &str, key: &str) -> String {
    let is_bare = !key.is_empty()
        && key.chars().all(|character| character.is_ascii_alphanumeric() || character == '_' || character == '-');
    let key = if is_bare { key.to_owned() } else { quote(key) };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
