use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::*;
use crate::config;
use crate::config::{
    AccessFormat, Action, AuthChoice, Balance, ClientRules, Config, Cost, EncodedSlash, EndpointAddress, FileContent,
    HeaderRules, LimitKind, LogOutput, Mode, Name, OnFull, PathPattern, Protocol, Rate, Respond, RoutePath, Secret,
    Segment, Selector,
};
use crate::snapshot::{Snapshot, Tools};
use crate::telemetry::HandshakeFailure;
use crate::tls::{TicketKeys, TlsTools};

/// A name that would be markup if it were not escaped.
const MARKUP: &str = "<script>alert(1)</script>";
/// Longer than any deadline of this room.
const PATIENCE: Duration = Duration::from_secs(30);

fn count(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("tests use counts from 1")
}

fn file(text: String) -> FileContent {
    FileContent { path: "test.pem".into(), content: Secret::new(text.into_bytes()) }
}

fn listener() -> config::Listener {
    let generated = rcgen::generate_simple_self_signed(["gate.example".to_owned()]).expect("generated");
    let certificate =
        config::Certificate { cert: file(generated.cert.pem()), key: file(generated.signing_key.serialize_pem()) };
    config::Listener {
        addresses: vec!["127.0.0.1:8443".parse().expect("an address")],
        protocols: vec![Protocol::Http1],
        proxy_protocol: config::ProxyProtocol::Off,
        redirect_to_https: false,
        header_timeout: PATIENCE,
        keepalive_timeout: PATIENCE,
        max_headers: 100,
        max_header_bytes: 1 << 15,
        limits: Vec::new(),
        tls: Some(config::Tls {
            min_version: rustls::ProtocolVersion::TLSv1_2,
            certificates: vec![certificate],
            clients: None,
        }),
    }
}

fn limit() -> config::Limit {
    config::Limit {
        kind: LimitKind::Rate { rate: Rate { count: count(5), per: Duration::from_secs(1) }, burst: count(10) },
        queue: None,
        key: vec![Selector::ClientAddress],
        max_keys: NonZeroUsize::new(1000).expect("not zero"),
        on_full: OnFull::Allow,
        mode: Mode::Enforce,
        store: None,
        cost: Cost::One,
        legacy_headers: false,
        partition_key: false,
        show_keys: false,
    }
}

fn upstream() -> config::Upstream {
    let address = EndpointAddress::Socket("10.0.0.11:8080".parse().expect("an address"));
    let endpoint = config::Endpoint { address, weight: 3, priority: 0, zone: None };
    config::Upstream::plain(vec![endpoint], Balance::RoundRobin)
}

fn route(path: &str, action: Action) -> config::Route {
    config::Route {
        hosts: Vec::new(),
        path: RoutePath::Path(PathPattern { segments: vec![Segment::Literal(path.into())], below: true }),
        methods: Vec::new(),
        match_headers: Vec::new(),
        match_query: Vec::new(),
        listeners: Vec::new(),
        auth: AuthChoice::Open,
        auth_mode: Mode::Enforce,
        limits: vec!["per_address".into()],
        cors: None,
        clients: ClientRules::default(),
        action,
        rewrite: None,
        encoded_slash: EncodedSlash::Refuse,
        request_headers: HeaderRules::default(),
        response_headers: HeaderRules::default(),
        timeout: None,
        stream_idle: PATIENCE,
        max_body: None,
    }
}

fn jwt() -> config::Auth {
    let jwt = config::Jwt {
        issuer: "https://id.example".into(),
        audience: vec!["orders".into()],
        algorithms: vec![config::Algorithm::ES256],
        keys: config::KeySource::JwksUrl("https://user:password@id.example/jwks.json".parse().expect("a URI")),
        ca_file: None,
        leeway: Duration::ZERO,
        token_type: None,
        required_claims: Vec::new(),
    };
    config::Auth {
        kind: config::AuthKind::Jwt(jwt),
        sources: vec![config::TokenSource::Bearer],
        forward_token: false,
        identity_headers: Vec::new(),
        resource_metadata: None,
    }
}

fn config(token: Option<&str>) -> Config {
    let respond = Respond {
        status: StatusCode::OK,
        content_type: http::HeaderValue::from_static("text/plain"),
        body: "the body of a respond route".into(),
    };
    let named = |name: &str| -> Name { name.into() };
    Config {
        server: config::Server {
            threads: 1,
            drain_delay: Duration::ZERO,
            drain_timeout: PATIENCE,
            runtime_dir: "/run/tollgate".into(),
            trusted_proxies: Vec::new(),
            max_connections: 100,
            max_connections_per_address: None,
            max_connection_rate_per_address: None,
            keep_underscore_headers: false,
            watch: false,
            zone: None,
        },
        admin: config::Admin {
            address: "127.0.0.1:9900".parse().expect("an address"),
            token: token.map(|token| Secret::new(token.as_bytes())),
            health_address: None,
        },
        log: config::Log {
            level: "info".into(),
            access: config::AccessLog {
                format: AccessFormat::Off,
                output: LogOutput::Stdout,
                sample: 1.0,
                fields: Vec::new(),
            },
        },
        listeners: BTreeMap::from([(named("https"), listener())]),
        auth: BTreeMap::from([(named("corporate"), jwt())]),
        limits: BTreeMap::from([(named("per_address"), limit())]),
        upstreams: BTreeMap::from([(named("orders"), upstream())]),
        routes: BTreeMap::from([
            (named("orders"), route("orders", Action::Upstream("orders".into()))),
            (named(MARKUP), route("robots", Action::Respond(respond))),
        ]),
    }
}

/// An admin side that serves on loopback until it is dropped.
struct Served {
    sources: Sources,
    addr: SocketAddr,
    health: SocketAddr,
    /// Dropping it would tell the service to stop
    _shutdown: watch::Sender<bool>,
    task: JoinSet<()>,
}

fn bound() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("bound");
    socket.set_nonblocking(true).expect("non-blocking");
    let addr = socket.local_addr().expect("bound");
    (socket, addr)
}

fn serve(token: Option<&str>) -> Served {
    let tools = Tools { metrics: Arc::new(Metrics::new()), tls: TlsTools::new(TicketKeys::new()) };
    let config = config(token);
    let access_log = AccessLog::start(&config.log.access).expect("started");
    let snapshot = Snapshot::build(config, None, &tools).expect("built");
    let sources = Sources {
        live: Arc::new(Live::new(snapshot)),
        succeeds: false,
        drain: serving(),
        status: Arc::new(Status::new()),
        metrics: tools.metrics,
        access_log,
    };
    let ((socket, addr), (health_socket, health)) = (bound(), bound());
    let mut admin = Admin::new(sources.clone(), socket, Some(health_socket));
    let (shutdown, watch) = watch::channel(false);
    let mut task = JoinSet::new();
    task.spawn(async move { admin.start_service(None, watch, 1).await });
    Served { sources, addr, health, _shutdown: shutdown, task }
}

fn serving() -> Drain {
    let drain = Drain::new();
    drain.advance(Phase::Serving);
    drain
}

/// Sends bytes and reads to the end of the connection.
async fn exchange(addr: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.expect("connected");
    stream.write_all(request).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("closed in order");
    String::from_utf8(answer).expect("UTF-8")
}

async fn get(addr: SocketAddr, target: &str) -> String {
    exchange(addr, format!("GET {target} HTTP/1.1\r\nHost: {addr}\r\n\r\n").as_bytes()).await
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("a head").1
}

#[tokio::test]
async fn readiness_follows_the_life_of_the_process_and_health_does_not() {
    let served = serve(None);
    let ready = async || {
        let answer = get(served.addr, "/readyz").await;
        (answer.split(' ').nth(1).expect("a status").to_owned(), body(&answer).to_owned())
    };
    let (status, reason) = ready().await;
    assert_eq!(status, "503");
    assert!(reason.starts_with("not ready, starting: "), "{reason}");
    served.sources.status.become_ready();
    assert_eq!(ready().await, ("200".into(), "ready\n".into()));
    for (phase, word) in [(Phase::Leaving, "leaving"), (Phase::Draining, "draining")] {
        served.sources.drain.advance(phase);
        let (status, reason) = ready().await;
        assert_eq!(status, "503");
        assert!(reason.starts_with(&format!("not ready, {word}: ")), "{reason}");
        assert!(get(served.addr, "/healthz").await.starts_with("HTTP/1.1 200 "));
        assert!(get(served.health, "/healthz").await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn a_rebound_name_learns_nothing() {
    let served = serve(None);
    for addr in [served.addr, served.health] {
        for target in ["/healthz", "/metrics", "/api/status", "/"] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: evil.example:9900\r\n\r\n");
            let answer = exchange(addr, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
            assert!(!answer.contains("orders"), "{answer}");
        }
    }
}

#[tokio::test]
async fn whoever_sends_a_body_is_told_that_nothing_can_be_changed() {
    let served = serve(None);
    let mut request = b"POST /api/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n".to_vec();
    request.resize(request.len() + 200_000, b'x');
    let answer = exchange(served.addr, &request).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");
}

#[tokio::test]
async fn the_token_of_the_present_configuration_is_asked_for() {
    let served = serve(Some("first"));
    let status = async |token: &str| {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
        exchange(served.addr, request.as_bytes()).await.split(' ').nth(1).expect("a status").to_owned()
    };
    assert_eq!(status("first").await, "200");
    assert_eq!(status("second").await, "401");
    let challenge = get(served.addr, "/").await;
    assert!(challenge.starts_with("HTTP/1.1 401 "), "{challenge}");
    assert!(challenge.contains("www-authenticate: Bearer realm=\"tollgate admin\"\r\n"), "{challenge}");
    assert!(get(served.addr, "/readyz").await.starts_with("HTTP/1.1 503 "), "a probe needs no token");
    assert!(get(served.health, "/metrics").await.starts_with("HTTP/1.1 200 "), "nor does the health address");

    let previous = served.sources.live.load_full();
    let tools = Tools { metrics: Arc::clone(&served.sources.metrics), tls: TlsTools::new(TicketKeys::new()) };
    let next = Snapshot::build(config(Some("second")), Some(&previous), &tools).expect("built");
    served.sources.live.replace(Arc::new(next));
    assert_eq!(status("first").await, "401");
    assert_eq!(status("second").await, "200");
}

#[tokio::test]
async fn the_status_page_shows_everything_and_obeys_nothing() {
    let served = serve(None);
    served.sources.status.reloaded(Err(format!("1 problem in {MARKUP}.toml")));
    let answer = get(served.addr, "/").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(!answer.contains(MARKUP), "{answer}");
    for text in ["10.0.0.11:8080", "/orders/*", "5/s, burst 10", "gate.example until ", "respond 200", "generation 1"] {
        assert!(answer.contains(text), "{text} in {answer}");
    }
    assert_eq!(answer.matches("&lt;script&gt;alert(1)&lt;/script&gt;").count(), 2, "a route and the failed reload");
    assert!(!answer.contains("the body of a respond route") && !answer.contains("password"), "{answer}");
    for header in ["x-content-type-options: nosniff", "x-frame-options: DENY", "cache-control: no-store"] {
        assert!(answer.contains(header), "{header} in {answer}");
    }
    let live = get(served.addr, "/?live").await;
    assert!(live.contains("http-equiv=\"refresh\"") && !answer.contains("http-equiv=\"refresh\""));
}

#[tokio::test]
async fn the_policy_lets_the_pages_own_style_through_and_nothing_else() {
    let served = serve(None);
    let answer = get(served.addr, "/").await;
    let (_, rest) = answer.split_once("<style>").expect("a style sheet");
    let (style, _) = rest.split_once("</style>").expect("its end");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, style.as_bytes());
    let digest = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, digest);
    let policy = format!("content-security-policy: default-src 'none'; style-src 'sha256-{digest}'; ");
    assert!(answer.contains(&policy), "{answer}");
}

#[tokio::test]
async fn the_same_is_there_as_json() {
    let served = serve(Some("token"));
    served.sources.status.become_ready();
    served.sources.status.reloaded(Ok(()));
    let _connection = served.sources.drain.connection();
    let request = "GET /api/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer token\r\n\r\n";
    let answer = exchange(served.addr, request.as_bytes()).await;
    assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    let json: serde_json::Value = serde_json::from_str(body(&answer)).expect("JSON");
    assert_eq!(json["phase"], "serving");
    assert_eq!(json["ready"], true);
    assert_eq!(json["connections"], 1);
    assert_eq!(json["last_reload"]["succeeded"], true);
    let alone = exchange(served.addr, request.replace("status", "upstreams").as_bytes()).await;
    let alone: serde_json::Value = serde_json::from_str(body(&alone)).expect("JSON");
    assert_eq!((&alone, &alone[0]["name"]), (&json["upstreams"], &"orders".into()));
    let endpoint = &json["upstreams"][0]["endpoints"][0];
    assert_eq!((&endpoint["weight_now"], &endpoint["priority"]), (&3.0.into(), &0.into()));
    assert_eq!((&endpoint["address"], &endpoint["weight"]), (&"10.0.0.11:8080".into(), &3.into()));
    assert_eq!((&json["auth"][0]["keys_from"], &json["auth"][0]["keys"]), (&"jwks_url".into(), &0.into()));
    assert!(!answer.contains("password"), "{answer}");
    assert_eq!(json["routes"][1]["path"], "/orders/*");
    assert_eq!(json["limits"][0]["key"][0], "client.address");
    assert_eq!(json["listeners"][0]["certificates"][0]["names"][0], "gate.example");
}

#[tokio::test]
async fn a_scrape_brings_the_numbers_of_every_room() {
    let served = serve(None);
    let lease = served.sources.live.load_full().upstreams["orders"]
        .pick(&crate::upstream::Tried::default(), crate::upstream::Wish::default());
    served.sources.status.reloaded(Err("broken".into()));
    let answer = get(served.addr, "/metrics").await;
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
    for line in [
        "tollgate_config_generation 1",
        "tollgate_config_last_reload_successful 0",
        "tollgate_ready 0",
        "tollgate_access_log_dropped_total 0",
        "tollgate_auth_decisions_total{auth=\"corporate\",result=\"accepted\"} 0",
        "tollgate_auth_keys{auth=\"corporate\"} 0",
        "tollgate_limit_decisions_total{limit=\"per_address\",result=\"refused\"} 0",
        "tollgate_limit_keys{limit=\"per_address\"} 0",
        "tollgate_limit_evictions_total{limit=\"per_address\"} 0",
        "tollgate_upstream_requests_total{result=\"answered\",upstream=\"orders\"} 0",
        "tollgate_retries_total{reason=\"reset\",upstream=\"orders\"} 0",
        "tollgate_endpoint_healthy{endpoint=\"10.0.0.11:8080\",upstream=\"orders\"} 1",
        "tollgate_endpoint_requests_in_flight{endpoint=\"10.0.0.11:8080\",upstream=\"orders\"} 1",
    ] {
        assert!(answer.contains(&format!("\n{line}\n")), "{line} in {answer}");
    }
    assert!(
        answer.contains("tollgate_certificate_expiry_timestamp_seconds{listener=\"https\",name=\"gate.example\"} ")
    );
    assert!(answer.contains("tollgate_build_info{"), "{answer}");
    drop(lease);
}

#[tokio::test]
async fn the_page_about_metrics_lists_those_that_there_are_and_no_others() {
    let served = serve(None);
    let metrics = &served.sources.metrics;
    let https: Name = "https".into();
    let listener = metrics.listener(&https);
    let _connection = listener.connection();
    listener.refuse(crate::http::Reason::NoRoute);
    listener.shaken("1.3", false);
    listener.handshake_failed(HandshakeFailure::Closed);
    let route = metrics.route(std::iter::once(&https), &"orders".into(), Some(&"shop".into()));
    route.finish(&https, &http::Method::GET, StatusCode::OK, Duration::ZERO);
    metrics.reloaded(true);
    metrics.upgraded(true);
    served.sources.status.reloaded(Ok(()));
    let scrape = get(served.addr, "/metrics").await;
    let families = scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let mut present: BTreeSet<_> = families.filter(|name| name.starts_with("tollgate_")).collect();
    // These appear with the first breaker, with the first key set, with a route in shadow mode, with a service that decides, and with a limit
    // that has a store.
    present.extend(["tollgate_jwks_age_seconds", "tollgate_auth_shadow", "tollgate_auth_requests_total"]);
    present.extend(["tollgate_breaker_state", "tollgate_breaker_openings_total"]);
    present.extend(["tollgate_limit_store_requests_total", "tollgate_limit_store_up"]);
    // These with a queue, and with an adaptive limit; they are seen in the tests of the whole (`tests/it/overload.rs`).
    present.extend(["tollgate_limit_waiting", "tollgate_limit_waits_total", "tollgate_limit_queue_seconds_total"]);
    present.extend(["tollgate_upstream_waiting", "tollgate_upstream_queue_seconds_total"]);
    present.extend(["tollgate_limit_concurrency", "tollgate_limit_requests_in_flight"]);
    present.extend(["tollgate_limit_latency_seconds"]);
    // These with an upstream that asks for them.
    present.extend(["tollgate_endpoint_ewma_seconds", "tollgate_sticky_requests_total"]);
    let names =
        include_str!("../../docs/metrics.md").lines().filter_map(|row| row.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<_> = names.filter(|name| name.starts_with("tollgate_")).collect();
    assert_eq!(present, documented);
}

#[tokio::test]
async fn a_head_request_gets_the_head() {
    let served = serve(None);
    let answer = exchange(served.addr, b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("content-length: 3\r\n"), "{answer}");
    assert_eq!(body(&answer), "");
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_says_nothing_is_sent_away_and_the_other_door_stays_open() {
    let served = serve(None);
    let (begun, mut crowd) = (tokio::time::Instant::now(), Vec::new());
    for _ in 0..200 {
        let mut stream = TcpStream::connect(served.addr).await.expect("the system accepts");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: ").await.expect("sent");
        crowd.push(stream);
    }
    assert!(get(served.health, "/healthz").await.starts_with("HTTP/1.1 200 "));
    let answer = tokio::time::timeout(PATIENCE, get(served.addr, "/healthz")).await.expect("in time");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // 64 places for 200: the crowd before us was sent away in three rounds.
    assert!(begun.elapsed() >= Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let served = serve(None);
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    let mut stream = TcpStream::connect(served.addr).await.expect("connected");
    // The answer may come, and the connection end, before all of it is sent.
    let _ = stream.write_all(long.as_bytes()).await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 431");
}

#[tokio::test]
async fn a_successor_gets_the_sockets() {
    let mut served = serve(None);
    assert!(get(served.addr, "/healthz").await.starts_with("HTTP/1.1 200 "));
    served.sources.status.hand_over();
    served.task.join_next().await.expect("one task").expect("ends by itself");
    assert!(TcpStream::connect(served.addr).await.is_err());
    assert!(TcpStream::connect(served.health).await.is_err());
}
