//! Names of headers and methods, and which headers are nobody's to change.

use http::{HeaderName, HeaderValue, Method};

use crate::config::read::complaint::Complaint;

/// Headers of one connection (RFC 9110 section 7.6.1) or of the message's own framing: what follows them decides where
/// a message ends, so no configuration may touch them.
const FRAMING: [&str; 11] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Headers that mean something of their own to the gateway or the upstream: an identity in them would be taken for that.
const TAKEN: [&str; 14] = [
    "accept-encoding",
    "authorization",
    "content-encoding",
    "content-type",
    "cookie",
    "forwarded",
    "host",
    "traceparent",
    "tracestate",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
];

pub(crate) fn name(text: &str) -> Result<HeaderName, Complaint> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| Complaint::about(0..text.len(), "is not the name of a header"))
}

/// A header that rules may set or remove.
pub(crate) fn changeable(text: &str) -> Result<HeaderName, Complaint> {
    let name = name(text)?;
    if FRAMING.contains(&name.as_str()) {
        return Err(Complaint::about(
            0..text.len(),
            "belongs to the connection, not to the route: it cannot be changed",
        ));
    }
    Ok(name)
}

/// A header that may carry an identity to the upstream.
pub(crate) fn identity(text: &str) -> Result<HeaderName, Complaint> {
    let name = changeable(text)?;
    let folded = folded(&name);
    if TAKEN.contains(&folded.as_str()) || FRAMING.contains(&folded.as_str()) {
        return Err(Complaint::about(0..text.len(), "has a meaning of its own: give the identity another header"));
    }
    Ok(name)
}

/// The name with `_` and `-` taken as the same, as many upstreams do.
pub(crate) fn folded(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

/// Whether an upstream could take `name` for one of `names`.
pub(crate) fn is_among(name: &HeaderName, names: &[HeaderName]) -> bool {
    names.iter().any(|other| folded(other) == folded(name))
}

pub(crate) fn value(text: &str) -> Result<HeaderValue, Complaint> {
    let is_trimmed = text.trim_matches([' ', '\t']).len() == text.len();
    HeaderValue::from_str(text)
        .ok()
        .filter(|_| is_trimmed && text.is_ascii())
        .ok_or_else(|| Complaint::new("a header's value is visible ASCII, without a space at either end"))
}

/// A method, in capitals as nearly all are.
pub(crate) fn method(text: &str) -> Result<Method, Complaint> {
    if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        let message = "is no method: methods are case-sensitive, and the usual ones are in capitals";
        return Err(Complaint::about(0..text.len(), message));
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| Complaint::about(0..text.len(), "is not a method"))
}

/// A name of RFC 9110's token characters: of a cookie, for one.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// The name of a cookie.
pub(crate) fn cookie(text: &str) -> Result<String, Complaint> {
    if is_token(text) {
        Ok(text.to_owned())
    } else {
        Err(Complaint::about(0..text.len(), "is not the name of a cookie"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_frames_a_message_cannot_be_changed() {
        for text in ["Connection", "transfer-encoding", "content-length", "TE", "", "a b", "x:y"] {
            assert!(changeable(text).is_err(), "{text}");
        }
        assert!(changeable("X-Gateway").is_ok());
    }

    #[test]
    fn an_identity_has_a_header_of_its_own() {
        for text in ["authorization", "Host", "x_forwarded_for", "x-real-ip", "content_length"] {
            assert!(identity(text).is_err(), "{text}");
        }
        assert!(identity("x-auth-subject").is_ok());
    }

    #[test]
    fn values_and_methods_are_strict() {
        assert!(value("max-age=63072000").is_ok());
        for text in [" a", "a ", "a\nb", "\u{e4}"] {
            assert!(value(text).is_err(), "{text:?}");
        }
        assert_eq!(method("GET"), Ok(Method::GET));
        for text in ["get", "", "A B", "Get"] {
            assert!(method(text).is_err(), "{text}");
        }
    }
}
