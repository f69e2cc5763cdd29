//! What the reader finds wrong, gathered and then shown in its place.
//!
//! Lines are shown as they were written, never as they were understood: a value from the environment cannot get into a
//! message this way. Values that may be secret are masked, so lines can be rendered only once the reading is over.

use std::cell::RefCell;
use std::ops::Range;

use super::source::Source;
use crate::config::{Location, Problem};

/// Longest piece of a line that is shown, in characters.
const MAX_SHOWN: usize = 120;
/// What stands for a masked value.
const MASK: &str = "***";

/// Everything found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    found: RefCell<Vec<Found>>,
    /// By file: what must not be shown
    masks: RefCell<Vec<(usize, Range<usize>)>>,
}

#[derive(Debug)]
struct Found {
    /// Which file, and what of its text; `None` when a problem has no place
    place: Option<(usize, Range<usize>)>,
    problem: Problem,
}

impl Report {
    /// A problem with a piece of a file.
    pub(super) fn add(&self, source: &Source, span: Range<usize>, path: &str, message: impl Into<String>) {
        self.found.borrow_mut().push(Found { place: Some((source.index, span)), problem: Problem::new(path, message) });
    }

    /// A problem with something that is nowhere written.
    pub(super) fn add_placeless(&self, path: &str, message: impl Into<String>) {
        self.found.borrow_mut().push(Found { place: None, problem: Problem::new(path, message) });
    }

    /// Never show this piece of a file.
    pub(super) fn mask(&self, source: &Source, span: Range<usize>) {
        self.masks.borrow_mut().push((source.index, span));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// Everything, ordered by file and place, each with its line.
    pub(super) fn into_problems(self, sources: &[&Source]) -> Vec<Problem> {
        let masks = self.masks.into_inner();
        let mut found = self.found.into_inner();
        found.sort_by(|left, right| order(left).cmp(&order(right)));
        found.dedup_by(|left, right| left.place == right.place && left.problem == right.problem);
        let located = found.into_iter().map(|Found { place, mut problem }| {
            if let Some((index, span)) = place
                && let Some(source) = sources.iter().find(|source| source.index == index)
            {
                let masks: Vec<_> = masks.iter().filter(|(file, _)| *file == index).map(|(_, span)| span).collect();
                problem.location = Some(locate(source, span, &masks));
            }
            problem
        });
        located.collect()
    }
}

fn order(found: &Found) -> (bool, usize, usize, usize, &str) {
    match &found.place {
        Some((file, span)) => (false, *file, span.start, span.end, &found.problem.message),
        None => (true, 0, 0, 0, &found.problem.path),
    }
}

/// The place of `span` in its file, and the line there.
pub(super) fn locate(source: &Source, span: Range<usize>, masks: &[&Range<usize>]) -> Location {
    let text = &source.text;
    let start = floor(text, span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
    let line = text[line_start..line_end].trim_end();
    let number = text[..line_start].matches('\n').count() + 1;
    let column = text[line_start..start].chars().count() + 1;
    let end = floor(text, span.end.max(start));
    let shown = show(line, line_start, start..end, masks);
    Location {
        file: source.path.clone(),
        line: number,
        column,
        text: shown.text,
        indent: shown.indent,
        width: shown.width,
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

struct Shown {
    text: String,
    indent: usize,
    width: usize,
}

/// A line with its secrets masked, cut to a readable length around what is underlined.
fn show(line: &str, offset: usize, span: Range<usize>, masks: &[&Range<usize>]) -> Shown {
    let mut shown: Vec<char> = Vec::with_capacity(line.len());
    let (mut from, mut to) = (None, 0);
    let mut masked = false;
    for (index, character) in line.char_indices() {
        let at = offset + index;
        let is_masked = masks.iter().any(|mask| mask.contains(&at));
        // What follows a secret on its line may be another one, commented out.
        if masked && !is_masked && line[index..].trim_start().starts_with('#') {
            break;
        }
        if at >= span.start && from.is_none() {
            // The middle of a mask has no place of its own.
            from = Some(if is_masked && masked { shown.len() - MASK.len() } else { shown.len() });
        }
        if !is_masked {
            shown.push(match character {
                '\t' => ' ',
                character if character.is_control() => char::REPLACEMENT_CHARACTER,
                character => character,
            });
        } else if !masked {
            shown.extend(MASK.chars());
        }
        masked = is_masked;
        if at < span.end {
            to = shown.len();
        }
    }
    let indent = from.unwrap_or(shown.len());
    cut(&shown, indent, to.saturating_sub(indent).max(1))
}

fn cut(shown: &[char], indent: usize, width: usize) -> Shown {
    if shown.len() <= MAX_SHOWN {
        return Shown { text: shown.iter().collect(), indent, width };
    }
    let start = if indent + width <= MAX_SHOWN { 0 } else { indent.saturating_sub(MAX_SHOWN / 4) };
    let end = shown.len().min(start + MAX_SHOWN);
    let (before, after) = (if start > 0 { "…" } else { "" }, if end < shown.len() { "…" } else { "" });
    let text: String = shown[start..end].iter().collect();
    let indent = indent - start + before.chars().count();
    Shown { text: format!("{before}{text}{after}"), indent, width: width.min((end - start).saturating_sub(1).max(1)) }
}
