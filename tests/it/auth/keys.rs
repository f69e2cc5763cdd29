//! Where the keys come from, and what happens when they do not.

use std::time::Instant;

use jsonwebtoken::Algorithm;

use super::{NO_TOKEN, jwt, knowing, private, refused};
use crate::support::jwt::{JwksServer, Key, key_set};
use crate::support::{Origin, Tollgate, wait};

#[test]
fn a_key_that_is_gone_after_a_reload_opens_nothing() {
    let (old, new) = (Key::new("old", Algorithm::ES256), Key::new("new", Algorithm::ES256));
    let origin = Origin::replying("secret");
    let tollgate = knowing(&old, &origin, "", "");
    let (old_token, new_token) = (old.token().mint(), new.token().mint());
    tollgate.get("/").bearer(&old_token).send().expect(200);
    tollgate.get("/").bearer(&new_token).send().expect(401);
    std::fs::write(tollgate.path("jwks.json"), key_set(&[&new])).expect("written");
    tollgate.reload().succeeded();
    tollgate.get("/").bearer(&old_token).send().expect(401);
    tollgate.get("/").bearer(&new_token).send().expect(200);
}

/// A gateway that fetches its keys, in front of `origin`.
fn fetching(issuer: &JwksServer, origin: &Origin) -> Tollgate {
    let keys = format!("jwks_url = \"{}\"", issuer.url());
    Tollgate::with(&format!("{}{}", jwt("corporate", &keys, ""), private(origin, "")))
}

fn refreshes(result: &str) -> String {
    format!("tollgate_jwks_refresh_total{{auth=\"corporate\",result=\"{result}\"}}")
}

#[test]
fn a_rotation_is_followed_and_a_flood_of_unknown_keys_does_not_hammer_the_issuer() {
    let (first, second) = (Key::es256(), Key::new("second", Algorithm::ES256));
    let issuer = JwksServer::serving(&[&first]);
    let origin = Origin::replying("secret");
    let begin = Instant::now();
    let tollgate = fetching(&issuer, &origin);
    assert_eq!(issuer.hits(), 1, "the keys are there before the first request is called in");
    tollgate.get("/").bearer(&first.token().mint()).send().expect(200);
    issuer.rotate(&[&second]);
    let rotated = second.token().mint();
    let mut asked = 0;
    wait::until("the new key to be fetched", || {
        asked += 1;
        tollgate.get("/").bearer(&second.token().header("kid", format!("unknown-{asked}")).mint()).send().expect(401);
        tollgate.get("/").bearer(&rotated).send().status() == 200
    });
    let allowed = 1 + begin.elapsed().as_secs() / 10;
    assert!(asked > 20, "a flood, not {asked} tokens");
    assert!(issuer.hits() as u64 <= allowed, "{} fetches, {allowed} allowed", issuer.hits());
    tollgate.get("/").bearer(&first.token().mint()).send().expect(401);
    tollgate.wait_for_metric(&refreshes("success"), issuer.hits() as f64);
}

#[test]
fn an_issuer_that_fails_leaves_the_last_good_keys_in_use() {
    let key = Key::es256();
    let issuer = JwksServer::serving(&[&key]);
    let origin = Origin::replying("secret");
    let tollgate = fetching(&issuer, &origin);
    issuer.fail(500);
    let unknown = key.token().header("kid", "unknown").mint();
    wait::until("a fetch that fails", || {
        tollgate.get("/").bearer(&unknown).send().expect(401);
        tollgate.metric(&refreshes("status")).is_some_and(|count| count >= 1.0)
    });
    issuer.publish("{\"keys\":[]}");
    wait::until("a set without keys", || tollgate.metric(&refreshes("invalid")).is_some_and(|count| count >= 1.0));
    // Also a token that nobody has seen before.
    tollgate.get("/").bearer(&key.token().subject("carol").mint()).send().expect(200);
    assert!(tollgate.stderr().contains("keeping those there are"), "{}", tollgate.stderr());
}

#[test]
fn without_keys_nobody_passes_until_they_come() {
    let key = Key::es256();
    let issuer = JwksServer::serving(&[&key]);
    issuer.fail(500);
    let origin = Origin::replying("secret");
    let tollgate = fetching(&issuer, &origin);
    let token = key.token().mint();
    let response = tollgate.get("/").bearer(&token).send();
    refused(&response, 503, "auth_unavailable", None);
    refused(&tollgate.get("/").send(), 401, "no_credentials", Some(NO_TOKEN));
    assert_eq!(origin.hits(), 0);
    assert_eq!(tollgate.metric("tollgate_jwks_age_seconds{auth=\"corporate\"}"), None);
    issuer.rotate(&[&key]);
    wait::until("the first keys", || tollgate.get("/").bearer(&token).send().status() == 200);
    assert!(tollgate.metric("tollgate_jwks_age_seconds{auth=\"corporate\"}").is_some());
}

#[test]
fn fetched_keys_survive_a_reload_while_the_issuer_is_down() {
    let key = Key::es256();
    let issuer = JwksServer::serving(&[&key]);
    let origin = Origin::replying("secret");
    let tollgate = fetching(&issuer, &origin);
    issuer.fail(500);
    tollgate.replace("auth = \"corporate\"", "auth = \"corporate\"\ntimeout = \"59s\"");
    tollgate.reload().succeeded();
    tollgate.get("/").bearer(&key.token().mint()).send().expect(200);
    assert_eq!(issuer.hits(), 1, "a reload is no reason to ask again");
}

#[test]
fn a_successor_that_cannot_fetch_the_keys_the_old_process_has_is_refused() {
    let key = Key::es256();
    let issuer = JwksServer::serving(&[&key]);
    let origin = Origin::replying("secret");
    let tollgate = fetching(&issuer, &origin);
    let pid = tollgate.pid();
    issuer.fail(500);
    let stderr = tollgate.upgrade().failed(1);
    assert!(stderr.contains("auth corporate has no keys that the running process has"), "{stderr}");
    assert_eq!(tollgate.pids(), [pid]);
    tollgate.get("/").bearer(&key.token().mint()).send().expect(200);
    issuer.rotate(&[&key]);
    tollgate.upgrade().succeeded();
    assert_ne!(tollgate.pid(), pid);
    tollgate.get("/").bearer(&key.token().mint()).send().expect(200);
}
