use std::net::Ipv4Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method};

use super::*;
use crate::config::{BasicUser, PasswordHash};
use crate::http::Request;

const PASSWORD: &str = "open sesame";

fn user(name: &str) -> BasicUser {
    let mut digest = [0; 23];
    digest.copy_from_slice(&bcrypt::bcrypt(4, [7; 16], format!("{PASSWORD}\0").as_bytes())[..23]);
    BasicUser { name: name.into(), hash: PasswordHash::Bcrypt { cost: 4, salt: [7; 16], digest } }
}

fn spec() -> BasicAuth {
    let users = [user("alice"), user("bob")].into();
    BasicAuth { file: "users".into(), users, realm: "tollgate".into(), remember: Some(Duration::from_secs(600)) }
}

fn basic(spec: &BasicAuth) -> Basic {
    Basic::build(&"people".into(), spec).expect("built")
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn text(user: &str, password: &str) -> String {
    STANDARD.encode(format!("{user}:{password}"))
}

/// What is known at once, and what comes of asking.
async fn asked(basic: &Basic, text: &str, seconds: u64) -> (Option<Result<Claims, Refused>>, Result<Claims, Refused>) {
    let request = Request {
        method: &Method::GET,
        host: "api.example.com",
        path: "/",
        query: None,
        headers: &HeaderMap::new(),
        client: Ipv4Addr::LOCALHOST.into(),
        client_certificate: None,
        route: "",
        scheme: "http",
        id: "",
    };
    let call = Call { request: &request, presented: Some(Presented::new(text, 0)), wall: at(seconds) };
    (basic.recall(call.presented.as_ref(), call.wall), basic.verify(&call).await)
}

fn remembered(basic: &Basic, text: &str, seconds: u64) -> Option<Result<Claims, Refused>> {
    basic.recall(Some(&Presented::new(text, 0)), at(seconds))
}

#[tokio::test]
async fn a_pair_is_verified_once_and_remembered_for_its_time() {
    let basic = basic(&spec());
    let alice = text("alice", PASSWORD);
    let (before, verdict) = asked(&basic, &alice, 1000).await;
    assert_eq!(before, None);
    assert_eq!(verdict.expect("known")["sub"], "alice");
    assert_eq!(remembered(&basic, &alice, 1599).expect("remembered").expect("known")["sub"], "alice");
    assert_eq!(remembered(&basic, &alice, 1600), None);
    assert_eq!(remembered(&basic, &alice, 999), None, "a clock that was set back");
    assert_eq!(remembered(&basic, &text("bob", PASSWORD), 1000), None);
    assert_eq!(remembered(&basic, &text("alice", "open sesamf"), 1000), None);
}

#[tokio::test]
async fn wrong_passwords_and_unknown_users_are_refused_alike_and_remembered_briefly() {
    let basic = basic(&spec());
    // The password of whoever is judged in the place of an unknown user is no use either.
    for wrong in [text("alice", "x"), text("mallory", PASSWORD), text("", PASSWORD), text("Alice", PASSWORD)] {
        let (before, verdict) = asked(&basic, &wrong, 1000).await;
        assert_eq!((before, verdict), (None, Err(Refused::Invalid(REFUSED))));
        assert_eq!(remembered(&basic, &wrong, 1029), Some(Err(Refused::Invalid(REFUSED))));
        assert_eq!(remembered(&basic, &wrong, 1030), None);
    }
    assert_eq!(basic.remembered(), 0);
}

#[tokio::test]
async fn nothing_is_remembered_of_who_is_known_if_the_operator_wants_it_so() {
    let basic = basic(&BasicAuth { remember: None, ..spec() });
    let alice = text("alice", PASSWORD);
    asked(&basic, &alice, 1000).await.1.expect("known");
    assert_eq!(remembered(&basic, &alice, 1000), None);
}

#[tokio::test]
async fn what_one_version_of_the_file_has_verified_another_has_not() {
    let (old, new) = (basic(&spec()), basic(&BasicAuth { users: [user("bob")].into(), ..spec() }));
    new.inherit(&old);
    let alice = text("alice", PASSWORD);
    asked(&old, &alice, 1000).await.1.expect("known");
    assert_eq!(remembered(&new, &alice, 1000), None);
    assert_eq!(asked(&new, &alice, 1000).await.1, Err(Refused::Invalid(REFUSED)));
    assert_ne!(old.users.mark(&alice), new.users.mark(&alice), "not even the marks are the same");
    assert!(Arc::ptr_eq(old.door.get(), new.door.get()));
}

#[tokio::test]
async fn without_users_and_without_sense_no_hash_is_computed() {
    let nobody = basic(&BasicAuth { users: [].into(), ..spec() });
    assert_eq!(asked(&nobody, &text("alice", PASSWORD), 0).await.1, Err(Refused::Invalid("there are no users")));
    let (_, verdict) = asked(&basic(&spec()), "?", 0).await;
    assert_eq!(verdict, Err(Refused::Invalid("not base64 in its one form")));
    assert_eq!(nobody.recall(None, at(0)), Some(Err(Refused::Missing)));
}

#[tokio::test]
async fn when_the_queue_is_full_nobody_is_refused_for_it() {
    let basic = basic(&spec());
    let places: Vec<_> =
        (0..64).filter_map(|of| basic.door.get().queue(&of.to_string(), Ipv4Addr::LOCALHOST.into())).collect();
    let alice = text("alice", PASSWORD);
    assert_eq!(asked(&basic, &alice, 1000).await.1, Err(Refused::Unavailable));
    assert_eq!(remembered(&basic, &alice, 1000), None);
    drop(places);
    asked(&basic, &alice, 1000).await.1.expect("known");
}

#[tokio::test]
async fn who_asks_the_same_at_the_same_time_takes_one_place_and_gets_one_answer() {
    // Not remembered, so that no answer comes from there.
    let basic = basic(&BasicAuth { remember: None, ..spec() });
    let (alice, wrong) = (text("alice", PASSWORD), text("bob", "x"));
    let crowd = (0..200).map(|index| asked(&basic, if index % 2 == 0 { &alice } else { &wrong }, 1000));
    let verdicts = futures_util::future::join_all(crowd).await;
    for (index, (_, verdict)) in verdicts.into_iter().enumerate() {
        match verdict {
            Ok(claims) => assert_eq!((index % 2, &claims["sub"]), (0, &Value::from("alice"))),
            refused => assert_eq!((index % 2, refused), (1, Err(Refused::Invalid(REFUSED)))),
        }
    }
}

#[test]
fn a_name_that_nobody_has_is_judged_by_one_hash_always_the_same() {
    let basic = basic(&spec());
    assert_eq!((basic.users.whose_hash("alice"), basic.users.whose_hash("bob")), (Some((0, true)), Some((1, true))));
    let judged: Vec<_> = (0..50).map(|of| basic.users.whose_hash(&format!("user{of}")).expect("a hash")).collect();
    assert!(judged.iter().all(|(index, is_user)| *index < 2 && !is_user));
    assert!(judged.iter().any(|(index, _)| *index == 0) && judged.iter().any(|(index, _)| *index == 1));
    assert_eq!(basic.users.whose_hash("user7"), basic.users.whose_hash("user7"));
}
