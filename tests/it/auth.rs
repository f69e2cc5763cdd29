//! Who calls: judged at the gateway, told to the origin, and nobody else gets there.

use std::time::Instant;

use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::support::certs::Ca;
use crate::support::h2::{H2Client, H2Origin};
use crate::support::jwt::{AUDIENCE, ISSUER, JwksServer, Key, key_set};
use crate::support::message::Response;
use crate::support::{Origin, Raw, Request, Tollgate, wait, websocket};

const NO_TOKEN: &str = "Bearer realm=\"tollgate\"";
const INVALID: &str =
    "Bearer realm=\"tollgate\", error=\"invalid_token\", error_description=\"The token is not valid here\"";
const EXPIRED: &str = "Bearer realm=\"tollgate\", error=\"invalid_token\", error_description=\"The token has expired\"";
const TWO_TOKENS: &str = "Bearer realm=\"tollgate\", error=\"invalid_request\", \
                          error_description=\"The request carries more than one token\"";

/// `[auth.NAME]` with these keys, and whatever else follows.
fn jwt(name: &str, keys: &str, more: &str) -> String {
    format!(
        "[auth.{name}]\ntype = \"jwt\"\nissuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]\n\
         algorithms = [\"ES256\"]\n{keys}\n{more}\n"
    )
}

const IDENTITY: &str = "identity_headers = { x-auth-subject = \"sub\", x-auth-roles = \"/realm_access/roles\" }";

/// Everything to `origin`, for those `auth` knows; what `more` says of the route.
fn private(origin: &Origin, more: &str) -> String {
    format!(
        "[upstreams.main]\nendpoints = [\"{}\"]\n[routes.private]\nauth = \"corporate\"\nupstream = \"main\"\n{more}\n",
        origin.addr()
    )
}

/// A gateway that knows the key, in front of `origin`.
fn knowing(key: &Key, origin: &Origin, auth: &str, route: &str) -> Tollgate {
    let text = format!("{}{}", jwt("corporate", "jwks_file = \"jwks.json\"", auth), private(origin, route));
    Tollgate::prepared(&text).file("jwks.json", key_set(&[key])).start()
}

/// What a refusal says, to the byte where a standard says it.
#[track_caller]
fn refused(response: &Response, status: u16, reason: &str, challenge: Option<&str>) {
    assert_eq!(response.status(), status, "{reason}: {}", response.text());
    assert_eq!(response.header("www-authenticate"), challenge, "{reason}");
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    let error = if status == 503 { "proxy_internal_error" } else { "http_request_denied" };
    let proxy_status = format!("tollgate; error={error}; details=\"{reason}\"");
    assert_eq!(response.header("proxy-status"), Some(proxy_status.as_str()));
    let document = response.json();
    let title = match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        _ => "Service Unavailable",
    };
    assert_eq!((&document["type"], &document["title"]), (&json!("about:blank"), &json!(title)));
    assert_eq!((&document["status"], &document["reason"]), (&json!(status), &json!(reason)));
    assert_eq!(document["request_id"], response.request_id());
    assert!(document["detail"].is_string());
}

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
fn the_origin_is_told_who_calls() {
    let key = Key::es256();
    let origin = Origin::replying("");
    let tollgate = knowing(&key, &origin, IDENTITY, "");
    let token = key.token().claim("realm_access", json!({ "roles": ["admin", "clerk"] })).mint();
    tollgate.get("/").bearer(&token).header("x-auth-subject", "mallory").header("X_Auth_Roles", "root").send();
    let request = origin.request();
    assert_eq!(request.header("x-auth-subject"), Some("alice"));
    assert_eq!(request.header("x-auth-roles"), Some("admin,clerk"));
    assert!(!request.text().contains("mallory") && !request.text().contains("root"), "{}", request.text());
}

#[test]
fn a_claim_that_is_no_header_value_is_left_out_with_what_a_client_put_there() {
    let key = Key::es256();
    let origin = Origin::replying("");
    let tollgate = knowing(&key, &origin, IDENTITY, "");
    let token = key.token().subject("alice\r\nx-admin: true").mint();
    tollgate.get("/").bearer(&token).header("x-auth-subject", "mallory").send().expect(200);
    let request = origin.request();
    assert!(!request.headers.has("x-auth-subject") && !request.headers.has("x-admin"), "{}", request.text());
}

/// A route for everybody beside a way of knowing that has identity headers.
fn open_beside_private(origin: impl std::fmt::Display) -> String {
    format!(
        "{}[upstreams.main]\nendpoints = [\"{origin}\"]\n[routes.open]\nauth = \"none\"\nupstream = \"main\"\n",
        jwt("corporate", "jwks_file = \"jwks.json\"", IDENTITY)
    )
}

#[test]
fn identity_headers_of_a_client_are_removed_on_every_route_however_they_are_written() {
    let origin = Origin::replying("");
    for keep in [false, true] {
        let server = format!("[server]\nkeep_underscore_headers = {keep}\n");
        let text = format!("{server}{}", open_beside_private(origin.addr()));
        let tollgate = Tollgate::prepared(&text).file("jwks.json", key_set(&[&Key::es256()])).start();
        let names = ["x-auth-subject", "X-AUTH-SUBJECT", "x_auth_subject", "X-Auth_Subject", "x_auth-roles"];
        for name in names {
            tollgate.get("/").header(name, "mallory").header("x-kept", "kept").send().expect(200);
        }
        // Named by Connection, or twice.
        tollgate
            .get("/")
            .header("x-auth-subject", "mallory")
            .header("x-auth-subject", "mallory")
            .header("connection", "x-auth-subject")
            .header("x-kept", "kept")
            .send()
            .expect(200);
    }
    assert_eq!(origin.hits(), 12);
    for request in origin.requests() {
        assert!(!request.text().contains("mallory"), "{}", request.text());
        assert_eq!(request.header("x-kept"), Some("kept"));
    }
}

#[test]
fn identity_headers_in_trailers_do_not_reach_the_origin() {
    let origin = Origin::echoing_bodies();
    let tollgate =
        Tollgate::prepared(&open_beside_private(origin.addr())).file("jwks.json", key_set(&[&Key::es256()])).start();
    let mut raw = Raw::connect(tollgate.addr());
    raw.send(
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-auth-subject\r\n\r\n\
         4\r\nbody\r\n0\r\nx-auth-subject: mallory\r\nx_auth_subject: mallory\r\n\r\n",
    );
    assert_eq!(raw.response().expect(200).text(), "body");
    let request = origin.request();
    assert_eq!(request.body, b"body");
    assert!(!request.headers.has("x-auth-subject"), "{}", request.text());
    assert!(!request.trailers.has("x-auth-subject") && !request.trailers.has("x_auth_subject"));
    assert_eq!(raw.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").response().status(), 200, "the connection is in step");
}

/// A certificate for `gateway.test`, and the listener that shows it.
fn https(ca: &Ca) -> (String, String, String) {
    let identity = ca.server(&["gateway.test"]);
    let text = "[listeners.https]\n[listeners.https.tls]\n\
                certificates = [{ cert_file = \"gateway.pem\", key_file = \"gateway.key\" }]\n";
    (text.to_owned(), identity.cert, identity.key)
}

#[test]
fn identity_headers_in_trailers_of_http2_do_not_reach_the_origin() {
    let ca = Ca::new("an authority");
    let origin = H2Origin::echoing();
    let (listener, cert, private_key) = https(&ca);
    let text = format!(
        "{listener}{}",
        open_beside_private(origin.addr()).replace("[routes.open]", "protocol = \"h2c\"\n[routes.open]")
    );
    let tollgate = Tollgate::prepared(&text)
        .file("jwks.json", key_set(&[&Key::es256()]))
        .file("gateway.pem", cert)
        .file("gateway.key", private_key)
        .start();
    let mut client = H2Client::connect_tls(tollgate.addr(), "gateway.test", ca.trusting(&["h2"]));
    let request = Request::new("POST", "/").header("x-auth-subject", "mallory").header("te", "trailers");
    let mut exchange = client.begin(&request, false).expect("begun");
    exchange.send("body").expect("sent");
    exchange.send_trailers(&[("x-auth-subject", "mallory"), ("x_auth_subject", "mallory")]).expect("sent");
    // The origin sends back the trailers that it got.
    let response = exchange.finish().expect("answered").expect(200);
    assert_eq!((response.text().as_str(), response.trailers.get("grpc-status")), ("body", Some("0")));
    assert!(!response.trailers.has("x-auth-subject") && !response.trailers.has("x_auth_subject"));
}

#[test]
fn what_carried_the_token_stays_at_the_gateway() {
    let key = Key::es256();
    let origin = Origin::replying("");
    let sources = |forward: bool| {
        format!(
            "token_from = [\"header.authorization\", \"header.x-token\", \"cookie.session\", \"query.ticket\"]\n\
             forward_token = {forward}"
        )
    };
    let token = key.token().mint();
    let ask = |tollgate: &Tollgate| {
        for request in [
            tollgate.get("/?a=1").bearer(&token),
            tollgate.get("/?a=1").header("x-token", &token),
            tollgate.get("/?a=1").header("cookie", &format!("a=1; session={token}; b=2")),
            tollgate.get(&format!("/?a=1&ticket={token}&b=2")),
        ] {
            request.send().expect(200);
        }
    };
    ask(&knowing(&key, &origin, &sources(false), ""));
    let requests = origin.requests();
    assert_eq!(requests.len(), 4);
    for request in &requests {
        assert!(!request.text().contains(&token), "{}", request.text());
    }
    assert_eq!(requests[2].header("cookie").map(|cookie| cookie.replace(' ', "")).as_deref(), Some("a=1;b=2"));
    assert_eq!(requests[3].target, "/?a=1&b=2");
    ask(&knowing(&key, &origin, &sources(true), ""));
    for request in &origin.requests()[4..] {
        assert!(request.text().contains(&token), "{}", request.text());
    }
}

#[test]
fn a_token_appears_in_no_log() {
    let key = Key::es256();
    let origin = Origin::replying("");
    let sources = "token_from = [\"header.authorization\", \"header.x-token\", \"cookie.session\", \"query.ticket\"]";
    let text = format!(
        "[log]\nlevel = \"info,tollgate=trace\"\n{}{}",
        jwt("corporate", "jwks_file = \"jwks.json\"", sources),
        private(&origin, "")
    );
    let tollgate = Tollgate::prepared(&text).file("jwks.json", key_set(&[&key])).start();
    let good = key.token().mint();
    let bad = [key.token().forged(), key.token().expired().mint(), key.token().claim("aud", "x").mint()];
    let mut last = None;
    for token in bad.iter().chain([&good]) {
        tollgate.get("/").bearer(token).send();
        tollgate.get("/").header("x-token", token).send();
        tollgate.get("/").header("cookie", &format!("session={token}")).send();
        last = Some(tollgate.get(&format!("/?a=1&ticket={token}")).send());
    }
    let line = tollgate.logged(&last.expect("a last one"));
    assert_eq!(line["query"], "a=1&ticket=***", "a parameter that carries tokens is a secret, whatever its name");
    assert_eq!(line["auth"], "corporate");
    let access_log = std::fs::read_to_string(tollgate.access_log_file()).expect("read");
    let metrics = tollgate.admin("/metrics").text();
    for (what, text) in [("access log", access_log), ("stderr", tollgate.stderr()), ("metrics", metrics)] {
        for part in bad.iter().chain([&good]).flat_map(|token| token.split('.').skip(1)) {
            assert!(!text.contains(part), "{part} in the {what}:\n{text}");
        }
    }
}

#[test]
fn in_shadow_mode_everybody_passes_but_nobody_is_taken_for_somebody() {
    let key = Key::es256();
    let origin = Origin::replying("");
    let tollgate = knowing(&key, &origin, IDENTITY, "auth_mode = \"shadow\"");
    let forged = key.token().forged();
    tollgate.get("/").header("x-auth-subject", "mallory").send().expect(200);
    tollgate.get("/").bearer(&forged).header("x-auth-subject", "mallory").send().expect(200);
    tollgate.get("/").bearer(&key.token().mint()).send().expect(200);
    let requests = origin.requests();
    assert_eq!(
        requests.iter().map(|request| request.header("x-auth-subject")).collect::<Vec<_>>(),
        [None, None, Some("alice")]
    );
    assert_eq!(requests[1].header("authorization"), Some(format!("Bearer {forged}").as_str()), "left as it is");
    assert!(!requests[2].headers.has("authorization"));
    let decisions = |result: &str| format!("tollgate_auth_decisions_total{{auth=\"corporate\",result=\"{result}\"}}");
    for (result, count) in [("shadow_no_credentials", 1.0), ("shadow_invalid_token", 1.0), ("accepted", 1.0)] {
        tollgate.wait_for_metric(&decisions(result), count);
    }
    tollgate.wait_for_metric("tollgate_auth_shadow{route=\"private\"}", 1.0);
    assert!(tollgate.stderr().contains("shadow"), "{}", tollgate.stderr());
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
