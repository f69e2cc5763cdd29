//! Which route takes a request, and what becomes of it on the way.

use std::fmt::Write as _;

use crate::support::{Client, Origin, Raw, Request, Tollgate, open_to, raw};

/// A route that answers with its own name. `conditions` says what it takes.
fn route(name: &str, conditions: &str) -> String {
    format!("[routes.{name}]\n{conditions}\nauth = \"none\"\nrespond = {{ body = \"{name}\" }}\n")
}

fn routes(routes: &[(&str, &str)]) -> Tollgate {
    Tollgate::with(&routes.iter().map(|(name, conditions)| route(name, conditions)).collect::<String>())
}

/// Who answers; the status of a refusal.
fn taken_by(request: Request) -> String {
    let response = request.send();
    if response.status() == 200 { response.text() } else { response.status().to_string() }
}

#[test]
fn the_most_specific_host_wins_and_the_next_is_asked_where_it_has_no_route() {
    let tollgate = routes(&[
        ("exact", "hosts = [\"api.example.com\"]\npath = \"/orders/*\""),
        ("long_wildcard", "hosts = [\"*.api.example.com\"]\npath = \"/orders/*\""),
        ("wildcard", "hosts = [\"*.example.com\"]"),
        ("any", "path = \"/*\""),
    ]);
    for (host, path, expected) in [
        ("api.example.com", "/orders/1", "exact"),
        ("API.Example.com", "/orders", "exact"),
        ("api.example.com:8443", "/orders/1", "exact"),
        ("api.example.com.", "/orders/1", "exact"),
        ("api.example.com", "/ordersx", "wildcard"),
        ("eu.api.example.com", "/orders/1", "long_wildcard"),
        ("a.eu.api.example.com", "/orders/1", "long_wildcard"),
        ("eu.api.example.com", "/", "wildcard"),
        ("example.com", "/orders/1", "any"),
        ("badexample.com", "/", "any"),
        ("api.example.com.evil.test", "/orders/1", "any"),
        ("127.0.0.1", "/", "any"),
        ("[::1]:80", "/", "any"),
    ] {
        assert_eq!(taken_by(tollgate.get(path).host(host)), expected, "{host}{path}");
    }
}

#[test]
fn a_literal_comes_before_a_parameter_that_before_everything_below_and_a_regex_is_last() {
    let tollgate = routes(&[
        ("literal", "path = \"/users/me\""),
        ("parameter", "path = \"/users/{id}\""),
        ("deeper", "path = \"/users/{id}/orders\""),
        ("below", "path = \"/users/*\""),
        ("below_literal", "path = \"/users/me/*\""),
        ("regex", "path_regex = \"^/v[0-9]+/\""),
        ("regex_first", "path_regex = \"^/v1/\"\npriority = 10"),
        ("slash", "path = \"/slash/\""),
    ]);
    for (path, expected) in [
        ("/users/me", "literal"),
        ("/users/you", "parameter"),
        ("/users/you/orders", "deeper"),
        ("/users/me/else", "below_literal"),
        // Whole patterns come before everything below, however literal that is.
        ("/users/me/orders", "deeper"),
        ("/users/you/else", "below"),
        ("/users/you/orders/1", "below"),
        ("/users", "below"),
        ("/usersx", "404"),
        ("/v2/x", "regex"),
        ("/v1/x", "regex_first"),
        ("/vx/x", "404"),
        ("/slash/", "slash"),
        ("/slash", "404"),
        ("/", "404"),
    ] {
        assert_eq!(taken_by(tollgate.get(path)), expected, "{path}");
    }
}

#[test]
fn a_route_with_a_method_comes_first_and_the_others_are_named_in_a_405() {
    let tollgate = routes(&[
        ("read", "path = \"/orders\"\nmethods = [\"GET\"]"),
        ("write", "path = \"/orders\"\nmethods = [\"POST\", \"PUT\"]"),
        ("special", "path = \"/mixed\"\nmethods = [\"DELETE\"]"),
        ("rest", "path = \"/mixed\""),
    ]);
    for (method, path, expected) in [
        ("GET", "/orders", "read"),
        ("POST", "/orders", "write"),
        ("DELETE", "/mixed", "special"),
        ("PATCH", "/mixed", "rest"),
        ("get", "/orders", "405"),
        ("POST", "/nowhere", "404"),
    ] {
        assert_eq!(taken_by(tollgate.request(method, path)), expected, "{method} {path}");
    }
    let head = tollgate.request("HEAD", "/orders").send().expect(200);
    assert_eq!((head.header("content-length"), head.body.len()), (Some("4"), 0));
    let refused = tollgate.request("DELETE", "/orders").send().expect(405);
    let mut allow: Vec<_> = refused.header("allow").expect("there").split(", ").collect();
    allow.sort_unstable();
    assert_eq!(allow, ["GET", "HEAD", "POST", "PUT"]);
    assert_eq!(refused.json()["reason"], "method_not_allowed");
    let missing = tollgate.get("/nowhere").send().expect(404);
    assert_eq!((missing.header("allow"), &missing.json()["reason"]), (None, &"no_route".into()));
    assert_eq!(missing.header("proxy-status"), Some("tollgate; error=destination_not_found; details=\"no_route\""));
    let line = tollgate.logged(&missing);
    assert_eq!((&line["status"], line.get("route")), (&404.into(), None));
    tollgate.wait_for_metric("tollgate_http_requests_total{route=\"_none\",method=\"GET\",code=\"404\"}", 1.0);
}

#[test]
fn more_conditions_come_before_fewer() {
    let tollgate = routes(&[
        ("plain", "path = \"/a\""),
        ("mobile", "path = \"/a\"\nmatch_headers = { x-channel = \"mobile\" }"),
        ("mobile_beta", "path = \"/a\"\nmatch_headers = { x-channel = \"mobile\", x-beta = \"1\" }"),
        ("preview", "path = \"/a\"\nmatch_query = { preview = \"true\" }"),
    ]);
    let channel = |path: &str| tollgate.get(path).header("X-Channel", "mobile");
    for (request, expected) in [
        (tollgate.get("/a"), "plain"),
        (channel("/a"), "mobile"),
        (channel("/a").header("x-beta", "1"), "mobile_beta"),
        (channel("/a?preview=true"), "mobile"),
        (tollgate.get("/a").header("x-channel", "Mobile"), "plain"),
        (tollgate.get("/a?x=1&preview=true"), "preview"),
        (tollgate.get("/a?preview=tr%75e"), "preview"),
        (tollgate.get("/a?preview=false"), "plain"),
        (tollgate.get("/a?xpreview=true"), "plain"),
    ] {
        assert_eq!(taken_by(request.clone()), expected, "{request:?}");
    }
}

#[test]
fn a_route_can_belong_to_some_listeners_only() {
    let text = format!(
        "[listeners.public]\n[listeners.private]\n{}{}",
        route("everywhere", "path = \"/a\""),
        route("inside", "path = \"/b\"\nlisteners = [\"private\"]")
    );
    let tollgate = Tollgate::with(&text);
    let ask = |listener: &str, path: &str| taken_by(Request::get(path).to(tollgate.addr_of(listener)));
    assert_eq!((ask("public", "/a"), ask("private", "/a")), ("everywhere".to_owned(), "everywhere".to_owned()));
    assert_eq!((ask("public", "/b"), ask("private", "/b")), ("404".to_owned(), "inside".to_owned()));
}

#[test]
fn two_routes_that_could_both_be_the_answer_are_refused_by_name() {
    let tollgate = routes(&[("one", "path = \"/a/{x}\"")]);
    tollgate.edit(|text| text.push_str(&route("two", "path = \"/a/{y}\"")));
    let stderr = tollgate.reload().failed(1);
    assert!(stderr.contains("routes.two") && stderr.contains("one"), "{stderr}");
    assert_eq!(taken_by(tollgate.get("/a/1")), "one");
}

#[test]
fn the_canonical_path_is_what_is_matched_logged_and_forwarded() {
    let origin = Origin::replying("public");
    let tollgate = Tollgate::with(&format!(
        "{}{}",
        open_to(&[origin.addr()]),
        "[routes.admin]\npath = \"/admin/*\"\nauth = \"none\"\nrespond = { status = 403, body = \"\" }\n"
    ));
    for path in ["/admin", "/%61dmin/x", "/x/../admin", "/x/%2e%2E/admin/", "//admin", "/./admin", "/x//..//admin/x"] {
        assert_eq!(tollgate.get(path).send().status(), 403, "{path}");
    }
    assert_eq!(origin.hits(), 0);
    for (sent, forwarded) in [
        ("/a/../b", "/b"),
        ("/a//b/", "/a/b/"),
        ("/%7euser/%c3%a4", "/~user/%C3%A4"),
        ("/a/.", "/a/"),
        ("/a%20b?x=/../%2F&y=%61", "/a%20b?x=/../%2F&y=%61"),
        ("/plain?", "/plain?"),
        ("/a;b=1/c", "/a;b=1/c"),
        ("/admin%3Fx", "/admin%3Fx"),
    ] {
        let response = tollgate.get(sent).send().expect(200);
        let request = origin.requests().pop().expect("arrived");
        assert_eq!(request.target, forwarded, "{sent}");
        let path = forwarded.split('?').next().expect("one");
        assert_eq!(tollgate.logged(&response)["path"], path);
    }
    // The absolute form names the same path.
    let answer = raw::exchange(
        tollgate.addr(),
        "GET http://h.test/x/../y?q HTTP/1.1\r\nhost: h.test\r\nconnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(origin.requests().pop().expect("arrived").target, "/y?q");
}

#[test]
fn a_path_without_a_safe_reading_is_refused() {
    let origin = Origin::replying("");
    let tollgate = Tollgate::with(&open_to(&[origin.addr()]));
    for path in [
        "/a%2Fb",
        "/a%2fb",
        "/a%5Cb",
        "/a\\b",
        "/a%00b",
        "/a%0ab",
        "/a%7F",
        "/a%",
        "/a%4",
        "/a%zz",
        "/..",
        "/a/../../b",
        "/%2e%2e/",
        "/..;x/a",
        "/a/%2e%2e;/b",
    ] {
        let response = tollgate.get(path).send();
        assert_eq!(response.status(), 400, "{path}");
        assert!(
            ["bad_path", "malformed_request"].contains(&response.json()["reason"].as_str().expect("text")),
            "{path}"
        );
    }
    assert_eq!(origin.hits(), 0);
}

#[test]
fn an_encoded_slash_is_kept_where_the_route_says_so_and_separates_nothing() {
    let origin = Origin::replying("kept");
    let tollgate = Tollgate::with(&format!(
        "[upstreams.main]\nendpoints = [\"{}\"]\n\
         [routes.files]\npath = \"/files/{{name}}\"\nauth = \"none\"\nencoded_slash = \"keep\"\nupstream = \"main\"\n\
         {}",
        origin.addr(),
        route("rest", "path = \"/*\"")
    ));
    assert_eq!(taken_by(tollgate.get("/files/a%2fb")), "kept");
    assert_eq!(origin.request().target, "/files/a%2Fb");
    assert_eq!(taken_by(tollgate.get("/files/a/b")), "rest");
    assert_eq!(taken_by(tollgate.get("/files%2Fa")), "400");
    assert_eq!(taken_by(tollgate.get("/files/..%2F..%2Fetc")), "kept");
    assert_eq!(origin.requests().pop().expect("arrived").target, "/files/..%2F..%2Fetc", "not a segment of dots");
}

#[test]
fn a_rewrite_changes_the_path_and_leaves_the_query() {
    let origin = Origin::replying("");
    let tollgate = Tollgate::with(&format!(
        r#"
        [upstreams.main]
        endpoints = ["{}"]
        [defaults]
        auth = "none"
        [routes.strip]
        path = "/orders/*"
        upstream = "main"
        rewrite = {{ strip_prefix = "/orders" }}
        [routes.replace]
        path = "/users/{{id}}/{{what}}"
        upstream = "main"
        rewrite = {{ replace = "/v2/{{what}}/of/{{id}}/{{header.x-tenant}}" }}
        "#,
        origin.addr()
    ));
    for (sent, forwarded) in [
        ("/orders/1?a=%2F", "/1?a=%2F"),
        ("/orders", "/"),
        ("/orders/", "/"),
        ("/orders/orders", "/orders"),
        ("/users/7/cart?x", "/v2/cart/of/7/t%2F..?x"),
        ("/users/a%20b/c%3Fd", "/v2/c%3Fd/of/a%20b/t%2F.."),
    ] {
        let response = tollgate.get(sent).header("x-tenant", "t/..").send().expect(200);
        assert_eq!(origin.requests().pop().expect("arrived").target, forwarded, "{sent}");
        assert_eq!(
            tollgate.logged(&response)["path"],
            sent.split('?').next().expect("one"),
            "what the client asked for"
        );
    }
    let hits = origin.hits();
    for tenant in ["..", "."] {
        let refused = tollgate.get("/users/7/cart").header("x-tenant", tenant).send().expect(400);
        assert_eq!(refused.json()["reason"], "bad_path");
    }
    assert_eq!(origin.hits(), hits);
}

#[test]
fn a_redirect_goes_where_the_operator_says_and_nowhere_a_client_could_choose() {
    let tollgate = Tollgate::with(
        r#"
        [defaults]
        auth = "none"
        [routes.site]
        hosts = ["www.example.com"]
        redirect = { to = "https://example.com{path}?{query}" }
        [routes.moved]
        path = "/old/{id}"
        redirect = { to = "/new/{id}/{header.x-a}", status = 302 }
        response_headers = { set = { x-why = "moved" } }
        "#,
    );
    let location =
        |request: Request, status: u16| request.send().expect(status).header("location").expect("where to").to_owned();
    let site = |path: &str| tollgate.get(path).host("www.example.com");
    assert_eq!(location(site("/a/../b?c=d"), 308), "https://example.com/b?c=d");
    assert_eq!(location(site("/"), 308), "https://example.com/");
    assert_eq!(location(site("//evil.test/%2e"), 308), "https://example.com/evil.test/");
    assert_eq!(location(site("/@evil.test"), 308), "https://example.com/@evil.test");
    assert_eq!(location(tollgate.get("/old/7").header("x-a", "//x?y"), 302), "/new/7/%2F%2Fx%3Fy");
    let response = tollgate.get("/old/7").send();
    assert_eq!((response.header("x-why"), response.body.len()), (Some("moved"), 0));
    assert!(response.header("proxy-status").is_none(), "nothing went wrong");
}

#[test]
fn a_route_can_answer_by_itself() {
    let tollgate = Tollgate::with(
        r#"
        [defaults]
        auth = "none"
        [routes.robots]
        path = "/robots.txt"
        respond = { body = "User-agent: *\n" }
        [routes.gone]
        path = "/gone"
        respond = { status = 410, content_type = "application/json", body = "{}" }
        [routes.empty]
        path = "/empty"
        respond = { status = 204 }
        "#,
    );
    let mut client = Client::connect(tollgate.addr());
    let robots = client.get("/robots.txt").expect(200);
    assert_eq!((robots.header("content-type"), robots.text().as_str()), (Some("text/plain"), "User-agent: *\n"));
    assert_eq!(tollgate.logged(&robots)["reason"], "responded");
    let gone = client.send(&Request::new("POST", "/gone").body("what was sent is not in the way")).expect(410);
    assert_eq!((gone.header("content-type"), gone.text().as_str()), (Some("application/json"), "{}"));
    let empty = client.get("/empty").expect(204);
    assert!(!empty.headers.has("content-length") && !empty.headers.has("transfer-encoding"), "RFC 9110, 8.6");
    assert_eq!(client.send(&Request::new("HEAD", "/gone")).header("content-length"), Some("2"));
    client.get("/robots.txt").expect(200);
}

#[test]
fn clients_are_let_in_by_address_and_only_a_trusted_proxy_speaks_for_them() {
    let rules = |trusted: &str| {
        format!(
            "[server]\ntrusted_proxies = [{trusted}]\n{}",
            route("main", "clients = { allow = [\"10.0.0.0/8\", \"2001:db8::/32\"], deny = [\"10.6.6.0/24\"] }")
        )
    };
    let trusting = Tollgate::with(&rules("\"127.0.0.1\", \"192.0.2.0/24\""));
    for (forwarded, status) in [
        ("10.1.1.1", 200),
        ("::ffff:10.1.1.1", 200),
        ("2001:db8::1", 200),
        ("10.6.6.1", 403),
        ("::ffff:10.6.6.1", 403),
        ("203.0.113.1", 403),
        ("10.1.1.1, 203.0.113.1", 403),
        ("203.0.113.1, 10.1.1.1", 200),
        ("10.1.1.1, 192.0.2.7", 200),
        ("203.0.113.1, 192.0.2.7, 192.0.2.8", 403),
        ("10.1.1.1, nonsense", 403),
    ] {
        let response = trusting.get("/").header("x-forwarded-for", forwarded).send();
        assert_eq!(response.status(), status, "{forwarded}");
        if status == 403 {
            assert_eq!(response.json()["reason"], "client_denied");
        }
    }
    let response =
        trusting.get("/").header("x-forwarded-for", "203.0.113.1").header("x-forwarded-for", "10.1.1.1").send();
    assert_eq!(trusting.logged(&response.expect(200))["client_ip"], "10.1.1.1");
    assert_eq!(trusting.get("/").send().status(), 403, "the proxy itself");
    let strict = Tollgate::with(&rules("\"198.51.100.1\""));
    for name in ["x-forwarded-for", "x-real-ip", "forwarded"] {
        let response = strict.get("/").header(name, "10.1.1.1").send().expect(403);
        assert_eq!(strict.logged(&response)["client_ip"], "127.0.0.1");
    }
}

#[test]
fn headers_are_removed_and_set_with_what_the_request_says() {
    let origin = Origin::scripted(|_, connection| {
        connection.reply(
            200,
            &[("server", "secret/1.0"), ("x-internal", "a"), ("x-internal", "b"), ("x-own", "o")],
            "",
        );
    });
    let tollgate = Tollgate::with(&format!(
        r#"
        [upstreams.main]
        endpoints = ["{}"]
        [routes.main]
        path = "/users/{{id}}"
        auth = "none"
        upstream = "main"
        [routes.main.request_headers]
        remove = ["x-debug"]
        [routes.main.request_headers.set]
        x-gateway = "tollgate"
        x-user = "{{id}}"
        x-about = "{{method}} {{host}} {{path}} {{query}} {{{{{{header.x-a}}}}"
        [routes.main.response_headers]
        remove = ["server", "x-internal"]
        [routes.main.response_headers.set]
        x-user = "{{id}}"
        strict-transport-security = "max-age=63072000"
        [routes.denied]
        path = "/denied"
        auth = "none"
        clients = {{ deny = ["127.0.0.0/8"] }}
        upstream = "main"
        response_headers = {{ set = {{ x-path = "{{path}}" }} }}
        "#,
        origin.addr()
    ));
    let request = tollgate.get("/users/7?q=1").host("H.Test:80").header("x-a", "b").header("x-user", "mallory");
    let response = request.header("X-Debug", "1").header("x-debug", "2").send().expect(200);
    let forwarded = origin.request();
    for (name, value) in [
        ("x-gateway", Some("tollgate")),
        ("x-user", Some("7")),
        ("x-debug", None),
        ("x-about", Some("GET h.test /users/7 q=1 {b}")),
    ] {
        assert_eq!(forwarded.header(name), value, "{name}");
    }
    for (name, value) in [
        ("server", None),
        ("x-internal", None),
        ("x-own", Some("o")),
        ("x-user", Some("7")),
        ("strict-transport-security", Some("max-age=63072000")),
    ] {
        assert_eq!(response.header(name), value, "{name}");
    }
    assert_eq!(tollgate.get("/denied").send().expect(403).header("x-path"), Some("/denied"), "by our own answers too");
}

#[test]
fn what_is_not_implemented_yet_is_said_and_not_ignored() {
    let tollgate = routes(&[("main", "path = \"/a\"")]);
    tollgate.edit(|text| {
        text.push_str(&route("other", "path = \"/b\"\ncompression = [\"gzip\"]"));
    });
    let stderr = tollgate.check().failed(1);
    assert!(stderr.contains("\"compression\" is not implemented yet"), "{stderr}");
    tollgate.reload().failed(1);
    assert_eq!(taken_by(tollgate.get("/b")), "404");
}

#[test]
fn ten_thousand_routes_load_and_answer() {
    let text = (0..10_000).fold(String::from("[defaults]\nauth = \"none\"\n"), |mut text, index| {
        let (host, path) = (index % 100, index / 100);
        let _ = writeln!(
            text,
            "[routes.r{index}]\nhosts = [\"h{host}.test\"]\npath = \"/p{path}/*\"\nrespond = {{ body = \"{index}\" }}"
        );
        text
    });
    let tollgate = Tollgate::with(&text);
    let mut client = Client::connect(tollgate.addr());
    for index in (0..10_000).step_by(373).chain([9_999]) {
        let request = Request::get(&format!("/p{}/x", index / 100)).host(&format!("h{}.test", index % 100));
        assert_eq!(client.send(&request).text(), index.to_string());
    }
    assert_eq!(client.send(&Request::get("/p0").host("other.test")).status(), 404);
    tollgate.replace("body = \"9999\"", "body = \"changed\"");
    tollgate.reload().succeeded();
    assert_eq!(client.send(&Request::get("/p99").host("h99.test")).text(), "changed");
}

#[test]
fn a_host_that_is_none_is_refused_before_any_route() {
    let tollgate = routes(&[("any", "path = \"/*\"")]);
    for host in ["a b", "a/b", "a@b", "", "a:b", "a:99999", "[::1", "a,b"] {
        let mut raw = Raw::connect(tollgate.addr());
        raw.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert_eq!(raw.response().status(), 400, "{host:?}");
    }
    let mut raw = Raw::connect(tollgate.addr());
    raw.send("GET http://a.test/ HTTP/1.1\r\nhost: b.test\r\n\r\n");
    assert_eq!(raw.response().status(), 400, "two hosts");
}
