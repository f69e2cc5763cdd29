//! `${NAME}` and `${NAME:-default}` inside strings; `$${` writes `${`.

use std::borrow::Cow;
use std::ops::Range;

use crate::config::Variable;

/// Most bytes a string may have once its variables are filled in.
const MAX_EXPANDED: usize = 1024 * 1024;

/// What keeps a string from being filled in, and where in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfilled {
    pub(super) at: Range<usize>,
    pub(super) message: String,
}

/// Fills in the variables of `text`. Borrowed when there are none; every variable that fails is told.
pub(super) fn interpolate<'a>(text: &'a str, lookup: impl Fn(&str) -> Variable) -> Result<Cow<'a, str>, Vec<Unfilled>> {
    if !text.contains("${") {
        return Ok(Cow::Borrowed(text));
    }
    let mut filled = String::with_capacity(text.len());
    let mut failed = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("${") {
        let start = at + found;
        if text[at..start].ends_with('$') {
            // "$${": the first dollar only says that the second is one.
            filled.push_str(&text[at..start]);
            filled.push('{');
            at = start + 2;
            continue;
        }
        filled.push_str(&text[at..start]);
        let Some(length) = text[start..].find('}') else {
            let message = "\"${\" starts a variable and has no \"}\": write \"$${\" for these two characters";
            failed.push(Unfilled { at: start..text.len(), message: message.to_owned() });
            return Err(failed);
        };
        let end = start + length + 1;
        match value(&text[start + 2..end - 1], &lookup) {
            Ok(value) => filled.push_str(&value),
            Err(message) => failed.push(Unfilled { at: start..end, message }),
        }
        if filled.len() > MAX_EXPANDED {
            let message = "with its variables filled in, this is longer than 1 MiB".to_owned();
            failed.push(Unfilled { at: start..end, message });
            return Err(failed);
        }
        at = end;
    }
    filled.push_str(&text[at..]);
    if failed.is_empty() { Ok(Cow::Owned(filled)) } else { Err(failed) }
}

fn value<'t>(inside: &'t str, lookup: &impl Fn(&str) -> Variable) -> Result<Cow<'t, str>, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let is_name = !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_');
    if !is_name {
        return Err("a variable is written ${NAME} or ${NAME:-default}, its name in letters, digits and \"_\"; \
                    write \"$${\" for the two characters \"${\""
            .to_owned());
    }
    match (lookup(name), default) {
        // As in a shell, ":-" also stands in for a variable that is set to nothing.
        (Variable::Set(value), Some(default)) if value.is_empty() => Ok(Cow::Borrowed(default)),
        (Variable::Set(value), _) => Ok(Cow::Owned(value)),
        (Variable::Unset, Some(default)) => Ok(Cow::Borrowed(default)),
        (Variable::Unset, None) => {
            Err(format!("the environment has no variable {name}: set it, or write ${{{name}:-default}}"))
        }
        (Variable::NotText, _) => Err(format!("the environment variable {name} is not UTF-8 text")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPEN: &str = "${";

    fn environment(name: &str) -> Variable {
        match name {
            "HOST" => Variable::Set("id.example".to_owned()),
            "EMPTY" => Variable::Set(String::new()),
            "BYTES" => Variable::NotText,
            _ => Variable::Unset,
        }
    }

    #[test]
    fn variables_are_filled_in_and_other_dollars_stay() {
        for (text, expected) in [
            ("https://${HOST}/x", "https://id.example/x"),
            ("${NONE:-a b}", "a b"),
            ("${EMPTY}", ""),
            ("${EMPTY:-x}", "x"),
            ("${NONE:-}", ""),
            ("^/a$", "^/a$"),
            ("$HOST $1 $", "$HOST $1 $"),
            ("$${HOST}", "${HOST}"),
            ("a$$${HOST}b", "a$${HOST}b"),
            ("${HOST}$${HOST}${HOST}", "id.example${HOST}id.example"),
        ] {
            assert_eq!(interpolate(text, environment).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_filled_in_is_told_with_its_place() {
        let failed = interpolate("a ${ONE} ${TWO} ${HOST}", environment).expect_err("two are missing");
        assert_eq!(failed.iter().map(|unfilled| unfilled.at.clone()).collect::<Vec<_>>(), [2..8, 9..15]);
        for text in ["${", "${HOST", "${}", "${1A}", "${A B}", "${BYTES}", "${:-x}"] {
            assert_eq!(interpolate(text, environment).map_err(|failed| failed.len()), Err(1), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_filled_in_or_refused(text in "[a${}:\\-HOST\u{e4}]{0,40}") {
            match interpolate(&text, environment) {
                Ok(filled) => prop_assert!(text.contains(OPEN) || filled == text),
                Err(failed) => {
                    prop_assert!(!failed.is_empty());
                    for unfilled in failed {
                        prop_assert!(text.get(unfilled.at).is_some_and(|piece| piece.starts_with(OPEN)));
                    }
                }
            }
        }
    }
}
