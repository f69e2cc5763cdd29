//! Issuers that are slow, broken, lying, moving or under somebody else's certificate.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use serde_json::json;

use super::{AUDIENCE, INVALID, Over, refused};
use crate::support::certs::Ca;
use crate::support::issuer::{DOCUMENT, Issuer, KEYS, Page};
use crate::support::jwt::{ISSUER, Key, key_set};
use crate::support::{Origin, Tollgate, process, wait};

/// Between the beginnings of two fetches, at the least.
const COOLDOWN: Duration = Duration::from_secs(10);

/// One provider and a route of its name that asks for it.
fn provider(name: &str, issuer: &str, keys: &str) -> String {
    format!(
        "[auth.{name}]\ntype = \"jwt\"\nissuer = \"{issuer}\"\naudience = [\"{AUDIENCE}\"]\nalgorithms = [\"ES256\"]\n{keys}\n\
         [routes.{name}]\npath = \"/{name}\"\nauth = \"{name}\"\nupstream = \"main\"\n"
    )
}

fn upstream(origin: &Origin) -> String {
    format!("[upstreams.main]\nendpoints = [\"{}\"]\n", origin.addr())
}

fn refreshes(tollgate: &Tollgate, auth: &str, result: &str) -> f64 {
    let series = format!("tollgate_jwks_refresh_total{{auth=\"{auth}\",result=\"{result}\"}}");
    tollgate.metric(&series).unwrap_or_default()
}

#[test]
fn keys_are_found_by_the_name_of_the_issuer_and_followed_when_they_move() {
    let (first, second) = (Key::es256(), Key::new("second", Algorithm::ES256));
    let issuer = Issuer::over_http();
    issuer.publish(&[&first]);
    let origin = Origin::replying("secret");
    let begin = Instant::now();
    let tollgate =
        Tollgate::with(&format!("{}{}", upstream(&origin), provider("found", &issuer.name(), "discovery = true")));
    assert_eq!((issuer.hits(DOCUMENT), issuer.hits(KEYS)), (1, 1));
    let token = |key: &Key| key.token().claim("iss", issuer.name()).mint();
    tollgate.get("/found").bearer(&token(&first)).send().expect(200);
    refused(&tollgate.get("/found").bearer(&first.token().mint()).send(), 401, "invalid_token", Some(INVALID));
    issuer.put("/moved", Page::json(key_set(&[&first, &second])));
    issuer.put(DOCUMENT, Page::json(issuer.document("/moved")));
    wait::until("the keys at their new place", || {
        tollgate.get("/found").bearer(&token(&second)).send().status() == 200
    });
    tollgate.get("/found").bearer(&token(&first)).send().expect(200);
    assert_eq!((issuer.hits(KEYS), issuer.hits("/moved")), (1, 1), "after {:?}", begin.elapsed());
    assert_eq!(tollgate.admin("/api/status").json()["auth"][0]["keys_from"], "discovery");
}

/// Each of them starts as a liar, so nothing is known by which a token could be judged; then it comes to its senses.
#[test]
fn an_issuer_that_lies_lets_nobody_in_and_is_heard_once_it_tells_the_truth() {
    let key = Key::es256();
    let (ca, stranger) = (Ca::new("an authority"), Ca::new("a stranger"));
    let origin = Origin::replying("secret");
    let http = || Issuer::over_http();
    let own = |issuer: &Issuer| key.token().claim("iss", issuer.name()).mint();
    let keys = key_set(&[&key]);
    let liars = [
        ("down", http(), "status", Page::reply(503, "application/json", "{}")),
        ("html", http(), "invalid", Page::reply(200, "text/html", keys.clone())),
        ("packed", http(), "invalid", Page::json(keys.clone()).header("content-encoding", "gzip")),
        ("elsewhere", http(), "status", Page::reply(302, "text/html", "").header("location", "/other")),
        ("huge", http(), "too_large", Page::Flood(100 << 20)),
        ("empty", http(), "invalid", Page::json("{\"keys\":[]}")),
        ("expired", Issuer::over_tls(&ca.expired_server(&["127.0.0.1"])), "unreachable", Page::json(keys.clone())),
        ("foreign", Issuer::over_tls(&stranger.server(&["127.0.0.1"])), "unreachable", Page::json(keys.clone())),
        ("misnamed", Issuer::over_tls(&ca.server(&["id.test"])), "unreachable", Page::json(keys.clone())),
        ("private", Issuer::over_tls(&ca.server(&["127.0.0.1"])), "success", Page::json(keys.clone())),
    ];
    let mut text = upstream(&origin);
    for (name, issuer, _, page) in &liars {
        issuer.put("/other", Page::json(keys.clone()));
        issuer.put(KEYS, page.clone());
        text += &provider(name, &issuer.name(), &format!("jwks_url = \"{}\"\nca_file = \"ca.pem\"", issuer.url(KEYS)));
    }
    // Those who say where their keys are, and should not be believed.
    let impostors = [
        ("other_issuer", json!({ "issuer": ISSUER })),
        ("no_keys", json!({})),
        ("clear", json!({ "jwks_uri": "http://id.test/keys" })),
    ]
    .map(|(name, lie)| {
        let issuer = http();
        issuer.publish(&[&key]);
        let mut document = json!({ "issuer": issuer.name(), "jwks_uri": issuer.url(KEYS) });
        if name == "no_keys" {
            document = json!({ "issuer": issuer.name() });
        }
        document.as_object_mut().expect("an object").extend(lie.as_object().expect("an object").clone());
        issuer.put(DOCUMENT, Page::json(document.to_string()));
        (name, issuer)
    });
    for (name, issuer) in &impostors {
        text += &provider(name, &issuer.name(), "discovery = true");
    }
    let tollgate = Tollgate::prepared(&text).file("ca.pem", ca.pem()).start();
    let before = process::resident(tollgate.pid());
    for (name, issuer, result, _) in &liars {
        wait::until(&format!("{name} to be {result}"), || refreshes(&tollgate, name, result) >= 1.0);
        let response = tollgate.get(&format!("/{name}")).bearer(&own(issuer)).send();
        if *result == "success" {
            response.expect(200);
        } else {
            refused(&response, 503, "auth_unavailable", None);
        }
    }
    for (name, issuer) in &impostors {
        wait::until(&format!("{name} to be seen through"), || refreshes(&tollgate, name, "discovery") >= 1.0);
        refused(&tollgate.get(&format!("/{name}")).bearer(&own(issuer)).send(), 503, "auth_unavailable", None);
        assert_eq!(issuer.hits(KEYS), 0, "{name}");
    }
    assert_eq!(origin.hits(), 1, "nobody but the caller whose issuer is honest");
    let grown = process::resident(tollgate.pid()).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for an issuer that sends a hundred million");
    assert_eq!(liars.iter().map(|(_, issuer, ..)| issuer.hits("/other")).sum::<usize>(), 0, "redirects are followed");
    for (_, issuer, ..) in &liars {
        issuer.put(KEYS, Page::json(keys.clone()));
    }
    for (name, issuer) in &impostors {
        issuer.publish(&[&key]);
        wait::until(&format!("{name} to be believed"), || {
            tollgate.get(&format!("/{name}")).bearer(&own(issuer)).send().status() == 200
        });
    }
    for (name, issuer, ..) in &liars {
        let is_hopeless = ["expired", "foreign", "misnamed"].contains(name);
        if !is_hopeless {
            wait::until(&format!("{name} to be heard"), || {
                tollgate.get(&format!("/{name}")).bearer(&own(issuer)).send().status() == 200
            });
        }
        assert_eq!(refreshes(&tollgate, name, "success") >= 1.0, !is_hopeless, "{name}");
    }
}

/// The same, but after a good start: a new token of a known key is good all the while.
#[test]
fn an_issuer_that_goes_bad_changes_nothing_for_the_keys_there_are() {
    let key = Key::es256();
    let origin = Origin::replying("secret");
    let set = |keys: &[serde_json::Value]| Page::json(json!({ "keys": keys }).to_string());
    let with = |more: serde_json::Value| {
        let mut jwk = key.jwk();
        jwk.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        jwk
    };
    let other = Key::es256();
    let turns = [
        ("slow", "timeout", Page::Trickle),
        ("huge", "too_large", Page::Flood(100 << 20)),
        ("packed", "invalid", Page::json(key_set(&[&key])).header("content-encoding", "br")),
        ("shared", "invalid", set(&[json!({"kty": "oct", "kid": "first", "k": "AAAA"})])),
        ("private", "invalid", set(&[with(json!({"d": "AAAA"}))])),
        ("twins", "invalid", set(&[key.jwk(), other.jwk()])),
        ("cut", "invalid", Page::json("{\"keys\":[")),
    ];
    let turns = turns.map(|(name, result, page)| (name, result, page, Issuer::over_http()));
    let mut text = upstream(&origin);
    for (name, _, _, issuer) in &turns {
        issuer.publish(&[&key]);
        text += &provider(name, &issuer.name(), &format!("jwks_url = \"{}\"", issuer.url(KEYS)));
    }
    let begin = Instant::now();
    let tollgate = Tollgate::with(&text);
    let before = process::resident(tollgate.pid());
    for (_, _, page, issuer) in &turns {
        issuer.put(KEYS, page.clone());
    }
    let mut asked = 0;
    wait::until("every one of them to have been asked again", || {
        asked += 1;
        turns.iter().all(|(name, result, _, issuer)| {
            let token = || key.token().claim("iss", issuer.name()).subject(&asked.to_string());
            let path = format!("/{name}");
            tollgate.get(&path).bearer(&token().mint()).send().expect(200);
            if begin.elapsed() > COOLDOWN && issuer.all_hits() == 1 {
                tollgate.get(&path).bearer(&token().header("kid", "unknown").mint()).send().expect(401);
            }
            refreshes(&tollgate, name, result) >= 1.0
        })
    });
    for (name, _, _, issuer) in &turns {
        let new = key.token().claim("iss", issuer.name()).subject("late").mint();
        tollgate.get(&format!("/{name}")).bearer(&new).send().expect(200);
        let forged = other.token().claim("iss", issuer.name()).mint();
        tollgate.get(&format!("/{name}")).bearer(&forged).send().expect(401);
    }
    let grown = process::resident(tollgate.pid()).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for an issuer that sends a hundred million");
}

#[test]
fn a_rotation_during_traffic_refuses_no_good_token() {
    let (old, new) = (Key::new("old", Algorithm::ES256), Key::new("new", Algorithm::ES256));
    let issuer = Issuer::over_http();
    issuer.publish(&[&old]);
    let origin = Origin::replying("secret");
    let tollgate =
        Tollgate::with(&format!("{}{}", upstream(&origin), provider("corporate", &issuer.name(), "discovery = true")));
    let started = Instant::now();
    let (signs_new, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let (by_old, by_new) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for worker in 0..4 {
            let (signs_new, done, by_old, by_new) = (&signs_new, &done, &by_old, &by_new);
            let (old, new, issuer, tollgate) = (&old, &new, &issuer, &tollgate);
            scope.spawn(move || {
                let mut count = 0;
                while !done.load(Ordering::SeqCst) {
                    count += 1;
                    let (key, counter) = if signs_new.load(Ordering::SeqCst) { (new, by_new) } else { (old, by_old) };
                    let token = key.token().claim("iss", issuer.name()).subject(&format!("{worker}-{count}")).mint();
                    let response = tollgate.get("/corporate").bearer(&token).send();
                    if response.status() != 200 {
                        done.store(true, Ordering::SeqCst);
                    }
                    response.expect(200);
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let _over = Over(&done);
        // The new key is there before it signs, and it signs when it may be asked for again.
        issuer.publish(&[&old, &new]);
        wait::until("the cool-down to be over", || started.elapsed() > COOLDOWN || done.load(Ordering::SeqCst));
        signs_new.store(true, Ordering::SeqCst);
        wait::until("traffic by the new key", || by_new.load(Ordering::SeqCst) > 200 || done.load(Ordering::SeqCst));
        // What the old key has signed is good as long as the key is published.
        tollgate.get("/corporate").bearer(&old.token().claim("iss", issuer.name()).mint()).send().expect(200);
    });
    assert!(by_old.load(Ordering::SeqCst) > 20 && by_new.load(Ordering::SeqCst) > 200);
    assert_eq!((issuer.hits(DOCUMENT), issuer.hits(KEYS)), (2, 2));
}

/// Whatever a token says of its key, nobody goes there.
#[test]
fn a_token_makes_nobody_call_where_it_points() {
    let key = Key::es256();
    let origin = Origin::replying("secret");
    let trap = Issuer::over_http();
    trap.publish(&[&key]);
    let thief = Key::es256();
    let tollgate = super::knowing(&key, &origin, "", "");
    for name in ["jku", "x5u"] {
        let pointing = |key: &Key| key.token().header(name, trap.url(KEYS)).mint();
        tollgate.get("/").bearer(&pointing(&thief)).send().expect(401);
        tollgate.get("/").bearer(&pointing(&key)).send().expect(200);
    }
    let embedded = thief.token().header("jwk", thief.jwk()).mint();
    tollgate.get("/").bearer(&embedded).send().expect(401);
    let elsewhere = key.token().claim("iss", trap.name()).header("kid", "unknown").mint();
    tollgate.get("/").bearer(&elsewhere).send().expect(401);
    assert_eq!((trap.all_hits(), origin.hits()), (0, 2));
}
