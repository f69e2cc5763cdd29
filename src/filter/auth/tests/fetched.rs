//! Keys behind a URL, with a real server that does what servers do.

use std::time::Instant;

use super::issuer::{Answer, Issuer};
use super::*;
use crate::filter::auth::jwt::Pace;

/// As the usual one, but nothing happens on its own within a test, and nothing is asked twice.
pub(super) const SLOW: Pace = Pace {
    interval: Duration::from_secs(600),
    allowed: (Duration::from_secs(600), Duration::from_secs(600)),
    retry: (Duration::from_millis(10), Duration::from_millis(50)),
    cooldown: Duration::from_secs(600),
    patience: Duration::from_secs(20),
    timeout: Duration::from_secs(20),
    settle: Duration::from_secs(20),
};

/// A provider whose tasks run until it is dropped.
pub(super) struct Running {
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) route: RouteAuth,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Running {
    pub(super) fn start(authenticator: Arc<Authenticator>) -> Self {
        let tasks = authenticator.tasks().into_iter().map(tokio::spawn).collect();
        let route = route_of(&[Arc::clone(&authenticator)], Require::default(), Mode::Enforce);
        Self { authenticator, route, tasks }
    }

    fn of(issuer: &Issuer, pace: Pace) -> Self {
        Self::start(unstarted(issuer, pace))
    }

    async fn settled(issuer: &Issuer, pace: Pace) -> Self {
        let running = Self::of(issuer, pace);
        running.authenticator.settled().await;
        running
    }

    /// Until so many fetches have ended so.
    pub(super) async fn until(&self, result: &str, times: u64) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.refreshes(result) < times {
            assert!(Instant::now() < deadline, "{:?}", self.authenticator.counts());
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn refreshes(&self, result: &str) -> u64 {
        let counts = self.authenticator.counts();
        counts.refreshes.iter().find(|(name, _)| *name == result).map_or(0, |(_, count)| *count)
    }
}

fn unstarted(issuer: &Issuer, pace: Pace) -> Arc<Authenticator> {
    let spec = spec(&[Algorithm::ES256], KeySource::JwksUrl(issuer.uri().clone()));
    Arc::new(Authenticator::with_pace(&"corporate".into(), &Spec::from(spec).auth(), pace).expect("built"))
}

pub(super) fn set(keys: &[(&str, &Signer)]) -> Answer {
    let keys: Vec<_> = keys.iter().map(|(kid, signer)| signer.jwk(&json!({ "kid": kid }))).collect();
    Answer::json(&jwks(&keys))
}

pub(super) fn call(kid: &str, signer: &Signer) -> Call {
    Call::bearer(&signer.sign(&Header { kid: Some(kid.into()), ..header(Algorithm::ES256) }, &claims()))
}

#[tokio::test]
async fn keys_are_fetched_at_once_and_by_a_client_with_a_name() {
    let key = Signer::p256();
    let issuer = Issuer::answering(set(&[("a", &key)])).await;
    let running = Running::settled(&issuer, SLOW).await;
    call("a", &key).accepted(&running.route).await;
    let counts = running.authenticator.counts();
    assert_eq!((running.refreshes("success"), counts.keys), (1, Some(1)));
    assert!(counts.jwks_age.is_some());
    let head = issuer.heads().remove(0).to_ascii_lowercase();
    assert!(head.starts_with("get /jwks.json http/1.1\r\n"), "{head}");
    assert!(head.contains("user-agent: tollgate\r\n") && !head.contains("cookie"), "{head}");
}

#[tokio::test]
async fn before_the_first_keys_nobody_passes_and_the_answer_is_503() {
    let key = Signer::p256();
    let issuer = Issuer::answering(Answer::with("500 Internal Server Error", "", "")).await;
    let running = Running::of(&issuer, SLOW);
    running.until("status", 3).await;
    let reply = call("a", &key).judged(&running.route).await.map(drop).expect_err("refused");
    assert_eq!((reply.reason, reply.status.as_u16()), (Reason::AuthUnavailable, 503));
    // What no key could make valid is refused as what it is.
    assert_eq!(Call::bearer("x").refused(&running.route).await, Reason::InvalidToken);
    assert_eq!(Call::default().refused(&running.route).await, Reason::NoCredentials);
    assert_eq!(running.authenticator.counts().jwks_age, None);
    issuer.answer(set(&[("a", &key)]));
    running.until("success", 1).await;
    call("a", &key).accepted(&running.route).await;
}

#[tokio::test]
async fn an_unknown_kid_fetches_newer_keys_while_the_request_waits() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let issuer = Issuer::answering(set(&[("old", &old)])).await;
    let running = Running::settled(&issuer, Pace { cooldown: Duration::ZERO, ..SLOW }).await;
    call("old", &old).accepted(&running.route).await;
    issuer.answer(set(&[("new", &new)]));
    call("new", &new).accepted(&running.route).await;
    assert_eq!(issuer.hits(), 2);
    // The old key is gone, and with it what it vouched for: the remembered token included.
    assert_eq!(call("old", &old).refused(&running.route).await, Reason::InvalidToken);
}

#[tokio::test]
async fn a_token_remembered_under_keys_that_are_gone_is_refused() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let issuer = Issuer::answering(set(&[("old", &old)])).await;
    let running = Running::settled(&issuer, Pace { cooldown: Duration::ZERO, ..SLOW }).await;
    let remembered = call("old", &old);
    remembered.accepted(&running.route).await;
    issuer.answer(set(&[("new", &new)]));
    call("new", &new).accepted(&running.route).await;
    assert_eq!(remembered.refused(&running.route).await, Reason::InvalidToken);
    assert_eq!(running.authenticator.counts().remembered, Some(2), "both are there, only one is believed");
}

#[tokio::test]
async fn the_same_keys_again_forget_nothing() {
    let key = Signer::p256();
    let issuer = Issuer::answering(set(&[("a", &key)])).await;
    let running = Running::settled(&issuer, Pace { cooldown: Duration::ZERO, ..SLOW }).await;
    let token = call("a", &key);
    token.accepted(&running.route).await;
    assert_eq!(call("b", &key).refused(&running.route).await, Reason::InvalidToken);
    assert_eq!(running.refreshes("success"), 2);
    token.accepted(&running.route).await;
    assert_eq!(running.authenticator.counts().remembered, Some(1));
}

#[tokio::test]
async fn a_flood_of_unknown_kids_fetches_at_most_once_a_cooldown() {
    let key = Signer::p256();
    let issuer = Issuer::answering(set(&[("a", &key)])).await;
    let running = Running::settled(&issuer, SLOW).await;
    for kid in 0..200 {
        assert_eq!(call(&kid.to_string(), &key).refused(&running.route).await, Reason::InvalidToken);
    }
    assert_eq!(issuer.hits(), 1, "within the cool-down of the first fetch");

    let cooldown = Duration::from_millis(300);
    let issuer = Issuer::answering(set(&[("a", &key)])).await;
    let running = Running::settled(&issuer, Pace { cooldown, ..SLOW }).await;
    let began = Instant::now();
    let mut kid = 0;
    while began.elapsed() < 3 * cooldown {
        kid += 1;
        assert_eq!(call(&kid.to_string(), &key).refused(&running.route).await, Reason::InvalidToken);
    }
    // Measured by when requests ended, which is never before their fetch began.
    let most = 2 + began.elapsed().as_millis() / cooldown.as_millis();
    let hits = issuer.hits() as u128;
    assert!((2..=most).contains(&hits), "{hits} fetches for {kid} requests, at most {most}");
}

#[tokio::test]
async fn requests_that_come_while_keys_are_fetched_share_one_fetch() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let issuer = Issuer::answering(set(&[("old", &old)])).await;
    let running = Running::settled(&issuer, Pace { cooldown: Duration::ZERO, ..SLOW }).await;
    issuer.answer(set(&[("new", &new)]));
    let held = issuer.hold().await;
    let calls: Vec<_> = (0..50).map(|_| call("new", &new)).collect();
    let all = futures_util::future::join_all(calls.iter().map(|call| call.judged(&running.route)));
    let release = async {
        issuer.asked(2).await;
        drop(held);
    };
    let (judged, ()) = tokio::join!(all, release);
    assert!(judged.into_iter().all(|verdict| verdict.is_ok()));
    assert_eq!(issuer.hits(), 2);
}

#[tokio::test]
async fn a_request_waits_for_newer_keys_but_not_for_ever() {
    let key = Signer::p256();
    let issuer = Issuer::answering(set(&[("a", &key)])).await;
    let patience = Duration::from_millis(100);
    let running = Running::settled(&issuer, Pace { cooldown: Duration::ZERO, patience, ..SLOW }).await;
    issuer.answer(Answer::Hang);
    let began = Instant::now();
    assert_eq!(call("b", &key).refused(&running.route).await, Reason::InvalidToken);
    let waited = began.elapsed();
    assert!(waited >= patience && waited < Duration::from_secs(10), "{waited:?}");
    call("a", &key).accepted(&running.route).await;
}

#[tokio::test]
async fn foreign_tokens_make_nobody_fetch() {
    let key = Signer::p256();
    let issuer = Issuer::answering(set(&[("a", &key)])).await;
    let running = Running::settled(&issuer, Pace { cooldown: Duration::ZERO, ..SLOW }).await;
    let header = Header { kid: Some("b".into()), ..header(Algorithm::ES256) };
    let foreign = key.sign(&header, &claims_with(&json!({"iss": "https://elsewhere.example"})));
    assert_eq!(Call::bearer(&foreign).refused(&running.route).await, Reason::InvalidToken);
    let other = Header { kid: Some("b".into()), ..super::header(Algorithm::HS256) };
    let other = signer(Algorithm::HS256).sign(&other, &claims());
    assert_eq!(Call::bearer(&other).refused(&running.route).await, Reason::InvalidToken);
    assert_eq!(issuer.hits(), 1);
}

#[tokio::test]
async fn whatever_goes_wrong_the_last_good_keys_are_kept() {
    let key = Signer::p256();
    let huge = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(300 * 1024));
    let private = key.jwk(&json!({"kid": "a", "d": "AAAA"}));
    let pace = Pace { cooldown: Duration::ZERO, timeout: Duration::from_millis(300), ..SLOW };
    for (answer, result) in [
        (Answer::with("500 Internal Server Error", "Content-Type: application/json\r\n", "{}"), "status"),
        (Answer::with("404 Not Found", "", ""), "status"),
        (Answer::with("302 Found", "Location: https://elsewhere.example/\r\n", ""), "status"),
        (Answer::with("200 OK", "Content-Type: text/html\r\n", &jwks(&[key.jwk(&json!({"kid": "b"}))])), "invalid"),
        (Answer::json("<html>"), "invalid"),
        (Answer::json("{}"), "invalid"),
        (Answer::json(r#"{"keys":[]}"#), "invalid"),
        (Answer::json(r#"{"keys":[],"keys":[]}"#), "invalid"),
        (Answer::json(&jwks(&[private])), "invalid"),
        (Answer::json(&huge), "too_large"),
        (Answer::Endless, "too_large"),
        (Answer::Hang, "timeout"),
        (Answer::HangInBody, "timeout"),
        (Answer::Bytes("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".into()), "unreachable"),
        (Answer::Bytes("SSH-2.0-sesame\r\n".into()), "unreachable"),
        (Answer::Bytes(String::new()), "unreachable"),
    ] {
        let issuer = Issuer::answering(set(&[("a", &key)])).await;
        let running = Running::settled(&issuer, pace).await;
        issuer.answer(answer.clone());
        assert_eq!(call("b", &key).refused(&running.route).await, Reason::InvalidToken, "{answer:?}");
        running.until(result, 1).await;
        call("a", &key).accepted(&running.route).await;
        let counts = running.authenticator.counts();
        assert_eq!(counts.keys, Some(1));
        assert!(counts.jwks_age.is_some(), "kept, and its age shown");
    }
}

#[tokio::test]
async fn an_issuer_that_is_gone_is_asked_again_and_again() {
    let key = Signer::p256();
    let issuer = Issuer::answering(set(&[("a", &key)])).await;
    let authenticator = unstarted(&issuer, SLOW);
    drop(issuer);
    let running = Running::start(authenticator);
    running.until("unreachable", 3).await;
    assert_eq!(call("a", &key).refused(&running.route).await, Reason::AuthUnavailable);
}

#[tokio::test]
async fn keys_are_fetched_again_when_their_time_has_come() {
    let key = Signer::p256();
    let issuer = Issuer::answering(set(&[("a", &key)])).await;
    let pace = Pace { interval: Duration::from_millis(20), ..SLOW };
    let running = Running::of(&issuer, pace);
    running.until("success", 3).await;
}

#[tokio::test]
async fn max_age_sets_the_pace_within_bounds() {
    let key = Signer::p256();
    let jwks = jwks(&[key.jwk(&json!({"kid": "a"}))]);
    let with = |cache_control: &str| {
        let headers = format!("Content-Type: application/jwk-set+json\r\nCache-Control: {cache_control}\r\n");
        Answer::with("200 OK", &headers, &jwks)
    };
    // No bound is met in a test: only the least of them makes a second fetch come.
    let pace = Pace { allowed: (Duration::from_millis(20), Duration::from_secs(600)), ..SLOW };
    let issuer = Issuer::answering(with("public, max-age=0")).await;
    Running::of(&issuer, pace).until("success", 3).await;
    let pace = Pace {
        interval: Duration::from_millis(20),
        allowed: (Duration::from_millis(20), Duration::from_secs(600)),
        ..SLOW
    };
    let issuer = Issuer::answering(with("max-age=99999999")).await;
    let running = Running::settled(&issuer, pace).await;
    tokio::time::timeout(Duration::from_millis(200), issuer.asked(2)).await.expect_err("not for a long time");
    assert_eq!(running.refreshes("success"), 1);
}

#[tokio::test]
async fn the_task_ends_when_its_owner_is_gone() {
    let key = Signer::p256();
    let issuer = Issuer::answering(set(&[("a", &key)])).await;
    let Running { authenticator, route, mut tasks } = Running::settled(&issuer, SLOW).await;
    drop((authenticator, route));
    let task = tasks.remove(0);
    tokio::time::timeout(Duration::from_secs(10), task).await.expect("at once, not after its pause").expect("no panic");
}

#[tokio::test]
async fn a_later_version_has_the_keys_from_the_start_and_the_only_task() {
    let key = Signer::p256();
    let issuer = Issuer::answering(set(&[("a", &key)])).await;
    let mut before = Running::settled(&issuer, SLOW).await;
    let changed =
        Jwt { leeway: Duration::from_secs(5), ..spec(&[Algorithm::ES256], KeySource::JwksUrl(issuer.uri().clone())) };
    let after = Authenticator::with_pace(&"corporate".into(), &Spec::from(changed).auth(), SLOW).expect("built");
    after.inherit(&before.authenticator);
    let after = Arc::new(after);
    let route = route_of(&[Arc::clone(&after)], Require::default(), Mode::Enforce);
    call("a", &key).accepted(&route).await;
    let running = Running::start(after);
    let old = before.tasks.remove(0);
    tokio::time::timeout(Duration::from_secs(10), old).await.expect("it has been relieved").expect("no panic");
    running.authenticator.settled().await;
    assert_eq!(issuer.hits(), 1, "fresh keys are not fetched again");
    assert_eq!(running.refreshes("success"), 1, "what was counted is counted on");
}

#[tokio::test]
async fn keys_from_another_place_are_not_inherited() {
    let (here, there) = (Signer::p256(), Signer::p256());
    let (first, second) =
        (Issuer::answering(set(&[("a", &here)])).await, Issuer::answering(set(&[("a", &there)])).await);
    let before = Running::settled(&first, SLOW).await;
    let after = unstarted(&second, SLOW);
    after.inherit(&before.authenticator);
    let running = Running::start(after);
    running.authenticator.settled().await;
    assert_eq!(call("a", &here).refused(&running.route).await, Reason::InvalidToken);
    call("a", &there).accepted(&running.route).await;
}

#[tokio::test]
async fn settling_is_waited_for_but_not_for_ever() {
    let issuer = Issuer::answering(Answer::Hang).await;
    let settle = Duration::from_millis(50);
    let began = Instant::now();
    let running = Running::settled(&issuer, Pace { settle, ..SLOW }).await;
    assert!((settle..Duration::from_secs(10)).contains(&began.elapsed()));
    assert_eq!(running.authenticator.counts().keys, Some(0));
    build(shared()).settled().await;
}
