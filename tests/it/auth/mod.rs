//! Who calls: judged at the gateway, told to the origin, and nobody else gets there.

mod api_key; // keys of programs, and the command line that makes them
mod basic; // passwords of people
mod forward; // a service decides: what it is shown, and what comes of its answer
mod identity; // what the origin is told, and what it must never see
mod introspection; // tokens that only their issuer can read
mod issuers; // those that are slow, broken, lying, moving or under another certificate
mod keys; // where the keys come from, and what happens when they do not
mod openid; // with a provider that is nobody's of ours
mod several; // any of several ways is enough, and none may be enough too
mod token; // what a token proves

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::support::certs::Ca;
use crate::support::jwt::{AUDIENCE, ISSUER, Key, key_set};
use crate::support::message::Response;
use crate::support::{Origin, Tollgate};

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

/// Says that it is over, also when a test fails in the middle: threads that go on until then would do so for ever.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A certificate for `gateway.test`, and the listener that shows it.
fn https(ca: &Ca) -> (String, String, String) {
    let identity = ca.server(&["gateway.test"]);
    let text = "[listeners.https]\n[listeners.https.tls]\n\
                certificates = [{ cert_file = \"gateway.pem\", key_file = \"gateway.key\" }]\n";
    (text.to_owned(), identity.cert, identity.key)
}
