//! Programs that are known by a key: what `tollgate key` makes, a gateway knows, and what it revokes is gone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use super::{https, private, refused};
use crate::support::certs::Ca;
use crate::support::h2::H2Client;
use crate::support::process::{self, Output};
use crate::support::{Origin, Request, Tollgate, wait, websocket};

const MISSING: &str = "ApiKey realm=\"tollgate\"";

/// `tollgate key VERB …`
#[track_caller]
fn key(arguments: &[&str]) -> Output {
    process::tollgate(["key"].iter().chain(arguments))
}

/// A new key in `file`, with these options.
#[track_caller]
fn new_key(file: &Path, options: &[&str]) -> String {
    let file = file.to_str().expect("a path of letters");
    let arguments: Vec<_> = ["new", "--file", file].iter().chain(options).copied().collect();
    key(&arguments).succeeded().stdout.trim_end().to_owned()
}

fn api_key(more: &str) -> String {
    format!("[auth.corporate]\ntype = \"api_key\"\nkeys_file = \"api-keys.toml\"\n{more}\n")
}

const IDENTITY: &str = "identity_headers = { x-owner = \"sub\", x-key = \"key_id\", x-plan = \"plan\" }";

/// A gateway whose file of keys has no keys yet, in front of `origin`.
fn before(origin: &Origin, auth: &str, route: &str) -> Tollgate {
    Tollgate::prepared(&format!("{}{}", api_key(auth), private(origin, route))).file("api-keys.toml", "").start()
}

#[test]
fn a_key_that_was_made_is_known_after_a_reload_until_it_is_revoked() {
    let origin = Origin::replying("secret");
    let tollgate = before(&origin, IDENTITY, "");
    assert!(tollgate.stderr().contains("has no keys"), "{}", tollgate.stderr());
    let file = tollgate.path("api-keys.toml");
    fs::write(&file, "# ours\n").expect("written");
    let text = new_key(&file, &["--owner", "acme", "--id", "acme-1", "--expires", "90d"]);
    assert!(text.starts_with("tg_acme-1_"), "{text}");
    refused(&tollgate.get("/").header("x-api-key", &text).send(), 401, "invalid_credentials", Some(MISSING));
    tollgate.reload().succeeded();
    tollgate.get("/").header("x-api-key", &text).header("x-owner", "mallory").send().expect(200);
    let request = origin.request();
    assert_eq!((request.header("x-owner"), request.header("x-key")), (Some("acme"), Some("acme-1")));
    assert!(!request.headers.has("x-api-key") && !request.headers.has("x-plan"), "{}", request.text());
    tollgate.wait_for_metric("tollgate_auth_decisions_total{auth=\"corporate\",result=\"accepted\"}", 1.0);

    let other = new_key(&file, &["--owner", "other"]);
    key(&["revoke", file.to_str().expect("a path"), "acme-1"]).succeeded();
    tollgate.get("/").header("x-api-key", &text).send().expect(200);
    tollgate.reload().succeeded();
    refused(&tollgate.get("/").header("x-api-key", &text).send(), 401, "invalid_credentials", Some(MISSING));
    tollgate.get("/").header("x-api-key", &other).send().expect(200);
    assert_eq!(origin.hits(), 3);
    assert!(fs::read_to_string(&file).expect("read").starts_with("# ours\n"));
}

#[test]
fn where_files_are_followed_a_new_key_works_and_a_revoked_one_does_not_without_a_command() {
    let origin = Origin::replying("");
    let text = format!("[server]\nwatch = true\n{}{}", api_key(""), private(&origin, ""));
    let tollgate = Tollgate::prepared(&text).file("api-keys.toml", "").start();
    let file = tollgate.path("api-keys.toml");
    let text = new_key(&file, &["--owner", "acme", "--id", "a"]);
    let status = || tollgate.get("/").header("x-api-key", &text).send().status();
    wait::until("the key to be known", || status() == 200);
    key(&["revoke", file.to_str().expect("a path"), "a"]).succeeded();
    wait::until("the key to be gone", || status() == 401);
}

#[test]
fn a_key_that_proves_nothing_never_reaches_the_origin() {
    let origin = Origin::replying("secret");
    let tollgate = before(&origin, "", "");
    let file = tollgate.path("api-keys.toml");
    let good = new_key(&file, &["--owner", "acme", "--id", "a"]);
    let expired = new_key(&file, &["--owner", "acme", "--id", "b", "--expires", "2099-01-01"]);
    let text = fs::read_to_string(&file).expect("read");
    fs::write(&file, text.replace("expires = 2099", "expires = 2020")).expect("written");
    tollgate.reload().succeeded();
    let hash = fs::read_to_string(&file).expect("read");
    let hash =
        hash.lines().find(|line| line.starts_with("hash")).expect("a hash").split('"').nth(1).expect("in quotes");
    for wrong in [
        &good[..good.len() - 1],
        &good[1..],
        &format!("{good}0"),
        &good.to_lowercase(),
        &format!("Bearer {good}"),
        hash,
        hash.trim_start_matches("sha256:"),
        "a",
        "tg_a_",
    ] {
        refused(&tollgate.get("/").header("x-api-key", wrong).send(), 401, "invalid_credentials", Some(MISSING));
    }
    for request in [
        tollgate.get("/"),
        tollgate.get("/").header("x-api-key", ""),
        tollgate.get("/").bearer(&good),
        tollgate.get(&format!("/?x-api-key={good}")),
    ] {
        refused(&request.send(), 401, "no_credentials", Some(MISSING));
    }
    let response = tollgate.get("/").header("x-api-key", &expired).send();
    refused(&response, 401, "credentials_expired", Some(MISSING));
    let twice = tollgate.get("/").header("x-api-key", &good).header("x-api-key", &good);
    refused(&twice.send(), 400, "multiple_credentials", None);
    assert_eq!(origin.hits(), 0);
    tollgate.get("/").header("x-api-key", &good).send().expect(200);
}

#[test]
fn a_key_has_its_scopes_and_claims_and_no_others() {
    let origin = Origin::replying("secret");
    let require = "require = { scopes = [\"orders.read\"], claims = { plan = [\"gold\"] } }";
    let tollgate = before(&origin, IDENTITY, require);
    let file = tollgate.path("api-keys.toml");
    let [all, scope, nothing] = [&["--scope", "a", "--scope", "orders.read"][..], &["--scope", "orders.read"], &[]]
        .map(|scopes| new_key(&file, &[&["--owner", "acme"], scopes].concat()));
    // To the first of the tables.
    let text = fs::read_to_string(&file).expect("read");
    let text = text.replacen("scopes = [\"a\"", "claims = { plan = \"gold\" }\nscopes = [\"a\"", 1);
    fs::write(&file, text).expect("written");
    tollgate.reload().succeeded();
    for text in [&scope, &nothing] {
        refused(&tollgate.get("/").header("x-api-key", text).send(), 403, "insufficient_scope", None);
    }
    assert_eq!(origin.hits(), 0);
    tollgate.get("/").header("x-api-key", &all).send().expect(200);
    assert_eq!(origin.request().header("x-plan"), Some("gold"));
}

#[test]
fn a_key_is_taken_from_where_the_operator_says_and_left_there_if_it_is_wanted() {
    let origin = Origin::replying("");
    let auth = "key_from = [\"header.authorization\", \"cookie.key\", \"query.key\"]\nforward_credentials = true";
    let tollgate = before(&origin, auth, "");
    let text = new_key(&tollgate.path("api-keys.toml"), &["--owner", "acme"]);
    tollgate.reload().succeeded();
    tollgate.get("/").bearer(&text).send().expect(200);
    tollgate.get("/").header("cookie", &format!("key={text}")).send().expect(200);
    tollgate.get(&format!("/?key={text}")).send().expect(200);
    for request in origin.requests() {
        assert!(request.text().contains(&text), "{}", request.text());
    }
    tollgate.get("/").header("x-api-key", &text).send().expect(401);
    tollgate.replace("forward_credentials = true", "");
    tollgate.reload().succeeded();
    tollgate.get("/").bearer(&text).send().expect(200);
    assert!(!origin.requests()[3].headers.has("authorization"));
}

#[test]
fn a_token_and_a_key_in_one_header_are_told_apart() {
    let origin = Origin::replying("");
    let issuer = crate::support::jwt::Key::es256();
    let auth = format!(
        "{}{}",
        super::jwt("tokens", "jwks_file = \"jwks.json\"", ""),
        api_key("key_from = [\"header.authorization\"]")
    );
    let route = private(&origin, "").replace("auth = \"corporate\"", "auth = [\"tokens\", \"corporate\"]");
    let tollgate = Tollgate::prepared(&format!("{auth}{route}"))
        .file("api-keys.toml", "")
        .file("jwks.json", crate::support::jwt::key_set(&[&issuer]))
        .start();
    let text = new_key(&tollgate.path("api-keys.toml"), &["--owner", "acme"]);
    tollgate.reload().succeeded();
    for (credential, auth) in [(issuer.token().mint(), "tokens"), (text, "corporate")] {
        let response = tollgate.get("/").bearer(&credential).send().expect(200);
        assert_eq!(tollgate.logged(&response)["auth"], auth);
    }
    tollgate.get("/").bearer("tg_a_b").send().expect(401);
}

#[test]
fn neither_http2_nor_a_websocket_passes_without_a_key() {
    let (origin, echo, ca) = (Origin::replying("secret"), websocket::echo_origin(), Ca::new("an authority"));
    let (listener, cert, private_key) = https(&ca);
    let tollgate = Tollgate::prepared(&format!("{listener}{}{}", api_key(""), private(&origin, "")))
        .file("api-keys.toml", "")
        .file("gateway.pem", cert)
        .file("gateway.key", private_key)
        .start();
    let text = new_key(&tollgate.path("api-keys.toml"), &["--owner", "acme"]);
    tollgate.reload().succeeded();
    let mut client = H2Client::connect_tls(tollgate.addr(), "gateway.test", ca.trusting(&["h2"]));
    refused(&client.get("/"), 401, "no_credentials", Some(MISSING));
    client.send(&Request::get("/").header("x-api-key", &text)).expect(200);
    refused(&client.get("/"), 401, "no_credentials", Some(MISSING));
    assert_eq!(origin.hits(), 1);

    let tollgate = before(&echo, "", "");
    let text = new_key(&tollgate.path("api-keys.toml"), &["--owner", "acme"]);
    tollgate.reload().succeeded();
    for headers in [&[][..], &[("x-api-key", "tg_a_b")]] {
        let refusal = websocket::connect(tollgate.addr(), "/", headers).expect_err("refused");
        let tungstenite::Error::Http(response) = *refusal else { panic!("{refusal}") };
        assert_eq!(response.status(), 401);
    }
    assert_eq!(echo.connections(), 0);
    websocket::connect(tollgate.addr(), "/", &[("x-api-key", &text)]).expect("open");
}

#[test]
fn a_key_appears_in_no_log_and_on_no_page() {
    let origin = Origin::replying("");
    let auth = format!(
        "[log]\nlevel = \"info,tollgate=trace\"\n{}",
        api_key("key_from = [\"header.x-api-key\", \"query.key\"]")
    );
    let tollgate = Tollgate::prepared(&format!("{auth}{}", private(&origin, ""))).file("api-keys.toml", "").start();
    let file = tollgate.path("api-keys.toml");
    let good = new_key(&file, &["--owner", "acme"]);
    let unknown = new_key(&tollgate.path("other.toml"), &["--owner", "acme"]);
    tollgate.reload().succeeded();
    let mut last = None;
    for (text, status) in [(&unknown, 401), (&good, 200)] {
        tollgate.get("/").header("x-api-key", text).send().expect(status);
        last = Some(tollgate.get(&format!("/?key={text}")).send().expect(status));
    }
    tollgate.logged(&last.expect("one"));
    let hash = fs::read_to_string(&file).expect("read");
    let hash = hash.split_once("sha256:").expect("a hash").1[..64].to_owned();
    let access_log = fs::read_to_string(tollgate.access_log_file()).expect("read");
    let pages = ["/", "/status", "/api/status", "/metrics"].map(|page| tollgate.admin(page).text()).concat();
    for (what, text) in [("access log", access_log), ("stderr", tollgate.stderr()), ("admin side", pages)] {
        for secret in [good.rsplit('_').next(), unknown.rsplit('_').next(), Some(&*hash)].into_iter().flatten() {
            assert!(!text.contains(secret), "{secret} in the {what}:\n{text}");
        }
    }
    assert!(tollgate.stderr().contains("a key is refused"), "{}", tollgate.stderr());
}

#[test]
fn a_file_of_keys_that_is_wrong_changes_nothing_and_is_shown_where() {
    let origin = Origin::replying("");
    let tollgate = before(&origin, "", "");
    let file = tollgate.path("api-keys.toml");
    let text = new_key(&file, &["--owner", "acme"]);
    tollgate.reload().succeeded();
    let good = fs::read_to_string(&file).expect("read");
    fs::write(&file, format!("{good}\n[keys.b]\nhash = \"{text}\"\nowner = \"b\"\nscope = \"a\"\n")).expect("written");
    let message = tollgate.reload().failed(1);
    assert!(message.contains("api-keys.toml:6:8  keys.b.hash") && message.contains("api-keys.toml:8:1"), "{message}");
    assert!(message.contains("\"scope\" is not a key here") && !message.contains(&text), "{message}");
    tollgate.get("/").header("x-api-key", &text).send().expect(200);
}

#[test]
fn keys_are_made_listed_and_revoked_at_the_command_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("api-keys.toml");
    let path = file.to_str().expect("a path of letters");
    new_key(&file, &["--owner", "acme \"one\"", "--scope", "orders.read", "--scope", "b", "--id", "acme"]);
    assert_eq!(fs::metadata(&file).expect("made").permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("changed");
    new_key(&file, &["--owner", "zoo", "--expires", "2099-01-01", "--id", "zoo"]);
    assert_eq!(fs::metadata(&file).expect("made").permissions().mode() & 0o777, 0o640, "stays as it is");
    let listed = key(&["list", path]).succeeded().stdout;
    let lines: Vec<Vec<_>> =
        listed.lines().map(|line| line.split("  ").filter(|cell| !cell.is_empty()).collect()).collect();
    let trimmed: Vec<Vec<_>> = lines.iter().map(|line| line.iter().map(|cell| cell.trim()).collect()).collect();
    assert_eq!(trimmed[1], ["acme", "acme \"one\"", "orders.read b", "never", "active"]);
    assert_eq!(trimmed[2], ["zoo", "zoo", "-", "2099-01-01T00:00:00Z", "active"]);
    assert!(!listed.contains("sha256"));

    assert!(key(&["new", "--owner", "x", "--id", "acme", "--file", path]).failed(1).contains("already"));
    assert!(key(&["new", "--owner", "x", "--id", "a b", "--file", path]).failed(1).contains("cannot be the ID"));
    assert!(key(&["new", "--owner", "x", "--scope", "a b", "--file", path]).failed(1).contains("a scope is"));
    assert!(key(&["new", "--owner", "", "--file", path]).failed(1).contains("empty"));
    assert!(key(&["new", "--owner", "x", "--expires", "2020-01-01"]).failed(2).contains("passed already"));
    assert!(key(&["revoke", path, "nobody"]).failed(1).contains("no key nobody"));
    assert!(key(&["list", "/nowhere/keys.toml"]).failed(1).contains("cannot be read"));

    key(&["revoke", path, "acme"]).succeeded();
    assert!(key(&["revoke", path, "acme"]).succeeded().stdout.contains("already"));
    let listed = key(&["list", path]).succeeded().stdout;
    assert!(listed.lines().nth(1).expect("acme").ends_with("disabled"), "{listed}");
    assert_eq!(fs::read_dir(directory.path()).expect("read").count(), 1, "nothing is left beside it");

    let printed = key(&["new", "--owner", "acme"]).succeeded().stdout;
    let (text, table) = printed.split_once("\n\n").expect("a key and its table");
    assert!(text.starts_with("tg_") && !table.contains(text), "{printed}");
    fs::write(&file, table).expect("written");
    assert_eq!(key(&["list", path]).succeeded().stdout.lines().count(), 2);
}

#[test]
fn keys_that_are_made_at_the_same_time_are_all_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("api-keys.toml");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| new_key(&file, &["--owner", "acme"]));
        }
    });
    assert_eq!(key(&["list", file.to_str().expect("a path")]).succeeded().stdout.lines().count(), 9);
}

#[test]
fn a_key_is_told_to_upstreams_and_logs_by_its_id() {
    let origin = Origin::replying("");
    let text = format!(
        "[log.access]\nfields = [\"claim.key_id\", \"auth.subject\"]\n{}{}",
        api_key(IDENTITY),
        private(&origin, "")
    );
    let tollgate = Tollgate::prepared(&text).file("api-keys.toml", "").start();
    let text = new_key(&tollgate.path("api-keys.toml"), &["--owner", "acme", "--id", "one"]);
    tollgate.reload().succeeded();
    let response = tollgate.get("/").header("x-api-key", &text).send().expect(200);
    let line = tollgate.logged(&response);
    assert_eq!((&line["claim.key_id"], &line["auth.subject"]), (&json!("one"), &json!("acme")));
}
