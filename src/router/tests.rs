use std::net::Ipv4Addr;
use std::time::Duration;

use http::HeaderMap;
use proptest::prelude::*;

use super::*;
use crate::config::{
    Action, AuthChoice, ClientRules, EncodedSlash, HeaderRules, Mode, PathPattern, Pattern, RoutePath, Segment,
};

/// A route that takes `path` and nothing less.
fn route(path: &str) -> config::Route {
    config::Route {
        hosts: Vec::new(),
        path: RoutePath::Path(pattern(path)),
        methods: Vec::new(),
        match_headers: Vec::new(),
        match_query: Vec::new(),
        listeners: Vec::new(),
        auth: AuthChoice::Open,
        auth_mode: Mode::Enforce,
        limits: Vec::new(),
        cors: None,
        clients: ClientRules::default(),
        action: Action::Upstream("upstream".into()),
        rewrite: None,
        encoded_slash: EncodedSlash::Refuse,
        request_headers: HeaderRules::default(),
        response_headers: HeaderRules::default(),
        timeout: None,
        stream_idle: Duration::from_secs(300),
        max_body: None,
    }
}

fn pattern(path: &str) -> PathPattern {
    let (path, below) = path.strip_suffix("/*").map_or((path, false), |path| (path, true));
    let segments = path.strip_prefix('/').into_iter().flat_map(|path| path.split('/')).map(|text| {
        let parameter = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        parameter.map_or_else(|| Segment::Literal(text.to_owned()), |name| Segment::Parameter(name.to_owned()))
    });
    PathPattern { segments: segments.collect(), below }
}

fn regex(pattern: &str, priority: i64) -> config::Route {
    let pattern = Pattern(regex::Regex::new(pattern).expect("a regular expression"));
    config::Route { path: RoutePath::Regex { pattern, priority }, ..route("/") }
}

fn on(hosts: &[&str], route: config::Route) -> config::Route {
    let hosts = hosts.iter().map(|host| match host.strip_prefix("*.") {
        Some(parent) => HostPattern::Wildcard(parent.to_owned()),
        None => HostPattern::Exact((*host).to_owned()),
    });
    config::Route { hosts: hosts.collect(), ..route }
}

fn taking(methods: &[Method], route: config::Route) -> config::Route {
    config::Route { methods: methods.to_vec(), ..route }
}

fn router(routes: &[(&str, config::Route)]) -> Router<String> {
    Router::build(routes.iter().map(|(name, route)| (Name::from(*name), route, (*name).to_owned()))).expect("no ties")
}

fn ask(router: &Router<String>, method: &Method, host: &str, path: &str) -> String {
    let headers = HeaderMap::new();
    let request = Request {
        method,
        host,
        path,
        query: None,
        headers: &headers,
        client: Ipv4Addr::LOCALHOST.into(),
        client_certificate: None,
        route: "",
        scheme: "http",
        id: "",
    };
    match router.find("http", &request) {
        Found::Route { target, parameters } => {
            parameters.iter().fold(target.clone(), |text, (name, value)| format!("{text} {name}={value}"))
        }
        Found::NoRoute => "404".to_owned(),
        Found::MethodNotAllowed { allow } => format!("405 {}", allow.to_str().expect("ASCII")),
    }
}

fn get(router: &Router<String>, host: &str, path: &str) -> String {
    ask(router, &Method::GET, host, path)
}

#[test]
fn the_most_specific_path_wins() {
    let router = router(&[
        ("all", route("/*")),
        ("users", route("/users/*")),
        ("user", route("/users/{id}")),
        ("me", route("/users/me")),
        ("orders", route("/users/{id}/orders")),
        ("mine", route("/users/me/{what}")),
    ]);
    for (path, expected) in [
        ("/", "all"),
        ("/x/y", "all"),
        ("/users", "users"),
        ("/users/", "users"),
        ("/users/7", "user id=7"),
        ("/users/me", "me"),
        ("/users/me/orders", "mine what=orders"),
        ("/users/7/orders", "orders id=7"),
        ("/users/7/else", "users"),
        ("/usersx", "all"),
    ] {
        assert_eq!(get(&router, "a", path), expected, "{path}");
    }
}

#[test]
fn a_longer_prefix_wins_even_through_a_parameter() {
    let router = router(&[("short", route("/a/*")), ("long", route("/{x}/b/*"))]);
    assert_eq!(get(&router, "h", "/a/b/c"), "long x=a");
    assert_eq!(get(&router, "h", "/a/c"), "short");
}

#[test]
fn hosts_go_from_exact_to_any_and_fall_through() {
    let router = router(&[
        ("exact", on(&["api.example.com"], route("/v1/*"))),
        ("near", on(&["*.example.com"], route("/*"))),
        ("far", on(&["*.com"], route("/*"))),
        ("any", route("/any")),
    ]);
    assert_eq!(get(&router, "api.example.com", "/v1/x"), "exact");
    assert_eq!(get(&router, "api.example.com", "/v2"), "near");
    assert_eq!(get(&router, "a.b.example.com", "/"), "near");
    assert_eq!(get(&router, "example.com", "/"), "far");
    assert_eq!(get(&router, "com", "/any"), "any");
    assert_eq!(get(&router, "com", "/other"), "404");
}

#[test]
fn a_path_without_the_method_is_405_unless_a_less_specific_route_takes_it() {
    let router = router(&[
        ("read", taking(&[Method::GET, Method::HEAD], route("/a"))),
        ("write", taking(&[Method::POST], route("/a"))),
        ("rest", taking(&[Method::DELETE], route("/*"))),
    ]);
    assert_eq!(ask(&router, &Method::POST, "h", "/a"), "write");
    assert_eq!(ask(&router, &Method::DELETE, "h", "/a"), "rest");
    assert_eq!(ask(&router, &Method::PUT, "h", "/a"), "405 DELETE, GET, HEAD, POST");
    assert_eq!(ask(&router, &Method::PUT, "h", "/b"), "405 DELETE");
}

#[test]
fn conditions_are_more_specific_than_none() {
    let mut mobile = route("/a");
    mobile.match_headers = vec![(http::HeaderName::from_static("x-channel"), "mobile".to_owned())];
    let mut preview = route("/a");
    preview.match_query = vec![("preview".to_owned(), "true".to_owned())];
    let router = router(&[("plain", route("/a")), ("mobile", mobile), ("preview", preview)]);
    let ask = |query: Option<&str>, channel: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        headers
            .extend(channel.map(|value| (http::HeaderName::from_static("x-channel"), HeaderValue::from_static(value))));
        let (method, client) = (&Method::GET, Ipv4Addr::LOCALHOST.into());
        let request = Request {
            method,
            host: "h",
            path: "/a",
            query,
            headers: &headers,
            client,
            client_certificate: None,
            route: "",
            scheme: "http",
            id: "",
        };
        match router.find("http", &request) {
            Found::Route { target, .. } => target.clone(),
            _ => String::new(),
        }
    };
    assert_eq!(ask(None, None), "plain");
    assert_eq!(ask(Some("preview=true"), None), "preview");
    assert_eq!(ask(Some("preview=true"), Some("mobile")), "mobile");
    assert_eq!(ask(Some("preview=false"), Some("web")), "plain");
}

#[test]
fn regular_expressions_come_last_and_by_priority() {
    let router = router(&[
        ("plain", route("/v1/orders")),
        ("low", regex("^/v[0-9]+/", 0)),
        ("high", regex("^/v[0-9]+/orders$", 5)),
    ]);
    assert_eq!(get(&router, "h", "/v1/orders"), "plain");
    assert_eq!(get(&router, "h", "/v2/orders"), "high");
    assert_eq!(get(&router, "h", "/v2/users"), "low");
    assert_eq!(get(&router, "h", "/x"), "404");
}

#[test]
fn a_route_may_be_bound_to_listeners() {
    let mut inner = route("/a");
    inner.listeners = vec!["internal".into()];
    assert_eq!(get(&router(&[("inner", inner)]), "h", "/a"), "404");
}

#[test]
fn ties_are_refused_and_name_the_other_route() {
    let tied = |left: config::Route, right: config::Route| {
        Router::build([(Name::from("left"), &left, ()), (Name::from("right"), &right, ())])
            .map(|_| ())
            .map_err(|problems| (problems[0].path.clone(), problems[0].message.contains("\"left\"")))
    };
    let at = |path: &str| Err((format!("routes.right.{path}"), true));
    assert_eq!(tied(route("/a/{x}"), route("/a/{y}")), at("path"));
    assert_eq!(tied(on(&["h"], route("/a")), on(&["g", "h"], route("/a"))), at("path"));
    assert_eq!(tied(regex("a", 1), regex("b", 1)), at("path_regex"));
    let get = |path| taking(&[Method::GET], route(path));
    assert_eq!(tied(get("/a"), taking(&[Method::GET, Method::POST], route("/a"))), at("path"));
    assert_eq!(tied(get("/a"), taking(&[Method::POST], route("/a"))), Ok(()));
    assert_eq!(tied(get("/a"), route("/a")), Ok(()));
    assert_eq!(tied(regex("a", 1), regex("b", 2)), Ok(()));
}

/// The documented order, spelt out: of all routes that match, the one with the smallest key.
fn naive(routes: &[(String, config::Route)], host: &str, path: &str) -> String {
    let key = |route: &config::Route| {
        let host_rank = match route.hosts.first() {
            Some(HostPattern::Exact(name)) if name == host => (0, 0),
            Some(HostPattern::Wildcard(parent)) if host.ends_with(&format!(".{parent}")) => {
                (1, usize::MAX - parent.len())
            }
            None => (2, 0),
            Some(_) => return None,
        };
        let RoutePath::Path(pattern) = &route.path else { return None };
        let sent: Vec<_> = path[1..].split('/').collect();
        let fits = pattern.segments.iter().zip(&sent).all(|(segment, sent)| match segment {
            Segment::Literal(text) => text == sent,
            Segment::Parameter(_) => !sent.is_empty(),
        });
        let length =
            if pattern.below { pattern.segments.len() <= sent.len() } else { pattern.segments.len() == sent.len() };
        let shape: Vec<_> = pattern.segments.iter().map(|segment| matches!(segment, Segment::Parameter(_))).collect();
        let longest = if pattern.below { usize::MAX - pattern.segments.len() } else { 0 };
        (fits && length).then_some((host_rank, pattern.below, longest, shape))
    };
    let best = routes.iter().filter_map(|(name, route)| key(route).map(|key| (key, name))).min();
    best.map_or_else(|| "404".to_owned(), |(_, name)| name.clone())
}

proptest! {
    #[test]
    fn the_tree_agrees_with_the_documented_order(
        specs in proptest::collection::hash_map(
            ("(|a\\.b|\\*\\.b|x\\.a\\.b)", "(/(a|b|\\{p\\})){0,4}(/\\*)?"), Just(()), 1..40),
        host in "(b|a\\.b|x\\.a\\.b|c)",
        path in "(/(a|b|c|)){1,5}",
    ) {
        let routes: Vec<_> = specs.keys().filter(|(_, path)| !path.is_empty()).map(|(host, path)| {
            let route = if host.is_empty() { route(path) } else { on(&[host], route(path)) };
            (format!("{host} {path}"), route)
        }).collect();
        let router = Router::build(routes.iter().map(|(name, route)| (Name::from(&**name), route, name.clone())));
        let router = router.expect("keys are unique");
        let headers = HeaderMap::new();
        let (method, client) = (&Method::GET, Ipv4Addr::LOCALHOST.into());
        let request = Request { method, host: &host, path: &path, query: None, headers: &headers, client, client_certificate: None, route: "", scheme: "http", id: "" };
        let found = match router.find("http", &request) {
            Found::Route { target, .. } => target.clone(),
            _ => "404".to_owned(),
        };
        prop_assert_eq!(found, naive(&routes, &host, &path));
    }
}
