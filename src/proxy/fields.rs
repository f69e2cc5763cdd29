//! Header fields, changed in bulk.
//!
//! Pingora keeps beside the fields a second map of how each name was spelled, and keeps both in step by parsing a name
//! anew with each change. Names have no case (RFC 9110 section 5.1): here that map is given up, and fields are changed
//! where they are.

use http::{HeaderMap, request, response};
use pingora_http::{RequestHeader, ResponseHeader};

/// Gives up the spelling of a request's fields. A request whose target is more than its URI says is left as it is.
pub(super) fn forget_case(header: &mut RequestHeader) {
    if header.has_case() && header.raw_path().first() == Some(&b'/') && header.raw_path_is_utf8() {
        request(header, |_| ());
    }
}

/// Changes a request whose target its URI says in full.
pub(super) fn request<T>(header: &mut RequestHeader, change: impl FnOnce(&mut request::Parts) -> T) -> T {
    let nothing = http::Request::new(()).into_parts().0;
    let mut parts = request::Parts::from(std::mem::replace(header, nothing.into()));
    let result = change(&mut parts);
    *header = parts.into();
    result
}

/// Changes a response's fields. Its reason phrase stays.
pub(super) fn response<T>(header: &mut ResponseHeader, change: impl FnOnce(&mut HeaderMap) -> T) -> T {
    let phrase = header.get_reason_phrase().filter(|phrase| Some(*phrase) != header.status.canonical_reason());
    let phrase = phrase.map(str::to_owned);
    let nothing = http::Response::new(()).into_parts().0;
    let mut parts = response::Parts::from(std::mem::replace(header, nothing.into()));
    let result = change(&mut parts.headers);
    *header = parts.into();
    if phrase.is_some() {
        // It was one before.
        drop(header.set_reason_phrase(phrase.as_deref()));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_everything_but_the_spelling() {
        let mut header = RequestHeader::build("PUT", b"/a?b", None).expect("a request");
        header.append_header("X-One", "1").expect("a field");
        forget_case(&mut header);
        assert!(!header.has_case());
        assert_eq!((header.method.as_str(), header.raw_path()), ("PUT", &b"/a?b"[..]));
        assert_eq!(header.headers.get("x-one").expect("kept"), "1");
    }

    #[test]
    fn a_target_that_is_no_path_survives() {
        let mut header = RequestHeader::build("GET", b"http://a.example/b", None).expect("a request");
        forget_case(&mut header);
        assert_eq!(header.raw_path(), b"http://a.example/b");
    }

    #[test]
    fn a_response_keeps_its_reason_phrase() {
        for (phrase, expected) in [(None, Some("OK")), (Some("Fine"), Some("Fine"))] {
            let mut header = ResponseHeader::build(200, None).expect("a response");
            header.set_reason_phrase(phrase).expect("a phrase");
            response(&mut header, |fields| fields.insert("x-one", http::HeaderValue::from_static("1")));
            assert_eq!(header.get_reason_phrase(), expected);
            assert_eq!(header.headers.len(), 1);
        }
    }
}
