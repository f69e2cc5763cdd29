//! One file of the configuration, parsed so that every token knows its place.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeTable;
use toml_parser::lexer::TokenKind;

use super::report::Report;

/// One file.
#[derive(Debug)]
pub(super) struct Source {
    /// The main file is 0, included ones follow in their order
    pub(super) index: usize,
    /// As the operator named it
    pub(super) path: PathBuf,
    /// What it holds
    pub(super) text: String,
}

impl Source {
    pub(super) fn new(index: usize, path: &Path, text: &str) -> Self {
        // A byte order mark is no part of the first line.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { index, path: path.to_owned(), text: text.to_owned() }
    }

    /// Parses it; what is no TOML is reported, and then there is nothing to read.
    pub(super) fn parse<'a>(&'a self, report: &Report) -> Option<Spanned<DeTable<'a>>> {
        let (root, errors) = DeTable::parse_recoverable(&self.text);
        if errors.is_empty() {
            return Some(root);
        }
        let mut last_line = None;
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let line = self.line(span.start);
            // One mistake in a line often looks like several.
            if last_line.as_ref() == Some(&line) {
                continue;
            }
            report.mask(self, self.unparsable(&line));
            report.add(self, span, "syntax", format!("this is not TOML: {}", error.message()));
            last_line = Some(line);
        }
        None
    }

    /// The line that `index` is in.
    fn line(&self, index: usize) -> Range<usize> {
        let bytes = self.text.as_bytes();
        let index = index.min(bytes.len());
        let start = bytes[..index].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let end = bytes[index..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |newline| index + newline);
        start..end
    }

    /// What of a broken line may be a secret: all that is right of `=`, or all of it where that tells nothing.
    fn unparsable(&self, line: &Range<usize>) -> Range<usize> {
        let text = &self.text[line.clone()];
        if self.is_within_string(line.start) {
            return line.clone();
        }
        let shown = match text.find('=') {
            Some(equals) => equals + 1 + text[equals + 1..].chars().take_while(|character| *character == ' ').count(),
            None if is_header(text) => text.len(),
            None => text.len() - text.trim_start().len(),
        };
        line.start + shown..line.end
    }

    /// Whether the line that starts here goes on with a string of lines before it.
    fn is_within_string(&self, line_start: usize) -> bool {
        toml_parser::Source::new(&self.text).lex().any(|token| {
            let span = token.span();
            matches!(token.kind(), TokenKind::MlBasicString | TokenKind::MlLiteralString)
                && span.start() < line_start
                && line_start < span.end()
        })
    }
}

/// A line that can only be meant as `[table]`.
fn is_header(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('[')
        && line.len() <= 120
        && line.chars().all(|character| character.is_ascii_alphanumeric() || "[]._- \"".contains(character))
}
