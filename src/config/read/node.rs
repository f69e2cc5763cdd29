//! A value of the file with its place, and the ways to take it.
//!
//! Every way gives `None` after having reported what is wrong, so that a reader goes on with the next key and all
//! problems are told at once.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};

use toml::de::DeValue;

use super::Context;
use super::complaint::{Complaint, quote};
use super::interpolate::interpolate;
use super::source::Source;
use super::suggest::did_you_mean;
use super::table::Table;
use crate::config::Timestamp;

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Node<'a> {
    pub(super) ctx: &'a Context<'a>,
    pub(super) source: &'a Source,
    /// Dotted, from the root
    pub(super) path: String,
    /// Of the key it has; of an item, of the item itself
    pub(super) key: Range<usize>,
    pub(super) span: Range<usize>,
    pub(super) value: &'a DeValue<'a>,
}

/// A string of the file, with its variables filled in.
pub(super) struct Text<'a> {
    node: Node<'a>,
    value: Cow<'a, str>,
    /// Where it begins in the file, if it stands there letter by letter
    written_at: Option<usize>,
}

impl<'a> Node<'a> {
    /// Reports a problem with the value.
    pub(super) fn problem(&self, message: impl Into<String>) {
        // A table that no header or brace makes has no place of its own.
        let span = if self.span.is_empty() { &self.key } else { &self.span };
        self.ctx.report.add(self.source, span.clone(), &self.path, message);
    }

    /// Reports a problem with the key.
    pub(super) fn problem_of_key(&self, message: impl Into<String>) {
        self.ctx.report.add(self.source, self.key.clone(), &self.path, message);
    }

    fn wrong_type(&self, wanted: &str) {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.problem(format!("this must be {wanted}, not {found}"));
    }

    pub(super) fn text(&self) -> Option<Text<'a>> {
        match self.value {
            DeValue::String(_) => self.filled("a string"),
            _ => {
                self.wrong_type("a string");
                None
            }
        }
    }

    fn filled(&self, wanted: &str) -> Option<Text<'a>> {
        let DeValue::String(text) = self.value else {
            self.wrong_type(wanted);
            return None;
        };
        let mut written = Text { node: self.clone(), value: Cow::Borrowed(text), written_at: self.written_at(text) };
        if self.ctx.is_verbatim {
            return Some(written);
        }
        match interpolate(text, |name| self.ctx.surroundings.variable(name)) {
            Ok(value) => {
                if value != text.as_ref() {
                    written.written_at = None;
                }
                written.value = value;
                Some(written)
            }
            Err(unfilled) => {
                for unfilled in unfilled {
                    written.problem_at(unfilled.at, unfilled.message);
                }
                None
            }
        }
    }

    /// Where the text begins, if there are no escapes in it.
    fn written_at(&self, text: &str) -> Option<usize> {
        let token = self.source.text.get(self.span.clone())?;
        let inside = token.get(1..token.len().checked_sub(1)?)?;
        (inside == text).then_some(self.span.start + 1)
    }

    /// A string that `parse` can make something of.
    pub(super) fn parse<T>(&self, parse: impl FnOnce(&str) -> Result<T, Complaint>) -> Option<T> {
        let text = self.text()?;
        parse(text.as_str()).map_err(|complaint| text.complain(complaint)).ok()
    }

    /// A key that `parse` can make something of: a name that the operator chose.
    pub(super) fn parse_key<T>(&self, key: &str, parse: impl FnOnce(&str) -> Result<T, Complaint>) -> Option<T> {
        let complain = |complaint: Complaint| {
            let subject = if complaint.quotes { quote(key) + " " } else { String::new() };
            self.problem_of_key(subject + &complaint.message);
        };
        parse(key).map_err(complain).ok()
    }

    /// One of a closed list of words. `later` are words that are to come.
    pub(super) fn word<T: Clone>(&self, words: &[(&str, T)], later: &[&str]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.as_str()) {
            return Some(value.clone());
        }
        if later.contains(&text.as_str()) {
            self.problem(format!("\"{}\" is not implemented yet", text.as_str()));
            return None;
        }
        let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let all = 0..text.as_str().len();
        let message = match names.as_slice() {
            [only] => format!("is not possible here: write \"{only}\""),
            names => {
                let hint = did_you_mean(text.as_str(), names.iter().chain(later).copied());
                format!("is none of \"{}\"{hint}", names.join("\", \""))
            }
        };
        text.complain(Complaint::about(all, message));
        None
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(value) => Some(*value),
            _ => {
                self.wrong_type("true or false");
                None
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn integer<T>(&self, bounds: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + Display,
    {
        let DeValue::Integer(written) = self.value else {
            self.wrong_type("a whole number");
            return None;
        };
        let number = i64::from_str_radix(written.as_str(), written.radix()).ok();
        let number = number.and_then(|number| T::try_from(number).ok()).filter(|number| bounds.contains(number));
        if number.is_none() {
            let (least, most) = (grouped(bounds.start()), grouped(bounds.end()));
            self.problem(match least == most {
                true => format!("this must be {least}"),
                false => format!("this must be a whole number from {least} to {most}"),
            });
        }
        number
    }

    /// A date and time that says how far it is from UTC.
    pub(super) fn timestamp(&self) -> Option<Timestamp> {
        let DeValue::Datetime(datetime) = self.value else {
            self.wrong_type("a date and time, 2027-01-01T00:00:00Z without quotes");
            return None;
        };
        let timestamp = Timestamp::from_datetime(datetime);
        if timestamp.is_none() {
            self.problem("this is no single moment: a date, a time, and \"Z\" or \"+01:00\" behind them, from 1970 on");
        }
        timestamp
    }

    /// A share, from 0 to 1.
    pub(super) fn share(&self) -> Option<f64> {
        self.number(0.0..=1.0)
    }

    /// A number within bounds, whole or not.
    pub(super) fn number(&self, bounds: RangeInclusive<f64>) -> Option<f64> {
        let number = match self.value {
            DeValue::Integer(number) => i32::from_str_radix(number.as_str(), number.radix()).ok().map(f64::from),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => {
                self.wrong_type("a number");
                return None;
            }
        };
        let number = number.filter(|number| bounds.contains(number));
        if number.is_none() {
            self.problem(format!("this must be a number from {:?} to {:?}", bounds.start(), bounds.end()));
        }
        number
    }

    pub(super) fn table(&self) -> Option<Table<'a>> {
        match self.value {
            DeValue::Table(entries) => Some(Table::new(self.clone(), entries)),
            DeValue::Array(items) if items.iter().any(|item| matches!(item.get_ref(), DeValue::Table(_))) => {
                self.problem("this must be a table: write it with one pair of brackets, [like.this]");
                None
            }
            _ => {
                self.wrong_type("a table");
                None
            }
        }
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.value, DeValue::String(_))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }

    /// [`Self::table`] where another kind of value is possible too.
    pub(super) fn inline_table(&self) -> Option<Table<'a>> {
        if matches!(self.value, DeValue::Table(_)) { self.table() } else { None }
    }

    /// The items of a list that has at most `most`.
    pub(super) fn items(&self, most: usize) -> Option<Vec<Self>> {
        let DeValue::Array(items) = self.value else {
            self.wrong_type("a list");
            return None;
        };
        if items.len() > most {
            self.problem(format!("a list of at most {} is possible here", grouped(&most)));
            return None;
        }
        let nodes = items.iter().enumerate().map(|(index, item)| Self {
            ctx: self.ctx,
            source: self.source,
            path: format!("{}[{index}]", self.path),
            key: item.span(),
            span: item.span(),
            value: item.get_ref(),
        });
        Some(nodes.collect())
    }

    /// A list whose items `read` takes, none of them twice.
    pub(super) fn distinct<T: PartialEq>(&self, most: usize, read: impl Fn(&Self) -> Option<T>) -> Option<Vec<T>> {
        let mut values = Vec::new();
        let mut complete = true;
        for item in self.items(most)? {
            match read(&item) {
                Some(value) if values.contains(&value) => {
                    item.problem("this is in the list already");
                    complete = false;
                }
                Some(value) => values.push(value),
                None => complete = false,
            }
        }
        complete.then_some(values)
    }

    /// [`Self::distinct`] with at least one item; `empty` says what to write instead of an empty list.
    pub(super) fn some<T: PartialEq>(
        &self,
        most: usize,
        empty: &str,
        read: impl Fn(&Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let values = self.distinct(most, read)?;
        if values.is_empty() {
            self.problem(format!("this list is empty: {empty}"));
            return None;
        }
        Some(values)
    }
}

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.value
    }

    /// No variable and no escape has a part in it.
    pub(super) fn is_as_written(&self) -> bool {
        self.written_at.is_some()
    }

    /// Reports what a parser found.
    pub(super) fn complain(&self, complaint: Complaint) {
        let Complaint { part, quotes, message } = complaint;
        let Some(part) = part else {
            return self.node.problem(message);
        };
        if !quotes {
            return self.problem_at(part, message);
        }
        let subject = match self.value.get(part.clone()) {
            // Only what stands in the file is repeated, never what a variable put there.
            Some(quoted) if self.written_at.is_some() => quote(quoted),
            _ => "this".to_owned(),
        };
        self.problem_at(part, format!("{subject} {message}"));
    }

    /// Reports a problem with a part of the text, as nearly as its place is known.
    fn problem_at(&self, part: Range<usize>, message: impl Into<String>) {
        match self.written_at {
            Some(_) if part == (0..self.value.len()) || part.is_empty() => self.node.problem(message),
            Some(start) => {
                let span = start + part.start..start + part.end;
                self.node.ctx.report.add(self.node.source, span, &self.node.path, message);
            }
            None => self.node.problem(message),
        }
    }
}

/// `1,000,000`
fn grouped(number: &impl Display) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
