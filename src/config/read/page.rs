//! How a file is shown in a message: line by line, with its secrets masked.

use std::ops::Range;
use std::path::Path;

use toml_parser::lexer::TokenKind;

use super::source::Source;
use crate::config::Location;

/// Longest piece of a line that is shown, in characters.
const MAX_SHOWN: usize = 120;
/// How far from what is underlined a line is looked at, in bytes: a line can be as long as its file.
const REACH: usize = 1024;
/// What stands for a masked value.
const MASK: &str = "***";

/// A file and what of it must not be shown.
#[derive(Debug)]
pub(super) struct Page {
    source: Source,
    line_starts: Vec<usize>,
    /// Sorted, apart from each other
    masks: Vec<Range<usize>>,
    /// Sorted
    comments: Vec<Range<usize>>,
}

impl Page {
    pub(super) fn new(source: &Source, mut masks: Vec<Range<usize>>) -> Self {
        masks.sort_by_key(|mask| mask.start);
        let mut apart: Vec<Range<usize>> = Vec::with_capacity(masks.len());
        for mask in masks {
            match apart.last_mut() {
                Some(last) if mask.start <= last.end => last.end = last.end.max(mask.end),
                _ => apart.push(mask),
            }
        }
        let newlines = source.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(index, _)| index + 1);
        let tokens = toml_parser::Source::new(&source.text).lex();
        let comments = tokens.filter(|token| token.kind() == TokenKind::Comment).map(|token| {
            let span = token.span();
            span.start()..span.end()
        });
        Self {
            source: source.clone(),
            line_starts: std::iter::once(0).chain(newlines).collect(),
            masks: apart,
            comments: comments.collect(),
        }
    }

    /// Which file this is.
    pub(super) fn file(&self) -> &Path {
        &self.source.path
    }

    /// The place of `span`, and the line there.
    pub(super) fn locate(&self, span: Range<usize>) -> Location {
        let text = &self.source.text;
        let start = floor(text, span.start);
        let line = self.line_starts.partition_point(|line_start| *line_start <= start) - 1;
        let line_start = self.line_starts[line];
        let line_end = self.line_starts.get(line + 1).map_or(text.len(), |next| next - 1);
        let shown = self.show(line_start..line_end, start..floor(text, span.end.max(start)));
        Location {
            file: self.source.path.clone(),
            line: line + 1,
            column: text[line_start..start].chars().count() + 1,
            text: shown.text,
            indent: shown.indent,
            width: shown.width,
        }
    }

    /// A line with its secrets masked, cut to a readable length around what is underlined.
    fn show(&self, line: Range<usize>, span: Range<usize>) -> Shown {
        let first = self.masks.partition_point(|mask| mask.end <= line.start);
        let masks: Vec<_> = self.masks[first..].iter().take_while(|mask| mask.start < line.end).collect();
        let end = if masks.is_empty() { line.end } else { self.without_comment(&line) };
        let start = floor(&self.source.text, span.start.saturating_sub(REACH).max(line.start));
        let reached = floor(&self.source.text, end.min(span.start + REACH)).max(start);
        let text = self.source.text[start..reached].trim_end();
        let mut shown: Vec<char> = Vec::with_capacity(text.len());
        let (mut from, mut to) = (None, 0);
        let mut masked = false;
        for (index, character) in text.char_indices() {
            let at = start + index;
            let is_masked = masks.iter().any(|mask| mask.contains(&at));
            if at >= span.start && from.is_none() {
                // The middle of a mask has no place of its own.
                from = Some(if is_masked && masked { shown.len() - MASK.len() } else { shown.len() });
            }
            if !is_masked {
                shown.push(printable(character));
            } else if !masked {
                shown.extend(MASK.chars());
            }
            masked = is_masked;
            if at < span.end {
                to = shown.len();
            }
        }
        let indent = from.unwrap_or(shown.len());
        cut(&shown, indent, to.saturating_sub(indent).max(1), [start > line.start, reached < end])
    }

    /// Where a line ends if its comment is left out: beside a secret, it may hold another one.
    fn without_comment(&self, line: &Range<usize>) -> usize {
        let next = self.comments.partition_point(|comment| comment.start < line.start);
        self.comments.get(next).map_or(line.end, |comment| comment.start.min(line.end))
    }
}

struct Shown {
    text: String,
    indent: usize,
    width: usize,
}

fn printable(character: char) -> char {
    match character {
        '\t' => ' ',
        character if character.is_control() => char::REPLACEMENT_CHARACTER,
        character => character,
    }
}

/// The nearest boundary of a character, going back.
fn floor(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// `more` says whether the line has something before and after what is given.
fn cut(shown: &[char], indent: usize, width: usize, more: [bool; 2]) -> Shown {
    let fits = shown.len() <= MAX_SHOWN || indent + width <= MAX_SHOWN;
    let start = if fits { 0 } else { indent.saturating_sub(MAX_SHOWN / 4) };
    let end = shown.len().min(start + MAX_SHOWN);
    let before = if start > 0 || more[0] { "…" } else { "" };
    let after = if end < shown.len() || more[1] { "…" } else { "" };
    let text: String = shown[start..end].iter().collect();
    let indent = indent - start;
    let width = width.min((end - start).saturating_sub(indent).max(1));
    Shown { text: format!("{before}{text}{after}"), indent: indent + before.chars().count(), width }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(source: &Source, masks: &[(usize, usize)]) -> Page {
        Page::new(source, masks.iter().map(|(start, end)| *start..*end).collect())
    }

    fn source(text: &str) -> Source {
        Source::new(0, Path::new("a.toml"), text)
    }

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let source = source("a = 1\n\u{e4} = \"\u{20ac}\" # x\n");
        let at = page(&source, &[]).locate(11..16);
        assert_eq!((at.line, at.column, at.indent, at.width), (2, 5, 4, 3));
        assert_eq!(at.text, "\u{e4} = \"\u{20ac}\" # x");
        let end = page(&source, &[]).locate(source.text.len()..source.text.len());
        assert_eq!((end.line, end.column, end.width), (3, 1, 1));
    }

    #[test]
    fn a_mask_hides_its_value_its_length_and_the_comment_behind_it() {
        let source = source("{ secret = \"abcdef\", b = 1 } # abcdef");
        let at = page(&source, &[(11, 19)]).locate(25..26);
        assert_eq!(at.text, "{ secret = ***, b = 1 }");
        assert_eq!((at.column, at.indent, at.width), (26, 20, 1));
        let at = page(&source, &[(11, 19), (14, 16)]).locate(15..17);
        assert_eq!((at.indent, at.width), (11, 3));
    }

    #[test]
    fn a_long_line_is_cut_around_what_is_underlined() {
        let source = source(&format!("{}X{}", "a".repeat(500), "b".repeat(500)));
        let at = page(&source, &[]).locate(500..501);
        assert_eq!(at.text.chars().nth(at.indent), Some('X'));
        assert!(at.text.chars().count() <= MAX_SHOWN + 2);
        assert!(at.text.starts_with('…') && at.text.ends_with('…'));
    }

    proptest! {
        #[test]
        fn no_masked_character_is_ever_shown(
            before in "[a-c \u{e4}]{0,80}",
            secret in "[S\n]{1,80}",
            after in "[d-f =#\n]{0,80}",
            start in 0..300_usize,
            width in 0..300_usize,
        ) {
            let source = source(&format!("{before}{secret}{after}"));
            let mask = (before.len(), before.len() + secret.len());
            let at = page(&source, &[mask]).locate(start..start + width);
            prop_assert!(!at.text.contains('S'));
            prop_assert!(at.width >= 1 && at.line >= 1 && at.column >= 1);
        }
    }
}
