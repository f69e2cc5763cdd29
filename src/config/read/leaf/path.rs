//! Patterns of paths, in canonical form only: another spelling would never match, and so is refused with what to write.

use std::ops::Range;

use crate::config::read::complaint::Complaint;
use crate::config::{EncodedSlash, PathPattern, Segment};

/// Longest path that can be written.
const MAX_PATH: usize = 4096;
/// Most parameters of one path.
const MAX_PARAMETERS: usize = 16;
/// Names that templates know already.
const VARIABLES: [&str; 4] = ["path", "query", "host", "method"];

/// `/orders`, `/orders/*`, `/users/{id}/orders`.
pub(crate) fn pattern(text: &str, slash: EncodedSlash) -> Result<PathPattern, Complaint> {
    let rest = rooted(text)?;
    let (segments, below) = match rest.strip_suffix('*') {
        Some("") => return Ok(PathPattern { segments: Vec::new(), below: true }),
        Some(before) if before.ends_with('/') => (&before[..before.len() - 1], true),
        _ => (rest, false),
    };
    let mut pattern = PathPattern { segments: Vec::new(), below };
    for_each_segment(segments, below, |segment, at| {
        let parsed = match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => parameter(name, at, &pattern.segments)?,
            None => Segment::Literal(literal(segment, at, slash)?),
        };
        pattern.segments.push(parsed);
        Ok(())
    })?;
    let parameters = pattern.segments.iter().filter(|segment| matches!(segment, Segment::Parameter(_))).count();
    if parameters > MAX_PARAMETERS {
        return Err(Complaint::new(format!("a path has {MAX_PARAMETERS} parameters at most")));
    }
    Ok(pattern)
}

/// A path of literal segments, as `strip_prefix` takes it.
pub(crate) fn prefix(text: &str) -> Result<String, Complaint> {
    let rest = rooted(text)?;
    if rest.is_empty() {
        return Err(Complaint::new("\"/\" begins every path: there would be nothing to strip"));
    }
    for_each_segment(rest, false, |segment, at| literal(segment, at, EncodedSlash::Keep).map(drop))?;
    Ok(text.to_owned())
}

/// A whole path in canonical form, without a pattern in it.
pub(crate) fn plain(text: &str) -> Result<(), Complaint> {
    let rest = rooted(text)?;
    for_each_segment(rest, false, |segment, at| characters(segment, at, EncodedSlash::Keep))
}

fn rooted(text: &str) -> Result<&str, Complaint> {
    if text.len() > MAX_PATH {
        return Err(Complaint::new(format!("a path has {MAX_PATH} bytes at most")));
    }
    text.strip_prefix('/').ok_or_else(|| Complaint::new("a path starts with \"/\""))
}

/// Calls `see` with each segment and where it is in the path. Only the last may be empty, and only if nothing follows.
fn for_each_segment(
    segments: &str,
    below: bool,
    mut see: impl FnMut(&str, Range<usize>) -> Result<(), Complaint>,
) -> Result<(), Complaint> {
    let mut start = 1;
    for segment in segments.split('/') {
        let end = start + segment.len();
        let is_last = end == segments.len() + 1;
        if segment.is_empty() && (!is_last || below) {
            return Err(Complaint::at(start - 1..start + 1, "slashes that follow each other are one: write \"/\""));
        }
        see(segment, start..end)?;
        start = end + 1;
    }
    Ok(())
}

fn parameter(name: &str, at: Range<usize>, before: &[Segment]) -> Result<Segment, Complaint> {
    let is_name = !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_');
    if !is_name {
        let message = "is no parameter: its name has letters, digits and \"_\", and does not begin with a digit";
        return Err(Complaint::about(at, message));
    }
    if VARIABLES.contains(&name) {
        return Err(Complaint::about(at, "has a meaning of its own where text is replaced: choose another name"));
    }
    if before.iter().any(|segment| matches!(segment, Segment::Parameter(other) if other == name)) {
        return Err(Complaint::about(at, "is a parameter of this path already"));
    }
    Ok(Segment::Parameter(name.to_owned()))
}

fn literal(segment: &str, at: Range<usize>, slash: EncodedSlash) -> Result<String, Complaint> {
    if let Some(star) = segment.find('*') {
        let star = at.start + star;
        let message = "\"*\" is possible only at the end and alone in its segment, as in \"/orders/*\"; \
                       one segment is a parameter: \"{name}\"";
        return Err(Complaint::at(star..star + 1, message));
    }
    if segment.contains(['{', '}']) {
        return Err(Complaint::about(at, "mixes text and braces: a parameter is a whole segment, \"/{name}/\""));
    }
    characters(segment, at, slash)?;
    Ok(segment.to_owned())
}

/// What the canonical form of a path leaves as it is.
fn characters(segment: &str, at: Range<usize>, slash: EncodedSlash) -> Result<(), Complaint> {
    if matches!(segment.split(';').next(), Some("." | "..")) {
        return Err(Complaint::about(at, "is resolved before paths are matched: it would never be seen here"));
    }
    let mut characters = segment.char_indices();
    while let Some((index, character)) = characters.next() {
        let place = at.start + index..at.start + index + character.len_utf8();
        match character {
            '%' => {
                escape(&segment[index..], place.start, slash)?;
                // The two digits of the escape, which are ASCII.
                characters.nth(1);
            }
            '?' | '#' => {
                return Err(Complaint::at(place, "a path ends before \"?\" and \"#\": use match_query for the query"));
            }
            '\\' => return Err(Complaint::at(place, "a request with \"\\\" in its path is refused")),
            '!'..='~' => {}
            _ => {
                let escaped: String = character.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
                return Err(Complaint::at(place, format!("this character is escaped in a path: write \"{escaped}\"")));
            }
        }
    }
    Ok(())
}

/// The escape that `text` begins with.
fn escape(text: &str, start: usize, slash: EncodedSlash) -> Result<(), Complaint> {
    let value = text.get(1..3).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let Some(value) = value.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
        return Err(Complaint::at(start..start + 1, "\"%\" begins an escape of two digits: write \"%25\" for itself"));
    };
    let place = start..start + 3;
    let canonical = format!("%{value:02X}");
    match value {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            Err(Complaint::at(place, format!("paths are matched with this decoded: write \"{}\"", char::from(value))))
        }
        0..=0x1f | 0x7f | b'\\' => Err(Complaint::at(place, "a request with this in its path is refused")),
        b'/' if slash == EncodedSlash::Refuse => {
            Err(Complaint::at(place, "a request with this in its path is refused, unless encoded_slash = \"keep\""))
        }
        _ if !text.starts_with(&canonical) => {
            Err(Complaint::at(place, format!("escapes are matched in capitals: write \"{canonical}\"")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<PathPattern, Complaint> {
        pattern(text, EncodedSlash::Refuse)
    }

    fn show(pattern: &PathPattern) -> String {
        let mut text = String::new();
        for segment in &pattern.segments {
            match segment {
                Segment::Literal(literal) => text.extend(["/", literal]),
                Segment::Parameter(name) => text.extend(["/{", name, "}"]),
            }
        }
        if pattern.below { text + "/*" } else { text }
    }

    #[test]
    fn segments_are_literals_or_parameters() {
        let literal = |text: &str| Segment::Literal(text.to_owned());
        for (text, segments, below) in [
            ("/*", vec![], true),
            ("/", vec![literal("")], false),
            ("/a/", vec![literal("a"), literal("")], false),
            ("/orders/*", vec![literal("orders")], true),
            ("/users/{id}/orders", vec![literal("users"), Segment::Parameter("id".into()), literal("orders")], false),
            ("/{id}/*", vec![Segment::Parameter("id".into())], true),
            ("/a%20b;v=1", vec![literal("a%20b;v=1")], false),
        ] {
            assert_eq!(read(text), Ok(PathPattern { segments, below }), "{text}");
        }
    }

    #[test]
    fn what_could_never_match_is_refused() {
        for text in [
            "",
            "orders",
            "/a//b",
            "//",
            "/a//*",
            "//*",
            "/a*",
            "/*/b",
            "/a/*b",
            "/a/**",
            "/./a",
            "/a/..",
            "/a/..;x",
            "/a?b",
            "/a#b",
            "/a b",
            "/\u{e4}",
            "/a\\b",
            "/%61",
            "/%2f",
            "/%2F",
            "/%c3%a4",
            "/%00",
            "/%5C",
            "/%",
            "/%2",
            "/%zz",
            "/{}",
            "/{1a}",
            "/{a-b}",
            "/{path}",
            "/{a}/{a}",
            "/x{a}",
            "/{a}x",
            "/{a",
            "/a}",
            "/{a}{b}",
            "/%2\u{e4}",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(pattern("/a%2Fb", EncodedSlash::Keep).is_ok());
    }

    #[test]
    fn a_complaint_says_where_and_what_to_write() {
        let complaint = read("/a/%61b").unwrap_err();
        assert_eq!(complaint.part, Some(3..6));
        assert!(complaint.message.ends_with("write \"a\""), "{}", complaint.message);
    }

    #[test]
    fn a_prefix_is_literal() {
        assert!(prefix("/orders").is_ok() && prefix("/v1/orders/").is_ok());
        for text in ["", "/", "orders", "/{id}", "/a/*", "/a//b"] {
            assert!(prefix(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_that_is_read_is_what_was_written(text in "/[a-c{}*./%2F0;\u{e4}]{0,16}") {
            if let Ok(pattern) = pattern(&text, EncodedSlash::Keep) {
                prop_assert_eq!(show(&pattern), text);
            }
        }
    }
}
