//! Values that several sections have.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::complaint::Complaint;
use super::leaf::quantity;
use super::node::Node;
use super::section::Named;
use super::table::Table;
use crate::config::{Mode, Name};

/// The shortest time that is counted.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// The longest that anything is waited for.
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Most names in a list of references.
const MAX_NAMES: usize = 64;
/// Longest name of a place, which every page of the admin side repeats.
const MAX_ZONE: usize = 64;
const LONG_ZONE: &str = "a zone's name has 64 bytes at most";
/// Longest free text.
const MAX_TEXT: usize = 4096;

/// A duration up to `most`.
pub(super) fn duration(node: &Node<'_>, most: Duration) -> Option<Duration> {
    node.parse(|text| quantity::duration(text, TICK..=most))
}

/// A duration up to `most`, or `"none"`.
pub(super) fn duration_or_none(node: &Node<'_>, most: Duration) -> Option<Option<Duration>> {
    or_none(node, |text| quantity::duration(text, TICK..=most))
}

/// A size within bounds, or `"none"`.
pub(super) fn size_or_none(node: &Node<'_>, bounds: RangeInclusive<u64>) -> Option<Option<u64>> {
    or_none(node, |text| quantity::size(text, bounds))
}

/// `"20%"`, within bounds.
pub(super) fn percent(node: &Node<'_>, bounds: RangeInclusive<u8>) -> Option<u8> {
    node.parse(|text| percentage(text, &bounds))
}

/// [`percent`], or `"none"`.
pub(super) fn percent_or_none(node: &Node<'_>, bounds: RangeInclusive<u8>) -> Option<Option<u8>> {
    or_none(node, |text| percentage(text, &bounds))
}

fn percentage(text: &str, bounds: &RangeInclusive<u8>) -> Result<u8, Complaint> {
    let number = text.strip_suffix('%').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    match number.and_then(|digits| digits.parse().ok()).filter(|percent| bounds.contains(percent)) {
        Some(percent) => Ok(percent),
        None => Err(Complaint::new(format!(
            "this must be whole percents from \"{}%\" to \"{}%\"",
            bounds.start(),
            bounds.end()
        ))),
    }
}

fn or_none<T>(node: &Node<'_>, parse: impl FnOnce(&str) -> Result<T, Complaint>) -> Option<Option<T>> {
    node.parse(|text| match text {
        "none" => Ok(None),
        text => parse(text).map(Some).map_err(|mut complaint| {
            complaint.message.push_str("; \"none\" lifts the limit");
            complaint
        }),
    })
}

/// Text that is not empty, has no control characters and is not longer than a few lines.
pub(super) fn text(node: &Node<'_>) -> Option<String> {
    node.parse(plain_text)
}

pub(super) fn plain_text(text: &str) -> Result<String, Complaint> {
    if text.is_empty() {
        return Err(Complaint::new("this is empty"));
    }
    if text.len() > MAX_TEXT {
        return Err(Complaint::new(format!("this is longer than {MAX_TEXT} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(Complaint::new("this has a control character"));
    }
    Ok(text.to_owned())
}

/// The name of a place.
pub(super) fn zone(node: &Node<'_>) -> Option<Name> {
    node.parse(|text| if text.len() <= MAX_ZONE { plain_text(text) } else { Err(Complaint::new(LONG_ZONE)) })
        .map(Name::from)
}

/// Names of a section, none of them twice; none at all is a list too. `check` says what is wrong with one here.
pub(super) fn names(
    node: &Node<'_>,
    section: &Named<'_>,
    check: impl Fn(&Name) -> Result<(), &'static str>,
) -> Option<Vec<Name>> {
    node.distinct(MAX_NAMES, |item| {
        let name = section.refer(item)?;
        match check(&name) {
            Ok(()) => Some(name),
            Err(message) => {
                item.problem(message);
                None
            }
        }
    })
}

/// `mode`, `auth_mode`.
pub(super) fn mode(table: &mut Table<'_>, key: &'static str) -> Option<Mode> {
    table.or(key, Mode::Enforce, |node| node.word(&[("enforce", Mode::Enforce), ("shadow", Mode::Shadow)], &[]))
}
