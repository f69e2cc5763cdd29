//! What a token proves, and what a request without one gets.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::{EXPIRED, IDENTITY, INVALID, NO_TOKEN, TWO_TOKENS, https, jwt, knowing, private, refused};
use crate::support::certs::Ca;
use crate::support::h2::H2Client;
use crate::support::jwt::{AUDIENCE, ISSUER, Key, from_now, key_set};
use crate::support::{Origin, Request, Tollgate, wait, websocket};

#[test]
fn a_token_that_proves_nothing_never_reaches_the_origin() {
    let (key, stranger) = (Key::es256(), Key::es256());
    let origin = Origin::replying("secret");
    let tollgate = knowing(&key, &origin, IDENTITY, "");
    let token = || key.token();
    let padded_payload = {
        let minted = token().claim("pad", "x").mint();
        let parts: Vec<_> = minted.split('.').collect();
        format!("{}.{}=.{}", parts[0], parts[1], parts[2])
    };
    let tokens = [
        ("a bit of the signature turned", token().forged()),
        ("signed by a stranger with our kid", stranger.token().mint()),
        ("for somebody else", token().claim("aud", "elsewhere").mint()),
        ("for nobody", token().without("aud").mint()),
        ("by another issuer", token().claim("iss", "https://elsewhere.test").mint()),
        ("by our issuer with a slash", token().claim("iss", format!("{ISSUER}/")).mint()),
        ("by nobody", token().without("iss").mint()),
        ("for ever", token().without("exp").mint()),
        ("not yet", token().not_yet_valid().mint()),
        ("with no signature at all", token().unsigned()),
        ("with alg none and a signature", token().header("alg", "none").mint()),
        ("with an algorithm that is not listed", token().header("alg", "ES384").mint()),
        ("with an extension that must be understood", token().header("crit", json!(["exp"])).mint()),
        ("of a kid that nobody has", token().header("kid", "other").mint()),
        ("within a token", token().header("cty", "JWT").mint()),
        ("with claims that are not encoded", token().header("b64", false).mint()),
        ("longer than any", token().claim("pad", "x".repeat(17 * 1024)).mint()),
        ("of five parts, as encrypted ones are", format!("{}.x.x", token().mint())),
        ("with a line feed in its header", token().mint().replacen('.', "Cg.", 1)),
        ("of a kid without a name", token().header("kid", "").mint()),
        ("of a kid that is a number", token().header("kid", 1).mint()),
        ("with padding after the signature", format!("{}==", token().mint())),
        ("with padding after the claims", padded_payload),
        ("with a fourth part", format!("{}.x", token().mint())),
        ("with two parts", token().mint().rsplit_once('.').expect("three parts").0.to_owned()),
        ("of text", "not-a-token".to_owned()),
        ("of nothing", String::new()),
    ];
    for (what, token) in &tokens {
        let response = tollgate.get("/").bearer(token).send();
        assert_eq!(response.status(), 401, "{what}");
        refused(&response, 401, "invalid_token", Some(INVALID));
        assert_eq!(tollgate.logged(&response)["reason"], "invalid_token", "{what}");
    }
    for request in [
        tollgate.get("/"),
        tollgate.get("/").header("authorization", "Basic YWxpY2U6c2VjcmV0"),
        tollgate.get("/").header("authorization", &token().mint()),
        tollgate.get("/").header("x-access-token", &token().mint()),
        tollgate.get(&format!("/?access_token={}", token().mint())),
    ] {
        refused(&request.send(), 401, "no_credentials", Some(NO_TOKEN));
    }
    refused(&tollgate.get("/").bearer(&token().expired().mint()).send(), 401, "token_expired", Some(EXPIRED));
    assert_eq!(origin.hits(), 0);
    tollgate.get("/").bearer(&token().mint()).send().expect(200);
    assert_eq!(origin.hits(), 1);
    let decisions = |result: &str| format!("tollgate_auth_decisions_total{{auth=\"corporate\",result=\"{result}\"}}");
    tollgate.wait_for_metric(&decisions("invalid_token"), tokens.len() as f64);
    tollgate.wait_for_metric(&decisions("no_credentials"), 5.0);
    tollgate.wait_for_metric(&decisions("token_expired"), 1.0);
    tollgate.wait_for_metric(&decisions("accepted"), 1.0);
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let key = Key::new("rsa", Algorithm::RS256);
    let origin = Origin::replying("secret");
    let text = format!(
        "{}{}",
        jwt("corporate", "public_key_file = \"key.pem\"", "").replace("ES256", "RS256"),
        private(&origin, "")
    );
    let tollgate = Tollgate::prepared(&text).file("key.pem", key.public_pem()).start();
    for secret in [key.public_pem(), key.public_pem().trim_end()] {
        let token = key.token().signed_with_secret(secret.as_bytes());
        refused(&tollgate.get("/").bearer(&token).send(), 401, "invalid_token", Some(INVALID));
    }
    assert_eq!(origin.hits(), 0);
    tollgate.get("/").bearer(&key.token().mint()).send().expect(200);
}

/// The curve that the library lacks.
#[test]
fn a_token_signed_with_p_521_is_judged_like_any_other() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).expect("a key");
    let signing =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA512_FIXED_SIGNING, pair.serialized_der()).expect("our own key");
    let origin = Origin::replying("secret");
    let auth = jwt("corporate", "public_key_file = \"key.pem\"", IDENTITY).replace("ES256", "ES512");
    let tollgate =
        Tollgate::prepared(&format!("{auth}{}", private(&origin, ""))).file("key.pem", pair.public_key_pem()).start();
    let mint = |change: Value| {
        let mut claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": from_now(60) });
        claims.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        let message =
            [json!({ "alg": "ES512" }), claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let signature = signing.sign(&SystemRandom::new(), message.as_bytes()).expect("signed");
        (message, signature.as_ref().to_vec())
    };
    let sent = |message: &str, signature: &[u8]| {
        tollgate.get("/").bearer(&format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))).send()
    };
    let (message, signature) = mint(json!({}));
    for end in [0, 64, 131] {
        refused(&sent(&message, &signature[..end]), 401, "invalid_token", Some(INVALID));
    }
    refused(&sent(&message, &[&signature[..], &[0]].concat()), 401, "invalid_token", Some(INVALID));
    let mut forged = signature.clone();
    forged[100] ^= 1;
    refused(&sent(&message, &forged), 401, "invalid_token", Some(INVALID));
    for change in [json!({"aud": "elsewhere"}), json!({"iss": "https://elsewhere.test"}), json!({"nbf": from_now(60)})]
    {
        let (message, signature) = mint(change);
        refused(&sent(&message, &signature), 401, "invalid_token", Some(INVALID));
    }
    let (old, old_signature) = mint(json!({"exp": from_now(-60)}));
    refused(&sent(&old, &old_signature), 401, "token_expired", Some(EXPIRED));
    assert_eq!(origin.hits(), 0);
    sent(&message, &signature).expect(200);
    assert_eq!(origin.request().header("x-auth-subject"), Some("alice"));
}

#[test]
fn a_type_and_claims_deep_inside_are_asked_for_where_that_is_configured() {
    let key = Key::es256();
    let origin = Origin::replying("secret");
    let tollgate = knowing(&key, &origin, "token_type = \"at+jwt\"\nrequired_claims = [\"/tenant/id\"]", "");
    let token = || key.token().header("typ", "at+jwt").claim("tenant", json!({ "id": 7 }));
    for bad in [
        token().header("typ", "JWT"),
        token().without_header("typ"),
        token().without("tenant"),
        token().claim("tenant", json!({ "id": null })),
        token().claim("tenant", "id"),
        token().without("tenant").claim("/tenant/id", 7),
    ] {
        refused(&tollgate.get("/").bearer(&bad.mint()).send(), 401, "invalid_token", Some(INVALID));
    }
    assert_eq!(origin.hits(), 0);
    for good in [token(), token().header("typ", "application/AT+JWT")] {
        tollgate.get("/").bearer(&good.mint()).send().expect(200);
    }
}

#[test]
fn a_method_that_ends_without_a_body_is_refused_the_same_way() {
    let key = Key::es256();
    let origin = Origin::replying("secret");
    let tollgate = knowing(&key, &origin, "", "");
    let head = tollgate.request("HEAD", "/").send().expect(401);
    assert_eq!((head.header("www-authenticate"), head.body.len()), (Some(NO_TOKEN), 0));
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"] {
        tollgate.request(method, "/").body("x").send().expect(401);
    }
    assert_eq!(origin.hits(), 0);
}

#[test]
fn two_tokens_are_refused_even_if_both_are_good() {
    let key = Key::es256();
    let origin = Origin::replying("secret");
    let sources = "token_from = [\"header.authorization\", \"cookie.session\", \"query.access_token\"]";
    let tollgate = knowing(&key, &origin, sources, "");
    let token = key.token().mint();
    let cookie = format!("session={token}");
    for request in [
        tollgate.get("/").bearer(&token).bearer(&token),
        tollgate.get("/").bearer(&token).header("cookie", &cookie),
        tollgate.get(&format!("/?access_token={token}")).header("cookie", &cookie),
        tollgate.get(&format!("/?access_token={token}&access_token={token}")),
    ] {
        refused(&request.send(), 400, "multiple_credentials", Some(TWO_TOKENS));
    }
    assert_eq!(origin.hits(), 0);
}

#[test]
fn a_token_that_is_remembered_still_expires() {
    let key = Key::es256();
    let origin = Origin::replying("secret");
    let tollgate = knowing(&key, &origin, "leeway = \"1s\"", "");
    let token = key.token().expires_in(3).mint();
    tollgate.get("/").bearer(&token).send().expect(200);
    wait::until("the token to expire", || tollgate.get("/").bearer(&token).send().status() == 401);
    refused(&tollgate.get("/").bearer(&token).send(), 401, "token_expired", Some(EXPIRED));
}

#[test]
fn scopes_and_claims_are_required_and_the_challenge_names_scopes_that_are_enough() {
    let key = Key::es256();
    let origin = Origin::replying("secret");
    let require = "require = { scopes = [\"orders.read\"], any_scope = [\"a\", \"b\"], \
                   claims = { \"/tenant/plan\" = [\"gold\", \"silver\"] } }";
    let tollgate = knowing(&key, &origin, "", require);
    let gold = json!({ "plan": "gold" });
    let challenge = "Bearer realm=\"tollgate\", error=\"insufficient_scope\", scope=\"orders.read a\"";
    for token in [
        key.token(),
        key.token().scope("a").claim("tenant", gold.clone()),
        key.token().scope("orders.read").claim("tenant", gold.clone()),
        key.token().scope("orders.readwrite a").claim("tenant", gold.clone()),
        key.token().scope("orders.read a"),
        key.token().scope("orders.read a").claim("tenant", json!({ "plan": "bronze" })),
        key.token().scope("orders.read a").claim("tenant/plan", "gold"),
    ] {
        let response = tollgate.get("/").bearer(&token.mint()).send();
        refused(&response, 403, "insufficient_scope", Some(challenge));
    }
    assert_eq!(origin.hits(), 0);
    for token in [
        key.token().scope("b orders.read").claim("tenant", json!({ "plan": ["silver", "x"] })),
        key.token().claim("scp", json!(["orders.read", "a"])).claim("tenant", gold.clone()),
    ] {
        tollgate.get("/").bearer(&token.mint()).send().expect(200);
    }
}

#[test]
fn a_websocket_is_judged_before_it_opens() {
    let key = Key::es256();
    let origin = websocket::echo_origin();
    let tollgate = knowing(&key, &origin, "", "");
    for headers in [vec![], vec![("authorization", format!("Bearer {}", key.token().forged()))]] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let refusal = websocket::connect(tollgate.addr(), "/", &headers).expect_err("refused");
        let tungstenite::Error::Http(response) = *refusal else { panic!("{refusal}") };
        assert_eq!(response.status(), 401);
    }
    assert_eq!(origin.connections(), 0);
    let authorization = format!("Bearer {}", key.token().mint());
    let (mut socket, _) = websocket::connect(tollgate.addr(), "/", &[("authorization", &authorization)]).expect("open");
    socket.send(tungstenite::Message::text("hello")).expect("sent");
    assert_eq!(socket.read().expect("read"), tungstenite::Message::text("hello"));
}

#[test]
fn requests_of_one_http2_connection_are_judged_each_by_its_own_token() {
    let (key, ca) = (Key::es256(), Ca::new("an authority"));
    let origin = Origin::replying("secret");
    let (listener, cert, private_key) = https(&ca);
    let text = format!("{listener}{}{}", jwt("corporate", "jwks_file = \"jwks.json\"", IDENTITY), private(&origin, ""));
    let tollgate = Tollgate::prepared(&text)
        .file("jwks.json", key_set(&[&key]))
        .file("gateway.pem", cert)
        .file("gateway.key", private_key)
        .start();
    let mut client = H2Client::connect_tls(tollgate.addr(), "gateway.test", ca.trusting(&["h2"]));
    let token = key.token().mint();
    refused(&client.get("/"), 401, "no_credentials", Some(NO_TOKEN));
    client.send(&Request::get("/").bearer(&token)).expect(200);
    refused(&client.get("/"), 401, "no_credentials", Some(NO_TOKEN));
    refused(&client.send(&Request::get("/").bearer(&key.token().forged())), 401, "invalid_token", Some(INVALID));
    let other = key.token().subject("bob").mint();
    client.send(&Request::new("POST", "/").bearer(&other).body("x")).expect(200);
    let subjects: Vec<_> =
        origin.requests().iter().map(|request| request.header("x-auth-subject").map(str::to_owned)).collect();
    assert_eq!(subjects, [Some("alice".to_owned()), Some("bob".to_owned())]);
}

#[test]
fn any_of_several_ways_of_knowing_is_enough_and_the_log_says_which() {
    let (staff, partner, stranger) =
        (Key::new("s", Algorithm::ES256), Key::new("p", Algorithm::ES256), Key::new("x", Algorithm::ES256));
    let origin = Origin::replying("");
    let text = format!(
        "{}{}[upstreams.main]\nendpoints = [\"{}\"]\n\
         [routes.both]\npath = \"/both\"\nauth = [\"staff\", \"partners\"]\nupstream = \"main\"\n\
         [routes.one]\npath = \"/one\"\nauth = \"staff\"\nupstream = \"main\"\n",
        jwt("staff", "jwks_file = \"staff.json\"", "identity_headers = { x-staff = \"sub\" }"),
        jwt("partners", "jwks_file = \"partners.json\"", "identity_headers = { x-partner = \"sub\" }"),
        origin.addr()
    );
    let tollgate = Tollgate::prepared(&text)
        .file("staff.json", key_set(&[&staff]))
        .file("partners.json", key_set(&[&partner]))
        .start();
    for (key, auth, set, unset) in
        [(&staff, "staff", "x-staff", "x-partner"), (&partner, "partners", "x-partner", "x-staff")]
    {
        let response = tollgate.get("/both").bearer(&key.token().mint()).header(unset, "mallory").send().expect(200);
        assert_eq!(tollgate.logged(&response)["auth"], auth);
        let request = origin.requests().pop().expect("arrived");
        assert_eq!((request.header(set), request.header(unset)), (Some("alice"), None));
    }
    refused(&tollgate.get("/both").bearer(&stranger.token().mint()).send(), 401, "invalid_token", Some(INVALID));
    refused(&tollgate.get("/one").bearer(&partner.token().mint()).send(), 401, "invalid_token", Some(INVALID));
    let expired = partner.token().expired().mint();
    refused(&tollgate.get("/both").bearer(&expired).send(), 401, "token_expired", Some(EXPIRED));
    assert_eq!(origin.hits(), 2);
}
