//! How many connections one address may have, and how fast they may come.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use super::support::certs::Ca;
use super::support::process::resident;
use super::support::raw::expect_no_answer;
use super::support::{Origin, Raw, Tollgate, open_to, ports, wait};

const GET: &str = "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n";

fn capped(most: usize, more: &str) -> String {
    let origin = "[routes.main]\nauth = \"none\"\nrespond = { body = \"here\" }\n";
    format!("[server]\nmax_connections_per_address = {most}\n{more}\n{origin}")
}

/// A connection that is served, and stays.
fn held(tollgate: &Tollgate, listener: &str) -> Raw {
    held_behind(tollgate, listener, "")
}

fn held_behind(tollgate: &Tollgate, listener: &str, header: &str) -> Raw {
    let mut raw = Raw::connect(tollgate.addr_of(listener));
    raw.send(format!("{header}{GET}")).response().expect(200);
    raw
}

/// A connection that is closed before anything is served on it.
fn turned_away(tollgate: &Tollgate, listener: &str, header: &str) {
    expect_no_answer(tollgate.addr_of(listener), format!("{header}{GET}"));
}

/// Waits until `listener` has that many connections: what has been closed is noticed a moment later.
fn wait_for_connections(tollgate: &Tollgate, listener: &str, count: usize) {
    tollgate.wait_for_metric(&format!("tollgate_connections{{listener=\"{listener}\"}}"), count as f64);
}

fn refused(listener: &str) -> String {
    format!("tollgate_refused_total{{listener=\"{listener}\",reason=\"too_many_connections\"}}")
}

#[test]
fn one_address_has_as_many_as_it_may_and_others_have_theirs() {
    let six = format!("[listeners.http]\n[listeners.six]\naddress = \"[::1]:{}\"\n", ports::claim().port());
    let tollgate = Tollgate::with(&capped(3, &six));
    let mut mine: Vec<_> = (0..3).map(|_| held(&tollgate, "http")).collect();
    for _ in 0..2 {
        turned_away(&tollgate, "http", "");
    }
    tollgate.wait_for_metric(&refused("http"), 2.0);
    let _other = held(&tollgate, "six");
    // Those who are there are served on, and a place that is given back is there for the next.
    mine[0].send(GET).response().expect(200);
    mine.pop();
    wait_for_connections(&tollgate, "http", 2);
    mine.push(held(&tollgate, "http"));
    turned_away(&tollgate, "http", "");
    tollgate.wait_for_metric(&refused("http"), 3.0);
    assert!(!tollgate.stderr().contains("too_many_connections"), "{}", tollgate.stderr());
}

#[test]
fn a_broken_off_request_gives_its_place_back() {
    let origin = Origin::hanging();
    let tollgate = Tollgate::with(&format!("[server]\nmax_connections_per_address = 1\n{}", open_to(&[origin.addr()])));
    for n in 1..=3 {
        let mut raw = Raw::connect(tollgate.addr());
        raw.send(GET);
        wait::until("the request to arrive", || origin.hits() == n);
        turned_away(&tollgate, "http", "");
        raw.reset();
        wait_for_connections(&tollgate, "http", 0);
    }
}

#[test]
fn over_the_cap_there_is_no_handshake() {
    let ca = Ca::new("an authority");
    let site = ca.server(&["a.example"]);
    let tls = "[listeners.https]\ntls = { certificates = [{ cert_file = \"site.pem\", key_file = \"site.key\" }] }\n";
    let tollgate = Tollgate::prepared(&capped(1, tls)).file("site.pem", &site.cert).file("site.key", &site.key).start();
    let mut first = Raw::connect_tls(tollgate.addr(), "a.example", ca.trusting(&["http/1.1"]));
    first.send(GET).response().expect(200);
    expect_no_answer(tollgate.addr(), "");
    tollgate.wait_for_metric(&refused("https"), 1.0);
    assert_eq!(tollgate.metric("tollgate_refused_total{reason=\"tls_handshake\"}"), None);
}

#[test]
fn trusted_proxies_speak_for_many_and_are_not_counted() {
    let tollgate = Tollgate::with(&capped(1, "trusted_proxies = [\"127.0.0.0/8\"]"));
    let _held: Vec<_> = (0..5).map(|_| held(&tollgate, "http")).collect();
    assert_eq!(tollgate.metric("tollgate_refused_total"), None);
}

#[test]
fn behind_balancers_those_count_for_whom_they_speak() {
    let more = "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\n[listeners.http]\nproxy_protocol = \"required\"\n";
    let tollgate = Tollgate::with(&capped(2, more));
    let four = |client: &str| format!("PROXY TCP4 {client} 198.51.100.1 1 443\r\n");
    let six = |client: &str| format!("PROXY TCP6 {client} 2001:db8::1 1 443\r\n");
    let mut mine: Vec<_> = (0..2).map(|_| held_behind(&tollgate, "http", &four("192.0.2.7"))).collect();
    turned_away(&tollgate, "http", &four("192.0.2.7"));
    let _other = held_behind(&tollgate, "http", &four("192.0.2.8"));
    // The one address in both of its forms.
    turned_away(&tollgate, "http", &six("::ffff:192.0.2.7"));
    // A network of IPv6 is one.
    let _network =
        [six("2001:db8:0:1::1"), six("2001:db8:0:1:ffff::")].map(|from| held_behind(&tollgate, "http", &from));
    turned_away(&tollgate, "http", &six("2001:db8:0:1::2"));
    let _next = held_behind(&tollgate, "http", &six("2001:db8:0:2::1"));
    // Trusted ones are not counted here either, nor is the balancer itself.
    let _trusted: Vec<_> = (0..3).map(|_| held_behind(&tollgate, "http", &four("10.0.0.1"))).collect();
    let _local: Vec<_> = (0..3).map(|_| held_behind(&tollgate, "http", "PROXY UNKNOWN\r\n")).collect();
    tollgate.wait_for_metric(&refused("http"), 3.0);
    mine.pop();
    wait_for_connections(&tollgate, "http", 11);
    held_behind(&tollgate, "http", &four("192.0.2.7"));
}

#[test]
fn the_cap_follows_a_reload_and_closes_nobody() {
    let tollgate = Tollgate::with(&capped(3, ""));
    let mut mine: Vec<_> = (0..3).map(|_| held(&tollgate, "http")).collect();
    tollgate.replace("max_connections_per_address = 3", "max_connections_per_address = 1");
    tollgate.reload().succeeded();
    mine.iter_mut().for_each(|raw| drop(raw.send(GET).response().expect(200)));
    turned_away(&tollgate, "http", "");
    mine.drain(1..);
    wait_for_connections(&tollgate, "http", 1);
    turned_away(&tollgate, "http", "");
    tollgate.replace("max_connections_per_address = 1", "");
    tollgate.reload().succeeded();
    mine.extend((0..5).map(|_| held(&tollgate, "http")));
}

fn paced(rate: &str, more: &str) -> String {
    let origin = "[routes.main]\nauth = \"none\"\nrespond = { body = \"here\" }\n";
    format!("[server]\nmax_connection_rate_per_address = \"{rate}\"\n{more}\n{origin}")
}

/// A connection from another address of this machine.
fn from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::from((source, 0))).expect("an address of the loopback network");
    connect(&socket, &to).expect("a connection");
    TcpStream::from(socket)
}

/// Whether a request on it is answered.
fn is_served(mut stream: TcpStream) -> bool {
    let mut answer = Vec::new();
    // It may have been closed before.
    let sent = stream.write_all(GET.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n").as_bytes());
    sent.is_ok() && stream.read_to_end(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 200 ")
}

#[test]
fn an_address_that_connects_too_fast_is_turned_away_before_a_handshake_and_others_are_served() {
    let ca = Ca::new("an authority");
    let site = ca.server(&["a.example"]);
    let tls = "[listeners.http]\n[listeners.https]\ntls = { certificates = [{ cert_file = \"site.pem\", key_file = \"site.key\" }] }\n";
    let tollgate =
        Tollgate::prepared(&paced("3/m", tls)).file("site.pem", &site.cert).file("site.key", &site.key).start();
    let plain = tollgate.addr_of("http");
    let (fast, slow) = (Ipv4Addr::new(127, 1, 2, 3), Ipv4Addr::new(127, 1, 2, 4));
    let served = (0..10).filter(|_| is_served(from(fast, plain))).count();
    assert_eq!(served, 3);
    assert!(is_served(from(slow, plain)));
    tollgate.wait_for_metric("tollgate_refused_total{listener=\"http\",reason=\"connection_rate\"}", 7.0);
    tollgate.wait_for_metric("tollgate_connections_total{listener=\"http\",result=\"rate_limited\"}", 7.0);
    // All listeners together, and no handshake is begun.
    assert!(!is_served(from(fast, tollgate.addr_of("https"))));
    tollgate.wait_for_metric("tollgate_connections_total{listener=\"https\",result=\"rate_limited\"}", 1.0);
    assert_eq!(tollgate.metric("tollgate_refused_total{reason=\"tls_handshake\"}"), None);
    // Turned off by a reload, it is off at once.
    tollgate.replace("max_connection_rate_per_address = \"3/m\"", "");
    tollgate.reload().succeeded();
    assert!(is_served(from(fast, plain)));
}

#[test]
fn a_trusted_proxy_connects_as_fast_as_it_likes() {
    let tollgate = Tollgate::with(&paced("1/m", "trusted_proxies = [\"127.0.0.0/8\"]"));
    assert!((0..10).all(|_| is_served(from(Ipv4Addr::new(127, 1, 2, 3), tollgate.addr()))));
}

#[test]
fn a_flood_from_thousands_of_addresses_takes_no_memory_and_the_honest_are_served() {
    const ADDRESSES: u32 = 20_000;
    let tollgate = Tollgate::with(&paced("30/m", ""));
    let (addr, pid) = (tollgate.addr(), tollgate.pid());
    assert!(is_served(from(Ipv4Addr::new(127, 0, 0, 2), addr)));
    let before = resident(pid);
    thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || {
                for which in (part..ADDRESSES).step_by(4) {
                    let stream = from(Ipv4Addr::from_bits(0x7f10_0000 + which), addr);
                    set_socket_linger(&stream, Some(Duration::ZERO)).expect("a socket");
                }
            });
        }
        for honest in 0..20 {
            assert!(is_served(from(Ipv4Addr::new(127, 0, 0, 3 + honest % 2), addr)), "the honest {honest}");
        }
    });
    tollgate.wait_for_metric("tollgate_connections{listener=\"http\"}", 0.0);
    let grown = resident(pid).saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes for {ADDRESSES} addresses");
    assert!(
        tollgate.metric("tollgate_connections_total{listener=\"http\",result=\"accepted\"}")
            >= Some(f64::from(ADDRESSES))
    );
}
