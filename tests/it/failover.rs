//! Upstreams that fail: who is put out, who is left alone, and how few requests it costs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Instant;

use super::support::{Origin, Tollgate, wait};

/// Answers with what is stored; 0 is a reset instead of an answer.
fn moody() -> (Origin, Arc<AtomicU16>) {
    let mood = Arc::new(AtomicU16::new(200));
    let origin = Origin::scripted({
        let mood = Arc::clone(&mood);
        move |_, connection| match mood.load(Ordering::SeqCst) {
            0 => connection.reset(),
            status => connection.reply(status, &[], ""),
        }
    });
    (origin, mood)
}

/// Answers one request in `every` with 500.
fn now_and_then(every: usize) -> Origin {
    let count = AtomicUsize::new(0);
    Origin::scripted(move |_, connection| {
        let is_bad = count.fetch_add(1, Ordering::SeqCst) % every == every - 1;
        connection.reply(if is_bad { 500 } else { 200 }, &[], "");
    })
}

/// How often each status came of so many requests, one after another.
fn statuses(tollgate: &Tollgate, requests: usize) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        *counts.entry(tollgate.get("/").send().status()).or_default() += 1;
    }
    counts
}

fn of(metric: &str, addr: SocketAddr) -> String {
    format!("{metric}{{upstream=\"app\",endpoint=\"{addr}\"}}")
}

const EJECTIONS: &str = "tollgate_ejections_total{upstream=\"app\",reason=\"consecutive_failures\"}";

#[test]
fn an_endpoint_that_fails_several_times_in_a_row_is_put_out_and_comes_back() {
    let (good, bad) = (Origin::replying(""), moody());
    let outlier = "outlier = { consecutive_failures = 3, ejection = \"1s\", max_ejection = \"1s\" }";
    let tollgate = Tollgate::before(&[good.addr(), bad.0.addr()], outlier);
    bad.1.store(500, Ordering::SeqCst);
    assert_eq!(statuses(&tollgate, 40).get(&500), Some(&3));
    assert_eq!(bad.0.hits(), 3);
    assert_eq!(tollgate.metric(&of("tollgate_endpoint_ejected", bad.0.addr())), Some(1.0));
    assert_eq!(tollgate.metric(EJECTIONS), Some(1.0));
    let report = tollgate.admin("/api/status").expect(200).json();
    let endpoints = report.to_string();
    assert!(endpoints.contains("\"ejected_until\":"), "{endpoints}");
    bad.1.store(200, Ordering::SeqCst);
    wait::until("the endpoint to be asked again", || {
        assert_eq!(tollgate.get("/").send().status(), 200);
        bad.0.hits() > 3
    });
    tollgate.wait_for_metric(&of("tollgate_endpoint_ejected", bad.0.addr()), 0.0);
    let log = tollgate.stderr();
    assert_eq!(log.matches("is ejected for 1s: consecutive_failures").count(), 1, "{log}");
    assert_eq!(log.matches("is no longer ejected").count(), 1, "{log}");
}

#[test]
fn errors_of_the_application_are_no_gateway_errors() {
    let (good, bad) = (Origin::replying(""), moody());
    let outlier = "outlier = { consecutive_failures = 0, consecutive_gateway_errors = 2 }";
    let tollgate = Tollgate::before(&[good.addr(), bad.0.addr()], outlier);
    bad.1.store(500, Ordering::SeqCst);
    assert_eq!(statuses(&tollgate, 20).get(&500), Some(&10));
    bad.1.store(503, Ordering::SeqCst);
    assert_eq!(statuses(&tollgate, 20).get(&503), Some(&2));
}

#[test]
fn half_of_the_endpoints_stay_in_however_bad_they_are_and_a_reload_changes_nothing() {
    let origins: Vec<_> = (0..4).map(|_| Origin::answering(500)).collect();
    let addresses: Vec<_> = origins.iter().map(Origin::addr).collect();
    let tollgate = Tollgate::before(
        &addresses,
        "outlier = { consecutive_failures = 2, ejection = \"10m\", max_ejection = \"10m\" }",
    );
    assert_eq!(statuses(&tollgate, 100), BTreeMap::from([(500, 100)]));
    assert_eq!(tollgate.metric("tollgate_endpoint_ejected{upstream=\"app\"}"), Some(2.0));
    tollgate.replace("consecutive_failures = 2", "consecutive_failures = 4");
    tollgate.reload().succeeded();
    assert_eq!(tollgate.metric("tollgate_endpoint_ejected{upstream=\"app\"}"), Some(2.0));
    tollgate.edit(|text| *text = text.replace("outlier = {", "# {"));
    tollgate.reload().succeeded();
    assert_eq!(tollgate.metric("tollgate_endpoint_ejected{upstream=\"app\"}"), Some(0.0), "nobody asks for it now");
    statuses(&tollgate, 4);
}

#[test]
fn a_rate_that_is_far_below_that_of_the_others_tells() {
    let (origins, bad) = ([Origin::replying(""), Origin::replying("")], now_and_then(2));
    let outlier =
        "outlier = { consecutive_failures = 0, success_rate_below = \"30%\", min_requests = 5, interval = \"300ms\" }";
    let tollgate = Tollgate::before(&[origins[0].addr(), origins[1].addr(), bad.addr()], outlier);
    let reason = "tollgate_ejections_total{upstream=\"app\",reason=\"success_rate_below\"}";
    wait::until("the endpoint to be found out", || {
        statuses(&tollgate, 10);
        tollgate.metric(reason) == Some(1.0)
    });
    assert_eq!(statuses(&tollgate, 10).get(&200), Some(&10));
}

#[test]
fn one_request_in_a_hundred_that_fails_puts_nobody_out() {
    let origins = [now_and_then(100), now_and_then(100)];
    let outlier = "outlier = { success_rate_below = \"20%\", min_requests = 5, interval = \"100ms\" }";
    let tollgate = Tollgate::before(&origins.each_ref().map(Origin::addr), outlier);
    assert_eq!(statuses(&tollgate, 400).get(&500), Some(&4));
    assert_eq!(tollgate.metric("tollgate_ejections_total"), Some(0.0));
    // With the status listed, and somebody else to ask, nobody sees even those.
    let origins = [now_and_then(100), Origin::replying("")];
    let tollgate = Tollgate::before(&origins.each_ref().map(Origin::addr), "retry = { on = [\"500\"] }");
    assert_eq!(statuses(&tollgate, 400), BTreeMap::from([(200, 400)]));
}

#[test]
fn an_endpoint_that_answers_far_slower_than_the_others_is_put_out() {
    let slow = Origin::scripted(|_, connection| {
        // As slow as the clock allows to be sure of, without a sleep: until nobody says anything for a while.
        let _ = connection.stream().socket().set_read_timeout(Some(std::time::Duration::from_millis(60)));
        let _ = std::io::Read::read(&mut connection.stream().reader, &mut [0]);
        connection.reply(200, &[], "");
        let _ = connection.stream().socket().set_read_timeout(Some(wait::PATIENCE));
    });
    let quick = [Origin::replying(""), Origin::replying("")];
    let outlier = "outlier = { slower_than = 3, min_requests = 3, interval = \"400ms\" }";
    let tollgate = Tollgate::before(&[quick[0].addr(), slow.addr(), quick[1].addr()], outlier);
    let reason = "tollgate_ejections_total{upstream=\"app\",reason=\"slower_than\"}";
    wait::until("the endpoint to be found out", || {
        statuses(&tollgate, 12);
        tollgate.metric(reason) == Some(1.0)
    });
    assert_eq!(tollgate.metric(&of("tollgate_endpoint_ejected", slow.addr())), Some(1.0));
}

#[test]
fn when_all_are_down_the_operator_says_what_happens() {
    let ill = Origin::scripted(|request, connection| {
        connection.reply(if request.target == "/healthz" { 500 } else { 200 }, &[], "");
    });
    let health = "health = { type = \"http\", path = \"/healthz\", interval = \"100ms\", unhealthy_after = 1 }";
    let tollgate = Tollgate::before(&[ill.addr()], &format!("{health}\nwhen_all_down = \"refuse\""));
    tollgate.wait_for_metric(&of("tollgate_endpoint_healthy", ill.addr()), 0.0);
    assert_eq!(tollgate.get("/").send().expect(503).json()["reason"], "no_healthy_endpoint");
    let report = tollgate.admin("/api/status").expect(200).json().to_string();
    assert!(report.contains("the check was answered with 500"), "{report}");
    tollgate.replace("\"refuse\"", "\"try\"");
    tollgate.reload().succeeded();
    tollgate.get("/").send().expect(200);
    assert_eq!(tollgate.metric(&of("tollgate_endpoint_healthy", ill.addr())), Some(0.0));
}

#[test]
fn a_breaker_opens_refuses_at_once_and_closes_after_its_trials() {
    let (origin, mood) = moody();
    let breaker = "breaker = { failures = \"50%\", min_requests = 10, open_for = \"1s\", trials = 2 }\n\
                   retry = { max_retries = 0 }";
    let tollgate = Tollgate::before(&[origin.addr()], breaker);
    // An error of the service's own says that it serves.
    mood.store(500, Ordering::SeqCst);
    assert_eq!(statuses(&tollgate, 30), BTreeMap::from([(500, 30)]));
    mood.store(503, Ordering::SeqCst);
    assert_eq!(statuses(&tollgate, 30), BTreeMap::from([(503, 30)]));
    let begin = Instant::now();
    let response = tollgate.get("/").send().expect(503);
    assert_eq!(response.json()["reason"], "breaker_open");
    let retry_after: u64 = response.header("retry-after").expect("when to come back").parse().expect("seconds");
    assert!((1..=2).contains(&retry_after), "{retry_after}");
    assert_eq!(tollgate.logged(&response)["reason"], "breaker_open");
    if begin.elapsed().as_millis() < 900 {
        assert_eq!(origin.hits(), 60, "the origin is left alone");
    }
    let state = |state: &str| format!("tollgate_breaker_state{{upstream=\"app\",state=\"{state}\"}}");
    // A trial that fails opens it again.
    wait::until("a trial", || {
        tollgate.get("/").send();
        origin.hits() > 60
    });
    assert_eq!(tollgate.metric("tollgate_breaker_openings_total{upstream=\"app\"}"), Some(2.0));
    mood.store(200, Ordering::SeqCst);
    wait::until("the breaker to close", || {
        tollgate.get("/").send();
        tollgate.metric(&state("closed")) == Some(1.0)
    });
    assert_eq!(statuses(&tollgate, 20), BTreeMap::from([(200, 20)]));
    let log = tollgate.stderr();
    for line in ["its breaker opens for 1s: 30 of 60 tries failed", "its breaker stays open", "its breaker closes"] {
        assert!(log.contains(line), "{line} in {log}");
    }
}

#[test]
fn a_breaker_is_open_for_every_connection_and_after_a_reload() {
    let (origin, mood) = moody();
    let breaker = "breaker = { min_requests = 4, open_for = \"1h\" }\nretry = { max_retries = 0 }";
    let tollgate = Tollgate::before(&[origin.addr()], breaker);
    mood.store(0, Ordering::SeqCst);
    assert_eq!(statuses(&tollgate, 4), BTreeMap::from([(502, 4)]));
    mood.store(200, Ordering::SeqCst);
    tollgate.edit(|text| text.push_str("\n# another line\n"));
    tollgate.reload().succeeded();
    assert_eq!(statuses(&tollgate, 8), BTreeMap::from([(503, 8)]));
    tollgate.replace("min_requests = 4", "min_requests = 5");
    tollgate.reload().succeeded();
    assert_eq!(statuses(&tollgate, 4), BTreeMap::from([(200, 4)]), "another breaker");
}
