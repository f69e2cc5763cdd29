//! Endpoints that come and go: by DNS, by a file, by an operator's word.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::dns::Dns;
use crate::support::process::{self, Output};
use crate::support::{Client, Origin, Request, Tollgate, wait};

/// An upstream and everything to it.
fn to(upstream: &str) -> String {
    format!("[upstreams.main]\n{upstream}\n[routes.main]\nauth = \"none\"\nupstream = \"main\"\n")
}

fn named(name: &str, dns: &Dns) -> String {
    to(&format!("endpoints = [\"{name}\"]\nnameservers = [\"{}\"]", dns.addr()))
}

fn healthy(addr: impl std::fmt::Display) -> String {
    format!("tollgate_endpoint_healthy{{upstream=\"main\",endpoint=\"{addr}\"}}")
}

/// A service of these hosts in a zone of `dnsmasq.conf`: address, priority, weight.
fn service(hosts: &[(&Origin, u16, u16)]) -> String {
    let mut zone = "host-record=host.test,127.0.0.1\n".to_owned();
    for (origin, priority, weight) in hosts {
        zone += &format!("srv-host=_http._tcp.orders.test,host.test,{},{priority},{weight}\n", origin.addr().port());
    }
    zone
}

fn drain(tollgate: &Tollgate, verb: &str, upstream: &str, endpoint: &str) -> Output {
    let config = tollgate.config_file();
    let config = config.to_str().expect("our own path");
    process::tollgate(["upstream", verb, upstream, endpoint, "-c", config])
}

fn list(tollgate: &Tollgate) -> String {
    process::tollgate(["upstream".as_ref(), "list".as_ref(), "-c".as_ref(), tollgate.config_file().as_os_str()])
        .succeeded()
        .stdout
}

/// Replaces a file as those who write such lists do.
fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).expect("written");
    fs::rename(&beside, path).expect("renamed");
}

fn listing(origins: &[&Origin]) -> String {
    let addresses: Vec<_> = origins.iter().map(|origin| format!("\"{}\"", origin.addr())).collect();
    format!("endpoints = [{}]", addresses.join(", "))
}

#[test]
fn a_name_is_followed_when_its_ttl_is_over() {
    let origin = Origin::replying("by name");
    let port = origin.addr().port();
    let Some(mut dns) = Dns::start("host-record=orders.test,127.0.0.1") else { return };
    let tollgate = Tollgate::with(&named(&format!("orders.test:{port}"), &dns));
    let response = tollgate.get("/").send().expect(200);
    assert_eq!(tollgate.logged(&response)["endpoint"], origin.addr().to_string());
    dns.kill();
    dns.start_again("host-record=orders.test,127.0.0.1\nhost-record=orders.test,127.0.0.7");
    tollgate.wait_for_metric(&healthy(format_args!("127.0.0.7:{port}")), 1.0);
    dns.kill();
    dns.start_again("host-record=orders.test,127.0.0.7");
    wait::until("the address that is gone to be let go", || tollgate.metric(&healthy(origin.addr())).is_none());
}

#[test]
fn a_service_is_found_with_its_ports_and_its_weights() {
    let origins = [Origin::replying(""), Origin::replying(""), Origin::replying("")];
    let [three, one, spare] = &origins;
    let zone = service(&[(three, 10, 30), (one, 10, 10), (spare, 20, 10)]);
    let Some(mut dns) = Dns::start(&zone) else { return };
    let tollgate = Tollgate::with(&named("srv:_http._tcp.orders.test", &dns));
    let mut client = Client::connect(tollgate.addr());
    for _ in 0..40 {
        client.get("/").expect(200);
    }
    assert_eq!([three, one, spare].map(Origin::hits), [30, 10, 0]);
    // Those of the better priority are gone.
    dns.kill();
    dns.start_again(&service(&[(spare, 20, 0)]));
    tollgate.wait_for_metric(&healthy(spare.addr()), 1.0);
    wait::until("the others to be let go", || tollgate.metric(&healthy(three.addr())).is_none());
    client.get("/").expect(200);
    assert_eq!(spare.hits(), 1);
}

#[test]
fn when_dns_is_lost_nobody_notices() {
    let origin = Origin::replying("served");
    let Some(mut dns) = Dns::start(&service(&[(&origin, 1, 1)])) else { return };
    let tollgate = Tollgate::with(&named("srv:_http._tcp.orders.test", &dns));
    tollgate.get("/").send().expect(200);
    dns.kill();
    wait::until("a word about it", || tollgate.stderr().contains("does not resolve, keeping what is known"));
    tollgate.get("/").send().expect(200);
    tollgate.reload().succeeded();
    tollgate.get("/").send().expect(200);
    // It is back and knows of nothing: that is no reason to stop.
    dns.start_again("");
    tollgate.get("/").send().expect(200);
    dns.kill();
    dns.start_again(&service(&[(&origin, 1, 1)]));
    wait::until("a word about its return", || tollgate.stderr().contains("orders.test resolves again"));
    assert_eq!(tollgate.stderr().matches("keeping what is known").count(), 1, "{}", tollgate.stderr());
}

#[test]
fn a_list_is_followed_and_no_request_fails_meanwhile() {
    let (one, other) = (Origin::replying("one"), Origin::replying("other"));
    let tollgate =
        Tollgate::prepared(&to("endpoints_file = \"orders.toml\"")).file("orders.toml", listing(&[&one])).start();
    let file = tollgate.path("orders.toml");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut client = Client::connect(tollgate.addr());
            while !over.load(Ordering::Relaxed) {
                client.get("/").expect(200);
            }
        });
        for origin in [&other, &one, &other] {
            put(&file, &listing(&[&one, &other]));
            tollgate.wait_for_metric(&healthy(origin.addr()), 1.0);
            put(&file, &listing(&[origin]));
            let gone = if origin.addr() == one.addr() { &other } else { &one };
            wait::until("the other to be let go", || tollgate.metric(&healthy(gone.addr())).is_none());
            let hits = origin.hits();
            wait::until("requests to come", || origin.hits() > hits + 10);
        }
        over.store(true, Ordering::Relaxed);
        load.join().expect("no request has failed");
    });
    // What cannot be used changes nothing, and is told once.
    put(&file, "endpoints = []");
    wait::until("a word about it", || tollgate.stderr().contains("this list is empty"));
    tollgate.get("/").send().expect(200);
    fs::remove_file(&file).expect("removed");
    wait::until("a word about it", || tollgate.stderr().contains("orders.toml cannot be read"));
    tollgate.get("/").send().expect(200);
    // A reload would start with what is there: that is nothing.
    assert!(tollgate.reload().failed(1).contains("orders.toml"));
    put(&file, &listing(&[&one]));
    tollgate.wait_for_metric(&healthy(one.addr()), 1.0);
    tollgate.reload().succeeded();
    assert_eq!(tollgate.get("/").send().expect(200).text(), "one");
}

#[test]
fn a_list_may_be_json_behind_a_link_that_is_swapped() {
    let (one, other) = (Origin::replying("one"), Origin::replying("other"));
    let json = |origin: &Origin| format!("{{\"endpoints\": [{{\"address\": \"{}\", \"weight\": 2}}]}}", origin.addr());
    let tollgate = Tollgate::prepared(&to("endpoints_file = \"orders.json\""))
        .file("first.json", json(&one))
        .file("second.json", json(&other));
    let link = |to: &str| {
        let (beside, path) = (tollgate.directory().join("link"), tollgate.directory().join("orders.json"));
        std::os::unix::fs::symlink(to, &beside).expect("linked");
        fs::rename(beside, path).expect("renamed");
    };
    link("first.json");
    let swapped = tollgate.directory().to_owned();
    let tollgate = tollgate.start();
    assert_eq!(tollgate.get("/").send().expect(200).text(), "one");
    let beside = swapped.join("link");
    std::os::unix::fs::symlink("second.json", &beside).expect("linked");
    fs::rename(beside, swapped.join("orders.json")).expect("renamed");
    wait::until("the other to be asked", || tollgate.get("/").send().expect(200).text() == "other");
}

#[test]
fn a_drained_endpoint_finishes_what_it_has_and_gets_nothing_new() {
    let (gated, gate) = Origin::gated("finished");
    let other = Origin::replying("other");
    let endpoints = [gated.addr(), other.addr()].map(|addr: SocketAddr| format!("\"{addr}\""));
    let tollgate = Tollgate::with(&to(&format!("endpoints = [{}]", endpoints.join(", "))));
    let name = gated.addr().to_string();
    let mut waiting = Client::connect(tollgate.addr());
    wait::until("a request to the one", || {
        if gated.hits() == 0 {
            waiting = Client::connect(tollgate.addr());
            let before = other.hits();
            waiting.begin(&Request::get("/")).expect("sent");
            wait::until("it to arrive", || gated.hits() + other.hits() > before);
        }
        gated.hits() == 1
    });
    let said = drain(&tollgate, "drain", "main", &name).succeeded().stdout;
    assert!(said.contains("gets no new requests; 1 in flight go on"), "{said}");
    let none_new = |tollgate: &Tollgate| {
        for _ in 0..10 {
            assert_eq!(tollgate.get("/").send().expect(200).text(), "other");
        }
        assert_eq!(gated.hits(), 1);
    };
    none_new(&tollgate);
    let listed = list(&tollgate);
    assert!(listed.contains(&format!("{name} drained")) && listed.contains("1 in flight"), "{listed}");
    assert!(listed.contains(&format!("{} serves", other.addr())), "{listed}");
    tollgate.reload().succeeded();
    tollgate.replace("[upstreams.main]", "[upstreams.main]\nmax_requests_per_endpoint = 100");
    tollgate.reload().succeeded();
    none_new(&tollgate);
    gate.open();
    assert_eq!(waiting.finish("GET").expect("answered").text(), "finished");
    tollgate.upgrade().succeeded();
    none_new(&tollgate);
    drain(&tollgate, "undrain", "main", &name).succeeded();
    wait::until("it to be asked again", || tollgate.get("/").send().expect(200).text() == "finished");
    let said = drain(&tollgate, "drain", "main", "10.0.0.9:80").failed(1);
    assert!(said.contains("no endpoint \"10.0.0.9:80\"; it has: ") && said.contains(&name), "{said}");
    assert!(drain(&tollgate, "drain", "mian", &name).failed(1).contains("there is: main"));
}
