//! The sections of all files together.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::complaint::{Complaint, quote};
use super::node::Node;
use super::source::Source;
use super::suggest::did_you_mean;
use super::table::Table;
use super::{Context, Objects};
use crate::config::Name;

/// Longest name of an object: it is repeated in metrics and logs.
const MAX_NAME: usize = 64;

/// Everything that was written, by section.
pub(super) struct Sections<'a> {
    pub(super) server: Table<'a>,
    pub(super) admin: Table<'a>,
    pub(super) log: Table<'a>,
    pub(super) defaults: Table<'a>,
    pub(super) listeners: Named<'a>,
    pub(super) auth: Named<'a>,
    pub(super) limits: Named<'a>,
    pub(super) upstreams: Named<'a>,
    pub(super) routes: Named<'a>,
}

/// The tables of one section, by the names the operator gave them.
pub(super) struct Named<'a> {
    /// What one of them is called
    kind: &'static str,
    tables: BTreeMap<Name, Node<'a>>,
    /// All files could be read, so a name that is not here is nowhere
    pub(super) is_complete: bool,
}

/// The table that a whole file is.
pub(super) fn root<'a>(ctx: &'a Context<'a>, source: &'a Source, document: &'a Spanned<DeTable<'a>>) -> Table<'a> {
    let node = Node { ctx, source, path: String::new(), key: 0..0, span: 0..0, value: &ctx.nothing };
    Table::new(node, document.get_ref())
}

impl<'a> Sections<'a> {
    /// Puts the files together; what is there twice is a problem.
    pub(super) fn collect(
        ctx: &'a Context<'a>,
        main: &'a Source,
        documents: &[(&'a Source, &'a Spanned<DeTable<'a>>)],
        is_complete: bool,
    ) -> Self {
        let mut singles: BTreeMap<&'static str, Node<'a>> = BTreeMap::new();
        let named = |kind| Named { kind, tables: BTreeMap::new(), is_complete };
        let mut listeners = named("listener");
        let mut auth = named("auth");
        let mut limits = named("limit");
        let mut upstreams = named("upstream");
        let mut routes = named("route");
        for (source, document) in documents {
            let mut root = root(ctx, source, document);
            if let Some(version) = root.get("version") {
                version.integer(1..=1);
            }
            if let Some(include) = root.get("include")
                && source.index != main.index
            {
                include.problem_of_key("an included file cannot include others: name them all in the main file");
            }
            for key in ["server", "admin", "log", "defaults"] {
                if let Some(node) = root.get(key) {
                    single(&mut singles, key, node);
                }
            }
            listeners.add(root.get("listeners"));
            auth.add(root.get("auth"));
            limits.add(root.get("limits"));
            upstreams.add(root.get("upstreams"));
            routes.add(root.get("routes"));
            root.finish(&[]);
        }
        let mut table = |key: &'static str| {
            singles.remove(key).and_then(|node| node.table()).unwrap_or_else(|| absent(ctx, main, key))
        };
        Self {
            server: table("server"),
            admin: table("admin"),
            log: table("log"),
            defaults: table("defaults"),
            listeners,
            auth,
            limits,
            upstreams,
            routes,
        }
    }
}

fn single<'a>(singles: &mut BTreeMap<&'static str, Node<'a>>, key: &'static str, node: Node<'a>) {
    match singles.get(key) {
        Some(first) => node.problem(format!("[{key}] is written in {} already", place(first))),
        None => drop(singles.insert(key, node)),
    }
}

/// A section that nobody wrote: all its defaults.
fn absent<'a>(ctx: &'a Context<'a>, source: &'a Source, key: &str) -> Table<'a> {
    let node = Node { ctx, source, path: key.to_owned(), key: 0..0, span: 0..0, value: &ctx.nothing };
    let DeValue::Table(nothing) = &ctx.nothing else {
        unreachable!("nothing is an empty table");
    };
    Table::new(node, nothing)
}

/// `file:line` of a table.
fn place(node: &Node<'_>) -> String {
    let line = node.source.text[..node.key.start].matches('\n').count() + 1;
    format!("{}:{line}", node.source.path.display())
}

impl<'a> Named<'a> {
    fn add(&mut self, section: Option<Node<'a>>) {
        let Some(table) = section.and_then(|node| node.table()) else {
            return;
        };
        for (name, node) in table.entries() {
            if let Err(complaint) = check_name(name) {
                node.problem_of_key(complaint);
            } else if let Some(first) = self.tables.get(name) {
                node.problem_of_key(format!("[{}] is written in {} already", node.path, place(first)));
            } else {
                self.tables.insert(Name::from(name), node);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Reads each of them.
    pub(super) fn read<T>(&self, mut read: impl FnMut(Table<'a>) -> Option<T>) -> Objects<T> {
        let mut objects = BTreeMap::new();
        for (name, node) in &self.tables {
            if let Some(object) = node.table().and_then(&mut read) {
                objects.insert(name.clone(), object);
            }
        }
        objects
    }

    /// The name that `node` refers to.
    pub(super) fn refer(&self, node: &Node<'_>) -> Option<Name> {
        let text = node.text()?;
        if let Some((name, _)) = self.tables.get_key_value(text.as_str()) {
            return Some(name.clone());
        }
        if self.is_complete {
            let names = self.tables.keys().map(|name| &**name).filter(|_| !node.ctx.report.is_full());
            let hint = did_you_mean(text.as_str(), names);
            text.complain(Complaint::new(format!("no {} has this name{hint}", self.kind)));
        }
        None
    }
}

/// Names become labels and parts of keys: letters, digits, `_` and `-`; one that begins with `_` is ours.
fn check_name(name: &str) -> Result<(), String> {
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if name.is_empty() || !is_name || name.starts_with('_') || name.len() > MAX_NAME {
        return Err(format!(
            "{} cannot be a name: names have letters, digits, \"_\" and \"-\", do not begin with \"_\", and are \
             {MAX_NAME} characters long at most",
            quote(name)
        ));
    }
    if name == "none" {
        return Err("\"none\" has a meaning of its own: choose another name".to_owned());
    }
    Ok(())
}
