//! The support, tested with itself.

use std::collections::HashSet;
use std::io;
use std::net::TcpStream;

use super::certs::Ca;
use super::client::{Client, Request};
use super::h2::{H2Client, H2Origin};
use super::jwt::{JwksServer, Key};
use super::origin::Origin;
use super::ports;
use super::raw::{Raw, exchange};
use super::websocket;

#[test]
fn an_origin_counts_and_records_what_it_answers() {
    let origin = Origin::replying("hello");
    let mut client = Client::connect(origin.addr());
    assert_eq!(client.get("/first").text(), "hello");
    let second = client.send(&Request::new("POST", "/second").header("x-a", "b").chunks(&[b"one ", b"two"]));
    assert_eq!(second.status(), 200);
    assert_eq!((origin.hits(), origin.connections()), (2, 1));
    let request = origin.requests().pop().expect("the second");
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/second"));
    assert_eq!((request.header("X-A"), request.body.as_slice()), (Some("b"), &b"one two"[..]));
    assert!(request.text().starts_with("POST /second HTTP/1.1\r\n"));
}

#[test]
fn an_origin_that_is_killed_resets_its_connections_and_can_come_back() {
    let mut origin = Origin::hanging();
    let mut client = Client::connect(origin.addr());
    client.begin(&Request::get("/")).expect("sent");
    super::wait::until("the request to arrive", || origin.hits() == 1);
    origin.kill();
    assert_eq!(client.finish("GET").expect_err("no answer").kind(), io::ErrorKind::ConnectionReset);
    assert!(Client::try_connect(origin.addr()).is_err());
    origin.start_again();
    Client::connect(origin.addr()).begin(&Request::get("/")).expect("sent");
    super::wait::until("the request to arrive", || origin.hits() == 2);
}

#[test]
fn a_response_that_breaks_off_is_an_error() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "",
    ] {
        let origin = Origin::scripted(move |_, connection| {
            connection.send(answer).expect("sent");
            connection.close();
        });
        let error = Request::get("/").to(origin.addr()).try_send().expect_err(answer);
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{answer:?}");
    }
}

#[test]
fn trailers_and_interim_responses_are_kept_apart() {
    let origin = Origin::scripted(|_, connection| {
        connection.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").expect("sent");
        connection.begin_chunked(200, &[]);
        connection.chunk("body");
        connection.send("0\r\nx-sum: 1\r\n\r\n").expect("sent");
    });
    let response = Request::get("/").to(origin.addr()).send();
    assert_eq!((response.interim.as_slice(), response.text().as_str()), (&[103][..], "body"));
    assert_eq!(response.trailers.get("x-sum"), Some("1"));
    assert!(!response.headers.has("x-sum"));
}

#[test]
fn raw_connections_see_each_byte() {
    let origin = Origin::echoing_heads();
    let mut raw = Raw::connect(origin.addr());
    raw.send("GET / HTTP/1.1\r\nhost: a\r\n");
    assert!(raw.is_quiet());
    raw.send("\r\n");
    assert_eq!(raw.response().text(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    raw.finish_sending().expect_closed();
    let closing = Origin::scripted(|_, connection| {
        connection.reply(200, &[], "bye");
        connection.close();
    });
    assert!(exchange(closing.addr(), "GET / HTTP/1.0\r\n\r\n").ends_with("\r\n\r\nbye"));
}

#[test]
fn tls_is_verified_both_ways() {
    let ca = Ca::new("an authority");
    let identity = ca.server(&["origin.test"]);
    let origin =
        Origin::scripted_tls(identity.serving(&["http/1.1"]), |_, connection| connection.reply(200, &[], "secret"));
    let ask =
        |ca: &Ca, name: &str| Request::get("/").over_tls(origin.addr(), name, ca.trusting(&["http/1.1"])).try_send();
    assert_eq!(ask(&ca, "origin.test").expect("trusted").text(), "secret");
    assert!(ask(&ca, "other.test").is_err());
    assert!(ask(&Ca::new("another"), "origin.test").is_err());
}

#[test]
fn http2_carries_bodies_and_trailers_with_and_without_tls() {
    let ca = Ca::new("an authority");
    let cleartext = H2Origin::echoing();
    let tls = H2Origin::echoing_tls(ca.server(&["origin.test"]).serving(&["h2"]));
    let clients =
        [H2Client::cleartext(cleartext.addr()), H2Client::connect_tls(tls.addr(), "origin.test", ca.trusting(&["h2"]))];
    for mut client in clients {
        let large = vec![b'x'; 200_000];
        let response = client.send(&Request::new("POST", "/").body(large.clone()));
        assert_eq!((response.status(), response.body == large), (200, true));
        assert_eq!(response.trailers.get("grpc-status"), Some("0"));
        let mut exchange = client.begin(&Request::new("POST", "/"), false).expect("begun");
        exchange.send("ping").expect("sent");
        assert_eq!(exchange.head().expect("a head").status, 200);
        assert_eq!(exchange.data().expect("data").as_deref(), Some(&b"ping"[..]));
        exchange.send_trailers(&[("x-sum", "1")]).expect("sent");
        assert_eq!(exchange.data().expect("the end"), None);
        assert_eq!(exchange.trailers().expect("trailers").get("x-sum"), Some("1"));
    }
    assert_eq!((cleartext.hits(), tls.hits()), (2, 2));
}

#[test]
fn an_http2_origin_that_is_killed_ends_its_connections() {
    let origin = H2Origin::echoing();
    let mut client = H2Client::cleartext(origin.addr());
    assert_eq!(client.get("/").status(), 200);
    origin.kill();
    // By goodbye or by reset: what counts is that it ends.
    drop(client.closed());
    super::wait::until("nobody to listen", || std::net::TcpStream::connect(origin.addr()).is_err());
}

#[test]
fn websockets_echo() {
    let origin = websocket::echo_origin();
    let (mut socket, _) = websocket::connect(origin.addr(), "/", &[("x-a", "b")]).expect("open");
    socket.send(tungstenite::Message::text("hello")).expect("sent");
    assert_eq!(socket.read().expect("read"), tungstenite::Message::text("hello"));
    socket.close(None).expect("closing");
    while socket.read().is_ok() {}
}

#[test]
fn tokens_of_every_algorithm_verify_with_their_jwk() {
    use jsonwebtoken::Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
    for algorithm in [HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA] {
        let key = Key::new("a", algorithm);
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(key.jwk()).expect("a JWK");
        let decoding = jsonwebtoken::DecodingKey::from_jwk(&jwk).expect("a key");
        let mut validation = jsonwebtoken::Validation::new(algorithm);
        validation.set_audience(&[super::jwt::AUDIENCE]);
        let verify = |token: &str| jsonwebtoken::decode::<serde_json::Value>(token, &decoding, &validation);
        let claims = verify(&key.token().claim("x", 1).mint()).expect("valid").claims;
        assert_eq!((&claims["sub"], &claims["x"]), (&"alice".into(), &1.into()), "{algorithm:?}");
        assert!(verify(&key.token().forged()).is_err());
        assert!(verify(&key.token().expired().mint()).is_err());
        assert!(verify(&key.token().unsigned()).is_err());
    }
}

#[test]
fn a_jwks_server_rotates_and_fails_on_request() {
    let (first, second) = (Key::es256(), Key::new("second", jsonwebtoken::Algorithm::EdDSA));
    let server = JwksServer::serving(&[&first]);
    let addr = server.url().trim_start_matches("http://").trim_end_matches("/jwks.json").parse().expect("an address");
    let ask = || Request::get("/jwks.json").to(addr).send();
    assert_eq!(ask().json()["keys"][0]["kid"], "first");
    server.rotate(&[&second]);
    assert_eq!(ask().json()["keys"][0]["kid"], "second");
    server.fail(500);
    assert_eq!(ask().status(), 500);
    assert_eq!(server.hits(), 3);
}

#[test]
fn a_port_is_claimed_once_and_nobody_listens_there() {
    let claimed = [(); 50].map(|()| ports::claim());
    assert_eq!(claimed.iter().collect::<HashSet<_>>().len(), claimed.len());
    for addr in claimed {
        let error = TcpStream::connect(addr).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{addr}");
    }
}
