//! Which values are never shown.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::Report;
use super::source::Source;

/// Words that make a key's value secret wherever they stand in it.
const SECRET_WORDS: [&str; 7] =
    ["secret", "token", "password", "passphrase", "credential", "private_key", "authorization"];
/// Keys that have such a word and hold none.
const HARMLESS: [&str; 3] = ["token_from", "forward_token", "forward_credentials"];
/// Keys that hold one without having such a word.
const SECRET_KEYS: [&str; 3] = ["redis_url", "api_key", "cookie"];

/// Whether what stands under `key` may be a secret, `key` being perhaps misspelt.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    if key.ends_with("_file") || HARMLESS.contains(&key.as_str()) {
        return false;
    }
    SECRET_WORDS.iter().any(|word| key.contains(word))
        || SECRET_WORDS.iter().chain(&SECRET_KEYS).any(|word| strsim::osa_distance(&key, word) <= 2)
}

/// Masks every secret of a file.
pub(super) fn mask_table(report: &Report, source: &Source, table: &DeTable<'_>) {
    let mut see = |span: Range<usize>, is_secret| {
        let secret = if is_secret { Some(span) } else { user_information(&source.text, span) };
        if let Some(span) = secret {
            report.mask(source, span);
        }
    };
    for (section, value) in table {
        let DeValue::Table(entries) = value.get_ref() else {
            visit(value, is_secret(section.get_ref()), &mut see);
            continue;
        };
        for (name, value) in entries {
            // A table here has a name of the operator's choice: [limits.per_token] holds no secret.
            let is_named = matches!(value.get_ref(), DeValue::Table(_));
            visit(value, !is_named && is_secret(name.get_ref()), &mut see);
        }
    }
}

/// Masks all that is below `value`.
pub(super) fn mask_all(report: &Report, source: &Source, value: &Spanned<DeValue<'_>>) {
    visit(value, true, &mut |span, _| report.mask(source, span));
}

fn visit(value: &Spanned<DeValue<'_>>, hidden: bool, see: &mut dyn FnMut(Range<usize>, bool)) {
    match value.get_ref() {
        DeValue::Table(table) => {
            table.iter().for_each(|(key, value)| visit(value, hidden || is_secret(key.get_ref()), see));
        }
        DeValue::Array(items) => items.iter().for_each(|item| visit(item, hidden, see)),
        // One of two values keeps no secret.
        DeValue::Boolean(_) => {}
        _ => see(value.span(), hidden),
    }
}

/// The `user:password` of a URL, or of what may be meant as one.
fn user_information(text: &str, span: Range<usize>) -> Option<Range<usize>> {
    let token = text.get(span.clone())?;
    let to = token.rfind('@')?;
    let from = token[..to].find("//").map_or(1, |slashes| slashes + 2);
    let inside = token.get(from..to)?;
    inside.contains(':').then_some(span.start + from..span.start + to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_may_hold_a_secret_are_known_even_misspelt() {
        for key in
            ["secret", "client_secret", "sercet", "Secret", "tokn", "token", "admin-token", "pasword", "redis_ulr"]
        {
            assert!(is_secret(key), "{key}");
        }
        // As keys of request_headers: what we tell an upstream to be let in.
        for key in ["authorization", "Proxy-Authorization", "cookie", "x-api-key"] {
            assert!(is_secret(key), "{key}");
        }
        for key in ["secret_file", "token_file", "token_from", "forward_token", "upstream", "listeners", "sample"] {
            assert!(!is_secret(key), "{key}");
        }
    }

    #[test]
    fn the_password_of_a_url_is_found() {
        let text = r#"url = "https://me:pass@id.example/x""#;
        assert_eq!(user_information(text, 6..text.len()).map(|span| &text[span]), Some("me:pass"));
        for (text, secret) in [
            (r#""https://id.example/x""#, None),
            (r#""me@example.com""#, None),
            (r#""https//me:pass@id.example""#, Some("me:pass")),
            (r#""me:pass@id.example""#, Some("me:pass")),
            (r#""redis://:pa@ss@id.example""#, Some(":pa@ss")),
            (r#""""#, None),
            ("1", None),
        ] {
            assert_eq!(user_information(text, 0..text.len()).map(|span| &text[span]), secret, "{text}");
        }
    }
}
