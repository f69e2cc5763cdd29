//! What a token must say.

use super::*;

async fn verdict(spec: Jwt, more: &Value) -> Result<Option<Identity>, Reason> {
    let call = Call::bearer(&token(Algorithm::HS256, &claims_with(more)));
    call.judged(&route(spec)).await.map_err(|reply| reply.reason)
}

async fn refusal(more: Value) -> Reason {
    verdict(shared(), &more).await.map(drop).expect_err(&format!("refused: {more}"))
}

#[tokio::test]
async fn the_issuer_is_the_one_that_is_configured() {
    for issuer in
        [json!(null), json!("https://id.example.com/"), json!("HTTPS://ID.EXAMPLE.COM"), json!([ISSUER]), json!(7)]
    {
        assert_eq!(refusal(json!({ "iss": issuer })).await, Reason::InvalidToken);
    }
}

#[tokio::test]
async fn the_audience_is_any_of_those_that_are_configured() {
    let spec = || Jwt { audience: vec!["a".into(), "b".into()], ..shared() };
    for audience in [json!("a"), json!(["x", "b"])] {
        verdict(spec(), &json!({ "aud": audience })).await.expect("accepted");
    }
    for audience in
        [json!(null), json!("A"), json!("a b"), json!([]), json!(["x"]), json!({"a": 1}), json!([["a"]]), json!(7)]
    {
        let verdict = verdict(spec(), &json!({ "aud": audience.clone() })).await;
        assert_eq!(verdict.map(drop), Err(Reason::InvalidToken), "{audience}");
    }
}

#[tokio::test]
async fn exp_is_required_and_is_a_time_to_come() {
    for exp in [json!(null), json!("4102444800"), json!(-1), json!(true), json!([4_102_444_800_u64]), json!(1e300)] {
        assert_eq!(refusal(json!({ "exp": exp })).await, Reason::InvalidToken);
    }
    assert_eq!(refusal(json!({"exp": seconds_from_now(-31)})).await, Reason::TokenExpired);
    for exp in [json!(seconds_from_now(-25)), json!(4_102_444_800.5), json!(u64::MAX)] {
        verdict(shared(), &json!({ "exp": exp })).await.expect("accepted, leeway included");
    }
}

#[tokio::test]
async fn nbf_is_a_time_gone_by() {
    for nbf in [json!(seconds_from_now(60)), json!("0"), json!(-1), json!([]), json!(u64::MAX)] {
        assert_eq!(refusal(json!({ "nbf": nbf })).await, Reason::InvalidToken);
    }
    verdict(shared(), &json!({"nbf": seconds_from_now(25)})).await.expect("accepted, leeway included");
}

#[tokio::test]
async fn a_subject_is_text() {
    for subject in [json!(7), json!(["alice"]), json!({"name": "alice"})] {
        assert_eq!(refusal(json!({ "sub": subject })).await, Reason::InvalidToken);
    }
    verdict(shared(), &json!({"sub": null})).await.expect("a token without one is somebody's");
}

/// A member, or the tokens of a pointer after an empty one.
fn required(path: &[&str]) -> Claim {
    match path {
        ["", tokens @ ..] => Claim::Pointer(tokens.iter().map(|token| (*token).to_owned()).collect()),
        path => Claim::Member(path[0].to_owned()),
    }
}

#[tokio::test]
async fn required_claims_are_members_or_pointers() {
    let spec =
        |names: &[&[&str]]| Jwt { required_claims: names.iter().map(|name| required(name)).collect(), ..shared() };
    let token = json!({"https://x/tier": "gold", "tenant": {"id": 0, "a/b": {"~": 1}}, "empty": ""});
    for names in [
        &[&["sub"][..], &["https://x/tier"]][..],
        &[&["", "tenant", "id"]],
        &[&["", "tenant", "a/b", "~"]],
        &[&["empty"]],
    ] {
        verdict(spec(names), &token).await.expect("accepted");
    }
    for names in [
        &[&["sub"][..], &["email"]][..],
        &[&["", "tenant", "name"]],
        &[&["tenant/id"]],
        &[&["/tenant/id"]],
        &[&["", "sub", "x"]],
    ] {
        let verdict = verdict(spec(names), &token).await;
        assert_eq!(verdict.map(drop), Err(Reason::InvalidToken), "{names:?}");
    }
}

#[tokio::test]
async fn a_required_claim_that_is_null_is_missing() {
    let claims = format!(r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","exp":{},"email":null}}"#, seconds_from_now(600));
    let claims: Value = serde_json::from_str(&claims).expect("JSON");
    let spec = Jwt { required_claims: vec![required(&["email"])], ..shared() };
    let refused = Call::bearer(&token(Algorithm::HS256, &claims)).refused(&route(spec)).await;
    assert_eq!(refused, Reason::InvalidToken);
}

#[tokio::test]
async fn a_type_is_asked_for_only_where_that_is_configured() {
    let of = |typ: Option<&str>| {
        let header = Header { typ: typ.map(str::to_owned), ..header(Algorithm::HS256) };
        Call::bearer(&signer(Algorithm::HS256).sign(&header, &claims()))
    };
    let (any, access) = (route(shared()), route(Jwt { token_type: Some("at+jwt".into()), ..shared() }));
    for (typ, is_access) in [
        (Some("at+jwt"), true),
        (Some("AT+JWT"), true),
        (Some("application/at+jwt"), true),
        (Some("JWT"), false),
        (Some("at+jwt "), false),
        (Some("logout+jwt"), false),
        (Some(""), false),
        (None, false),
    ] {
        of(typ).accepted(&any).await;
        let verdict = of(typ).judged(&access).await.map(drop).map_err(|reply| reply.reason);
        assert_eq!(verdict, if is_access { Ok(()) } else { Err(Reason::InvalidToken) }, "{typ:?}");
    }
}

/// When a token was made is no reason: `nbf` says from when on it holds, and clocks of issuers run ahead.
#[tokio::test]
async fn iat_is_not_judged() {
    for iat in [json!(seconds_from_now(3600)), json!(0)] {
        verdict(shared(), &json!({ "iat": iat })).await.expect("accepted");
    }
}

/// What the library checks for twelve algorithms we check for the thirteenth: with the same verdict.
#[tokio::test]
async fn an_algorithm_that_the_library_lacks_is_judged_by_the_same_claims() {
    let (by_library, by_us) = (Algorithm::ES384, Algorithm::ES512);
    let route =
        |algorithm| super::route(spec(&[algorithm], KeySource::JwksFile(file(jwks(&[signer(algorithm).jwk.clone()])))));
    let routes = [route(by_library), route(by_us)];
    let (past, soon, later) = (seconds_from_now(-31), seconds_from_now(25), seconds_from_now(600));
    for claims in [
        json!({}),
        json!({"exp": null}),
        json!({"exp": past}),
        json!({"exp": seconds_from_now(-25)}),
        json!({"exp": later.to_string()}),
        json!({"exp": -1}),
        json!({"exp": 4_102_444_800.5}),
        json!({"exp": u64::MAX}),
        json!({"exp": 1e300}),
        json!({"exp": true}),
        json!({"nbf": soon}),
        json!({"nbf": later}),
        json!({"nbf": "0"}),
        json!({"nbf": -1}),
        json!({"nbf": later, "exp": past}),
        json!({"iss": null}),
        json!({"iss": [ISSUER]}),
        json!({"iss": "https://elsewhere.example"}),
        json!({"aud": null}),
        json!({"aud": "elsewhere"}),
        json!({"aud": ["elsewhere", AUDIENCE]}),
        json!({"aud": [AUDIENCE, 7]}),
        json!({"aud": [[AUDIENCE]]}),
        json!({"aud": []}),
        json!({"aud": {AUDIENCE: 1}}),
        json!({"sub": 7}),
    ] {
        let mut verdicts = Vec::new();
        for (route, algorithm) in routes.iter().zip([by_library, by_us]) {
            let call = Call::bearer(&token(algorithm, &claims_with(&claims)));
            verdicts.push(call.judged(route).await.map(drop).map_err(|reply| reply.reason));
        }
        assert_eq!(verdicts[0], verdicts[1], "{claims}");
    }
}

/// A forged token must not learn more than that it is none.
#[tokio::test]
async fn only_a_signed_token_is_told_that_it_has_expired() {
    let old = token(Algorithm::HS256, &claims_with(&json!({"exp": 1})));
    let (head, _) = old.rsplit_once('.').expect("three segments");
    let forged = format!("{head}.{}", URL_SAFE_NO_PAD.encode([7; 32]));
    let route = route(shared());
    assert_eq!(Call::bearer(&old).refused(&route).await, Reason::TokenExpired);
    assert_eq!(Call::bearer(&forged).refused(&route).await, Reason::InvalidToken);
}
