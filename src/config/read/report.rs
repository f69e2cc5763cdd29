//! What the reader finds wrong, gathered and then shown in its place.
//!
//! Lines are shown as they were written, never as they were understood: a value from the environment cannot get into a
//! message this way. Values that may be secret are masked, so lines can be rendered only once the reading is over.

use std::cell::RefCell;
use std::ops::Range;

use super::page::Page;
use super::source::Source;
use crate::config::Problem;

/// Most problems that are told: who has more of them corrects these first.
const MAX_PROBLEMS: usize = 1000;

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

    /// Problems with another file, each with its place there.
    pub(super) fn add_located(&self, problems: Vec<Problem>) {
        self.found.borrow_mut().extend(problems.into_iter().map(|problem| Found { place: None, problem }));
    }

    /// Never show this piece of a file.
    pub(super) fn mask(&self, source: &Source, span: Range<usize>) {
        self.masks.borrow_mut().push((source.index, span));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// Whether there is more than can be told, so that looking for what was meant is idle.
    pub(super) fn is_full(&self) -> bool {
        self.found.borrow().len() > MAX_PROBLEMS
    }

    /// The files, and what of them is shown.
    pub(super) fn into_pages(self, sources: &[&Source]) -> Vec<Page> {
        pages(sources, self.masks.into_inner())
    }

    /// Everything, ordered by file and place, each with its line. `sources` are in the order of their indexes.
    pub(super) fn into_problems(self, sources: &[&Source]) -> Vec<Problem> {
        let pages = pages(sources, self.masks.into_inner());
        let mut found = self.found.into_inner();
        // Stable: of one place, what was found first is told first.
        found.sort_by_key(|found| match &found.place {
            Some((file, span)) => (false, *file, span.start),
            None => (true, 0, 0),
        });
        found.dedup_by(|left, right| left.place == right.place && left.problem == right.problem);
        let more = found.len().saturating_sub(MAX_PROBLEMS);
        let located = found.into_iter().take(MAX_PROBLEMS).map(|Found { place, mut problem }| {
            let here = place.and_then(|(file, span)| Some(Box::new(pages.get(file)?.locate(span))));
            problem.location = here.or(problem.location);
            problem
        });
        let mut problems: Vec<_> = located.collect();
        if more > 0 {
            problems.push(Problem::new(format!("and {more} more"), "these come first"));
        }
        problems
    }
}

fn pages(sources: &[&Source], masks: Vec<(usize, Range<usize>)>) -> Vec<Page> {
    let mut of_file = vec![Vec::new(); sources.len()];
    for (file, mask) in masks {
        if let Some(masks) = of_file.get_mut(file) {
            masks.push(mask);
        }
    }
    sources.iter().zip(of_file).map(|(source, masks)| Page::new(source, masks)).collect()
}
