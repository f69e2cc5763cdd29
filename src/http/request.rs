//! One request as filters see it.

use std::borrow::Cow;
use std::net::IpAddr;

use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;

use super::ClientCertificate;

/// What may be judged of a request: borrowed, canonical, free of any connection.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// As sent
    pub method: &'a Method,
    /// Lower case, without a port
    pub host: &'a str,
    /// Canonical: what is matched is what is forwarded
    pub path: &'a str,
    /// Without `?`
    pub query: Option<&'a str>,
    /// As sent, less what the security floor removes
    pub headers: &'a HeaderMap,
    /// The client, after trusted proxies were believed; IPv4-mapped IPv6 is IPv4
    pub client: IpAddr,
    /// The certificate the client has shown, where the listener asks for one
    pub client_certificate: Option<&'a ClientCertificate>,
    /// The route's name; empty before one is known
    pub route: &'a str,
    /// How it reached us: "https" or "http"
    pub scheme: &'static str,
    /// Names it in answers, logs and upstream
    pub id: &'a str,
}

impl<'a> Request<'a> {
    /// The first cookie of that name (RFC 6265 section 4.2), without quotes.
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        let headers = self.headers.get_all(http::header::COOKIE).iter();
        headers.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';')).find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then(|| value.trim_matches('"'))
        })
    }

    /// The first query parameter of that name, percent-decoded; `+` is a space. Bytes that are not UTF-8 are replaced.
    pub fn query_value(&self, name: &str) -> Option<Cow<'a, str>> {
        self.query?.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key) == name).then(|| decode(value))
        })
    }
}

/// What was sent, as text: borrowed where it is UTF-8. Elsewhere bytes are replaced, so that it is like nothing that is
/// configured.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    // Replacing looks at each byte by itself; seeing that there is nothing to replace, at many at once.
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::HeaderValue;
    use http::header::COOKIE;

    use super::*;

    fn with<T>(headers: &HeaderMap, query: &str, read: impl Fn(&Request<'_>) -> T) -> T {
        read(&Request {
            method: &Method::GET,
            host: "api.example.com",
            path: "/",
            query: Some(query),
            headers,
            client: Ipv4Addr::LOCALHOST.into(),
            client_certificate: None,
            route: "",
            scheme: "http",
            id: "",
        })
    }

    #[test]
    fn cookies_are_found_among_others_and_over_several_headers() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; token=\"x=y\""));
        headers.append(COOKIE, HeaderValue::from_static("b=2"));
        assert_eq!(with(&headers, "", |request| request.cookie("token").map(str::to_owned)).as_deref(), Some("x=y"));
        assert_eq!(with(&headers, "", |request| request.cookie("b").map(str::to_owned)).as_deref(), Some("2"));
        assert_eq!(with(&headers, "", |request| request.cookie("c").map(str::to_owned)), None);
    }

    #[test]
    fn query_parameters_are_decoded() {
        let headers = HeaderMap::new();
        let read = |name: &str| {
            with(&headers, "a=1&na%6De=x+y%21&flag", |request| request.query_value(name).map(Cow::into_owned))
        };
        assert_eq!(read("name").as_deref(), Some("x y!"));
        assert_eq!(read("flag").as_deref(), Some(""));
        assert_eq!(read("missing"), None);
    }
}
