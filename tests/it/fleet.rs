//! How much, for a fleet: one budget for several gateways, whatever becomes of the server that keeps it.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::support::certs::Ca;
use crate::support::process::Signal;
use crate::support::redis::{Redis, port_line};
use crate::support::{Client, Tollgate, ports, wait};

/// A limit with a store, and a route under it that answers by itself.
fn text(rate: &str, url: &str, more: &str) -> String {
    format!(
        "[limits.fleet]\n{rate}\nkey = [\"header.x-key\"]\nstore = \"redis\"\nredis_url = \"{url}\"\n{more}\n\
         [routes.main]\nauth = \"none\"\nlimits = [\"fleet\"]\nrespond = {{ body = \"here\" }}\n"
    )
}

/// Slow machines answer slowly: what is not about time has much of it.
const STRICT: &str = "redis_mode = \"strict\"\nredis_timeout = \"5s\"";
const FEW: &str = "rate = \"1/h\"\nburst = 90";

fn up(tollgate: &Tollgate, value: f64) {
    tollgate.wait_for_metric("tollgate_limit_store_up{limit=\"fleet\"}", value);
}

/// How many of `each` requests on each of as many connections to all gateways at once pass.
fn crowd(gateways: &[Tollgate], connections: usize, each: usize) -> usize {
    let passed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for gateway in gateways.iter().cycle().take(gateways.len() * connections) {
            scope.spawn(|| {
                let mut client = Client::connect(gateway.addr());
                for _ in 0..each {
                    match client.get("/").status() {
                        200 => drop(passed.fetch_add(1, Ordering::Relaxed)),
                        status => assert_eq!(status, 429),
                    }
                }
            });
        }
    });
    passed.into_inner()
}

fn statuses(tollgate: &Tollgate, count: usize) -> Vec<u16> {
    let mut client = Client::connect(tollgate.addr());
    (0..count).map(|_| client.get("/").status()).collect()
}

#[test]
fn three_gateways_let_through_exactly_the_burst_together() {
    let Some(redis) = Redis::start("") else { return };
    let gateways = [(); 3].map(|()| Tollgate::with(&text(FEW, &redis.url(), STRICT)));
    assert_eq!(crowd(&gateways, 8, 10), 90);
    let response = gateways[0].get("/").send().expect(429);
    let seconds: u64 = response.header("retry-after").expect("there").parse().expect("seconds");
    assert!((3000..=3600).contains(&seconds), "{seconds}");
    assert_eq!(response.header("ratelimit-policy"), Some("\"fleet\";q=90;w=324000"));
    // Another key has a budget of its own, which all see.
    for (gateway, remaining) in gateways.iter().zip([89, 88, 87]) {
        let response = gateway.get("/").header("x-key", "other").send().expect(200);
        let standing = format!("\"fleet\";r={remaining};t={}", (90 - remaining) * 3600);
        assert_eq!(response.header("ratelimit"), Some(&*standing));
    }
    wait::until("what a try leaves to expire", || redis.ask("DBSIZE") == ":2\r\n");
}

#[test]
fn shares_are_spent_within_the_bound_and_what_is_left_is_given_back() {
    let Some(redis) = Redis::start("") else { return };
    let more = "redis_timeout = \"5s\"";
    let gateways = [(); 3].map(|()| Tollgate::with(&text("rate = \"500/s\"\nburst = 500", &redis.url(), more)));
    let begin = Instant::now();
    let passed = crowd(&gateways, 6, 150);
    // burst + rate * (t + 100 ms)
    let most = 500 + (500.0 * (begin.elapsed().as_secs_f64() + 0.1)) as usize;
    assert!((500..=most).contains(&passed), "{passed} passed, {most} at most");
    // Fewer questions than requests: that is what shares are for.
    let asked: f64 = gateways
        .iter()
        .filter_map(|gateway| gateway.metric("tollgate_limit_store_requests_total{result=\"answered\"}"))
        .sum();
    assert!(asked < 2700.0, "{asked}");
    // What was not spent comes back: nothing is owed but what passed, which is earned back.
    wait::until("every share to be given back", || redis.ask("DBSIZE") == ":0\r\n");
}

#[test]
fn a_limit_that_refuses_takes_nothing_from_the_fleet() {
    let Some(redis) = Redis::start("") else { return };
    for mode in ["strict", "batched"] {
        let limits = text(FEW, &redis.url(), &format!("redis_mode = \"{mode}\"\nredis_timeout = \"5s\""));
        let limits = limits.replace("limits = [\"fleet\"]", "limits = [\"fleet\", \"few\"]");
        let tollgate = Tollgate::with(&format!("{limits}[limits.few]\nrate = \"1/h\"\nburst = 2\nkey = []\n"));
        let ask = || tollgate.get("/").header("x-key", mode).send();
        assert_eq!([ask().status(), ask().status(), ask().status(), ask().status()], [200, 200, 429, 429]);
        tollgate.replace("burst = 2\n", "burst = 3\n");
        tollgate.reload().succeeded();
        let standing = ask().expect(200).header("ratelimit").expect("there").to_owned();
        assert!(standing.contains("\"fleet\";r=87;"), "{mode}: {standing}");
    }
}

#[test]
fn a_server_that_restarts_is_stood_in_for_and_found_again() {
    let Some(mut redis) = Redis::start("") else { return };
    let tollgate = Tollgate::with(&text("rate = \"1/h\"\nburst = 3", &redis.url(), STRICT));
    assert_eq!(statuses(&tollgate, 4), [200, 200, 200, 429]);
    redis.kill();
    up(&tollgate, 0.0);
    assert_eq!(statuses(&tollgate, 4), [200, 200, 200, 429], "this gateway alone, by the same rate");
    redis.start_again();
    up(&tollgate, 1.0);
    assert_eq!(statuses(&tollgate, 4), [200, 200, 200, 429], "an empty server, which has never seen the script");
    redis.ask("SCRIPT FLUSH");
    redis.ask("FLUSHALL");
    assert_eq!(statuses(&tollgate, 4), [200, 200, 200, 429]);
    let log = tollgate.stderr();
    assert_eq!(log.matches("does not answer").count(), 1, "once for each change: {log}");
    assert_eq!(log.matches("redis.sock answers").count(), 2, "{log}");
}

#[test]
fn while_it_is_down_allow_lets_through_and_deny_refuses() {
    let nowhere = "unix:///nowhere/redis.sock";
    for (decision, status) in [("allow", 200), ("deny", 429)] {
        for mode in ["strict", "batched"] {
            let more = format!("redis_mode = \"{mode}\"\non_store_failure = \"{decision}\"");
            let tollgate = Tollgate::with(&text("rate = \"1/h\"\nburst = 1", nowhere, &more));
            assert_eq!(statuses(&tollgate, 3), [status; 3], "{decision}");
            tollgate.wait_for_metric("tollgate_limit_store_requests_total{limit=\"fleet\",result=\"down\"}", 3.0);
        }
    }
}

#[test]
fn a_server_that_hangs_costs_the_first_its_timeout_and_nobody_else() {
    let Some(redis) = Redis::start("") else { return };
    let more = "redis_mode = \"strict\"\nredis_timeout = \"400ms\"\non_store_failure = \"allow\"";
    let tollgate = Tollgate::with(&text(FEW, &redis.url(), more));
    tollgate.get("/").send().expect(200);
    redis.signal(Signal::STOP);
    let mut client = Client::connect(tollgate.addr());
    let mut timed = || {
        let begin = Instant::now();
        client.get("/").expect(200);
        begin.elapsed()
    };
    let first = timed();
    assert!(first >= Duration::from_millis(400), "{first:?}");
    let others: Vec<_> = (0..20).map(|_| timed()).collect();
    let mut sorted = others.clone();
    sorted.sort_unstable();
    assert!(sorted[10] < Duration::from_millis(200), "{others:?}");
    tollgate.wait_for_metric("tollgate_limit_store_requests_total{result=\"timed_out\"}", 1.0);
    redis.signal(Signal::CONT);
    up(&tollgate, 1.0);
}

#[test]
fn a_server_that_cannot_write_does_not_decide() {
    let Some(redis) = Redis::start("") else { return };
    let tollgate = Tollgate::with(&text("rate = \"1/h\"\nburst = 2", &redis.url(), STRICT));
    assert_eq!(statuses(&tollgate, 1), [200]);
    for (broken, mended, told) in [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "read only replica"),
    ] {
        redis.ask(broken);
        // Whoever asks finds out; the gateway decides for itself.
        assert!([200, 429].contains(&tollgate.get("/").header("x-key", told).send().status()));
        up(&tollgate, 0.0);
        wait::until("the reason in the log", || tollgate.stderr().contains(told));
        redis.ask(mended);
        up(&tollgate, 1.0);
    }
}

#[test]
fn what_is_no_answer_is_no_decision() {
    for nonsense in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "+OK\r\n",
        ":1\r\n",
        "*2\r\n:-5\r\n:99\r\n",
        "$999999999999\r\nx",
        "*1000000000\r\n",
        "-ERR \u{1b}[31m no\r\n",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                // Whoever does not like it leaves.
                let _ = stream.write_all(nonsense.repeat(4).as_bytes());
                thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
            }
        });
        let tollgate = Tollgate::with(&text("rate = \"1/h\"\nburst = 2", &format!("redis://{addr}"), ""));
        assert_eq!(statuses(&tollgate, 3), [200, 200, 429], "{nonsense:?}");
        up(&tollgate, 0.0);
        assert!(!tollgate.stderr().contains('\u{1b}'));
    }
}

#[test]
fn passwords_and_users_are_asked_for_and_never_told() {
    let acl = "requirepass hunter2\nuser gate on >s3cr3t@x ~tollgate:* +eval +evalsha +get +set +del +time +select";
    let Some(redis) = Redis::start(acl) else { return };
    for (credentials, answers) in [
        (":hunter2@", true),
        ("gate:s3cr3t%40x@", true),
        (":wr0ngpass@", false),
        ("", false),
        ("gate:wr0ngpass@", false),
    ] {
        let tollgate = Tollgate::with(&text("rate = \"1/h\"\nburst = 2", &redis.url_as(credentials), STRICT));
        up(&tollgate, f64::from(u8::from(answers)));
        let key = if answers { "x-key" } else { "x-other" };
        assert_eq!(tollgate.get("/").header(key, credentials).send().status(), 200);
        let told = tollgate.stderr() + &tollgate.admin("/api/status").text() + &tollgate.admin("/metrics").text();
        for secret in ["hunter2", "s3cr3t", "wr0ngpass"] {
            assert!(!told.contains(secret), "{secret} in {told}");
        }
    }
}

/// What `redis.conf` says of TLS, with a certificate of `ca`; `clients` is whether they have to show one.
fn tls_lines(directory: &Path, addr: SocketAddr, ca: &Ca, clients: &str) -> String {
    let (cert, key) = ca.server(&["127.0.0.1"]).write(directory, "redis");
    format!(
        "{}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\ntls-auth-clients {clients}",
        port_line(addr, true),
        cert.display(),
        key.display(),
        ca.write(directory, "ca.pem").display()
    )
}

#[test]
fn a_store_is_verified_by_its_certificate() {
    let (ca, other) = (Ca::new("fleet"), Ca::new("other"));
    let directory = tempfile::tempdir().expect("a directory");
    let addr = ports::claim();
    let Some(_redis) = Redis::start(&tls_lines(directory.path(), addr, &ca, "no")) else { return };
    for (trusted, answers) in [(&ca, 1.0), (&other, 0.0)] {
        let text = text(FEW, &format!("rediss://{addr}"), &format!("{STRICT}\nredis_ca_file = \"trusted.pem\""));
        let tollgate = Tollgate::prepared(&text).file("trusted.pem", trusted.pem()).start();
        up(&tollgate, answers);
        tollgate.get("/").send().expect(200);
    }
}

#[test]
fn a_store_that_asks_for_a_certificate_is_shown_ours_and_its_renewal() {
    let (ca, other) = (Ca::new("fleet"), Ca::new("other"));
    let directory = tempfile::tempdir().expect("a directory");
    let addr = ports::claim();
    let Some(_redis) = Redis::start(&tls_lines(directory.path(), addr, &ca, "yes")) else { return };
    let more = format!(
        "{STRICT}\nredis_ca_file = \"ca.pem\"\nredis_client_cert_file = \"gate.pem\"\n\
         redis_client_key_file = \"gate.key\""
    );
    let text = format!("[server]\nwatch = true\n{}", text(FEW, &format!("rediss://{addr}"), &more));
    let stranger = other.client("gate");
    let prepared = Tollgate::prepared(&text).file("ca.pem", ca.pem());
    let tollgate = prepared.file("gate.pem", &stranger.cert).file("gate.key", &stranger.key).start();
    up(&tollgate, 0.0);
    // In between the one does not go with the other, and nothing is changed.
    ca.client("gate").write(tollgate.config_file().parent().expect("in a directory"), "gate");
    up(&tollgate, 1.0);
    assert_eq!(statuses(&tollgate, 1), [200]);
}

#[test]
fn a_reload_keeps_the_connection_and_other_terms_are_another_budget() {
    let Some(redis) = Redis::start("") else { return };
    let tollgate = Tollgate::with(&text("rate = \"1/h\"\nburst = 2", &redis.url(), STRICT));
    assert_eq!(statuses(&tollgate, 3), [200, 200, 429]);
    tollgate.replace("rate = \"1/h\"\nburst = 2", "rate = \"100/s\"\nburst = 3");
    tollgate.reload().succeeded();
    let response = tollgate.get("/").send().expect(200);
    assert_eq!(response.header("ratelimit"), Some("\"fleet\";r=2;t=1"));
    let connections = redis.ask("INFO stats");
    // Ours to ask, and one of the gateway's.
    let asked = connections.lines().find_map(|line| line.strip_prefix("total_connections_received:")).expect("told");
    assert!(asked.parse::<u32>().expect("a number") <= 4, "{asked}");
    assert_eq!(tollgate.stderr().matches("redis.sock answers").count(), 1);
}

#[test]
fn a_listeners_limit_can_have_a_store() {
    let Some(redis) = Redis::start("") else { return };
    let text = text("rate = \"1/h\"\nburst = 2", &redis.url(), STRICT).replace("limits = [\"fleet\"]\n", "");
    let gateways = [(); 2].map(|()| Tollgate::with(&format!("[listeners.http]\nlimits = [\"fleet\"]\n{text}")));
    assert_eq!((statuses(&gateways[0], 1), statuses(&gateways[1], 2)), (vec![200], vec![200, 429]));
}

/// What the server forgets by dying is a whole budget, and what gateways do without it is what they were told to.
#[test]
fn three_gateways_hold_one_limit_while_its_server_dies_and_comes_back() {
    const RATE: f64 = 100.0;
    const BURST: usize = 60;
    for (mode, decision, ahead) in [("strict", "deny", 0.0), ("batched", "deny", 0.1), ("batched", "local", 0.1)] {
        let addr = ports::claim();
        let Some(mut redis) = Redis::start(&port_line(addr, false)) else { return };
        let more = format!("redis_mode = \"{mode}\"\nredis_timeout = \"2s\"\non_store_failure = \"{decision}\"");
        let limit = format!("rate = \"{RATE}/s\"\nburst = {BURST}");
        let gateways = [(); 3].map(|()| Tollgate::with(&text(&limit, &format!("redis://{addr}"), &more)));
        let (passed, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let begin = Instant::now();
        let down = thread::scope(|scope| {
            for gateway in gateways.iter().cycle().take(12) {
                scope.spawn(|| {
                    let mut client = Client::connect(gateway.addr());
                    while !is_over.load(Ordering::Relaxed) {
                        match client.get("/").status() {
                            200 => drop(passed.fetch_add(1, Ordering::Relaxed)),
                            status => assert_eq!(status, 429),
                        }
                    }
                });
            }
            let more_than = |count: usize| wait::until("requests to pass", || passed.load(Ordering::Relaxed) > count);
            more_than(2 * BURST);
            let died = Instant::now();
            redis.kill();
            gateways.iter().for_each(|gateway| up(gateway, 0.0));
            let before = passed.load(Ordering::Relaxed);
            if decision == "local" {
                more_than(before + BURST);
            }
            redis.start_again();
            gateways.iter().for_each(|gateway| up(gateway, 1.0));
            let down = died.elapsed().as_secs_f64();
            more_than(passed.load(Ordering::Relaxed) + BURST);
            is_over.store(true, Ordering::Relaxed);
            down
        });
        let passed = passed.into_inner();
        // burst + rate * t, and the burst that it has forgotten.
        let mut most = 2 * BURST + (RATE * (begin.elapsed().as_secs_f64() + ahead)) as usize;
        if decision == "local" {
            most += 3 * (BURST + (RATE * down) as usize);
        }
        assert!(passed <= most, "{mode}, {decision}: {passed} passed, {most} at most");
    }
}

#[test]
fn a_name_that_nobody_knows_is_a_server_that_does_not_answer() {
    let tollgate = Tollgate::with(&text("rate = \"1/h\"\nburst = 2", "redis://store.invalid:6379", ""));
    assert_eq!(statuses(&tollgate, 3), [200, 200, 429]);
    up(&tollgate, 0.0);
    wait::until("the reason in the log", || tollgate.stderr().contains("store.invalid:6379 does not answer"));
    assert_eq!(tollgate.stderr().matches("does not answer").count(), 1);
}

/// Who asks while a server hangs waits for the time a decision may take; once that is over nobody does.
#[test]
fn of_a_crowd_those_wait_for_a_server_that_hangs_who_asked_before_that_was_known() {
    const CROWD: u64 = 16;
    let Some(redis) = Redis::start("") else { return };
    let more = "redis_mode = \"strict\"\nredis_timeout = \"1s\"\non_store_failure = \"allow\"";
    let tollgate = Tollgate::with(&text("rate = \"1000/h\"\nburst = 9000", &redis.url(), more));
    tollgate.get("/").send().expect(200);
    redis.signal(Signal::STOP);
    let (barrier, slow) = (Barrier::new(CROWD as usize), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..CROWD {
            scope.spawn(|| {
                let mut client = Client::connect(tollgate.addr());
                barrier.wait();
                for _ in 0..30 {
                    let begin = Instant::now();
                    client.get("/").expect(200);
                    slow.fetch_add(u64::from(begin.elapsed() >= Duration::from_secs(1)), Ordering::Relaxed);
                }
            });
        }
    });
    let asked = |result: &str| {
        let series = format!("tollgate_limit_store_requests_total{{limit=\"fleet\",result=\"{result}\"}}");
        tollgate.metric(&series).unwrap_or_default() as u64
    };
    // The first that has waited in vain ends the connection, and with it the others' questions.
    let (timed_out, waited) = (asked("timed_out"), asked("timed_out") + asked("failed"));
    assert!(timed_out >= 1 && waited <= CROWD, "{timed_out} {waited}");
    assert_eq!(waited + asked("down"), CROWD * 30, "whoever did not wait was not asked about");
    assert!(slow.into_inner() >= timed_out);
    redis.signal(Signal::CONT);
    up(&tollgate, 1.0);
}

#[test]
fn an_answer_without_end_is_not_listened_to() {
    /// What the kernel takes for us, and what we read.
    const MOST: u64 = 32 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    let largest = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&largest);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let seen = Arc::clone(&seen);
            thread::spawn(move || {
                let mut sent = 0;
                let mut more = stream.write_all(b"$536870912\r\n");
                while more.is_ok() && sent <= 2 * MOST {
                    more = stream.write_all(&[b'x'; 65_536]);
                    sent += 65_536;
                    seen.fetch_max(sent, Ordering::Relaxed);
                }
            });
        }
    });
    let more = "redis_mode = \"strict\"\nredis_timeout = \"5s\"";
    let tollgate = Tollgate::with(&text("rate = \"1/h\"\nburst = 2", &format!("redis://{addr}"), more));
    assert_eq!(statuses(&tollgate, 3), [200, 200, 429]);
    up(&tollgate, 0.0);
    let largest = largest.load(Ordering::Relaxed);
    assert!(largest <= MOST, "{largest} bytes were taken");
}

#[test]
fn three_gateways_share_one_quota_and_one_that_restarts_finds_it() {
    let Some(redis) = Redis::start("") else { return };
    for (mode, key) in [("strict", "one"), ("batched", "other")] {
        let more = format!("redis_mode = \"{mode}\"\nredis_timeout = \"5s\"");
        let text = text("quota = \"90/month\"", &redis.url(), &more);
        let text = text.replace("header.x-key", &format!("header.x-{key}"));
        let gateways = [(); 3].map(|()| Tollgate::with(&text));
        assert_eq!(crowd(&gateways, 8, 10), 90, "{mode}");
        let late = Tollgate::with(&text);
        let response = late.get("/").send().expect(429);
        assert_eq!(response.header("ratelimit-policy"), Some("\"fleet\";q=90;w=2678400"));
        let seconds: u64 = response.header("retry-after").expect("there").parse().expect("seconds");
        assert!((1..=31 * 24 * 60 * 60).contains(&seconds), "{seconds}");
    }
}

#[test]
fn clients_are_told_the_same_key_by_every_gateway_and_it_is_not_the_one_in_the_store() {
    let Some(redis) = Redis::start("") else { return };
    let more = format!("{STRICT}\npartition_key = true");
    let gateways = [(); 2].map(|()| Tollgate::with(&text("rate = \"1000/h\"\nburst = 9000", &redis.url(), &more)));
    let told = |gateway: &Tollgate, key: &str| {
        let response = gateway.get("/").header("x-key", key).send().expect(200);
        let policy = response.header("ratelimit-policy").expect("there").to_owned();
        policy.split_once(";pk=:").map(|(_, key)| key.trim_end_matches(':').to_owned())
    };
    let first = wait::some("the seed of the fleet", || told(&gateways[0], "alice"));
    wait::until("the same of the other", || told(&gateways[1], "alice").as_ref() == Some(&first));
    assert_ne!(told(&gateways[1], "bob").as_ref(), Some(&first));
    let hash: String = STANDARD.decode(&first).expect("base64").iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash.len(), 16);
    let stored = redis.ask("KEYS tollgate:fleet:*");
    assert!(stored.contains("tollgate:fleet:_seed") && !stored.contains(&hash), "{stored}");
}
