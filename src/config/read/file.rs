//! Files that the configuration names.

use std::path::{Path, PathBuf};

use super::complaint::{Complaint, quote};
use super::node::{Node, Text};
use super::table::Table;
use crate::config::{Certificate, FileContent, Secret};

/// Most bytes of a file that is read: of the configuration itself, and of what it names.
pub(in crate::config) const MAX_FILE: u64 = 1024 * 1024;

/// The file that a `_file` key names: certificates, keys.
pub(super) fn content(node: &Node<'_>) -> Option<FileContent> {
    let (path, content) = read(node, MAX_FILE)?;
    Some(FileContent { path, content: Secret::new(content) })
}

/// What is shown by who connects, if it is to show something: a certificate's file and its key's, by their two keys.
pub(super) fn certificate(table: &mut Table<'_>, keys: [&'static str; 2]) -> Option<Option<Certificate>> {
    let [cert, key] = keys.map(|key| table.optional(key, content));
    match keys.map(|key| table.get(key)) {
        [Some(alone), None] => {
            alone.problem_of_key(format!("\"{}\" is missing: a certificate proves nothing without its key", keys[1]));
            None
        }
        [None, Some(alone)] => {
            alone.problem_of_key(format!("\"{}\" is missing: a key proves nothing without its certificate", keys[0]));
            None
        }
        _ => cert.zip(key).map(|(cert, key)| cert.zip(key).map(|(cert, key)| Certificate { cert, key })),
    }
}

/// The secret in the file that a `_file` key names. One newline at its end is the editor's, not the secret's.
pub(super) fn secret(node: &Node<'_>) -> Option<Secret> {
    let (_, mut content) = read(node, MAX_FILE)?;
    if content.last() == Some(&b'\n') {
        content.pop();
        if content.last() == Some(&b'\r') {
            content.pop();
        }
    }
    if content.is_empty() {
        node.problem("the file is empty: there is no secret in it");
        return None;
    }
    Some(Secret::new(content))
}

/// The text of a file of its own language, of `most` bytes at most, and where it was read from.
pub(super) fn text(node: &Node<'_>, most: u64) -> Option<(PathBuf, String)> {
    let (path, content) = read(node, most)?;
    match String::from_utf8(content) {
        Ok(text) => Some((path, text)),
        Err(error) => {
            node.problem(not_text(&error.utf8_error(), error.as_bytes()));
            None
        }
    }
}

fn read(node: &Node<'_>, most: u64) -> Option<(PathBuf, Vec<u8>)> {
    let text = node.text()?;
    if text.as_str().is_empty() || text.as_str().contains('\0') {
        text.complain(Complaint::new("this is not the path of a file"));
        return None;
    }
    let path = beside(&node.source.path, text.as_str());
    match node.ctx.surroundings.file(&path, most) {
        Ok(content) => Some((path, content)),
        Err(error) => {
            text.complain(Complaint::new(format!("{} cannot be read: {error}", shown(&text, &path))));
            None
        }
    }
}

/// The path as it may be told: not if a variable has a part in it.
pub(super) fn shown(text: &Text<'_>, path: &Path) -> String {
    if text.is_as_written() { quote(&path.display().to_string()) } else { "this file".to_owned() }
}

/// A path is relative to the file that names it.
pub(super) fn beside(file: &Path, path: &str) -> PathBuf {
    match file.parent() {
        Some(directory) => directory.join(path),
        None => PathBuf::from(path),
    }
}

/// What to say of a file that is not text.
pub(in crate::config) fn not_text(error: &std::str::Utf8Error, content: &[u8]) -> String {
    let before = &content[..error.valid_up_to()];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    format!("it is not UTF-8 text: line {line} has bytes that are none")
}
