//! Keys that are found by a document of the issuer, and answers that say for how long they hold.

use super::fetched::{Running, SLOW, call, set};
use super::issuer::{Answer, Issuer};
use super::*;
use crate::filter::auth::jwt::Pace;

const DOCUMENT: &str = "/.well-known/openid-configuration";

/// Each unknown kid makes it ask again.
const EAGER: Pace = Pace { cooldown: Duration::ZERO, ..SLOW };

fn document(issuer: &str, keys_at: &Uri) -> Answer {
    Answer::json(
        &json!({"issuer": issuer, "jwks_uri": keys_at.to_string(), "response_types_supported": []}).to_string(),
    )
}

/// A provider whose keys are found by that page.
fn finding(issuer: &Issuer, pace: Pace) -> Arc<Authenticator> {
    let spec = spec(&[Algorithm::ES256], KeySource::Discovery(issuer.at(DOCUMENT)));
    Arc::new(Authenticator::with_pace(&"corporate".into(), &Spec::from(spec).auth(), pace).expect("built"))
}

async fn settled(issuer: &Issuer, pace: Pace) -> Running {
    let running = Running::start(finding(issuer, pace));
    running.authenticator.settled().await;
    running
}

#[tokio::test]
async fn keys_are_where_the_document_says_and_followed_when_they_move() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let issuer = Issuer::answering(Answer::with("404 Not Found", "", "")).await;
    issuer.answer_at(DOCUMENT, document(ISSUER, &issuer.at("/old")));
    issuer.answer_at("/old", set(&[("old", &old)]));
    issuer.answer_at("/new", set(&[("new", &new)]));
    let running = settled(&issuer, EAGER).await;
    call("old", &old).accepted(&running.route).await;
    issuer.answer_at(DOCUMENT, document(ISSUER, &issuer.at("/new")));
    call("new", &new).accepted(&running.route).await;
    assert_eq!(call("old", &old).refused(&running.route).await, Reason::InvalidToken);
}

#[tokio::test]
async fn a_document_that_cannot_be_believed_is_no_reason_to_ask_for_its_keys() {
    let key = Signer::p256();
    let twice = format!(r#"{{"issuer":"{ISSUER}","issuer":"{ISSUER}","jwks_uri":"http://127.0.0.1:1/"}}"#);
    for (document, result) in [
        (document("https://id.example.com/", &Uri::from_static("http://127.0.0.1:1/")), "discovery"),
        (document("https://elsewhere.example", &Uri::from_static("http://127.0.0.1:1/")), "discovery"),
        (document(ISSUER, &Uri::from_static("http://id.example.com/keys")), "discovery"),
        (document(ISSUER, &Uri::from_static("https://me:secret@id.example.com/keys")), "discovery"),
        (Answer::json(&json!({"issuer": ISSUER}).to_string()), "discovery"),
        (Answer::json(&twice), "discovery"),
        (Answer::json("[]"), "discovery"),
        (Answer::with("200 OK", "Content-Type: text/html\r\n", "{}"), "invalid"),
        (Answer::with("302 Found", "Location: /elsewhere\r\n", ""), "status"),
        (Answer::with("304 Not Modified", "", ""), "status"),
        (Answer::Endless, "too_large"),
        (Answer::Bytes(String::new()), "unreachable"),
    ] {
        let issuer = Issuer::answering(set(&[("a", &key)])).await;
        issuer.answer_at(DOCUMENT, document.clone());
        let running = Running::start(finding(&issuer, SLOW));
        running.until(result, 1).await;
        assert_eq!(call("a", &key).refused(&running.route).await, Reason::AuthUnavailable, "{document:?}");
        assert!(issuer.heads().iter().all(|head| head.contains(DOCUMENT)), "{document:?}");
    }
}

#[tokio::test]
async fn both_answers_come_within_one_timeout() {
    let issuer = Issuer::answering(Answer::Hang).await;
    issuer.answer_at(DOCUMENT, document(ISSUER, &issuer.at("/keys")));
    let running = Running::start(finding(&issuer, Pace { timeout: Duration::from_millis(200), ..SLOW }));
    running.until("timeout", 2).await;
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() {
    let key = Signer::p256();
    let tagged = |body: &str, tag: &str| {
        let headers = format!(
            "Content-Type: application/json\r\nETag: {tag}\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        );
        Answer::with("200 OK", &headers, body)
    };
    let issuer = Issuer::answering(Answer::with("404 Not Found", "", "")).await;
    let document = json!({"issuer": ISSUER, "jwks_uri": issuer.at("/keys").to_string()}).to_string();
    issuer.answer_at(DOCUMENT, tagged(&document, "\"d\""));
    issuer.answer_at("/keys", tagged(&jwks(&[key.jwk(&json!({"kid": "a"}))]), "W/\"k\""));
    let running = settled(&issuer, EAGER).await;
    let token = call("a", &key);
    token.accepted(&running.route).await;
    for page in [DOCUMENT, "/keys"] {
        issuer.answer_at(page, Answer::with("304 Not Modified", "", ""));
    }
    assert_eq!(call("b", &key).refused(&running.route).await, Reason::InvalidToken);
    running.until("success", 2).await;
    token.accepted(&running.route).await;
    let counts = running.authenticator.counts();
    assert_eq!((counts.keys, counts.remembered), (Some(1), Some(1)));
    let heads: Vec<_> = issuer.heads().into_iter().map(|head| head.to_ascii_lowercase()).collect();
    assert_eq!(heads.len(), 4);
    assert!(heads[..2].iter().all(|head| !head.contains("if-")), "there was nothing to compare with: {heads:?}");
    for (head, tag) in heads[2..].iter().zip(["\"d\"", "w/\"k\""]) {
        assert!(head.contains(&format!("if-none-match: {tag}\r\n")), "{head}");
        assert!(head.contains("if-modified-since: sun, 06 nov 1994 08:49:37 gmt\r\n"), "{head}");
    }
    // Another set is taken over as ever.
    issuer.answer_at("/keys", set(&[("b", &key)]));
    call("b", &key).accepted(&running.route).await;
}

#[tokio::test]
async fn keys_that_have_moved_are_asked_for_without_conditions() {
    let key = Signer::p256();
    let tagged = |kid: &str| {
        Answer::with(
            "200 OK",
            "Content-Type: application/json\r\nETag: \"k\"\r\n",
            &jwks(&[key.jwk(&json!({"kid": kid}))]),
        )
    };
    let issuer = Issuer::answering(Answer::with("404 Not Found", "", "")).await;
    issuer.answer_at(DOCUMENT, document(ISSUER, &issuer.at("/old")));
    issuer.answer_at("/old", tagged("old"));
    issuer.answer_at("/new", tagged("new"));
    let running = settled(&issuer, EAGER).await;
    issuer.answer_at(DOCUMENT, document(ISSUER, &issuer.at("/new")));
    call("new", &key).accepted(&running.route).await;
    let last = issuer.heads().pop().expect("asked").to_ascii_lowercase();
    assert!(last.starts_with("get /new ") && !last.contains("if-none-match"), "{last}");
}

#[tokio::test]
async fn nothing_is_asked_for_packed() {
    let key = Signer::p256();
    let headers = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    let issuer = Issuer::answering(Answer::with("200 OK", headers, &jwks(&[key.jwk(&json!({"kid": "a"}))]))).await;
    let spec = spec(&[Algorithm::ES256], KeySource::JwksUrl(issuer.uri().clone()));
    let built = Authenticator::with_pace(&"corporate".into(), &Spec::from(spec).auth(), SLOW).expect("built");
    Running::start(Arc::new(built)).until("invalid", 1).await;
    let head = issuer.heads().remove(0).to_ascii_lowercase();
    assert!(head.contains("accept-encoding: identity\r\n"), "{head}");
}

#[tokio::test]
async fn the_shorter_of_two_lives_sets_the_pace() {
    let key = Signer::p256();
    let fresh = |body: &str, cache_control: &str| {
        Answer::with("200 OK", &format!("Content-Type: application/json\r\n{cache_control}\r\n"), body)
    };
    let pace = Pace { allowed: (Duration::from_millis(20), Duration::from_secs(600)), ..SLOW };
    let issuer = Issuer::answering(Answer::with("404 Not Found", "", "")).await;
    let keys = jwks(&[key.jwk(&json!({"kid": "a"}))]);
    let document = json!({"issuer": ISSUER, "jwks_uri": issuer.at("/keys").to_string()}).to_string();
    for (of_document, of_keys) in [
        ("Cache-Control: no-cache", "Cache-Control: max-age=600"),
        ("Cache-Control: max-age=600", "Expires: 0"),
        ("Cache-Control: max-age=600", "Cache-Control: max-age=600\r\nAge: 600"),
    ] {
        issuer.answer_at(DOCUMENT, fresh(&document, of_document));
        issuer.answer_at("/keys", fresh(&keys, of_keys));
        Running::start(finding(&issuer, pace)).until("success", 3).await;
    }
}

#[tokio::test]
async fn keys_found_for_another_issuer_or_by_other_authorities_are_not_inherited() {
    let key = Signer::p256();
    let issuer = Issuer::answering(set(&[("a", &key)])).await;
    issuer.answer_at(DOCUMENT, document(ISSUER, issuer.uri()));
    let before = settled(&issuer, SLOW).await;
    let same = || spec(&[Algorithm::ES256], KeySource::Discovery(issuer.at(DOCUMENT)));
    let ca = rcgen::generate_simple_self_signed(["a".to_owned()]).expect("made").cert.pem();
    for (changed, keys) in [
        (Jwt { leeway: Duration::ZERO, ..same() }, 1),
        (Jwt { issuer: "https://elsewhere.example".into(), ..same() }, 0),
        (Jwt { ca_file: Some(file(ca.as_str())), ..same() }, 0),
    ] {
        let after = build(changed);
        after.inherit(&before.authenticator);
        assert_eq!(after.counts().keys, Some(keys));
    }
}

#[test]
fn a_ca_file_without_a_certificate_is_a_problem() {
    let url = || KeySource::JwksUrl(Uri::from_static("https://id.example.com/"));
    for text in ["", "sesame", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let problem = problem(Jwt { ca_file: Some(file(text)), ..spec(&[Algorithm::ES256], url()) });
        assert_eq!(problem.path, "ca_file");
    }
}
