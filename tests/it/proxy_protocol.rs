//! Whom balancers speak for, and who is believed: the PROXY protocol in front of everything else.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use super::support::certs::{Ca, Identity};
use super::support::h2::H2Client;
use super::support::message::Response;
use super::support::raw::expect_no_answer;
use super::support::{Client, Origin, Raw, Request, Tollgate, ports, wait, websocket};

const TRUSTING: &str = "[server]\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\n";
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A gateway in front of `origin` whose listener takes balancers alone. `listener` goes on after its keys.
fn behind(origin: &Origin, listener: &str, more: &str) -> Tollgate {
    Tollgate::with(&text(origin, listener, more))
}

fn text(origin: &Origin, listener: &str, more: &str) -> String {
    format!(
        r#"
            {TRUSTING}
            [listeners.http]
            proxy_protocol = "required"
            {listener}
            [upstreams.app]
            endpoints = ["{}"]
            [routes.all]
            auth = "none"
            upstream = "app"
            {more}
        "#,
        origin.addr()
    )
}

fn line(source: &str, destination: &str) -> Vec<u8> {
    let (source, destination) = (socket(source), socket(destination));
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

/// Version 2; `list` is of types and values.
fn binary(source: &str, destination: &str, list: &[(u8, &[u8])]) -> Vec<u8> {
    let (source, destination) = (socket(source), socket(destination));
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut rest = [octets(source.ip()), octets(destination.ip())].concat();
    rest.extend_from_slice(&source.port().to_be_bytes());
    rest.extend_from_slice(&destination.port().to_be_bytes());
    for (kind, value) in list {
        rest.push(*kind);
        rest.extend_from_slice(&length(value));
        rest.extend_from_slice(value);
    }
    let family = if source.is_ipv4() { 0x11 } else { 0x21 };
    [SIGNATURE, &[0x21, family], &length(&rest), &rest].concat()
}

fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).expect("short").to_be_bytes()
}

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

/// The answer to one request behind `header`, all in one segment.
fn ask(tollgate: &Tollgate, header: &[u8]) -> Response {
    Raw::connect(tollgate.addr_of("http")).send([header, GET].concat()).response()
}

fn refused(reason: &str) -> String {
    format!("tollgate_refused_total{{listener=\"http\",reason=\"{reason}\"}}")
}

#[test]
fn the_client_is_whom_the_header_names() {
    let origin = Origin::echoing_heads();
    let tollgate = behind(&origin, "", "");
    for (header, client, port, version) in [
        (line("192.0.2.7:4711", "198.51.100.1:443"), "192.0.2.7", "443", 1),
        (line("[2001:db8::7]:4711", "[2001:db8::1]:8443"), "2001:db8::7", "8443", 1),
        (line("[::ffff:192.0.2.8]:4711", "[::1]:1"), "192.0.2.8", "1", 1),
        (binary("192.0.2.9:4711", "198.51.100.1:444", &[]), "192.0.2.9", "444", 2),
        (
            binary("[2001:db8::9]:4711", "[2001:db8::1]:445", &[(0xe7, b"unknown"), (0x04, b"")]),
            "2001:db8::9",
            "445",
            2,
        ),
    ] {
        let response = ask(&tollgate, &header).expect(200);
        let head = origin.requests().pop().expect("it has arrived");
        assert_eq!(head.header("x-forwarded-for"), Some(client));
        assert_eq!(head.header("x-real-ip"), Some(client));
        assert_eq!(head.header("x-forwarded-port"), Some(port));
        assert_eq!(head.header("x-forwarded-proto"), Some("http"));
        let logged = tollgate.logged(&response);
        assert_eq!((&logged["client_ip"], &logged["peer_ip"]), (&client.into(), &"127.0.0.1".into()));
        assert_eq!(logged["proxy_protocol"], version);
    }
}

#[test]
fn a_header_is_read_wherever_it_is_cut_and_nothing_behind_it_is_lost() {
    let origin = Origin::echoing_heads();
    let tollgate = behind(&origin, "", "");
    for header in
        [line("192.0.2.7:4711", "198.51.100.1:443"), binary("192.0.2.7:1", "198.51.100.1:443", &[(4, &[0; 99])])]
    {
        let mut drip = Raw::connect(tollgate.addr());
        for byte in [&header[..], GET].concat() {
            drip.send([byte]);
        }
        drip.response().expect(200);
        let mut pipelined = Raw::connect(tollgate.addr());
        pipelined.send([&header[..], GET, GET].concat());
        assert_eq!((pipelined.response().status(), pipelined.response().status()), (200, 200));
        // It stands in front of a connection, not of a request.
        assert_eq!(pipelined.send([&header[..], GET].concat()).response().status(), 400);
    }
    assert!(origin.requests().iter().all(|head| head.header("x-forwarded-for") == Some("192.0.2.7")));
}

#[test]
fn it_stands_in_front_of_tls() {
    let origin = Origin::echoing_heads();
    let (ca, site) = site();
    let tls = "tls = { certificates = [{ cert_file = \"site.pem\", key_file = \"site.key\" }] }";
    let tollgate = Tollgate::prepared(&text(&origin, tls, ""));
    let tollgate = tollgate.file("site.pem", &site.cert).file("site.key", &site.key).start();
    for header in [line("192.0.2.7:1", "198.51.100.1:443"), binary("192.0.2.7:1", "198.51.100.1:443", &[])] {
        let (addr, server) = (tollgate.addr(), "a.example");
        let mut h2 = H2Client::connect_tls_behind(addr, &header, server, ca.trusting(&["h2"]));
        h2.get("/").expect(200);
        h2.get("/").expect(200);
        Raw::connect_tls_behind(addr, &header, server, ca.trusting(&["http/1.1"])).send(GET).response().expect(200);
    }
    let heads = origin.requests();
    assert_eq!(heads.len(), 6);
    assert!(heads.iter().all(|head| head.header("x-forwarded-for") == Some("192.0.2.7")));
    assert!(heads.iter().all(|head| head.header("x-forwarded-proto") == Some("https")));
}

fn site() -> (Ca, Identity) {
    let ca = Ca::new("an authority");
    let site = ca.server(&["a.example"]);
    (ca, site)
}

#[test]
fn a_stranger_is_closed_and_counted_whatever_he_says() {
    let origin = Origin::replying("secret");
    let tollgate = behind(&origin, "", "");
    tollgate.replace("\"127.0.0.1\", ", "");
    tollgate.reload().succeeded();
    let said = [&[][..], GET, &[line("10.0.0.1:1", "10.0.0.2:2"), GET.to_vec()].concat()];
    for said in said {
        expect_no_answer(tollgate.addr(), said);
    }
    tollgate.wait_for_metric(&refused("proxy_untrusted"), 3.0);
    assert_eq!(origin.hits(), 0);
    assert!(!tollgate.stderr().contains("proxy_untrusted"), "a scanner must not fill the log: {}", tollgate.stderr());
}

#[test]
fn what_is_no_header_is_closed_and_counted() {
    let origin = Origin::replying("secret");
    let tollgate = behind(&origin, "", "");
    let good = binary("192.0.2.7:1", "198.51.100.1:443", &[]);
    let patched = |at: usize, byte: u8| {
        let mut header = good.clone();
        header[at] = byte;
        header
    };
    let wrong = [
        GET.to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n".to_vec(),
        b"PROXY UNKNOWN\n".to_vec(),
        [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 100]].concat(),
        patched(5, b'x'),
        patched(12, 0x11),
        patched(12, 0x22),
        patched(13, 0x12),
        patched(15, 11),
        patched(14, 0xff),
        binary("192.0.2.7:1", "198.51.100.1:443", &[(0x03, &[1, 2, 3, 4])]),
    ];
    for bytes in &wrong {
        expect_no_answer(tollgate.addr(), [bytes, GET].concat());
    }
    for part in [&good[..good.len() - 1], b"PROXY TCP4 192.0.2.7"] {
        Raw::connect(tollgate.addr()).send(part).finish_sending().expect_closed();
    }
    tollgate.wait_for_metric(&refused("proxy_header"), wrong.len() as f64 + 2.0);
    assert_eq!(origin.hits(), 0);
}

#[test]
fn a_header_has_its_deadline() {
    let origin = Origin::replying("secret");
    let tollgate = behind(&origin, "header_timeout = \"200ms\"", "");
    Raw::connect(tollgate.addr()).expect_closed();
    Raw::connect(tollgate.addr()).send("PROXY TCP4 192.0.2.7 198").expect_closed();
    tollgate.wait_for_metric(&refused("proxy_header"), 2.0);
}

#[test]
fn who_only_looks_whether_somebody_listens_has_done_nothing_wrong() {
    let origin = Origin::replying("here");
    let tollgate = behind(&origin, "", "");
    Raw::connect(tollgate.addr()).finish_sending().expect_closed();
    ask(&tollgate, &line("192.0.2.7:1", "198.51.100.1:443")).expect(200);
    tollgate.wait_for_metric("tollgate_connections_total{listener=\"http\",result=\"accepted\"}", 2.0);
    tollgate.wait_for_metric("tollgate_connections", 0.0);
    assert_eq!(tollgate.metric("tollgate_refused_total"), None);
}

#[test]
fn a_connection_of_the_balancers_own_is_the_balancers() {
    let origin = Origin::echoing_heads();
    let tollgate = behind(&origin, "", "");
    let local = |family: u8, rest: &[u8]| [SIGNATURE, &[0x20, family], &length(rest), rest].concat();
    let unix = [SIGNATURE, &[0x21, 0x31], &[0, 216], &[b'/'; 216]].concat();
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 192.0.2.7 192.0.2.8 1 2\r\n".to_vec(),
        local(0x00, &[]),
        local(0x11, &[192, 0, 2, 7, 192, 0, 2, 8, 0, 1, 0, 2]),
        [SIGNATURE, &[0x21, 0], &[0, 0]].concat(),
        unix,
    ] {
        let response = ask(&tollgate, &header).expect(200);
        let head = origin.requests().pop().expect("it has arrived");
        assert_eq!(head.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(head.header("x-forwarded-port"), Some(&*tollgate.addr().port().to_string()));
        assert_eq!(tollgate.logged(&response)["client_ip"], "127.0.0.1");
    }
}

#[test]
fn a_balancer_speaks_for_connections_and_not_for_their_headers() {
    let origin = Origin::echoing_heads();
    let tollgate = behind(&origin, "", "");
    let claiming = |source: &str| {
        let claim = "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 203.0.113.5\r\nx-forwarded-proto: https\r\n\r\n";
        Raw::connect(tollgate.addr()).send([&line(source, "198.51.100.1:443"), claim.as_bytes()].concat()).response();
        origin.requests().pop().expect("it has arrived")
    };
    let stranger = claiming("192.0.2.7:1");
    assert_eq!(stranger.header("x-forwarded-for"), Some("192.0.2.7"));
    assert_eq!(stranger.header("x-real-ip"), Some("192.0.2.7"));
    assert_eq!(stranger.header("x-forwarded-proto"), Some("http"));
    let trusted = claiming("10.0.0.1:1");
    assert_eq!(trusted.header("x-forwarded-for"), Some("203.0.113.5, 10.0.0.1"));
    assert_eq!(trusted.header("x-real-ip"), Some("203.0.113.5"));
    assert_eq!(trusted.header("x-forwarded-proto"), Some("https"));
}

#[test]
fn addresses_are_allowed_and_limited_as_the_header_names_them() {
    let origin = Origin::replying("here");
    let more = "limits = [\"few\"]\nclients = { deny = [\"192.0.2.66\"] }\n\
                [limits.few]\nrate = \"1/h\"\nkey = [\"client.address\"]\n";
    let tollgate = behind(&origin, "", more);
    let from = |source: &str| ask(&tollgate, &binary(source, "198.51.100.1:443", &[])).status();
    assert_eq!((from("192.0.2.7:1"), from("192.0.2.7:2"), from("192.0.2.8:1")), (200, 429, 200));
    assert_eq!(from("192.0.2.66:1"), 403);
}

#[test]
fn what_a_balancer_knows_besides_is_used_and_logged() {
    let origin = Origin::echoing_heads();
    let tollgate = behind(&origin, "redirect_to_https = true", "");
    let ssl = b"\x01\0\0\0\0\x21\0\x07TLSv1.3";
    let list: [(u8, &[u8]); 4] = [(0x01, b"http/1.1"), (0x02, b"a.example"), (0x05, b"id-\"1\""), (0x20, ssl)];
    let response = ask(&tollgate, &binary("192.0.2.7:1", "198.51.100.1:443", &list)).expect(200);
    assert_eq!(origin.request().header("x-forwarded-proto"), Some("https"), "the balancer has ended TLS");
    let logged = tollgate.logged(&response);
    assert_eq!((&logged["proxy_authority"], &logged["proxy_unique_id"]), (&"a.example".into(), &"id-\"1\"".into()));
    assert_eq!(logged["scheme"], "https");
    // And without TLS there is something to redirect.
    ask(&tollgate, &binary("192.0.2.7:1", "198.51.100.1:443", &[])).expect(308);
}

#[test]
fn a_reload_says_whether_the_header_is_required() {
    let origin = Origin::replying("here");
    let tollgate = behind(&origin, "", "");
    let mut before = Raw::connect(tollgate.addr());
    before.send([&line("192.0.2.7:1", "198.51.100.1:443"), GET].concat()).response().expect(200);
    tollgate.replace("proxy_protocol = \"required\"", "proxy_protocol = \"off\"");
    tollgate.reload().succeeded();
    tollgate.get("/").send().expect(200);
    assert_eq!(ask(&tollgate, &line("192.0.2.7:1", "198.51.100.1:443")).status(), 400);
    before.send(GET).response().expect(200);
}

/// The other side of it: two of ours, the one behind the other.
#[test]
fn an_upstream_is_told_whom_a_connection_is_for() {
    for version in ["v1", "v2"] {
        let origin = Origin::echoing_heads();
        let behind = Tollgate::with(&text(&origin, "", ""));
        let before = Tollgate::with(&format!(
            "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n[upstreams.next]\nendpoints = [\"{}\"]\n\
             proxy_protocol = \"{version}\"\nhealth = {{ type = \"http\", interval = \"100ms\" }}\n\
             [routes.all]\nauth = \"none\"\nupstream = \"next\"\n",
            behind.addr()
        ));
        let mut client = Client::connect(before.addr());
        // A client that is trusted speaks for others: each of them has a connection of its own behind us.
        for (path, who) in ["203.0.113.7", "203.0.113.8", "2001:db8::1", "203.0.113.7"].into_iter().enumerate() {
            let path = format!("/{path}");
            client.send(&Request::get(&path).header("x-forwarded-for", who)).expect(200);
            let line = behind.logged_where("its line", |line| line["path"] == path);
            assert_eq!((&line["client_ip"], &line["peer_ip"]), (&who.into(), &"127.0.0.1".into()), "{version}");
        }
        client.get("/own").expect(200);
        assert_eq!(behind.logged_where("its line", |line| line["path"] == "/own")["client_ip"], "127.0.0.1");
        // Checks are connections of our own, and come through as well.
        before.wait_for_metric(
            &format!("tollgate_endpoint_healthy{{upstream=\"next\",endpoint=\"{}\"}}", behind.addr()),
            1.0,
        );
        assert_eq!(
            behind.metric("tollgate_refused_total{listener=\"http\",reason=\"proxy_header\"}").unwrap_or(0.0),
            0.0
        );
    }
}

#[test]
fn an_upstream_is_told_whom_a_websocket_is_for() {
    let origin = websocket::echo_origin();
    let behind = Tollgate::with(&text(&origin, "", ""));
    let before = Tollgate::with(&format!(
        "[upstreams.next]\nendpoints = [\"{}\"]\nproxy_protocol = \"v2\"\n\
         [routes.all]\nauth = \"none\"\nupstream = \"next\"\n",
        behind.addr()
    ));
    let (mut socket, _) = websocket::connect(before.addr(), "/", &[]).expect("upgraded");
    socket.send(tungstenite::Message::text("hello")).expect("sent");
    assert_eq!(socket.read().expect("an echo").into_text().expect("text").as_str(), "hello");
}

/// A balancer that is nobody's of ours: it has to be understood as it is.
#[test]
fn haproxy_is_understood() {
    // Often where only root's PATH looks.
    let program = ["/usr/sbin/haproxy", "haproxy"][usize::from(!Path::new("/usr/sbin/haproxy").exists())];
    if !crate::support::process::is_installed("haproxy") {
        return;
    }
    let origin = Origin::echoing_heads();
    let (ca, site) = site();
    let tls = "[listeners.https]\nproxy_protocol = \"required\"\n\
               tls = { certificates = [{ cert_file = \"site.pem\", key_file = \"site.key\" }] }\n";
    let tollgate = Tollgate::prepared(&text(&origin, "", tls));
    let tollgate = tollgate.file("site.pem", &site.cert).file("site.key", &site.key).start();
    let both = format!("{}{}", site.cert, site.key);
    std::fs::write(tollgate.path("both.pem"), both).expect("written");
    let (http, https) = (tollgate.addr_of("http"), tollgate.addr_of("https"));
    let options = "check-send-proxy proxy-v2-options ssl,unique-id,crc32c,authority";
    let config = |[one, two, through, ended]: [SocketAddr; 4]| {
        format!(
            "defaults\n mode tcp\n timeout connect 30s\n timeout client 30s\n timeout server 30s\n unique-id-format %pid-%rt\n\
         listen one\n bind {one}\n server s {http} send-proxy\n\
         listen two\n bind {two}\n server s {http} send-proxy-v2 check inter 200ms {options}\n\
         listen through\n bind {through}\n server s {https} send-proxy-v2 {options}\n\
         listen ended\n bind {ended} ssl crt {}\n server s {http} send-proxy-v2 {options}\n",
            tollgate.path("both.pem").display()
        )
    };
    let addresses = std::array::from_fn(|_| ports::claim());
    let _haproxy = haproxy(program, &tollgate, &config(addresses), addresses[3]);
    let [one, two, through, ended] = addresses;

    let trusting = || ca.trusting(&["http/1.1"]);
    for (request, version, scheme) in [
        (Request::get("/").to(one), 1, "http"),
        (Request::get("/").to(two), 2, "http"),
        (Request::get("/").over_tls(through, "a.example", trusting()), 2, "https"),
        (Request::get("/").over_tls(ended, "a.example", trusting()), 2, "https"),
    ] {
        let logged = tollgate.logged(&request.send().expect(200));
        assert_eq!(logged["proxy_protocol"], version, "{logged}");
        assert_eq!((&logged["scheme"], &logged["client_ip"]), (&scheme.into(), &"127.0.0.1".into()), "{logged}");
        assert_eq!(logged["proxy_unique_id"].is_string(), version == 2, "{logged}");
    }
    assert_eq!(
        origin.requests().pop().expect("it has arrived").header("x-forwarded-port"),
        Some(&*ended.port().to_string())
    );
    // Its own checks, of which each says LOCAL and leaves, are no trouble either.
    let before = tollgate.metric("tollgate_connections_total{listener=\"http\"}").expect("some");
    wait::until("two checks", || {
        tollgate.metric("tollgate_connections_total{listener=\"http\"}") >= Some(before + 2.0)
    });
    assert_eq!(tollgate.metric("tollgate_refused_total"), None);
}

/// Starts HAProxy; it listens at `last` too once it listens at all.
fn haproxy(program: &str, tollgate: &Tollgate, config: &str, last: SocketAddr) -> Ended {
    let file = tollgate.path("haproxy.cfg");
    std::fs::write(&file, config).expect("written");
    let log = tollgate.path("haproxy.log");
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(std::fs::File::create(&log).expect("a file"));
    let mut haproxy = Ended(command.spawn().expect("it is installed"));
    wait::until("haproxy to listen", || {
        let ended = haproxy.0.try_wait().expect("a child");
        assert_eq!(ended, None, "{}", std::fs::read_to_string(&log).expect("a file"));
        std::net::TcpStream::connect(last).is_ok()
    });
    haproxy
}

/// Ends a program with the test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
