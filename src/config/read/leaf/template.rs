//! Text with `{variables}`.

use std::ops::Range;

use super::{header, path, selector};
use crate::config::read::complaint::Complaint;
use crate::config::read::suggest::did_you_mean;
use crate::config::{Template, TemplatePart};

/// Variables that every request has.
const COMMON: [&str; 4] = ["path", "query", "host", "method"];

/// What a template may name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    /// The parameters of the route's path
    pub(crate) parameters: &'a [&'a str],
    /// Why no claim can be named here, if none can
    pub(crate) no_claims: Option<&'a str>,
}

/// A piece and where it was written.
struct Piece {
    part: TemplatePart,
    at: Range<usize>,
}

/// Text for a header.
pub(crate) fn header_value(text: &str, scope: Scope<'_>) -> Result<Template, Complaint> {
    let pieces = pieces(text, scope)?;
    for piece in &pieces {
        let TemplatePart::Text(text) = &piece.part else {
            continue;
        };
        if let Some(wrong) = text.chars().find(|character| !matches!(character, '\t' | ' '..='~')) {
            let message = format!("a header's value is visible ASCII; U+{:04X} is not", u32::from(wrong));
            return Err(Complaint::at(piece.at.clone(), message));
        }
    }
    if text.trim_matches([' ', '\t']).len() != text.len() {
        return Err(Complaint::new("a header's value has no space at either end"));
    }
    Ok(template(pieces))
}

/// A new path.
pub(crate) fn new_path(text: &str, scope: Scope<'_>) -> Result<Template, Complaint> {
    let pieces = pieces(text, scope)?;
    if let Some(query) = pieces.iter().find(|piece| piece.part == TemplatePart::Query) {
        return Err(Complaint::about(query.at.clone(), "has no place in a path; the query is kept as it is"));
    }
    no_doubled_slash(&pieces)?;
    path::plain(&filled(&pieces)).map_err(|complaint| Complaint::new(complaint.message))?;
    Ok(template(pieces))
}

/// A target to redirect to: an absolute URL or a path. The client has no say in anything before the path.
pub(crate) fn target(text: &str, scope: Scope<'_>) -> Result<Template, Complaint> {
    let pieces = pieces(text, scope)?;
    no_doubled_slash(&pieces)?;
    let path_start = match authority_end(text)? {
        Some(end) => end,
        None if text.starts_with("{path}") || (text.starts_with('/') && !text.starts_with("//")) => {
            certain_start(&pieces)?;
            0
        }
        None => return Err(Complaint::new("this must be a URL or a path: \"https://example.com{path}\" or \"/new\"")),
    };
    if let Some(query) = pieces.iter().find(|piece| piece.part == TemplatePart::Query)
        && !text[path_start..query.at.start].contains('?')
    {
        let message = "stands behind a \"?\" or nowhere: what a client writes there must not become a path or a host";
        return Err(Complaint::about(query.at.clone(), message));
    }
    let filled = filled(&pieces);
    if filled.bytes().any(|byte| !(0x21..=0x7e).contains(&byte) || b"\"<>\\^`{|}".contains(&byte))
        || filled.parse::<http::Uri>().is_err()
    {
        return Err(Complaint::new("this is not a URL: escape what cannot stand in one"));
    }
    Ok(template(pieces))
}

/// Where `https://host` ends, if the target begins with that.
fn authority_end(text: &str) -> Result<Option<usize>, Complaint> {
    let Some(colon) = text.find("://") else {
        return Ok(None);
    };
    if text.starts_with('/') || text.starts_with('{') {
        return Ok(None);
    }
    let scheme = &text[..colon];
    if scheme != "https" && scheme != "http" {
        return Err(Complaint::about(0..colon, "is no scheme to redirect to: write https:// or http://"));
    }
    let start = colon + 3;
    let rest = &text[start..];
    let end = start + rest.find(['/', '?', '#', '{']).unwrap_or(rest.len());
    let follows = &text[end..];
    if follows.starts_with('{') && !follows.starts_with("{path}") || follows.starts_with("{{") {
        let message = "before the path there can be no variable but {path} itself: a client could choose where to go";
        return Err(Complaint::at(end..end + 1, message));
    }
    if let Err(complaint) = super::address::authority(&text[start..end]) {
        return Err(complaint.moved(start));
    }
    Ok(Some(end))
}

/// A path in a redirect must not become `//host`: so nothing that may be empty follows its first slash.
fn certain_start(pieces: &[Piece]) -> Result<(), Complaint> {
    if let [Piece { part: TemplatePart::Text(text), .. }, Piece { part, at }, ..] = pieces
        && text == "/"
        && !matches!(part, TemplatePart::Parameter(_) | TemplatePart::Method)
    {
        let message = "may be empty, and what follows it could then be taken for a host: write a name in front of it";
        return Err(Complaint::about(at.clone(), message));
    }
    Ok(())
}

/// `{path}` begins with a slash; behind another it would make `//`, which in front is another host.
fn no_doubled_slash(pieces: &[Piece]) -> Result<(), Complaint> {
    for pair in pieces.windows(2) {
        if let TemplatePart::Text(before) = &pair[0].part
            && before.ends_with('/')
            && pair[1].part == TemplatePart::Path
        {
            return Err(Complaint::about(pair[1].at.clone(), "begins with \"/\" itself: leave out the one before it"));
        }
    }
    Ok(())
}

fn template(pieces: Vec<Piece>) -> Template {
    Template(pieces.into_iter().map(|piece| piece.part).collect())
}

/// The text for a request that has something plain for every variable.
fn filled(pieces: &[Piece]) -> String {
    let plain = |piece: &Piece| match &piece.part {
        TemplatePart::Text(text) => text.clone(),
        TemplatePart::Path => "/x".to_owned(),
        _ => "x".to_owned(),
    };
    pieces.iter().map(plain).collect()
}

/// Splits at the variables. `{{` is a brace.
fn pieces(text: &str, scope: Scope<'_>) -> Result<Vec<Piece>, Complaint> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("{{") {
            push_text(&mut pieces, "{", at..at + 2);
            at += 2;
        } else if rest.starts_with('{') {
            let Some(end) = rest.find('}') else {
                let message = "\"{\" starts a variable and has no \"}\": write \"{{\" for the brace itself";
                return Err(Complaint::at(at..text.len(), message));
            };
            let place = at..at + end + 1;
            let part = variable(&rest[1..end], scope).map_err(|complaint| placed(complaint, place.clone()))?;
            pieces.push(Piece { part, at: place.clone() });
            at = place.end;
        } else {
            let end = at + rest.find('{').unwrap_or(rest.len());
            push_text(&mut pieces, &text[at..end], at..end);
            at = end;
        }
    }
    Ok(pieces)
}

/// Whatever is wrong within a variable is said of the whole of it.
fn placed(complaint: Complaint, place: Range<usize>) -> Complaint {
    Complaint { part: Some(place), ..complaint }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str, at: Range<usize>) {
    if let Some(Piece { part: TemplatePart::Text(before), at: place }) = pieces.last_mut() {
        before.push_str(text);
        place.end = at.end;
    } else {
        pieces.push(Piece { part: TemplatePart::Text(text.to_owned()), at });
    }
}

fn variable(name: &str, scope: Scope<'_>) -> Result<TemplatePart, Complaint> {
    match name {
        "path" => return Ok(TemplatePart::Path),
        "query" => return Ok(TemplatePart::Query),
        "host" => return Ok(TemplatePart::Host),
        "method" => return Ok(TemplatePart::Method),
        _ => {}
    }
    if scope.parameters.contains(&name) {
        return Ok(TemplatePart::Parameter(name.to_owned()));
    }
    if let Some(claim) = name.strip_prefix("claim.") {
        return match scope.no_claims {
            Some(reason) => Err(Complaint::about(0..0, format!("has no value here: {reason}"))),
            None => selector::claim(claim).map(TemplatePart::Claim),
        };
    }
    if let Some(header) = name.strip_prefix("header.") {
        return header::name(header).map(TemplatePart::Header);
    }
    if let Some(fact) = selector::client_certificate(name) {
        return Ok(TemplatePart::ClientCertificate(fact));
    }
    let known = COMMON.iter().copied().chain(scope.parameters.iter().copied());
    let hint = did_you_mean(name, known);
    let message = format!(
        "is no variable; there are {{path}}, {{query}}, {{host}}, {{method}}, the parameters of this route's path, \
         {{claim.x}}, {{header.x}} and {{tls.client.subject}}{hint}"
    );
    Err(Complaint::about(0..0, message))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCOPE: Scope<'static> = Scope { parameters: &["id"], no_claims: None };

    #[test]
    fn variables_and_braces_are_told_apart() {
        let text = |text: &str| TemplatePart::Text(text.to_owned());
        let template = header_value("a {{b} {id}{path}", SCOPE).expect("a template");
        assert_eq!(template.0, [text("a {b} "), TemplatePart::Parameter("id".into()), TemplatePart::Path]);
        for wrong in ["{", "{id", "{ID}", "{}", "{claim.}", "{header.}", "{header.a b}", "a\nb", " a", "\u{e4}"] {
            assert!(header_value(wrong, SCOPE).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn claims_need_an_identity() {
        let open = Scope { parameters: &[], no_claims: Some("nobody is known") };
        assert!(header_value("{claim.sub}", SCOPE).is_ok());
        assert!(header_value("{claim.sub}", open).is_err());
        assert!(header_value("{id}", open).is_err());
    }

    #[test]
    fn a_client_cannot_choose_where_a_redirect_goes() {
        for text in [
            "https://example.com{path}",
            "https://example.com:8443/new{path}?{query}",
            "https://example.com",
            "http://[::1]/x",
            "{path}",
            "/new/{id}",
            "/new?from={path}&{query}",
            "/u/{header.x}{path}",
            "/new?to=https://example.com/",
        ] {
            assert!(target(text, SCOPE).is_ok(), "{text}: {:?}", target(text, SCOPE));
        }
        for text in [
            "",
            "new",
            "//example.com",
            "/{path}",
            "https://{host}{path}",
            "https://example.com{query}",
            "https://example.com{id}",
            "https://example.com.{id}/",
            "https://{header.x}",
            "https://me@example.com/",
            "{host}/",
            "{id}",
            "{query}",
            "/{query}",
            "/{header.x}{path}",
            "/{claim.a}/login",
            "https://example.com/{query}",
            "javascript://x",
            "ftp://example.com/",
            "https://example.com/a b",
            "https://example.com{{path}",
            "https://",
            "\\\\example.com",
        ] {
            assert!(target(text, SCOPE).is_err(), "{text}");
        }
    }

    #[test]
    fn a_new_path_is_canonical_and_keeps_the_query() {
        for text in ["/v2/{id}", "/v2{path}", "/v2/{claim.tenant}/x", "/v2/{id}-{header.x}", "/"] {
            assert!(new_path(text, SCOPE).is_ok(), "{text}");
        }
        for text in ["v2", "{id}", "/v2?{query}", "/{query}", "/a//b", "/a/../b", "/a b", "/v2/{path}", "/%61"] {
            assert!(new_path(text, SCOPE).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-c{}/:?#.\u{e4}]{0,16}(\\{(path|id|query|claim\\.a)\\})?[a{}/]{0,4}") {
            let _ = (header_value(&text, SCOPE), new_path(&text, SCOPE), target(&text, SCOPE));
        }
    }
}
