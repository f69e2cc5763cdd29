//! Where one message ends and the next begins, and what is no message at all. Raw bytes, since no client library says
//! these things.

use super::support::raw::exchange;
use super::support::{Origin, Raw, Tollgate, wait};

/// Everything goes to `origin`.
fn before(origin: &Origin, more: &str) -> Tollgate {
    Tollgate::with(&format!(
        r#"
            {more}
            [upstreams.app]
            endpoints = ["{}"]
            [routes.all]
            auth = "none"
            upstream = "app"
        "#,
        origin.addr()
    ))
}

#[track_caller]
fn refused(tollgate: &Tollgate, bytes: impl AsRef<[u8]>, status: u16, reason: &str) {
    let bytes = bytes.as_ref();
    let answer = exchange(tollgate.addr(), bytes);
    let shown = bytes.escape_ascii();
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}\n{answer}");
    assert!(answer.contains(&format!("\"reason\":\"{reason}\"")), "{shown}\n{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{shown}\n{answer}");
}

#[test]
fn ambiguous_framing_never_reaches_the_origin() {
    let origin = Origin::replying("secret");
    let tollgate = before(&origin, "");
    for fields in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5 ,5\r\n",
        "content-length: +5\r\n",
        "content-length: 0x5\r\n",
        "content-length: 18446744073709551616\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked, chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: \x0bchunked\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n0\r\n\r\n");
        let reason = if fields.contains('\x0b') { "malformed_request" } else { "ambiguous_framing" };
        refused(&tollgate, request, 400, reason);
    }
    refused(&tollgate, "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400, "ambiguous_framing");
    assert_eq!(origin.hits(), 0);
    tollgate.wait_for_metric("tollgate_refused_total{listener=\"http\",reason=\"ambiguous_framing\"}", 14.0);
}

#[test]
fn a_grammar_error_never_reaches_the_origin() {
    let origin = Origin::replying("secret");
    let tollgate = before(&origin, "");
    for request in [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: no name\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "GET admin HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET / HTTP/2.9\r\nHost: a\r\n\r\n",
        "GET /\r\n\r\n",
        "{}\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\n",
    ] {
        refused(&tollgate, request, 400, "malformed_request");
    }
    assert_eq!(origin.hits(), 0);
}

#[test]
fn methods_and_versions_that_are_not_served_are_told_apart() {
    let origin = Origin::replying("secret");
    let tollgate = before(&origin, "");
    refused(&tollgate, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501, "unsupported");
    refused(&tollgate, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 501, "unsupported");
    assert_eq!(origin.hits(), 0);
}

#[test]
fn a_host_that_is_missing_repeated_or_none_is_refused() {
    let origin = Origin::replying("secret");
    let tollgate = before(&origin, "");
    for head in [
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
    ] {
        refused(&tollgate, format!("{head}\r\n"), 400, "bad_host");
    }
    for host in ["a, b", "a/b", "user@a", "a:99999", "a b", "[::1", "1.2.3"] {
        let answer = exchange(tollgate.addr(), format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{host}\n{answer}");
    }
    // Pingora refused these too, but nobody was told why and nothing was counted.
    for target in ["http://b/", "http://user@a/", "http://[/", "http://a:b:c/"] {
        refused(&tollgate, format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "bad_host");
    }
    assert_eq!(origin.hits(), 0);
    tollgate.wait_for_metric("tollgate_refused_total{reason=\"bad_host\"}", 15.0);
}

#[test]
fn the_limits_of_a_head_hold_whether_or_not_it_is_whole() {
    let origin = Origin::replying("ok");
    let tollgate = before(&origin, "[listeners.http]\nmax_headers = 5\nmax_header_bytes = \"1KiB\"\n");
    let head = |more: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{more}\r\n");
    assert!(exchange(tollgate.addr(), head("A: 1\r\nB: 2\r\nC: 3\r\n")).starts_with("HTTP/1.1 200 "));
    refused(&tollgate, head("A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n"), 431, "too_many_headers");
    refused(&tollgate, head(&format!("A: {}\r\n", "x".repeat(1100))), 431, "head_too_large");
    refused(&tollgate, format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(1100)), 431, "head_too_large");
    refused(&tollgate, format!("GET /{}", "x".repeat(1100)), 414, "uri_too_long");
    assert_eq!(origin.hits(), 1);
}

#[test]
fn a_slow_head_is_answered_with_408_and_counted() {
    let origin = Origin::replying("secret");
    let tollgate = before(&origin, "[listeners.http]\nheader_timeout = \"300ms\"\n");
    refused(&tollgate, "GET / HTTP/1.1\r\nHost: a\r\n", 408, "header_timeout");
    // Somebody who says nothing at all is not waited for, and not spoken to.
    assert_eq!(exchange(tollgate.addr(), ""), "");
    tollgate.wait_for_metric("tollgate_refused_total{listener=\"http\",reason=\"header_timeout\"}", 1.0);
    assert_eq!(origin.hits(), 0);
}

#[test]
fn a_slow_head_on_a_connection_that_was_idle_for_long_is_answered_too() {
    let origin = Origin::replying("ok");
    let tollgate = before(&origin, "[listeners.http]\nheader_timeout = \"300ms\"\n");
    let mut raw = Raw::connect(tollgate.addr());
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response();
    // Longer than anything that bounds the end of an exchange.
    std::thread::park_timeout(std::time::Duration::from_secs(6));
    raw.send("GET / HTTP/1.1\r\n");
    assert_eq!(raw.response().status(), 408);
    raw.expect_closed();
}

#[test]
fn a_head_may_arrive_byte_by_byte() {
    let origin = Origin::replying("ok");
    let tollgate = before(&origin, "");
    let mut raw = Raw::connect(tollgate.addr());
    for byte in b"\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n" {
        raw.send([*byte]);
    }
    assert_eq!(raw.response().text(), "ok");
    assert_eq!(origin.request().target, "/a");
}

#[test]
fn pipelined_requests_are_answered_in_turn() {
    let origin = Origin::scripted(|request, connection| connection.reply(200, &[], &request.target));
    let tollgate = before(&origin, "");
    let mut raw = Raw::connect(tollgate.addr());
    raw.send(
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
         GET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
         POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n\
         GET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    for target in ["/1", "/2", "/3", "/4"] {
        assert_eq!(raw.response().text(), target);
    }
    let bodies: Vec<_> = origin.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies, [&b"abc"[..], b"", b"ab", b""]);
}

#[test]
fn what_follows_a_last_request_is_never_a_request() {
    let origin = Origin::replying("ok");
    let tollgate = before(&origin, "");
    for _ in 0..20 {
        let answer = exchange(
            tollgate.addr(),
            "GET /first HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n",
        );
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.ends_with("ok"), "one whole answer and no more: {answer}");
    }
    assert!(origin.requests().iter().all(|request| request.target == "/first"));
}

#[test]
fn a_client_that_half_closes_still_gets_its_answer() {
    let origin = Origin::replying("ok");
    let tollgate = before(&origin, "");
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    ] {
        let mut raw = Raw::connect(tollgate.addr());
        raw.send(request).finish_sending();
        assert_eq!(raw.response().text(), "ok", "{request}");
        raw.expect_closed();
    }
}

#[test]
fn a_broken_chunked_body_is_an_error_and_ends_its_connection() {
    let origin = Origin::echoing_bodies();
    let tollgate = before(&origin, "");
    for body in ["5\r\nhelloX", "5\nhello\r\n0\r\n\r\n", "zz\r\n", "5 \r\nhello\r\n0\r\n\r\n", "-5\r\n", "\r\n"] {
        let answer = exchange(
            tollgate.addr(),
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"),
        );
        assert!(answer.starts_with("HTTP/1.1 400 "), "{body:?}\n{answer}");
    }
    assert!(origin.requests().is_empty(), "no such request is ever whole");
}

#[test]
fn a_body_that_breaks_off_is_never_whole_for_the_origin() {
    let origin = Origin::echoing_bodies();
    let tollgate = before(&origin, "");
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let hits = origin.hits();
        let mut raw = Raw::connect(tollgate.addr());
        raw.send(request);
        wait::until("the head to arrive", || origin.hits() > hits);
        raw.finish_sending();
        raw.expect_closed();
    }
    tollgate.wait_for_metric("tollgate_http_requests_total{code=\"499\"}", 2.0);
    assert!(origin.requests().is_empty());
}

#[test]
fn trailers_of_a_request_stay_behind() {
    let origin = Origin::replying("ok");
    let tollgate = before(&origin, "");
    let mut raw = Raw::connect(tollgate.addr());
    raw.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-user\r\n\r\n\
         2\r\nab\r\n0\r\nX-User: admin\r\n\r\n",
    );
    assert_eq!(raw.response().text(), "ok");
    let request = origin.request();
    assert!(request.trailers.0.is_empty(), "{:?}", request.trailers);
    assert_eq!(request.body, b"ab");
}

#[test]
fn an_answer_that_ends_its_connection_says_so_and_does() {
    let origin = Origin::replying("ok");
    let tollgate = before(&origin, "");
    let answer = exchange(tollgate.addr(), "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    let mut raw = Raw::connect(tollgate.addr());
    for _ in 0..3 {
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(raw.response().header("connection"), Some("keep-alive"));
    }
}
