//! Why Tollgate answered instead of the upstream, or why an exchange ended early.

use http::StatusCode;

/// One row a reason: variant, its name in logs and metrics, the status it is answered with, and the error type of
/// the Proxy-Status field (RFC 9209 section 2.3) when it is an error of the exchange.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $status:ident, $proxy_status:expr;)+) => {
        /// The closed list of reasons: a field of the access log, and the only label value a refusal may have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $variant,)+ }

        impl Reason {
            /// Every reason, in the order of the list.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name in logs and metrics.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The status it is answered with unless the reply chooses another.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)+ }
            }

            /// Error type of the Proxy-Status field; `None` where the exchange went as configured.
            pub fn proxy_error(self) -> Option<&'static str> {
                match self { $(Self::$variant => $proxy_status,)+ }
            }
        }
    };
}

reasons! {
    // At the door: before a route is known.
    /// Not HTTP, or HTTP with a grammar error
    MalformedRequest = "malformed_request", BAD_REQUEST, Some("http_request_error");
    /// Two ways to say where the body ends, or an unclear one
    AmbiguousFraming = "ambiguous_framing", BAD_REQUEST, Some("http_request_error");
    /// Host missing, repeated or not a host
    BadHost = "bad_host", BAD_REQUEST, Some("http_request_error");
    /// A path with no safe canonical form
    BadPath = "bad_path", BAD_REQUEST, Some("http_request_error");
    /// More header fields than the listener allows
    TooManyHeaders = "too_many_headers", REQUEST_HEADER_FIELDS_TOO_LARGE, Some("http_request_error");
    /// A head with more bytes than the listener allows
    HeadTooLarge = "head_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, Some("http_request_error");
    /// A request target with more bytes than the listener allows
    UriTooLong = "uri_too_long", URI_TOO_LONG, Some("http_request_error");
    /// The head did not arrive in time
    HeaderTimeout = "header_timeout", REQUEST_TIMEOUT, Some("http_request_error");
    /// A method or version that is not served
    Unsupported = "unsupported", NOT_IMPLEMENTED, Some("http_request_error");
    /// A host that the certificate shown does not cover
    Misdirected = "misdirected", MISDIRECTED_REQUEST, Some("http_request_error");
    /// The TLS handshake failed or took too long
    TlsHandshake = "tls_handshake", BAD_REQUEST, None;
    /// A connection without the PROXY header that its listener requires
    ProxyHeader = "proxy_header", BAD_REQUEST, None;
    /// A connection, where balancers speak for their clients, of somebody who may not
    ProxyUntrusted = "proxy_untrusted", FORBIDDEN, None;
    /// More connections of one address than it may have
    TooManyConnections = "too_many_connections", TOO_MANY_REQUESTS, None;
    /// New connections of one address faster than they may come
    ConnectionRate = "connection_rate", TOO_MANY_REQUESTS, None;
    /// More frames of HTTP/2 that carry nothing than a connection is allowed
    Flood = "flood", TOO_MANY_REQUESTS, None;
    /// The listener sends everything to https
    HttpsRequired = "https_required", PERMANENT_REDIRECT, None;

    // Routing.
    /// No route takes this host and path
    NoRoute = "no_route", NOT_FOUND, Some("destination_not_found");
    /// A route takes the path, but not the method
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, Some("http_request_denied");

    // Filters.
    /// A browser's question whether a page may ask, answered by the route
    Preflight = "preflight", NO_CONTENT, None;
    /// A browser's question for a page of an origin that is not listed
    CorsDenied = "cors_denied", FORBIDDEN, Some("http_request_denied");
    /// The client's address may not use the route
    ClientDenied = "client_denied", FORBIDDEN, Some("http_request_denied");
    /// A body larger than the route allows
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, Some("http_request_error");
    /// Nothing that says who calls
    NoCredentials = "no_credentials", UNAUTHORIZED, Some("http_request_denied");
    /// Credentials twice in one request
    MultipleCredentials = "multiple_credentials", BAD_REQUEST, Some("http_request_denied");
    /// A token that is not valid here
    InvalidToken = "invalid_token", UNAUTHORIZED, Some("http_request_denied");
    /// A token that was valid once
    TokenExpired = "token_expired", UNAUTHORIZED, Some("http_request_denied");
    /// A key, password or certificate that is not valid here
    InvalidCredentials = "invalid_credentials", UNAUTHORIZED, Some("http_request_denied");
    /// A key or certificate that was valid once
    CredentialsExpired = "credentials_expired", UNAUTHORIZED, Some("http_request_denied");
    /// Known, but not allowed this
    InsufficientScope = "insufficient_scope", FORBIDDEN, Some("http_request_denied");
    /// Whoever or whatever would tell is not there
    AuthUnavailable = "auth_unavailable", SERVICE_UNAVAILABLE, Some("proxy_internal_error");
    /// The service that decides has refused, in words of its own
    AuthDenied = "auth_denied", FORBIDDEN, Some("http_request_denied");
    /// Over a rate
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, Some("http_request_denied");
    /// Over a quota of the calendar
    QuotaExceeded = "quota_exceeded", TOO_MANY_REQUESTS, Some("http_request_denied");
    /// Over a number of requests in flight
    ConcurrencyLimited = "concurrency_limited", TOO_MANY_REQUESTS, Some("http_request_denied");
    /// As many requests in flight as the upstream of a route may have, whoever sends them
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, Some("connection_limit_reached");
    /// The route is a redirect
    Redirected = "redirected", PERMANENT_REDIRECT, None;
    /// The route answers by itself
    Responded = "responded", OK, None;

    // Upstream.
    /// No endpoint is healthy
    NoHealthyEndpoint = "no_healthy_endpoint", SERVICE_UNAVAILABLE, Some("destination_unavailable");
    /// Every healthy endpoint is at its cap
    EndpointsBusy = "endpoints_busy", SERVICE_UNAVAILABLE, Some("connection_limit_reached");
    /// Every healthy endpoint is at its cap, and as many requests wait as may
    QueueFull = "queue_full", SERVICE_UNAVAILABLE, Some("connection_limit_reached");
    /// Every healthy endpoint was at its cap for as long as a request may wait
    QueueTimeout = "queue_timeout", SERVICE_UNAVAILABLE, Some("connection_limit_reached");
    /// Most requests to the upstream fail, so that it is left alone for a while
    BreakerOpen = "breaker_open", SERVICE_UNAVAILABLE, Some("destination_unavailable");
    /// The connection was refused or failed
    ConnectFailed = "connect_failed", BAD_GATEWAY, Some("connection_refused");
    /// The connection took too long
    ConnectTimeout = "connect_timeout", GATEWAY_TIMEOUT, Some("connection_timeout");
    /// The TLS handshake with the upstream took too long
    TlsTimeout = "tls_timeout", GATEWAY_TIMEOUT, Some("connection_timeout");
    /// TLS towards the upstream failed, a certificate that does not verify included
    UpstreamTls = "upstream_tls", BAD_GATEWAY, Some("tls_protocol_error");
    /// The connection broke before the response began
    UpstreamReset = "upstream_reset", BAD_GATEWAY, Some("connection_terminated");
    /// The response was not HTTP
    UpstreamProtocol = "upstream_protocol", BAD_GATEWAY, Some("http_protocol_error");
    /// No response head in the time that one try has
    TryTimeout = "try_timeout", GATEWAY_TIMEOUT, Some("http_response_timeout");
    /// No response head in time
    UpstreamTimeout = "upstream_timeout", GATEWAY_TIMEOUT, Some("http_response_timeout");
    /// Nothing more of the response's body for too long
    UpstreamIdle = "upstream_idle", GATEWAY_TIMEOUT, Some("connection_read_timeout");
    /// The whole exchange took longer than the route allows
    RequestTimeout = "request_timeout", GATEWAY_TIMEOUT, Some("http_response_timeout");
    /// The response broke off after it began
    ResponseIncomplete = "response_incomplete", BAD_GATEWAY, Some("http_response_incomplete");
    /// Nothing came or went on a stream for too long
    StreamIdle = "stream_idle", GATEWAY_TIMEOUT, Some("connection_read_timeout");

    // Client.
    /// The client left; 499 in the log, no answer
    ClientAborted = "client_aborted", BAD_REQUEST, None;
    /// The client stopped sending its body or taking the response
    ClientTimeout = "client_timeout", REQUEST_TIMEOUT, Some("http_request_error");

    // Us.
    /// A defect or an exhausted resource of ours
    Internal = "internal", INTERNAL_SERVER_ERROR, Some("proxy_internal_error");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_snake_case() {
        let names: HashSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    }
}
