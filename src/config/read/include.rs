//! `include`: the other files of a configuration.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeTable;

use super::Context;
use super::complaint::Complaint;
use super::file::{MAX_FILE, beside, not_text, shown};
use super::node::{Node, Text};
use super::section::root;
use super::source::Source;

/// Most patterns.
const MAX_PATTERNS: usize = 64;
/// Most files.
const MAX_FILES: usize = 1000;

/// All included files, in the order of the patterns and sorted within each. A file that two patterns match comes once.
pub(super) fn sources<'a>(ctx: &'a Context<'a>, main: &'a Source, document: &'a Spanned<DeTable<'a>>) -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    let include = root(ctx, main, document).get("include");
    for pattern in include.and_then(|node| node.items(MAX_PATTERNS)).unwrap_or_default() {
        let Some(text) = pattern.text() else {
            continue;
        };
        for path in matching(&pattern, &text) {
            if bare(&path) == bare(&main.path) {
                text.complain(Complaint::new("this matches the file itself: it would include itself"));
            } else if !sources.iter().any(|source| source.path == path) {
                sources.extend(source(&pattern, &text, sources.len() + 1, &path));
            }
        }
        if sources.len() > MAX_FILES {
            pattern.problem(format!("a configuration has {MAX_FILES} files at most"));
            return sources;
        }
    }
    sources
}

/// The same path without a leading `./`, which patterns lose.
fn bare(path: &Path) -> &Path {
    path.strip_prefix(".").unwrap_or(path)
}

fn matching(pattern: &Node<'_>, text: &Text<'_>) -> Vec<PathBuf> {
    let written = text.as_str();
    if written.is_empty() {
        pattern.problem("this is not the path of a file");
        return Vec::new();
    }
    match pattern.ctx.surroundings.matching(&from(&pattern.source.path, written)) {
        // An empty conf.d is nothing wrong; a file that is named and is not there is.
        Ok(paths) if paths.is_empty() && !written.contains(['*', '?', '[']) => {
            vec![beside(&pattern.source.path, written)]
        }
        Ok(paths) => paths,
        Err(error) => {
            text.complain(Complaint::new(format!("this pattern cannot be followed: {error}")));
            Vec::new()
        }
    }
}

/// The pattern that `file` means by `written`.
pub(super) fn from(file: &Path, written: &str) -> String {
    if Path::new(written).is_absolute() {
        return written.to_owned();
    }
    // The directory is no pattern, whatever characters it has.
    let directory = beside(file, "");
    format!("{}{written}", glob::Pattern::escape(&directory.to_string_lossy()))
}

fn source(pattern: &Node<'_>, text: &Text<'_>, index: usize, path: &Path) -> Option<Source> {
    let content = pattern.ctx.surroundings.file(path, MAX_FILE).map_err(|error| error.to_string());
    let content = content.and_then(|content| {
        String::from_utf8(content).map_err(|error| not_text(&error.utf8_error(), error.as_bytes()))
    });
    match content {
        Ok(content) => Some(Source::new(index, path, &content)),
        Err(error) => {
            text.complain(Complaint::new(format!("{} cannot be included: {error}", shown(text, path))));
            None
        }
    }
}
