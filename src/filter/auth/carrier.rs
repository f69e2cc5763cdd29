//! Where a request carries its token, and the request without it.

use std::borrow::Cow;

use http::HeaderValue;
use http::header::{AUTHORIZATION, COOKIE};
use percent_encoding::percent_decode;

use crate::config::TokenSource;
use crate::http::{Request, text};

/// What a request brings along.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Carried<'a> {
    Nothing,
    /// A token (perhaps not one), and which of the sources it came from
    One {
        token: Cow<'a, str>,
        source: usize,
    },
    /// More than one, whether they are alike or not (RFC 6750 section 2)
    Several,
}

/// Looks in every source. An empty value is nothing: a cookie that has been cleared, for instance.
pub(super) fn find<'a>(request: &Request<'a>, sources: &[TokenSource]) -> Carried<'a> {
    let mut found = Carried::Nothing;
    for (index, source) in sources.iter().enumerate() {
        match (read(request, source), &found) {
            (Carried::Nothing, _) => {}
            (Carried::One { token, .. }, Carried::Nothing) => found = Carried::One { token, source: index },
            _ => return Carried::Several,
        }
    }
    found
}

fn read<'a>(request: &Request<'a>, source: &TokenSource) -> Carried<'a> {
    match source {
        TokenSource::Bearer | TokenSource::Basic => {
            let scheme = if *source == TokenSource::Bearer { "bearer" } else { "basic" };
            let mut values = request.headers.get_all(AUTHORIZATION).iter();
            match (values.next(), values.next()) {
                (None, _) => Carried::Nothing,
                (Some(value), None) => credentials(value, scheme).map_or(Carried::Nothing, one),
                // Authorization is a field of one value: two are ambiguous whatever their schemes.
                (Some(_), Some(_)) => Carried::Several,
            }
        }
        TokenSource::Header(name) => only(request.headers.get_all(name).iter().map(|value| text(value.as_bytes()))),
        TokenSource::Cookie(name) => {
            let cookies = request.headers.get_all(COOKIE).iter().flat_map(|value| pairs(value.as_bytes(), b';'));
            only(cookies.filter_map(|pair| cookie(pair, name)).map(text))
        }
        TokenSource::Query(name) => {
            let parameters = request.query.into_iter().flat_map(|query| pairs(query.as_bytes(), b'&'));
            only(parameters.filter(|pair| is_parameter(pair, name)).map(|pair| decoded(value_of(pair))))
        }
    }
}

fn one(token: Cow<'_, str>) -> Carried<'_> {
    Carried::One { token, source: 0 }
}

/// The one value that is not empty.
fn only<'a>(values: impl Iterator<Item = Cow<'a, str>>) -> Carried<'a> {
    let mut values = values.filter(|value| !value.is_empty());
    match (values.next(), values.next()) {
        (None, _) => Carried::Nothing,
        (Some(value), None) => one(value),
        (Some(_), Some(_)) => Carried::Several,
    }
}

/// The credentials of a scheme, whose name has no case (RFC 9110 section 11.1); another scheme has none. What follows is
/// for the ways of knowing to judge, nothing included.
fn credentials<'a>(value: &'a HeaderValue, name: &str) -> Option<Cow<'a, str>> {
    let value = value.as_bytes();
    let end = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    scheme.eq_ignore_ascii_case(name.as_bytes()).then(|| text(rest.trim_ascii_start()))
}

fn pairs(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    text.split(move |byte| *byte == separator)
}

/// The value of the cookie if this is its pair. Spaces around the name and quotes around the value do not count: there
/// are servers that ignore them, and what they would read has to be judged here.
fn cookie<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let value = pair[equals + 1..].trim_ascii();
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    (pair[..equals].trim_ascii() == name.as_bytes()).then_some(unquoted)
}

fn is_parameter(pair: &[u8], name: &str) -> bool {
    let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
    decoded(&pair[..end]) == name
}

fn value_of(pair: &[u8]) -> &[u8] {
    pair.iter().position(|byte| *byte == b'=').map_or(&[], |equals| &pair[equals + 1..])
}

/// As forms are read: `+` is a space, then percent-encoding (<https://url.spec.whatwg.org/#urlencoded-parsing>).
fn decoded(bytes: &[u8]) -> Cow<'_, str> {
    if !bytes.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return text(bytes);
    }
    let spaced: Vec<u8> = bytes.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).decode_utf8_lossy().into_owned())
}

/// A Cookie header without the cookies of that name; `None` when nothing is left. The others stay byte by byte.
pub fn without_cookie(value: &HeaderValue, name: &str) -> Option<HeaderValue> {
    let kept: Vec<_> = pairs(value.as_bytes(), b';').filter(|pair| cookie(pair, name).is_none()).collect();
    let left = kept.join(&b';');
    let left = left.trim_ascii();
    (!left.is_empty()).then(|| HeaderValue::from_bytes(left).ok()).flatten()
}

/// A query without the parameters of that name, however it is encoded; `None` when nothing is left. The others stay
/// byte by byte.
pub fn without_query(query: &str, name: &str) -> Option<String> {
    let kept: Vec<_> = query.split('&').filter(|pair| !is_parameter(pair.as_bytes(), name)).collect();
    let left = kept.join("&");
    (!left.is_empty()).then_some(left)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::{HeaderMap, HeaderName, Method};
    use proptest::prelude::*;

    use super::*;

    fn found(headers: &[(&'static str, &str)], query: Option<&str>, sources: &[TokenSource]) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header's value");
            map.append(HeaderName::from_static(name), value);
        }
        let request = Request {
            method: &Method::GET,
            host: "api.example.com",
            path: "/",
            query,
            headers: &map,
            client: Ipv4Addr::LOCALHOST.into(),
            client_certificate: None,
            route: "",
            scheme: "http",
            id: "",
        };
        match find(&request, sources) {
            Carried::Nothing => None,
            Carried::One { token, .. } => Some(token.into_owned()),
            Carried::Several => Some("several".into()),
        }
    }

    fn cookie_of(headers: &[&str]) -> Option<String> {
        let headers: Vec<_> = headers.iter().map(|value| ("cookie", *value)).collect();
        found(&headers, None, &[TokenSource::Cookie("t".into())])
    }

    fn parameter_of(query: &str) -> Option<String> {
        found(&[], Some(query), &[TokenSource::Query("to ken".into())])
    }

    #[test]
    fn a_cookie_is_found_among_others_with_or_without_quotes() {
        for header in ["t=abc", "a=1; t=abc; b=2", "a=1;t=\"abc\"", " t = abc ", "xt=1; t=abc; T=2"] {
            assert_eq!(cookie_of(&[header]).as_deref(), Some("abc"), "{header}");
        }
        assert_eq!(cookie_of(&["a=1", "t=abc"]).as_deref(), Some("abc"));
        assert_eq!(cookie_of(&["t=abc", "t=abc"]).as_deref(), Some("several"));
        assert_eq!(cookie_of(&["t=abc; t=def"]).as_deref(), Some("several"));
        assert_eq!(cookie_of(&["t; T=1; xt=2; t=; \u{e4}=\u{e4}"]), None);
    }

    #[test]
    fn a_parameter_is_found_however_its_name_is_encoded() {
        for query in ["to+ken=abc", "a=1&to%20ken=abc", "%74o%20%6bEn=1&%74o%20%6ben=%61bc"] {
            assert_eq!(parameter_of(query).as_deref(), Some("abc"), "{query}");
        }
        assert_eq!(parameter_of("to+ken=abc&to%20ken=def").as_deref(), Some("several"));
        for query in ["", "to+ken", "to+ken=&to+ken=", "To+ken=abc", "to%2520ken=abc", "x=to+ken=abc"] {
            assert_eq!(parameter_of(query), None, "{query}");
        }
        assert_eq!(parameter_of("to+ken=a=b").as_deref(), Some("a=b"));
    }

    #[test]
    fn a_header_of_its_own_is_taken_whole() {
        let sources = [TokenSource::Header(HeaderName::from_static("x-token"))];
        assert_eq!(found(&[("x-token", "Bearer abc")], None, &sources).as_deref(), Some("Bearer abc"));
        assert_eq!(found(&[("x-token", "abc"), ("x-token", "abc")], None, &sources).as_deref(), Some("several"));
        assert_eq!(found(&[("x-token", "")], None, &sources), None);
    }

    #[test]
    fn a_cookie_is_taken_out_and_the_others_stay_as_they_were() {
        let without = |header: &'static str| {
            let left = without_cookie(&HeaderValue::from_static(header), "t");
            left.map(|value| value.to_str().expect("ASCII").to_owned())
        };
        for (header, left) in [
            ("t=abc", None),
            (" t = abc ; t=def", None),
            ("t=abc; a=\"1\"", Some("a=\"1\"")),
            ("a=1; t=abc", Some("a=1")),
            ("a=1;t=abc;  b=2", Some("a=1;  b=2")),
            ("a=1; T=abc; xt=1; t", Some("a=1; T=abc; xt=1; t")),
        ] {
            assert_eq!(without(header).as_deref(), left, "{header}");
        }
    }

    #[test]
    fn a_parameter_is_taken_out_wherever_it_stands_and_the_others_stay_as_they_were() {
        for (query, left) in [
            ("t=abc", None),
            ("t", None),
            ("%74=abc&t=", None),
            ("a=%2f&t=abc&b=+", Some("a=%2f&b=+")),
            ("a=1&T=abc&tt=1&=t", Some("a=1&T=abc&tt=1&=t")),
        ] {
            assert_eq!(without_query(query, "t").as_deref(), left, "{query}");
        }
    }

    proptest! {
        /// Whatever was found is not there any more, and what was not a token's stays.
        #[test]
        fn nothing_is_found_in_what_is_left(
            pairs in proptest::collection::vec(("( |%74|t|T|a|\\+)?(t|%74|%54|x)? ?", "[a-c=\"%]{0,3}"), 0..6),
        ) {
            let text = |separator: &str| {
                let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
                pairs.join(separator)
            };
            let query = text("&");
            let left = without_query(&query, "t");
            prop_assert_eq!(found(&[], left.as_deref(), &[TokenSource::Query("t".into())]), None);
            let others = query.split('&').filter(|pair| !is_parameter(pair.as_bytes(), "t"));
            let others: Vec<_> = others.collect();
            prop_assert_eq!(left.unwrap_or_default(), others.join("&"));

            let header = HeaderValue::from_str(&text(";")).expect("visible");
            let left = without_cookie(&header, "t");
            let left = left.as_ref().map_or("", |value| value.to_str().expect("ASCII"));
            prop_assert_eq!(cookie_of(&[left]), None);
        }
    }
}
