//! One file of the configuration, parsed so that every token knows its place.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeTable;
use toml_parser::lexer::TokenKind;

use super::report::Report;

/// Longest key that is shown of a broken line: longer ones are none of ours.
const MAX_KEY: usize = 40;

/// One file.
#[derive(Clone, Debug)]
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
        let (root, mut errors) = DeTable::parse_recoverable(&self.text);
        if errors.is_empty() {
            return Some(root);
        }
        errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
        let strings = self.strings();
        let mut last_line = None;
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let line = self.line(span.start);
            // One mistake in a line often looks like several.
            if last_line.as_ref() == Some(&line) {
                continue;
            }
            report.mask(self, self.unparsable(&line, &strings));
            report.add(self, span, "syntax", format!("this is not TOML: {}", message(&error)));
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
    fn unparsable(&self, line: &Range<usize>, strings: &[Range<usize>]) -> Range<usize> {
        let text = &self.text[line.clone()];
        // The line may go on with a string of lines before it.
        let before = strings.partition_point(|string| string.start < line.start);
        if before > 0 && line.start < strings[before - 1].end {
            return line.clone();
        }
        let shown = key(text).or_else(|| header(text)).unwrap_or_else(|| text.len() - text.trim_start().len());
        line.start + shown..line.end
    }

    /// Strings that may have several lines, in their order.
    fn strings(&self) -> Vec<Range<usize>> {
        let tokens = toml_parser::Source::new(&self.text).lex();
        let strings =
            tokens.filter(|token| matches!(token.kind(), TokenKind::MlBasicString | TokenKind::MlLiteralString));
        strings.map(|token| token.span().start()..token.span().end()).collect()
    }
}

fn message(error: &toml::de::Error) -> &str {
    error.message().trim_end_matches(", expected nothing")
}

/// How much of a line is `key = `. What a broken secret goes on with in its next line may look like it: `c2VjcmV0==`.
fn key(line: &str) -> Option<usize> {
    let (key, value) = line.split_once('=')?;
    let is_part = |character: char| character.is_ascii_alphanumeric() || "._- ".contains(character);
    let is_key =
        key.len() <= MAX_KEY && key.chars().all(is_part) && !value.trim_matches(['=', '"', '\'', ' ']).is_empty();
    is_key.then(|| line.len() - value.trim_start_matches(' ').len())
}

/// How much of a line can only be meant as `[table]`.
fn header(line: &str) -> Option<usize> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "[]._-".contains(character);
    let end = line.rfind(']').map_or(line.trim_end().len(), |bracket| bracket + 1);
    (line.starts_with('[') && line[..end].chars().all(is_part)).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of the lines that are no TOML.
    fn shown(text: &str) -> Vec<String> {
        let source = Source::new(0, Path::new("a.toml"), text);
        let report = Report::default();
        assert!(source.parse(&report).is_none(), "{text}");
        let problems = report.into_problems(&[&source]);
        problems.into_iter().filter_map(|problem| problem.location).map(|at| at.text).collect()
    }

    #[test]
    fn a_broken_line_shows_its_key_or_its_header_and_nothing_else() {
        assert_eq!(shown("secret = hunter2"), ["secret = ***"]);
        assert_eq!(shown("[auth.one"), ["[auth.one"]);
        assert_eq!(shown("[auth.one] hunter2"), ["[auth.one]***"]);
        assert_eq!(shown("  hunter2"), ["  ***"]);
        assert_eq!(shown("secret = \"a\nhunter2==\""), ["secret = ***", "***"]);
        assert_eq!(shown("[\n\"hunter2\", a = 1"), ["[", "***"]);
        assert_eq!(shown("[\"hunter2\""), ["***"]);
        assert_eq!(shown("a = \"\"\"\nhunter2 = \\q\n\"\"\"\n"), ["***"]);
    }

    #[test]
    fn one_problem_a_line_in_their_order() {
        assert_eq!(shown("a = 08\nb = 1__0 x\n[c\nd = 1\n"), ["a = ***", "b = ***", "[c"]);
    }
}
