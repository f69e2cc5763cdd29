//! Too much of everything: who waits, for how long, who is told to come back, and that those who look still see.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::h2::H2Client;
use crate::support::{Client, Gate, Origin, Raw, Request, Tollgate, wait, websocket};

/// One limit, `[limits.busy]`, and a route under it to an upstream.
fn under(limit: &str, upstream: &str, origin: &Origin) -> String {
    format!(
        "[limits.busy]\n{limit}\n[upstreams.main]\nendpoints = [\"{}\"]\n{upstream}\n\
         [routes.main]\nauth = \"none\"\nlimits = [\"busy\"]\nupstream = \"main\"\n",
        origin.addr()
    )
}

/// A route to an upstream whose only endpoint takes one request at a time.
fn one_at_a_time(more: &str, origin: &Origin) -> String {
    format!(
        "[upstreams.main]\nendpoints = [\"{}\"]\nmax_requests_per_endpoint = 1\n{more}\n\
         [routes.main]\nauth = \"none\"\nupstream = \"main\"\n",
        origin.addr()
    )
}

/// Sends a request that is not answered yet.
fn begin(tollgate: &Tollgate, path: &str) -> Client {
    begin_at(tollgate.addr(), path)
}

fn begin_at(addr: SocketAddr, path: &str) -> Client {
    let mut client = Client::connect(addr);
    client.begin(&Request::get(path)).expect("sent");
    client
}

/// An origin that lets one request go on for each time it is told to.
fn stepping() -> (Origin, Arc<AtomicUsize>) {
    let allowed = Arc::new(AtomicUsize::new(0));
    let steps = Arc::clone(&allowed);
    let origin = Origin::scripted(move |request, connection| {
        wait::until("a step", || {
            steps.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
        });
        connection.reply(200, &[], &request.target);
    });
    (origin, allowed)
}

const WAITING: &str = "tollgate_limit_waiting{limit=\"busy\"}";

fn waits(result: &str) -> String {
    format!("tollgate_limit_waits_total{{limit=\"busy\",result=\"{result}\"}}")
}

#[test]
fn those_who_wait_are_served_in_the_order_in_which_they_came() {
    for upstreams in [false, true] {
        let (origin, steps) = stepping();
        let (text, waiting, time) = if upstreams {
            let text = one_at_a_time("queue = 4\nqueue_timeout = \"30s\"", &origin);
            let waiting = "tollgate_upstream_waiting{upstream=\"main\"}";
            (text, waiting, "tollgate_upstream_queue_seconds_total{upstream=\"main\"}")
        } else {
            let text = under("concurrent = 1\nkey = []\nqueue = 4\nqueue_timeout = \"30s\"", "", &origin);
            (text, WAITING, "tollgate_limit_queue_seconds_total{limit=\"busy\"}")
        };
        let tollgate = Tollgate::with(&text);
        assert_eq!(tollgate.metric(time), Some(0.0));
        let begun = Instant::now();
        let mut clients = VecDeque::from([begin(&tollgate, "/0")]);
        wait::until("the first to arrive", || origin.hits() == 1);
        for count in 1..=4 {
            clients.push_back(begin(&tollgate, &format!("/{count}")));
            tollgate.wait_for_metric(waiting, f64::from(count));
        }
        for turn in 0..5 {
            steps.fetch_add(1, Ordering::Relaxed);
            let response = clients.pop_front().expect("a client").finish("GET").expect("answered").expect(200);
            assert_eq!(response.text(), format!("/{turn}"));
            let line = tollgate.logged(&response);
            assert_eq!(line["queued_ms"].as_f64().is_some_and(|waited| waited > 0.0), turn > 0, "{line}");
        }
        let asked: Vec<_> = origin.requests().into_iter().map(|request| request.target).collect();
        assert_eq!(asked, ["/0", "/1", "/2", "/3", "/4"]);
        tollgate.wait_for_metric(waiting, 0.0);
        let (waited, most) = (tollgate.metric(time).expect("it is told"), 4.0 * begun.elapsed().as_secs_f64());
        assert!(waited > 0.0 && waited <= most, "four have waited for {waited} s, {most} at most");
    }
}

#[test]
fn a_line_is_as_long_as_it_may_be_and_nobody_waits_for_longer_than_that() {
    let (origin, gate) = Origin::gated("late");
    let tollgate =
        Tollgate::with(&under("concurrent = 1\nkey = []\nqueue = 1\nqueue_timeout = \"700ms\"", "", &origin));
    let mut inside = begin(&tollgate, "/");
    wait::until("the first to arrive", || origin.hits() == 1);
    let begun = Instant::now();
    let mut waiting = begin(&tollgate, "/");
    tollgate.wait_for_metric(WAITING, 1.0);
    let full = tollgate.get("/").send().expect(503);
    assert!(tollgate.logged(&full).get("queued_ms").is_none_or(|waited| waited.as_f64() < Some(700.0)));
    let response = waiting.finish("GET").expect("answered").expect(503);
    assert!(begun.elapsed() >= Duration::from_millis(700));
    assert_eq!(response.header("retry-after"), Some("1"));
    let document = response.json();
    assert_eq!(document["type"], "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity");
    assert_eq!((&document["reason"], &document["violated-policies"]), (&json!("overloaded"), &json!(["busy"])));
    let line = tollgate.logged(&response);
    assert!(line["queued_ms"].as_f64() >= Some(700.0) && line["reason"] == "overloaded", "{line}");
    tollgate.wait_for_metric(&waits("timed_out"), 1.0);
    tollgate.wait_for_metric(&waits("full"), 1.0);
    gate.open();
    inside.finish("GET").expect("answered").expect(200);
    tollgate.wait_for_metric("tollgate_limit_keys{limit=\"busy\"}", 0.0);
}

#[test]
fn what_no_route_takes_may_have_waited_for_its_listener_and_is_logged_with_that() {
    let (origin, gate) = Origin::gated("late");
    let text = under("concurrent = 1\nkey = []\nqueue = 1\nqueue_timeout = \"30s\"", "", &origin)
        .replace("limits = [\"busy\"]", "path = \"/here\"");
    let tollgate = Tollgate::with(&format!("[listeners.http]\nlimits = [\"busy\"]\n{text}"));
    let mut inside = begin(&tollgate, "/here");
    wait::until("the first to arrive", || origin.hits() == 1);
    let mut waiting = begin(&tollgate, "/nowhere");
    tollgate.wait_for_metric(WAITING, 1.0);
    gate.open();
    inside.finish("GET").expect("answered").expect(200);
    let response = waiting.finish("GET").expect("answered").expect(404);
    let line = tollgate.logged(&response);
    assert!(line["queued_ms"].as_f64() > Some(0.0), "{line}");
}

#[test]
fn a_client_that_leaves_leaves_its_place_in_the_line_too() {
    for upstreams in [false, true] {
        let (origin, steps) = stepping();
        let (text, waiting) = if upstreams {
            (
                one_at_a_time("queue = 3\nqueue_timeout = \"30s\"", &origin),
                "tollgate_upstream_waiting{upstream=\"main\"}",
            )
        } else {
            (under("concurrent = 1\nkey = []\nqueue = 3\nqueue_timeout = \"30s\"", "", &origin), WAITING)
        };
        let tollgate = Tollgate::with(&(text + "[listeners.http]\n[listeners.h2c]\nprotocols = [\"h2c\"]\n"));
        let http = tollgate.addr_of("http");
        let mut inside = begin_at(http, "/inside");
        wait::until("the first to arrive", || origin.hits() == 1);
        // By HTTP/2 a stream is reset, by HTTP/1 a connection.
        let mut h2 = H2Client::cleartext(tollgate.addr_of("h2c"));
        let mut stream = h2.begin(&Request::get("/leaving"), true).expect("begun");
        tollgate.wait_for_metric(waiting, 1.0);
        let mut connection = Raw::connect(http);
        connection.send("GET /leaving HTTP/1.1\r\nhost: a\r\n\r\n");
        tollgate.wait_for_metric(waiting, 2.0);
        let mut staying = begin_at(http, "/staying");
        tollgate.wait_for_metric(waiting, 3.0);
        stream.cancel();
        tollgate.wait_for_metric(waiting, 2.0);
        connection.reset();
        tollgate.wait_for_metric(waiting, 1.0);
        tollgate.logged_where("who left", |line| line["path"] == "/leaving" && line["status"] == 499);
        // One place is free again, and no turn is lost.
        let mut next = begin_at(http, "/next");
        tollgate.wait_for_metric(waiting, 2.0);
        for (client, path) in [(&mut inside, "/inside"), (&mut staying, "/staying"), (&mut next, "/next")] {
            steps.fetch_add(1, Ordering::Relaxed);
            assert_eq!(client.finish("GET").expect("answered").expect(200).text(), path);
        }
        if !upstreams {
            tollgate.wait_for_metric(&waits("left"), 2.0);
        }
    }
}

#[test]
fn who_waits_is_in_flight_for_other_limits_and_gives_all_of_it_back_when_refused() {
    let (origin, gate) = Origin::gated("late");
    let text = under("concurrent = 1\nkey = []\nqueue = 9\nqueue_timeout = \"500ms\"", "", &origin)
        // Asked before the one with a line, though named after it.
        .replace("limits = [\"busy\"]", "limits = [\"busy\", \"each\", \"rate\"]")
        + "[limits.each]\nconcurrent = 1\nkey = [\"header.x-key\"]\n[limits.rate]\nrate = \"1/h\"\nburst = 3\nkey = []\n";
    let tollgate = Tollgate::with(&text);
    let ask = |key: &str| Request::get("/").header("x-key", key);
    let mut inside = Client::connect(tollgate.addr());
    inside.begin(&ask("a")).expect("sent");
    wait::until("the first to arrive", || origin.hits() == 1);
    let mut waiting = Client::connect(tollgate.addr());
    waiting.begin(&ask("b")).expect("sent");
    tollgate.wait_for_metric(WAITING, 1.0);
    // Who would be refused anyway does not wait.
    for key in ["a", "b"] {
        let refused = tollgate.get("/").header("x-key", key).send().expect(429);
        assert_eq!(refused.json()["violated-policies"], json!(["each"]));
    }
    waiting.finish("GET").expect("answered").expect(503);
    gate.open();
    inside.finish("GET").expect("answered").expect(200);
    // One of three is spent.
    let response = tollgate.get("/").header("x-key", "b").send().expect(200);
    let standing = response.header("ratelimit").expect("there");
    assert!(standing.contains("\"rate\";r=1;"), "{standing}");
}

#[test]
fn an_upstreams_line_ends_in_reasons_of_its_own() {
    let (origin, gate) = Origin::gated("late");
    let tollgate = Tollgate::with(&one_at_a_time("queue = 1\nqueue_timeout = \"500ms\"", &origin));
    let mut inside = begin(&tollgate, "/");
    wait::until("the first to arrive", || origin.hits() == 1);
    let mut waiting = begin(&tollgate, "/");
    tollgate.wait_for_metric("tollgate_upstream_waiting{upstream=\"main\"}", 1.0);
    let full = tollgate.get("/").send().expect(503);
    let late = waiting.finish("GET").expect("answered").expect(503);
    for (response, reason) in [(&full, "queue_full"), (&late, "queue_timeout")] {
        assert_eq!((response.header("retry-after"), &response.json()["reason"]), (Some("1"), &json!(reason)));
        assert_eq!(tollgate.logged(response)["reason"], reason);
        tollgate.wait_for_metric(
            &format!("tollgate_upstream_requests_total{{result=\"{reason}\",upstream=\"main\"}}"),
            1.0,
        );
    }
    tollgate.wait_for_metric("tollgate_upstream_requests_total{result=\"endpoints_busy\",upstream=\"main\"}", 0.0);
    gate.open();
    inside.finish("GET").expect("answered").expect(200);
}

#[test]
fn the_routes_timeout_is_for_the_line_too() {
    let (origin, gate) = Origin::gated("late");
    let text = one_at_a_time("queue = 1\nqueue_timeout = \"30s\"", &origin);
    let tollgate = Tollgate::with(&format!(
        "{text}[routes.short]\npath = \"/short\"\nauth = \"none\"\nupstream = \"main\"\ntimeout = \"500ms\"\n"
    ));
    let mut inside = begin(&tollgate, "/");
    wait::until("the first to arrive", || origin.hits() == 1);
    let response = tollgate.get("/short").send().expect(504);
    assert_eq!(response.json()["reason"], "request_timeout");
    gate.open();
    inside.finish("GET").expect("answered").expect(200);
}

#[test]
fn a_line_outlives_a_reload_that_changes_its_upstream() {
    let (origin, gate) = Origin::gated("late");
    let tollgate = Tollgate::with(&one_at_a_time("queue = 2\nqueue_timeout = \"30s\"", &origin));
    let mut inside = begin(&tollgate, "/");
    wait::until("the first to arrive", || origin.hits() == 1);
    let mut waiting = begin(&tollgate, "/");
    tollgate.wait_for_metric("tollgate_upstream_waiting{upstream=\"main\"}", 1.0);
    tollgate.replace("queue = 2", "queue = 3");
    tollgate.reload().succeeded();
    tollgate.wait_for_metric("tollgate_upstream_waiting{upstream=\"main\"}", 1.0);
    let mut later = begin(&tollgate, "/");
    tollgate.wait_for_metric("tollgate_upstream_waiting{upstream=\"main\"}", 2.0);
    gate.open();
    for client in [&mut inside, &mut waiting, &mut later] {
        client.finish("GET").expect("answered").expect(200);
    }
}

/// More wait than ever get in at once, on every worker; each is served, or told in time.
#[test]
fn a_crowd_gets_through_a_narrow_gate_one_after_the_other() {
    let at_once = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let seen = Arc::clone(&at_once);
    let origin = Origin::scripted(move |_, connection| {
        let now = seen.0.fetch_add(1, Ordering::SeqCst) + 1;
        seen.1.fetch_max(now, Ordering::SeqCst);
        thread::yield_now();
        seen.0.fetch_sub(1, Ordering::SeqCst);
        connection.reply(200, &[], "");
    });
    for text in [
        under("concurrent = 3\nkey = []\nqueue = 100\nqueue_timeout = \"30s\"", "", &origin),
        one_at_a_time("queue = 100\nqueue_timeout = \"30s\"", &origin).replace("endpoint = 1", "endpoint = 3"),
    ] {
        let tollgate = Tollgate::with(&format!("[server]\nthreads = 4\n{text}"));
        let barrier = Barrier::new(40);
        thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    let mut client = Client::connect(tollgate.addr());
                    barrier.wait();
                    for _ in 0..25 {
                        client.get("/").expect(200);
                    }
                });
            }
        });
        assert!(at_once.1.load(Ordering::SeqCst) <= 3);
    }
}

#[test]
fn a_limit_that_finds_itself_refuses_what_the_upstream_cannot_do_and_lets_it_do_the_rest() {
    // It does one thing at a time: while it does, the test looks at the gateway once. The others wait for their turn.
    let turns = Arc::new(Turns::default());
    let taken = Arc::clone(&turns);
    let origin = Origin::scripted(move |_, connection| {
        taken.take();
        connection.reply(200, &[], "");
    });
    let limit = "concurrent = \"adaptive\"\nmin_concurrent = 2\nmax_concurrent = 100\nkey = [\"route\"]";
    let tollgate = Tollgate::with(&under(limit, "", &origin));
    let (answered, refused, is_over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let (answers, is_done) = (|| answered.load(Ordering::Relaxed), || is_over.load(Ordering::Relaxed));
    thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                let mut client = Client::connect(tollgate.addr());
                while !is_done() {
                    let before = answers();
                    let response = client.get("/");
                    if response.status() == 200 {
                        answered.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    assert_eq!((response.status(), &response.json()["reason"]), (503, &json!("overloaded")));
                    assert!(response.header("retry-after").is_some() && response.header("ratelimit").is_none());
                    refused.fetch_add(1, Ordering::Relaxed);
                    // As a client would that is told to come back.
                    wait::until("somebody to be answered", || answers() > before || is_done());
                }
            });
        }
        let found = wait::within(wait::PATIENCE, || {
            turns.give();
            let sampled = tollgate.metric("tollgate_limit_latency_seconds{kind=\"sampled\",limit=\"busy\"}")?;
            let limit = tollgate.metric("tollgate_limit_concurrency{limit=\"busy\"}")?;
            (refused.load(Ordering::Relaxed) > 0 && sampled > 0.0 && limit < 20.0).then_some(limit)
        });
        is_over.store(true, Ordering::Relaxed);
        turns.end();
        assert!(found.is_some_and(|limit| limit >= 2.0), "{found:?}");
    });
    tollgate.wait_for_metric("tollgate_limit_requests_in_flight{limit=\"busy\"}", 0.0);
    assert!(tollgate.metric("tollgate_limit_latency_seconds{kind=\"baseline\",limit=\"busy\"}") > Some(0.0));
}

/// Turns that are given one at a time; one that nobody takes is not kept beside the next.
#[derive(Default)]
struct Turns {
    state: Mutex<Turn>,
    given: Condvar,
}

#[derive(Default, PartialEq)]
enum Turn {
    #[default]
    Taken,
    Given,
    /// For all, from now on
    Over,
}

impl Turns {
    fn take(&self) {
        let state = self.state.lock().expect("nobody panics while holding it");
        let mut state = self
            .given
            .wait_timeout_while(state, wait::PATIENCE, |state| *state == Turn::Taken)
            .expect("nobody panics while holding it")
            .0;
        if *state == Turn::Given {
            *state = Turn::Taken;
        }
    }

    fn give(&self) {
        *self.state.lock().expect("nobody panics while holding it") = Turn::Given;
        self.given.notify_one();
    }

    fn end(&self) {
        *self.state.lock().expect("nobody panics while holding it") = Turn::Over;
        self.given.notify_all();
    }
}

#[test]
fn an_operator_sees_who_waits_where_and_what_was_found() {
    let (origin, gate) = Origin::gated("late");
    let limit = "concurrent = \"adaptive\"\nmin_concurrent = 1\nmax_concurrent = 1\nkey = []\nqueue = 2\n\
                 queue_timeout = \"30s\"";
    let tollgate = Tollgate::with(&format!(
        "{}[upstreams.narrow]\nendpoints = [\"{}\"]\nmax_requests_per_endpoint = 1\nqueue = 1\nqueue_timeout = \"30s\"\n\
         [routes.narrow]\npath = \"/narrow\"\nauth = \"none\"\nupstream = \"narrow\"\n",
        under(limit, "", &origin),
        origin.addr()
    ));
    let upstreams = "tollgate_upstream_waiting{upstream=\"narrow\"}";
    let mut clients = vec![begin(&tollgate, "/"), begin(&tollgate, "/narrow")];
    wait::until("the first to arrive", || origin.hits() == 2);
    clients.extend([begin(&tollgate, "/"), begin(&tollgate, "/narrow")]);
    tollgate.wait_for_metric(WAITING, 1.0);
    tollgate.wait_for_metric(upstreams, 1.0);
    tollgate.get("/narrow").send().expect(503);
    let busy = tollgate.admin("/api/limits").expect(200).json()["limits"][0].clone();
    assert_eq!(busy["allowance"], "1 to 1 at once, as found");
    assert_eq!(busy["adaptive"], json!({ "requests_in_flight": 1, "concurrency": 1 }));
    let results = json!({ "passed": 0, "timed_out": 0, "full": 0, "left": 0 });
    let queue = json!({ "length": 2, "timeout_seconds": 30.0, "waiting": 1, "bound": 10_000, "results": results,
        "queued_seconds": 0.0 });
    assert_eq!(busy["queue"], queue);
    let table = tollgate.command("limits").succeeded().stdout;
    let rows: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for row in [
        "limits.busy keys 10000 1 0",
        "limits.busy.concurrent requests 1 1 -",
        "limits.busy.queue requests 10000 1 0",
        "upstreams.narrow.queue requests 1 1 1",
    ] {
        assert!(rows.iter().any(|other| other == row), "{row} in {table}");
    }
    gate.open();
    for client in &mut clients {
        client.finish("GET").expect("answered").expect(200);
    }
}

#[test]
fn streams_and_slow_clients_hold_no_place_of_a_limit_that_finds_itself() {
    let origin = websocket::echo_origin();
    let limit = "concurrent = \"adaptive\"\nmin_concurrent = 1\nmax_concurrent = 1\nkey = []";
    let tollgate = Tollgate::with(&under(limit, "", &origin));
    let sockets: Vec<_> = (0..5).map(|_| websocket::connect(tollgate.addr(), "/", &[]).expect("open")).collect();
    tollgate.wait_for_metric("tollgate_limit_requests_in_flight{limit=\"busy\"}", 0.0);
    drop(sockets);
    let endless = Origin::scripted(|_, connection| {
        connection.begin_chunked(200, &[]);
        connection.chunk("the first of many");
        connection.hang();
    });
    let tollgate = Tollgate::with(&under(limit, "", &endless));
    let mut clients: Vec<_> = (0..5).map(|_| Raw::connect(tollgate.addr())).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        client.read_until(b"the first of many");
    }
    clients.into_iter().for_each(Raw::reset);
}

/// What overloads a route is that route's alone.
#[test]
fn an_overloaded_gateway_still_answers_those_who_look_after_it() {
    const CROWD: usize = 300;
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::scripted(move |_, connection| {
        held.pass();
        connection.reply(200, &[], "");
    });
    let limit = "concurrent = \"adaptive\"\nmin_concurrent = 4\nmax_concurrent = 8\nkey = [\"route\"]\nqueue = 20\nqueue_timeout = \"2s\"";
    let tollgate = Tollgate::with(
        &(under(limit, "", &origin)
            + "[routes.other]\npath = \"/other\"\nauth = \"none\"\nrespond = { body = \"here\" }\n"),
    );
    let mut crowd: Vec<_> = (0..CROWD).map(|_| begin(&tollgate, "/")).collect();
    tollgate.wait_for_metric(WAITING, 20.0);
    wait::until("as many as may to arrive", || origin.hits() == 8);
    for path in ["/healthz", "/readyz", "/metrics", "/api/status"] {
        tollgate.admin(path).expect(200);
    }
    assert_eq!(tollgate.get("/other").send().expect(200).text(), "here");
    // Those in the line wait in vain, the others not at all.
    tollgate.wait_for_metric("tollgate_refused_total{listener=\"http\",reason=\"overloaded\"}", (CROWD - 8) as f64);
    assert_eq!(origin.hits(), 8, "nothing that was refused has reached it");
    assert_eq!(tollgate.readiness(), Some(200));
    gate.open();
    let statuses: Vec<_> =
        crowd.iter_mut().map(|client| client.finish("GET").expect("answered")).map(|answer| answer.status()).collect();
    let count = |status: u16| statuses.iter().filter(|other| **other == status).count();
    assert_eq!((count(200), count(503)), (8, CROWD - 8));
    wait::until("room again", || tollgate.get("/").send().status() == 200);
}
