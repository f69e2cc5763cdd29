//! Who is next: shares, keys, cookies, tiers, zones, and endpoints that are getting warm.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::message::Response;
use crate::support::{Client, Origin, Request, Tollgate, wait};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// An upstream whose endpoints are each written as `{ address = …, MORE }`, and everything to it.
fn to(endpoints: &[(SocketAddr, &str)], more: &str) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|(addr, more)| format!("{{ address = \"{addr}\"{more} }}")).collect();
    format!(
        "[server]\nthreads = 2\n[upstreams.main]\nendpoints = [{}]\n{more}\n\
         [routes.main]\nauth = \"none\"\nupstream = \"main\"\n",
        endpoints.join(", ")
    )
}

fn three() -> [Origin; 3] {
    ["first", "second", "third"].map(Origin::replying)
}

/// The same, with weights 1, 2 and 7.
fn weighted(origins: &[Origin; 3]) -> [(SocketAddr, &'static str); 3] {
    [(origins[0].addr(), ", weight = 1"), (origins[1].addr(), ", weight = 2"), (origins[2].addr(), ", weight = 7")]
}

fn hits(origins: &[Origin; 3]) -> [usize; 3] {
    [0, 1, 2].map(|place| origins[place].hits())
}

/// Asks `count` times over each of `connections` connections at once.
fn ask(tollgate: &Tollgate, connections: usize, count: usize) {
    let addr = tollgate.addr();
    let clients: Vec<_> = (0..connections)
        .map(|_| {
            thread::spawn(move || {
                let mut client = Client::connect(addr);
                (0..count).for_each(|_| drop(client.get("/").expect(200)));
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("it is served"));
}

fn endpoint(tollgate: &Tollgate, place: usize) -> serde_json::Value {
    tollgate.admin("/api/upstreams").json()[0]["endpoints"][place].clone()
}

#[test]
fn workers_together_keep_the_turns_exactly() {
    let origins = three();
    let tollgate = Tollgate::with(&to(&weighted(&origins), ""));
    ask(&tollgate, 6, 50);
    assert_eq!(hits(&origins), [30, 60, 210]);
}

#[test]
fn chance_and_load_keep_the_shares() {
    for balance in ["random", "least_request"] {
        let origins = three();
        let tollgate = Tollgate::with(&to(&weighted(&origins), &format!("balance = \"{balance}\"")));
        ask(&tollgate, 1, 500);
        // Six deviations; and what is still busy with the request before gets a little less.
        for (hits, (due, off)) in hits(&origins).into_iter().zip([(50_usize, 42), (100, 54), (350, 62)]) {
            assert!(hits.abs_diff(due) <= off, "{balance}: {:?}", self::hits(&origins));
        }
        assert_eq!(tollgate.admin("/api/upstreams").json()[0]["balance"], balance);
    }
}

#[test]
fn a_key_has_one_endpoint_and_only_the_keys_of_one_that_is_gone_move() {
    let mut origins = three();
    let text = to(
        &[0, 1, 2].map(|place: usize| (origins[place].addr(), "")),
        "balance = \"consistent_hash\"\nhash_key = [\"header.x-tenant\"]",
    );
    let tollgate = Tollgate::with(&text);
    let mut client = Client::connect(tollgate.addr());
    let mut ask = |tenant: usize| {
        let tenant = format!("tenant-{tenant}");
        client.send(&Request::get("/").header("x-tenant", &tenant)).expect(200).text()
    };
    let before: Vec<String> = (0..60).map(&mut ask).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    before.iter().for_each(|name| *counts.entry(name).or_default() += 1);
    // Twenty each, give or take what a ring and chance take.
    assert!(counts.len() == 3 && counts.values().all(|count| (4..45).contains(count)), "{counts:?}");
    assert_eq!((0..60).map(&mut ask).collect::<Vec<_>>(), before);

    origins[1].kill();
    for (tenant, old) in before.iter().enumerate() {
        let new = ask(tenant);
        assert!(new == *old || old == "second", "tenant {tenant} moved from {old} to {new}");
        assert_ne!(new, "second");
    }
    origins[1].start_again();
    wait::until("it to be found again", || (0..60).map(&mut ask).collect::<Vec<_>>() == before);
    // Without the header chance decides.
    let mut client = Client::connect(tollgate.addr());
    let names: std::collections::BTreeSet<String> = (0..60).map(|_| client.get("/").expect(200).text()).collect();
    assert_eq!(names.len(), 3);
}

#[test]
fn a_hot_key_spills_over_before_its_endpoint_has_more_than_its_share_and_a_quarter() {
    let gated = ["first", "second", "third"].map(Origin::gated);
    let addresses = [0, 1, 2].map(|place: usize| (gated[place].0.addr(), ""));
    let tollgate = Tollgate::with(&to(&addresses, "balance = \"consistent_hash\"\nhash_key = \"host\""));
    let mut waiting = Vec::new();
    for sent in 1..=12 {
        let mut client = Client::connect(tollgate.addr());
        client.begin(&Request::get("/")).expect("sent");
        waiting.push(client);
        let arrived = || gated.iter().map(|(origin, _)| origin.hits()).sum::<usize>();
        wait::until("the request to arrive", || arrived() == sent);
    }
    let mut hits = [0, 1, 2].map(|place: usize| gated[place].0.hits());
    hits.sort_unstable();
    // 1.25 * 12 / 3, as often as it goes.
    assert_eq!(hits, [2, 5, 5]);
    gated.iter().for_each(|(_, gate)| gate.open());
    for mut client in waiting {
        client.finish("GET").expect("answered").expect(200);
    }
}

#[test]
fn what_is_slow_or_fails_fast_is_left_alone() {
    for (name, ill) in [
        (
            "slow",
            Origin::scripted(|_, connection| {
                thread::sleep(Duration::from_millis(250));
                connection.reply(200, &[], "");
            }),
        ),
        ("failing", Origin::answering(500)),
    ] {
        let well = Origin::replying("");
        let text = to(&[(ill.addr(), ""), (well.addr(), "")], "balance = \"peak_ewma\"\newma_decay = \"60s\"");
        let tollgate = Tollgate::with(&text);
        let mut client = Client::connect(tollgate.addr());
        (0..100).for_each(|_| drop(client.get("/")));
        assert!(ill.hits() <= 10, "{name}: {} of 100", ill.hits());
        assert_eq!(ill.hits() + well.hits(), 100);
        if ill.hits() > 0 {
            assert!(endpoint(&tollgate, 0)["ewma_seconds"].as_f64().expect("known") > 0.05, "{name}");
        }
        let series = format!("tollgate_endpoint_ewma_seconds{{upstream=\"main\",endpoint=\"{}\"}}", well.addr());
        assert!(tollgate.metric(&series).is_some_and(|seconds| seconds > 0.0));
    }
}

/// The cookie that a response sets, as a client sends it back.
fn cookie(response: &Response) -> Option<String> {
    let set = response.header("set-cookie")?;
    Some(set.split(';').next().expect("a pair").to_owned())
}

fn with_cookie(tollgate: &Tollgate, cookie: &str) -> Response {
    tollgate.get("/").header("cookie", cookie).send().expect(200)
}

#[test]
fn a_client_stays_where_it_was_until_that_is_gone() {
    let mut origins = three();
    let sticky = "sticky = { cookie = \"route\", secret_file = \"sticky.secret\", ttl = \"1h\" }";
    let text = to(&[0, 1, 2].map(|place: usize| (origins[place].addr(), "")), sticky);
    let tollgate = Tollgate::prepared(&text).file("sticky.secret", SECRET).start();
    let first = tollgate.get("/").send().expect(200);
    let set = first.header("set-cookie").expect("a new client is bound").to_owned();
    assert!(set.starts_with("route=") && set.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"), "{set}");
    assert!(origins.iter().all(|origin| !set.contains(&origin.addr().port().to_string())), "{set}");
    let bound = cookie(&first).expect("set");

    for _ in 0..9 {
        let response = with_cookie(&tollgate, &format!("a=1; {bound}; b=2"));
        assert_eq!((response.text(), response.header("set-cookie")), (first.text(), None));
    }
    let home = origins.iter().position(|origin| origin.hits() == 10).expect("one has had them all");
    let last = origins[home].requests().pop().expect("ten");
    assert_eq!(last.header("cookie"), Some("a=1; b=2"), "ours is between the client and us");
    // Another gateway with the same secret, and this one after a reload, know the cookie.
    let other = Tollgate::prepared(&text).file("sticky.secret", SECRET).start();
    assert_eq!(with_cookie(&other, &bound).text(), first.text());
    tollgate.replace("ttl = \"1h\"", "ttl = \"2h\"");
    tollgate.reload().succeeded();
    assert_eq!(with_cookie(&tollgate, &bound).text(), first.text());

    // One that nobody signed says nothing.
    let mut forged = bound.clone().into_bytes();
    forged[10] = if forged[10] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).expect("ASCII");
    assert!(cookie(&with_cookie(&tollgate, &forged)).is_some_and(|cookie| cookie != forged));

    origins[home].kill();
    let moved = with_cookie(&tollgate, &bound);
    assert_ne!(moved.text(), first.text());
    let next = cookie(&moved).expect("bound to another");
    assert_ne!(next, bound);
    let stays = with_cookie(&tollgate, &next);
    assert_eq!((stays.text(), stays.header("set-cookie")), (moved.text(), None));
    assert_eq!(tollgate.metric("tollgate_sticky_requests_total{upstream=\"main\",result=\"moved\"}"), Some(1.0));
    assert_eq!(tollgate.metric("tollgate_sticky_requests_total{upstream=\"main\",result=\"new\"}"), Some(2.0));
}

#[test]
fn a_cookie_goes_over_tls_alone_where_its_client_does() {
    let origin = Origin::replying("");
    let sticky = format!("sticky = {{ cookie = \"route\", secret = \"{SECRET}\" }}");
    let text = to(&[(origin.addr(), "")], &sticky).replace("[server]", "[server]\ntrusted_proxies = [\"127.0.0.1\"]");
    let tollgate = Tollgate::with(&text);
    let set = |request: Request| request.send().expect(200).header("set-cookie").expect("bound").to_owned();
    assert!(!set(tollgate.get("/")).contains("Secure"));
    assert!(
        set(tollgate.get("/").header("x-forwarded-proto", "https"))
            .ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure")
    );
    tollgate.replace("trusted_proxies = [\"127.0.0.1\"]", "");
    tollgate.reload().succeeded();
    assert!(!set(tollgate.get("/").header("x-forwarded-proto", "https")).contains("Secure"), "anybody can say that");
}

#[test]
fn the_next_tier_steps_in_as_the_first_falls_ill_and_steps_back() {
    let health = Arc::new(AtomicU16::new(200));
    let first = Origin::scripted({
        let health = Arc::clone(&health);
        move |request, connection| match request.target.as_str() {
            "/healthz" => connection.reply(health.load(Ordering::SeqCst), &[], ""),
            _ => connection.reply(200, &[], "first"),
        }
    });
    let second = Origin::replying("second");
    let check = "[upstreams.main.health]\ntype = \"http\"\npath = \"/healthz\"\ninterval = \"50ms\"\n\
                 healthy_after = 1\nunhealthy_after = 1";
    let tollgate = Tollgate::with(&to(&[(first.addr(), ""), (second.addr(), ", priority = 1")], check));
    let all = |name: &str| (0..20).all(|_| tollgate.get("/").send().expect(200).text() == name);
    assert!(all("first"));
    assert_eq!((&endpoint(&tollgate, 0)["priority"], &endpoint(&tollgate, 1)["priority"]), (&0.into(), &1.into()));
    let healthy = format!("tollgate_endpoint_healthy{{upstream=\"main\",endpoint=\"{}\"}}", first.addr());
    health.store(503, Ordering::SeqCst);
    tollgate.wait_for_metric(&healthy, 0.0);
    assert!(all("second"));
    health.store(200, Ordering::SeqCst);
    tollgate.wait_for_metric(&healthy, 1.0);
    assert!(all("first"));
}

#[test]
fn the_own_zone_comes_first_as_long_as_somebody_is_there() {
    let (mut near, far) = (Origin::replying("near"), Origin::replying("far"));
    let text = to(&[(far.addr(), ", zone = \"b\""), (near.addr(), ", zone = \"a\"")], "")
        .replace("[server]", "[server]\nzone = \"a\"");
    let tollgate = Tollgate::with(&text);
    ask(&tollgate, 2, 20);
    assert_eq!((near.hits(), far.hits()), (40, 0));
    assert_eq!(endpoint(&tollgate, 1)["zone"], "a");
    near.kill();
    ask(&tollgate, 2, 5);
    assert_eq!(far.hits(), 10);
    // The gateway moves.
    near.start_again();
    tollgate.replace("zone = \"a\"\n", "zone = \"b\"\n");
    tollgate.reload().succeeded();
    ask(&tollgate, 2, 5);
    assert_eq!(far.hits(), 20);
}

#[test]
fn a_new_endpoint_gets_warm_slowly() {
    let (old, new) = (Origin::replying("old"), Origin::replying("new"));
    let tollgate = Tollgate::with(&to(&[(old.addr(), "")], "slow_start = \"1h\""));
    let weight = |origin: &Origin| {
        tollgate.metric(&format!("tollgate_endpoint_weight{{upstream=\"main\",endpoint=\"{}\"}}", origin.addr()))
    };
    assert_eq!(weight(&old), Some(1.0), "who is there from the beginning is warm");
    tollgate.replace("endpoints = [", &format!("endpoints = [\"{}\", ", new.addr()));
    tollgate.reload().succeeded();
    assert_eq!((weight(&old), weight(&new)), (Some(1.0), Some(0.1)));
    ask(&tollgate, 1, 110);
    assert_eq!((old.hits(), new.hits()), (100, 10));
    // With so little time it is soon as warm as it gets.
    tollgate.replace("slow_start = \"1h\"", "slow_start = \"200ms\"");
    tollgate.reload().succeeded();
    wait::until("it to be warm", || weight(&new) == Some(1.0));
    ask(&tollgate, 1, 20);
    assert_eq!((old.hits(), new.hits()), (110, 20));
}
