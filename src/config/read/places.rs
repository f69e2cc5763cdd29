//! Where each key of a configuration stands, for what is found out only later.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::page::Page;
use super::source::Source;
use super::table::join;
use crate::config::{ConfigError, Problem};

/// The places of a configuration that was read: a problem met while building from it can be shown like those of the
/// reader.
#[derive(Debug)]
pub struct Places {
    pages: Vec<Page>,
    /// By dotted path: the file and what of it
    spans: BTreeMap<String, (usize, Range<usize>)>,
}

impl Places {
    pub(super) fn new(pages: Vec<Page>, documents: &[(&Source, &Spanned<DeTable<'_>>)]) -> Self {
        let mut places = Self { pages, spans: BTreeMap::new() };
        for (source, document) in documents {
            places.add_table(source.index, "", document.get_ref());
        }
        places
    }

    fn add_table(&mut self, file: usize, path: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            self.add(file, join(path, key.get_ref()), &key.span(), value);
        }
    }

    fn add(&mut self, file: usize, path: String, key: &Range<usize>, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.add_table(file, &path, table),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.add(file, format!("{path}[{index}]"), &item.span(), item);
                }
            }
            _ => {}
        }
        let span = if value.span().is_empty() { key.clone() } else { value.span() };
        self.spans.entry(path).or_insert((file, span));
    }

    /// Shows each problem at its key, or at the nearest table around it that is written; ordered by place.
    pub fn locate(&self, problems: Vec<Problem>) -> ConfigError {
        let mut placed: Vec<_> = problems.into_iter().map(|problem| (self.find(&problem.path), problem)).collect();
        placed.sort_by_key(|(place, _)| place.as_ref().map_or((usize::MAX, 0), |(file, span)| (*file, span.start)));
        let problems = placed.into_iter().map(|(place, mut problem)| {
            problem.location =
                place.and_then(|(file, span)| Some(Box::new(self.pages.get(*file)?.locate(span.clone()))));
            problem
        });
        ConfigError { file: self.pages[0].file().to_owned(), problems: problems.collect() }
    }

    fn find(&self, path: &str) -> Option<&(usize, Range<usize>)> {
        let mut path = path;
        loop {
            if let Some(place) = self.spans.get(path) {
                return Some(place);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}
