//! What the origin is told and what the client is told: paths, hosts, forwarding fields, fields of the connection.

use super::support::certs::Ca;
use super::support::h2::{H2Origin, send_all};
use super::support::raw::exchange;
use super::support::{Client, Origin, Raw, Request, Tollgate};

fn before(origin: &Origin, more: &str, route: &str) -> Tollgate {
    Tollgate::with(&format!(
        r#"
            {more}
            [upstreams.app]
            endpoints = ["{}"]
            [routes.all]
            auth = "none"
            upstream = "app"
            {route}
        "#,
        origin.addr()
    ))
}

fn echoing_targets() -> Origin {
    Origin::scripted(|request, connection| connection.reply(200, &[], &request.target))
}

#[test]
fn the_path_that_is_judged_is_the_path_that_is_forwarded() {
    let origin = echoing_targets();
    let tollgate = before(&origin, "", "");
    for (sent, forwarded) in [
        ("/a", "/a"),
        ("/a?b=%2f%zz&c", "/a?b=%2f%zz&c"),
        ("/a/./b/../c", "/a/c"),
        ("/a/%2e%2e/c", "/c"),
        ("/a//b///c", "/a/b/c"),
        ("/%7euser/%41", "/~user/A"),
        ("/a%c3%a4", "/a%C3%A4"),
        ("/a/.", "/a/"),
        ("http://h/a/../b?c", "/b?c"),
        ("http://h", "/"),
        ("http://h?c", "/?c"),
    ] {
        let host = if sent.starts_with("http") { "h" } else { "other" };
        let response = Client::connect(tollgate.addr()).send(&Request::get(sent).host(host));
        assert_eq!((response.status(), response.text().as_str()), (200, forwarded), "{sent}");
    }
}

#[test]
fn a_path_without_a_safe_form_is_refused() {
    let origin = Origin::replying("secret");
    let tollgate = before(&origin, "", "");
    for path in ["/..", "/a/../../b", "/a%2fb", "/a%5cb", "/a\\b", "/a%00", "/a%0d%0ab", "/a%2", "/a%zz", "/..;/b"] {
        let response = tollgate.get(path).send();
        assert_eq!((response.status(), response.json()["reason"].as_str()), (400, Some("bad_path")), "{path}");
        let logged = tollgate.logged(&response)["path"].as_str().expect("a path").to_ascii_lowercase();
        assert_eq!(logged, path);
    }
    assert_eq!(origin.hits(), 0);
}

#[test]
fn an_encoded_slash_is_kept_where_a_route_says_so() {
    let origin = echoing_targets();
    let tollgate = before(&origin, "", "encoded_slash = \"keep\"");
    assert_eq!(tollgate.get("/a%2fb").send().text(), "/a%2Fb");
}

#[test]
fn what_an_untrusted_client_says_of_its_way_is_dropped() {
    let origin = Origin::echoing_heads();
    let tollgate = before(&origin, "", "");
    let request = tollgate
        .get("/")
        .header("x-forwarded-for", "198.51.100.7")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "evil.example")
        .header("x-forwarded-port", "443")
        .header("x-forwarded-prefix", "/evil")
        .header("x-real-ip", "198.51.100.7")
        .header("forwarded", "for=198.51.100.7")
        .header("x-request-id", "mine");
    let response = request.send();
    let head = origin.request();
    assert_eq!(head.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(head.header("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(head.header("x-forwarded-proto"), Some("http"));
    assert_eq!(head.header("x-forwarded-host"), Some(&*tollgate.addr().to_string()));
    assert_eq!(head.header("x-forwarded-port"), Some(&*tollgate.addr().port().to_string()));
    assert_eq!(head.header("x-forwarded-prefix"), None);
    assert_eq!(head.header("forwarded"), None);
    assert_eq!(head.header("x-request-id"), Some(response.request_id()));
    assert_ne!(response.request_id(), "mine");
    assert_eq!(tollgate.logged(&response)["client_ip"], "127.0.0.1");
}

#[test]
fn what_a_trusted_proxy_says_is_believed_and_passed_on() {
    let origin = Origin::echoing_heads();
    let tollgate = before(&origin, "[server]\ntrusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n", "");
    let request = tollgate
        .get("/")
        .header("x-forwarded-for", "203.0.113.9, 198.51.100.7, ::ffff:10.0.0.3")
        .header("x-forwarded-proto", "https")
        .header("x-request-id", "theirs");
    let response = request.send();
    let head = origin.request();
    assert_eq!(head.header("x-forwarded-for"), Some("203.0.113.9, 198.51.100.7, ::ffff:10.0.0.3, 127.0.0.1"));
    assert_eq!(head.header("x-real-ip"), Some("198.51.100.7"));
    assert_eq!(head.header("x-forwarded-proto"), Some("https"));
    assert_eq!(response.request_id(), "theirs");
    let line = tollgate.logged(&response);
    assert_eq!((line["client_ip"].as_str(), line["peer_ip"].as_str()), (Some("198.51.100.7"), Some("127.0.0.1")));
}

const IDENTITY: &str = r#"
    [auth.corporate]
    type = "jwt"
    issuer = "https://id.example"
    audience = ["app"]
    algorithms = ["HS256"]
    secret = "a secret that is long enough for it"
    identity_headers = { x-auth-subject = "sub", x_auth_tenant = "tenant" }
"#;

#[test]
fn identity_headers_of_a_client_are_removed_on_every_route() {
    for keep in ["false", "true"] {
        let origin = Origin::echoing_heads();
        let more = format!("[server]\nkeep_underscore_headers = {keep}\n{IDENTITY}");
        let tollgate = before(&origin, &more, "");
        let request = tollgate
            .get("/")
            .header("X-Auth-Subject", "root")
            .header("x_auth_subject", "root")
            .header("X-Auth_Subject", "root")
            .header("X-Auth-Tenant", "root")
            .header("x_auth_tenant", "root")
            .header("x-other", "kept");
        let head = request.send().text().to_ascii_lowercase();
        assert!(!head.contains("root"), "{head}");
        assert!(head.contains("x-other: kept"), "{head}");
    }
}

#[test]
fn an_identity_header_cannot_be_named_as_one_of_the_connection() {
    let origin = Origin::echoing_heads();
    let tollgate = before(&origin, IDENTITY, "");
    for name in ["x-forwarded-for", "host", "x-real-ip", "x-request-id"] {
        let response = tollgate.get("/").header("connection", &format!("close, {name}")).send();
        if response.status() == 200 {
            let head = origin.requests().pop().expect("a request");
            assert!(head.header(name).is_some(), "{name}\n{}", head.text());
        } else {
            assert_eq!(response.status(), 400, "{name}");
        }
    }
}

#[test]
fn headers_with_underscores_and_proxy_are_removed() {
    let origin = Origin::echoing_heads();
    let tollgate = before(&origin, "", "");
    let request = tollgate
        .get("/")
        .header("Proxy", "http://evil.example")
        .header("Proxy-Authorization", "Basic c2VjcmV0")
        .header("x_real_ip", "1.2.3.4");
    let head = request.send().text().to_ascii_lowercase();
    assert!(!head.contains("evil") && !head.contains("c2vjcmv0") && !head.contains("1.2.3.4"), "{head}");
    let tollgate = before(&origin, "[server]\nkeep_underscore_headers = true\n", "");
    let head = tollgate.get("/").header("a_b", "kept").header("x_forwarded_for", "1.2.3.4").send().text();
    assert!(head.contains("a_b: kept") && !head.contains("1.2.3.4"), "{head}");
}

#[test]
fn fields_of_a_connection_stay_on_it() {
    let origin = Origin::scripted(|_, connection| {
        connection.reply(
            200,
            &[("connection", "keep-alive, x-hop"), ("x-hop", "1"), ("keep-alive", "timeout=5")],
            "ok",
        );
    });
    let tollgate = before(&origin, "", "");
    let request = tollgate
        .get("/")
        .header("connection", "keep-alive, x-hop, te")
        .header("x-hop", "1")
        .header("keep-alive", "timeout=5")
        .header("te", "trailers, deflate")
        .header("upgrade", "h2c")
        .header("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA");
    let response = request.send();
    let head = origin.request();
    for name in ["x-hop", "keep-alive", "te", "upgrade", "http2-settings", "connection"] {
        assert_eq!(head.header(name), None, "{name}");
    }
    assert_eq!((response.header("x-hop"), response.header("keep-alive")), (None, None));
    assert_eq!(response.header("connection"), Some("keep-alive"));
}

#[test]
fn a_trace_goes_on_and_a_broken_one_is_replaced() {
    let origin = Origin::echoing_heads();
    let tollgate = before(&origin, "", "");
    let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    tollgate.get("/").header("traceparent", valid).header("tracestate", "a=b").send();
    tollgate.get("/").header("traceparent", "00-0-0-00").header("tracestate", "a=b").send();
    let [first, second] = <[_; 2]>::try_from(origin.requests()).expect("two requests");
    assert_eq!((first.header("traceparent"), first.header("tracestate")), (Some(valid), Some("a=b")));
    let fresh = second.header("traceparent").expect("one of ours");
    assert!(fresh.len() == 55 && fresh != valid, "{fresh}");
    assert_eq!(second.header("tracestate"), None);
}

#[test]
fn the_host_is_the_clients_or_the_operators() {
    let origin = Origin::echoing_heads();
    let tollgate = before(&origin, "", "");
    tollgate.get("/").host("Shop.Example:8080").send();
    assert_eq!(origin.requests()[0].header("host"), Some("Shop.Example:8080"));
    let fixed = Tollgate::with(&format!(
        "[upstreams.app]\nendpoints = [\"{}\"]\nhost = \"inner.example\"\n[routes.all]\nauth = \"none\"\nupstream = \"app\"",
        origin.addr()
    ));
    fixed.get("/").host("shop.example").send();
    let head = &origin.requests()[1];
    assert_eq!(head.header("host"), Some("inner.example"));
    assert_eq!(head.header("x-forwarded-host"), Some("shop.example"));
}

#[test]
fn a_client_of_http_1_0_gets_what_it_can_understand() {
    let origin = Origin::scripted(|request, connection| {
        if request.target == "/sized" {
            return connection.reply(200, &[], "sized");
        }
        let _ = connection.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        connection.begin_chunked(200, &[]);
        connection.chunk("chunked");
        connection.last_chunk();
    });
    let tollgate = before(&origin, "", "");
    let answer = exchange(tollgate.addr(), "GET /a HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert_eq!(body, "chunked", "{answer}");
    assert!(head.starts_with("HTTP/1.1 200 "), "no interim response: {answer}");
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{answer}");
    assert!(head.to_ascii_lowercase().contains("connection: close"), "{answer}");
    let request = origin.request();
    assert!(request.version == "HTTP/1.1" && request.header("host").is_some(), "{}", request.text());
    assert_eq!(request.header("expect"), None);

    let mut raw = Raw::connect(tollgate.addr());
    for _ in 0..2 {
        raw.send("GET /sized HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(raw.response().text(), "sized");
    }
    let answer = exchange(tollgate.addr(), "GET /sized HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(answer.ends_with("sized"), "{answer}");
}

/// The same behind h2, where Pingora adds the chunked coding at the very last.
#[test]
fn an_h2_upstream_is_told_of_every_version_in_its_own_words() {
    let origin = H2Origin::scripted(None, |request, mut respond| {
        Box::pin(async move {
            let uri = request.uri().to_string();
            let mut sender = respond.send_response(http::Response::new(()), false)?;
            send_all(&mut sender, uri.into(), true).await
        })
    });
    let tollgate = Tollgate::with(&format!(
        "[upstreams.app]\nendpoints = [\"{}\"]\nprotocol = \"h2c\"\n[routes.all]\nauth = \"none\"\nupstream = \"app\"",
        origin.addr()
    ));
    let answer = exchange(tollgate.addr(), "GET /a/../b?c HTTP/1.0\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert_eq!(body, format!("http://{}/b?c", origin.addr()));
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{answer}");
    let mut client = Client::connect(tollgate.addr());
    assert_eq!(
        client.send(&Request::get("http://shop.example/x/../y").host("shop.example")).text(),
        "http://shop.example/y"
    );
    assert_eq!(client.send(&Request::get("/y").host("shop.example")).text(), "http://shop.example/y");
}

#[test]
fn responses_without_a_body_have_none() {
    let origin = Origin::scripted(|request, connection| {
        let head = match request.target.as_str() {
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
            "/204-length" => "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: \"a\"\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
        };
        let _ = connection.send(head);
    });
    let tollgate = before(&origin, "", "");
    let mut client = Client::connect(tollgate.addr());
    assert_eq!(client.get("/204").expect(204).header("content-length"), None);
    assert_eq!(client.get("/204-length").expect(204).header("content-length"), None);
    assert_eq!(client.get("/304").expect(304).header("etag"), Some("\"a\""));
    let head = client.send(&Request::new("HEAD", "/")).expect(200);
    assert_eq!((head.header("content-length"), head.body.len()), (Some("5"), 0));
    assert_eq!(client.get("/204").status(), 204, "the connection is still in step");
}

#[test]
fn a_field_that_an_origin_folds_arrives_in_one_line() {
    let origin = Origin::scripted(|_, connection| {
        let _ = connection.send("HTTP/1.1 200 OK\r\na: b\r\n set-cookie: c\r\ncontent-length: 0\r\n\r\n");
    });
    let tollgate = before(&origin, "", "");
    let response = tollgate.get("/").send().expect(200);
    assert_eq!((response.header("a"), response.header("set-cookie")), (Some("b set-cookie: c"), None));
}

#[test]
fn interim_responses_and_expectations_pass() {
    let origin = Origin::scripted(|request, connection| {
        let _ = connection.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        connection.reply(200, &[], &request.body);
    });
    let tollgate = before(&origin, "", "");
    let mut raw = Raw::connect(tollgate.addr());
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert!(raw.read_until(b"\r\n\r\n").starts_with(b"HTTP/1.1 100 "));
    raw.send("body");
    let response = raw.response();
    assert_eq!((response.interim.as_slice(), response.text().as_str()), (&[103][..], "body"));
}

/// They once passed as they came, whatever the route keeps from its clients.
#[test]
fn an_interim_response_tells_no_more_than_the_route_lets_be_told() {
    let origin = Origin::scripted(|_, connection| {
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nserver: app\r\nconnection: x-hop\r\nx-hop: 1\r\n";
        let _ = connection.send(format!("{hints}transfer-encoding: chunked\r\n\r\n"));
        connection.reply(200, &[], "ok");
    });
    let tollgate = before(&origin, "", "response_headers = { remove = [\"server\"] }");
    let answer = exchange(tollgate.addr(), "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let (interim, rest) = answer.split_once("\r\n\r\n").expect("two heads");
    assert_eq!(interim, "HTTP/1.1 103 Early Hints\r\nlink: </a>");
    assert!(rest.starts_with("HTTP/1.1 200 ") && rest.ends_with("ok"), "{answer}");
}

#[test]
fn a_refusal_does_not_wait_for_a_body_that_was_not_asked_for() {
    let origin = Origin::replying("secret");
    let tollgate = before(&origin, "", "path = \"/here\"");
    let mut raw = Raw::connect(tollgate.addr());
    raw.send("POST /elsewhere HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    let response = raw.response();
    assert_eq!((response.status(), response.header("connection")), (404, Some("close")));
}

#[test]
fn a_refusal_keeps_the_connection_where_the_body_is_small() {
    let origin = Origin::replying("ok");
    let tollgate = before(&origin, "", "path = \"/here\"");
    let mut client = Client::connect(tollgate.addr());
    let refused = client.send(&Request::new("POST", "/elsewhere").body(vec![b'x'; 30_000]));
    assert_eq!((refused.status(), refused.header("connection")), (404, Some("keep-alive")));
    assert_eq!(client.get("/here").text(), "ok");
}

#[test]
fn a_switch_that_nobody_asked_for_is_an_error() {
    let origin = Origin::scripted(|_, connection| {
        let _ =
            connection.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
        connection.hang();
    });
    let tollgate = before(&origin, "", "");
    for request in [tollgate.get("/"), tollgate.get("/").header("connection", "upgrade").header("upgrade", "h2c")] {
        let response = request.send().expect(502);
        assert_eq!(response.json()["reason"], "upstream_protocol");
    }
}

#[test]
fn a_host_beyond_the_certificate_is_misdirected() {
    let origin = Origin::replying("ok");
    let ca = Ca::new("ca");
    let site = ca.server(&["a.example", "*.b.example"]);
    let tollgate = Tollgate::prepared(&format!(
        r#"
            [listeners.https]
            tls = {{ certificates = [{{ cert_file = "site.pem", key_file = "site.key" }}] }}
            [upstreams.app]
            endpoints = ["{}"]
            [routes.all]
            auth = "none"
            upstream = "app"
        "#,
        origin.addr()
    ))
    .file("site.pem", &site.cert)
    .file("site.key", &site.key)
    .start();
    let trusting = ca.trusting(&["http/1.1"]);
    let ask = |host: &str| Request::get("/").host(host).over_tls(tollgate.addr(), "a.example", trusting.clone()).send();
    assert_eq!(ask("a.example").status(), 200);
    assert_eq!(ask("x.b.example").status(), 200);
    assert_eq!(ask("c.example").expect(421).json()["reason"], "misdirected");
    assert_eq!(ask("b.example").status(), 421);
}

/// An IPv6 address lost its brackets, and the `*` of an OPTIONS became a part of the host.
#[test]
fn a_redirect_to_https_leads_to_the_host_that_was_asked() {
    let origin = Origin::replying("");
    let tollgate = before(&origin, "[listeners.http]\nredirect_to_https = true\n", "");
    for (request, location) in [
        ("GET //a/../b?c HTTP/1.1\r\nHost: A.example:80", "https://a.example/b?c"),
        ("GET / HTTP/1.1\r\nHost: [::1]:80", "https://[::1]/"),
        ("OPTIONS * HTTP/1.1\r\nHost: a.example", "https://a.example/"),
    ] {
        let mut raw = Raw::connect(tollgate.addr());
        raw.send(format!("{request}\r\n\r\n"));
        assert_eq!(raw.response().expect(308).header("location"), Some(location), "{request}");
    }
    assert_eq!(origin.hits(), 0);
}
