//! What a route asks: where tokens are carried, several providers, scopes, challenges, shadow mode, memory.

use super::*;

fn sources(sources: &[TokenSource]) -> Spec {
    Spec { token_from: sources.to_vec(), ..shared().into() }
}

fn good() -> String {
    token(Algorithm::HS256, &claims())
}

fn list(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

#[tokio::test]
async fn without_credentials_the_challenge_has_no_error() {
    let route = route(shared());
    for call in [
        Call::default(),
        Call::default().header("authorization", "Basic YTpi"),
        Call::default().header("authorization", ""),
        Call::default().header("authorization", "Bearerx abc"),
        Call::default().header("authorization", &good()),
        Call::default().header("cookie", &format!("token={}", good())),
        Call::default().query(&format!("access_token={}", good())),
    ] {
        let reply = call.judged(&route).await.map(drop).expect_err("refused");
        assert_eq!((reply.reason, reply.status.as_u16()), (Reason::NoCredentials, 401));
        assert_eq!(challenge(&reply), "Bearer realm=\"tollgate\"");
    }
}

#[tokio::test]
async fn the_scheme_has_no_case_and_what_follows_is_one_token() {
    let route = route(shared());
    for scheme in ["Bearer ", "bearer ", "BEARER ", "Bearer   "] {
        Call::default().header("authorization", &format!("{scheme}{}", good())).accepted(&route).await;
    }
    for value in
        ["Bearer".to_owned(), format!("Bearer {},x", good()), format!("Bearer {} x", good()), "Bearer ä".into()]
    {
        let reply =
            Call::default().header("authorization", &value).judged(&route).await.map(drop).expect_err("refused");
        assert_eq!(reply.reason, Reason::InvalidToken, "{value}");
        assert!(challenge(&reply).contains("error=\"invalid_token\""));
    }
}

#[tokio::test]
async fn two_tokens_are_a_bad_request_wherever_they_are() {
    let everywhere = [
        TokenSource::Bearer,
        TokenSource::Header(http::HeaderName::from_static("x-token")),
        TokenSource::Cookie("token".into()),
        TokenSource::Query("access_token".into()),
    ];
    let route = route(sources(&everywhere));
    let token = good();
    let one = |index: usize, call: Call| match index {
        0 => call.header("authorization", &format!("Bearer {token}")),
        1 => call.header("x-token", &token),
        2 => call.header("cookie", &format!("a=1; token={token}")),
        _ => {
            let query = call.query.clone().map_or(String::new(), |query| format!("{query}&"));
            call.query(&format!("{query}%61ccess_token={token}"))
        }
    };
    for (first, source) in everywhere.iter().enumerate() {
        let identity = one(first, Call::default()).accepted(&route).await;
        assert_eq!(identity.carried_by.as_ref(), Some(source));
        for second in first..4 {
            let reply = one(second, one(first, Call::default())).judged(&route).await.map(drop).expect_err("refused");
            assert_eq!((reply.reason, reply.status.as_u16()), (Reason::MultipleCredentials, 400), "{first} {second}");
            assert!(challenge(&reply).contains("error=\"invalid_request\""));
        }
    }
}

#[tokio::test]
async fn two_authorization_headers_are_a_bad_request_whatever_their_schemes() {
    let call = Call::bearer(&good()).header("authorization", "Basic YTpi");
    assert_eq!(call.refused(&route(shared())).await, Reason::MultipleCredentials);
}

#[tokio::test]
async fn an_empty_cookie_or_parameter_is_no_token() {
    let route = route(sources(&[TokenSource::Bearer, TokenSource::Cookie("t".into()), TokenSource::Query("t".into())]));
    for call in [Call::default().header("cookie", "t=; t=\"\"").query("t=&t"), Call::default().query("")] {
        assert_eq!(call.refused(&route).await, Reason::NoCredentials);
    }
    Call::bearer(&good()).header("cookie", "t=").query("t=").accepted(&route).await;
}

#[tokio::test]
async fn what_carried_a_token_is_named_unless_it_is_passed_on() {
    let passed_on = Spec { forward_token: true, ..shared().into() };
    assert_eq!(Call::bearer(&good()).accepted(&route(passed_on)).await.carried_by, None);
    assert_eq!(Call::bearer(&good()).accepted(&route(shared())).await.carried_by, Some(TokenSource::Bearer));
}

#[tokio::test]
async fn any_of_several_providers_may_accept_and_the_identity_says_which() {
    let partner = Jwt { issuer: "https://partner.example".into(), ..shared() };
    let both = [named("corporate", shared()), named("partners", partner)];
    let route = route_of(&both, Require::default(), Mode::Enforce);
    let theirs = token(Algorithm::HS256, &claims_with(&json!({"iss": "https://partner.example"})));
    assert_eq!(&*Call::bearer(&good()).accepted(&route).await.auth, "corporate");
    assert_eq!(&*Call::bearer(&theirs).accepted(&route).await.auth, "partners");
    assert_eq!(counted(&both[0]), [("accepted", 1)]);
    assert_eq!(counted(&both[1]), [("accepted", 1)]);
}

#[tokio::test]
async fn a_provider_looks_only_where_it_is_told_to() {
    let partner = Jwt { issuer: "https://partner.example".into(), ..shared() };
    let partner = Spec { jwt: partner, ..sources(&[TokenSource::Cookie("t".into())]) };
    let both = [named("corporate", shared()), named("partners", partner)];
    let route = route_of(&both, Require::default(), Mode::Enforce);
    let theirs = token(Algorithm::HS256, &claims_with(&json!({"iss": "https://partner.example"})));
    assert_eq!(Call::bearer(&theirs).refused(&route).await, Reason::InvalidToken);
    let cookie = |token: &str| Call::default().header("cookie", &format!("t={token}"));
    assert_eq!(cookie(&good()).refused(&route).await, Reason::InvalidToken);
    cookie(&theirs).accepted(&route).await;
    assert_eq!(cookie(&theirs).header("authorization", "Bearer x").refused(&route).await, Reason::MultipleCredentials);
}

#[tokio::test]
async fn of_several_refusals_the_most_telling_is_the_answer() {
    let other_key = KeySource::Secret(Secret::new(vec![7; 32]));
    let wrong_key = named("wrong", spec(&[Algorithm::HS256], other_key));
    let uri = KeySource::JwksUrl(Uri::from_static("https://id.example.com/jwks"));
    let no_keys = named("waiting", spec(&[Algorithm::HS256], uri));
    let right = named("right", shared());
    let scopes = Require { scopes: list(&["admin"]), ..Require::default() };
    let reason = async |authenticators: &[&Arc<Authenticator>], claims: &Value| {
        let authenticators: Vec<_> = authenticators.iter().map(|one| Arc::clone(one)).collect();
        let route = route_of(&authenticators, scopes.clone(), Mode::Enforce);
        Call::bearer(&token(Algorithm::HS256, claims)).refused(&route).await
    };
    let expired = claims_with(&json!({"exp": 1}));
    for (authenticators, claims, expected) in [
        (&[&wrong_key, &right][..], &claims(), Reason::InsufficientScope),
        (&[&right, &no_keys], &claims(), Reason::InsufficientScope),
        (&[&no_keys, &right], &expired, Reason::TokenExpired),
        (&[&wrong_key, &no_keys], &expired, Reason::AuthUnavailable),
        (&[&no_keys, &wrong_key], &claims(), Reason::AuthUnavailable),
        (&[&wrong_key], &claims(), Reason::InvalidToken),
    ] {
        assert_eq!(reason(authenticators, claims).await, expected);
    }
}

#[tokio::test]
async fn scopes_and_claims_are_asked_for_after_the_token_is_known() {
    let require = Require {
        scopes: list(&["orders.read"]),
        any_scope: list(&["eu", "us"]),
        claims: vec![(config::Claim::Member("plan".into()), list(&["gold"]))],
        ..Require::default()
    };
    let authenticator = build(shared());
    let route = route_of(&[Arc::clone(&authenticator)], require, Mode::Enforce);
    let with = |more: Value| Call::bearer(&token(Algorithm::HS256, &claims_with(&more)));
    with(json!({"scope": "us orders.read", "plan": ["tin", "gold"]})).accepted(&route).await;
    for more in [
        json!({}),
        json!({"scope": "orders.read eu"}),
        json!({"scope": "orders.read", "plan": "gold"}),
        json!({"scope": "orders.read eu", "plan": "tin"}),
    ] {
        // Twice: a remembered token is asked the same.
        let call = with(more);
        for _ in 0..2 {
            let reply = call.judged(&route).await.map(drop).expect_err("refused");
            assert_eq!((reply.reason, reply.status.as_u16()), (Reason::InsufficientScope, 403));
            let expected = r#"Bearer realm="tollgate", error="insufficient_scope", scope="orders.read eu""#;
            assert_eq!(challenge(&reply), expected);
        }
    }
    assert_eq!(counted(&authenticator), [("accepted", 1), ("insufficient_scope", 8)]);
}

#[tokio::test]
async fn one_token_is_judged_by_each_route_for_itself() {
    let authenticator = build(shared());
    let open = route_of(&[Arc::clone(&authenticator)], Require::default(), Mode::Enforce);
    let scopes = Require { scopes: list(&["admin"]), ..Require::default() };
    let closed = route_of(&[Arc::clone(&authenticator)], scopes, Mode::Enforce);
    let call = Call::bearer(&good());
    for _ in 0..2 {
        call.accepted(&open).await;
        assert_eq!(call.refused(&closed).await, Reason::InsufficientScope);
    }
    assert_eq!(authenticator.counts().remembered, Some(1));
}

#[tokio::test]
async fn in_shadow_mode_everybody_passes_but_only_as_who_they_prove_to_be() {
    let authenticator = build(shared());
    let route = route_of(&[Arc::clone(&authenticator)], Require::default(), Mode::Shadow);
    for call in [Call::default(), Call::bearer("x"), Call::bearer(&good()).header("authorization", "x")] {
        assert!(call.judged(&route).await.expect("let through").is_none());
    }
    assert_eq!(Call::bearer(&good()).accepted(&route).await.subject(), Some("alice"));
    let expected = [
        ("accepted", 1),
        ("shadow_no_credentials", 1),
        ("shadow_multiple_credentials", 1),
        ("shadow_invalid_token", 1),
    ];
    assert_eq!(counted(&authenticator), expected);
}

#[tokio::test]
async fn a_remembered_token_expires_with_its_own_time() {
    let authenticator = build(shared());
    let route = route_of(&[Arc::clone(&authenticator)], Require::default(), Mode::Enforce);
    let exp = seconds_from_now(600);
    let nbf = seconds_from_now(-600);
    let call = Call::bearer(&token(Algorithm::HS256, &claims_with(&json!({"exp": exp, "nbf": nbf}))));
    call.accepted(&route).await;
    let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).expect("after 1970"));
    let reason = async |seconds: i64| call.judged_at(&route, at(seconds)).await.err().map(|reply| reply.reason);
    assert_eq!(reason(exp + 29).await, None);
    assert_eq!(reason(exp + 30).await, Some(Reason::TokenExpired), "RFC 7519: on or after, leeway included");
    assert_eq!(reason(exp + 100_000).await, Some(Reason::TokenExpired));
    assert_eq!(reason(nbf - 30).await, None);
    assert_eq!(reason(nbf - 31).await, Some(Reason::InvalidToken), "a clock that was set back");
    assert_eq!(reason(exp).await, None, "and forth");
    assert_eq!(authenticator.counts().remembered, Some(1), "and all of it was remembered");
    // A token that is seen for the first time is judged by the same clock.
    let fresh = Call::bearer(&token(Algorithm::HS256, &claims_with(&json!({"exp": exp, "jti": "other"}))));
    let verdict = fresh.judged_at(&route, at(exp + 30)).await;
    assert_eq!(verdict.map(drop).expect_err("refused").reason, Reason::TokenExpired);
}

#[tokio::test]
async fn only_accepted_tokens_are_remembered() {
    let authenticator = build(Jwt { required_claims: vec![Claim::Member("sub".into())], ..shared() });
    let route = route_of(&[Arc::clone(&authenticator)], Require::default(), Mode::Enforce);
    for more in [json!({"exp": 1}), json!({"aud": "x"}), json!({"iss": "x"}), json!({"sub": null}), json!({"nbf": 9e9})]
    {
        let call = Call::bearer(&token(Algorithm::HS256, &claims_with(&more)));
        call.judged(&route).await.map(drop).expect_err("refused");
    }
    assert_eq!(authenticator.counts().remembered, Some(0));
}

#[tokio::test]
async fn two_providers_never_share_what_they_remember() {
    let other = Jwt { audience: vec!["other".into()], ..shared() };
    let (first, second) = (build(shared()), build(other));
    let call = Call::bearer(&good());
    call.accepted(&route_of(&[first], Require::default(), Mode::Enforce)).await;
    let refused = call.refused(&route_of(&[second], Require::default(), Mode::Enforce)).await;
    assert_eq!(refused, Reason::InvalidToken);
}

#[test]
fn a_route_that_names_nobody_cannot_be_built() {
    let none = BTreeMap::new();
    let any_of = |names: &[&str]| AuthChoice::AnyOf {
        names: names.iter().map(|name| Name::from(*name)).collect(),
        anonymous: false,
        require: Require::default(),
    };
    for names in [&[][..], &["corporate"]] {
        let problem = RouteAuth::build(&any_of(names), Mode::Enforce, &none).map(drop).expect_err("a problem");
        assert_eq!(problem.path, "auth");
    }
    assert!(RouteAuth::build(&AuthChoice::Open, Mode::Enforce, &none).expect("built").is_none());
}

#[tokio::test]
async fn a_later_version_goes_on_counting() {
    let before = build(shared());
    Call::default().refused(&route_of(&[Arc::clone(&before)], Require::default(), Mode::Enforce)).await;
    let after = build(Jwt { leeway: Duration::from_secs(5), ..shared() });
    after.inherit(&before);
    Call::default().refused(&route_of(&[Arc::clone(&after)], Require::default(), Mode::Enforce)).await;
    assert_eq!(counted(&after), [("no_credentials", 2)]);
    assert_eq!(counted(&before), counted(&after), "both count in one place");
    Call::bearer(&good()).accepted(&route_of(&[after], Require::default(), Mode::Enforce)).await;
}

/// The promise of the fast path: it comes to its end without a runtime.
#[test]
fn a_remembered_token_never_waits() {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    let route = route(shared());
    let call = Call::bearer(&good());
    for _ in 0..2 {
        let judged = pin!(is_send(call.judged(&route)));
        let polled = judged.poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Ok(Some(_)))));
    }
}

/// Requests move between threads, so whatever waits for newer keys holds nothing that cannot.
fn is_send<F: Future + Send>(future: F) -> F {
    future
}
