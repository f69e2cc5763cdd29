//! One of two services fails, in every way there is, while clients go on: how many requests that costs is stated.
//!
//! Services that are killed or frozen are processes of their own: gateways that answer by themselves.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::support::process::Signal;
use super::support::{Client, Origin, Request, Tollgate, wait};

const CLIENTS: usize = 4;

/// A service that is a process.
fn process() -> Tollgate {
    Tollgate::with("[routes.all]\nauth = \"none\"\nrespond = { status = 200, body = \"whole\" }\n")
}

/// What became of requests, sent by several clients as fast as they are answered, from before `calamity` until after it.
fn meanwhile(tollgate: &Tollgate, method: &str, calamity: impl FnOnce(&dyn Fn() -> usize)) -> BTreeMap<String, usize> {
    let over = AtomicBool::new(false);
    let sent = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut fates: BTreeMap<String, usize> = BTreeMap::new();
                    let mut client = Client::connect(tollgate.addr());
                    while !over.load(Ordering::SeqCst) {
                        let request = Request::new(method, "/");
                        let answer = client.begin(&request).and_then(|()| client.finish(method));
                        let fate = match answer {
                            Ok(response) => response.status().to_string(),
                            Err(_) => "broken".to_owned(),
                        };
                        if fate != "200" {
                            client = Client::connect(tollgate.addr());
                        }
                        *fates.entry(fate).or_default() += 1;
                        sent.fetch_add(1, Ordering::SeqCst);
                    }
                    fates
                })
            })
            .collect();
        wait::until("the first requests", || sent.load(Ordering::SeqCst) > 50);
        calamity(&|| sent.load(Ordering::SeqCst));
        let so_far = sent.load(Ordering::SeqCst);
        wait::until("more requests", || sent.load(Ordering::SeqCst) > so_far + 100);
        over.store(true, Ordering::SeqCst);
        let mut all = BTreeMap::new();
        for client in clients {
            for (fate, count) in client.join().expect("it only counts") {
                *all.entry(fate).or_default() += count;
            }
        }
        all
    })
}

fn failed(fates: &BTreeMap<String, usize>) -> usize {
    fates.iter().filter(|(fate, _)| *fate != "200").map(|(_, count)| count).sum()
}

#[test]
fn a_killed_service_costs_no_request_that_may_be_repeated() {
    let (good, bad) = (process(), process());
    let tollgate = Tollgate::before(&[good.addr(), bad.addr()], "");
    let fates = meanwhile(&tollgate, "GET", |_| bad.signal(Signal::KILL));
    assert_eq!(failed(&fates), 0, "{fates:?}");
}

#[test]
fn a_killed_service_costs_no_more_posts_than_it_had_begun() {
    let (good, bad) = (process(), process());
    let tollgate = Tollgate::before(&[good.addr(), bad.addr()], "");
    let fates = meanwhile(&tollgate, "POST", |_| bad.signal(Signal::KILL));
    // Each client has one request under way, and there may be one pooled connection for each that broke unseen.
    assert!(failed(&fates) <= 2 * CLIENTS, "{fates:?}");
}

#[test]
fn a_frozen_service_costs_no_request_that_may_be_repeated_and_little_time() {
    let (good, bad) = (process(), process());
    let upstream = "timeouts = { connect = \"300ms\", first_byte = \"300ms\", idle = \"300ms\" }\n\
                    retry = { on = [\"connect_failure\", \"reset\", \"timeout\"] }\n\
                    outlier = { consecutive_failures = 2, ejection = \"10m\", max_ejection = \"10m\" }";
    let tollgate = Tollgate::before(&[good.addr(), bad.addr()], upstream);
    let fates = meanwhile(&tollgate, "GET", |_| {
        bad.signal(Signal::STOP);
        tollgate.wait_for_metric("tollgate_endpoint_ejected{upstream=\"app\"}", 1.0);
    });
    bad.signal(Signal::CONT);
    assert_eq!(failed(&fates), 0, "{fates:?}");
    // The row that told, and those that were under way with it.
    let retries = tollgate.metric("tollgate_retries_total{upstream=\"app\",reason=\"timeout\"}").unwrap_or_default();
    assert!((2.0..=(2 + CLIENTS) as f64).contains(&retries), "{retries}");
}

#[test]
fn a_service_that_breaks_off_its_answers_costs_as_many_as_tell() {
    let good = Origin::replying("whole");
    let bad = Origin::scripted(|_, connection| {
        let _ = connection.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
        connection.reset();
    });
    let upstream = "outlier = { consecutive_failures = 3, ejection = \"10m\", max_ejection = \"10m\" }";
    let tollgate = Tollgate::before(&[good.addr(), bad.addr()], upstream);
    let fates = meanwhile(&tollgate, "GET", |_| {});
    // An answer that has begun cannot be taken back.
    assert!((3..=3 + CLIENTS).contains(&failed(&fates)), "{fates:?}");
    assert_eq!(tollgate.metric("tollgate_endpoint_ejected{upstream=\"app\"}"), Some(1.0));
}

#[test]
fn a_service_that_answers_garbage_costs_no_request_that_may_be_repeated() {
    let good = Origin::replying("whole");
    let bad = Origin::scripted(|_, connection| {
        let _ = connection.send("SSH-2.0-OpenSSH_9.2\r\n\r\n");
        connection.close();
    });
    let upstream = "outlier = { consecutive_failures = 3 }";
    let tollgate = Tollgate::before(&[good.addr(), bad.addr()], upstream);
    let fates = meanwhile(&tollgate, "GET", |_| {});
    assert_eq!(failed(&fates), 0, "{fates:?}");
    let bad_hits = bad.hits();
    assert!((3..=3 + CLIENTS).contains(&bad_hits), "{bad_hits}");
}

#[test]
fn a_service_that_comes_and_goes_costs_no_request_that_may_be_repeated() {
    let good = Origin::replying("whole");
    let mut bad = Origin::replying("whole");
    let tollgate = Tollgate::before(&[good.addr(), bad.addr()], "");
    let fates = meanwhile(&tollgate, "GET", |sent| {
        for _ in 0..5 {
            bad.kill();
            let so_far = sent();
            wait::until("requests without it", || sent() > so_far + 50);
            bad.start_again();
            let hits = bad.hits();
            wait::until("requests to it", || bad.hits() > hits + 5);
        }
    });
    assert_eq!(failed(&fates), 0, "{fates:?}");
}

#[test]
fn a_try_that_takes_too_long_is_given_up_for_another_and_no_upload_is() {
    let (good, silent) = (Origin::echoing_bodies(), Origin::hanging());
    let upstream = "timeouts = { per_try = \"300ms\" }\nretry = { on = [\"timeout\"] }";
    let tollgate = Tollgate::before(&[good.addr(), silent.addr()], upstream);
    for _ in 0..4 {
        assert_eq!(tollgate.request("PUT", "/").body("whole").send().expect(200).text(), "whole");
    }
    let retries = silent.hits();
    assert!(retries >= 2);
    tollgate.wait_for_metric("tollgate_retries_total{upstream=\"app\",reason=\"timeout\"}", retries as f64);
    let alone = Tollgate::before(&[silent.addr()], upstream);
    let response = alone.get("/").send().expect(504);
    assert_eq!(response.json()["reason"], "try_timeout");
    assert_eq!(alone.logged(&response)["reason"], "try_timeout");
    // The client takes longer than a try to send its request, and the service longer than one to send its answer.
    let slow = Origin::scripted(|request, connection| {
        connection.begin_chunked(200, &[]);
        for byte in request.body.chunks(1) {
            connection.chunk(byte);
            let _ = connection.stream().socket().set_read_timeout(Some(Duration::from_millis(150)));
            let _ = std::io::Read::read(&mut connection.stream().reader, &mut [0]);
        }
        connection.last_chunk();
        connection.close();
    });
    let tollgate = Tollgate::before(&[slow.addr()], upstream);
    let mut raw = super::support::Raw::connect(tollgate.addr());
    raw.send("PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\n");
    for byte in ["a", "b", "c", "d"] {
        wait::never("an answer", || !slow.requests().is_empty());
        raw.send(byte);
    }
    let answer = String::from_utf8_lossy(&raw.rest().expect("an answer")).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(slow.hits(), 1);
}

#[test]
fn a_service_that_never_shakes_hands_has_a_reason_of_its_own() {
    let silent = Origin::raw(|connection| connection.hang());
    let upstream = "tls = { server_name = \"a.example\" }\ntimeouts = { connect = \"300ms\" }";
    let tollgate = Tollgate::before(&[silent.addr()], upstream);
    let response = tollgate.post("/", "pay 100").send().expect(504);
    assert_eq!(response.json()["reason"], "tls_timeout");
    assert_eq!(tollgate.logged(&response)["reason"], "tls_timeout");
    tollgate.wait_for_metric("tollgate_upstream_requests_total{upstream=\"app\",result=\"tls_failed\"}", 1.0);
}

#[test]
fn an_answer_that_crawls_is_whole_and_one_that_stands_still_is_cut() {
    let pause = |connection: &mut super::support::origin::Connection, time: Duration| {
        // Until the other end says something, which it does not.
        let _ = connection.stream().socket().set_read_timeout(Some(time));
        let _ = std::io::Read::read(&mut connection.stream().reader, &mut [0]);
        let _ = connection.stream().socket().set_read_timeout(Some(wait::PATIENCE));
    };
    let origin = Origin::scripted(move |request, connection| {
        connection.begin_chunked(200, &[]);
        if request.target == "/still" {
            connection.chunk("x");
            connection.hang();
            return;
        }
        for _ in 0..10 {
            connection.chunk("x");
            pause(connection, Duration::from_millis(100));
        }
        connection.last_chunk();
    });
    let upstream = "timeouts = { first_byte = \"600ms\", idle = \"600ms\" }";
    let tollgate = Tollgate::before(&[origin.addr()], upstream);
    assert_eq!(tollgate.get("/crawl").send().expect(200).text(), "xxxxxxxxxx");
    assert!(tollgate.get("/still").try_send().is_err());
    let line = tollgate.logged_where("the line", |line| line["path"] == "/still");
    assert_eq!(line["reason"], "upstream_idle");
}
