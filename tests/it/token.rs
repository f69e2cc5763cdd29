//! `tollgate token`: a token looked into as the gateway would, and tokens made for tests.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::support::jwt::{JwksServer, Key, key_set};
use crate::support::process::BINARY;
use crate::support::{Origin, Tollgate};

/// Runs `tollgate token` with these arguments and this input.
fn token(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(BINARY)
        .arg("token")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    // A command that fails before it reads has closed its end.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("ended")
}

#[track_caller]
fn told(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text")
}

const ROUTES: &str = "[upstreams.main]\nendpoints = [\"{origin}\"]\n\
     [routes.read]\npath = \"/read\"\nauth = \"corporate\"\nrequire = { scopes = [\"read\"] }\nupstream = \"main\"\n\
     [routes.write]\npath = \"/write\"\nauth = \"corporate\"\n\
     require = { scopes = [\"write\"], claims = { \"/tenant/plan\" = [\"gold\", \"silver\"] } }\nupstream = \"main\"\n\
     [routes.partner]\npath = \"/partner\"\nauth = \"partner\"\nupstream = \"main\"\n\
     [routes.open]\npath = \"/open\"\nauth = \"none\"\nupstream = \"main\"\n";

fn auth(name: &str, issuer: &str, keys: &str) -> String {
    format!(
        "[auth.{name}]\ntype = \"jwt\"\nissuer = \"{issuer}\"\naudience = [\"orders\"]\nalgorithms = [\"ES256\", \"RS256\"]\n{keys}\n"
    )
}

#[test]
fn a_token_is_told_what_it_says_who_would_take_it_and_why_not() {
    let key = Key::es256();
    let origin = Origin::replying("in");
    let text = auth("corporate", "https://id.test", "jwks_file = \"jwks.json\"")
        + &auth("partner", "https://partner.test", "jwks_url = \"https://partner.test/jwks.json\"")
        + &ROUTES.replace("{origin}", &origin.addr().to_string());
    let tollgate = Tollgate::prepared(&text).file("jwks.json", key_set(&[&key])).start();
    let config = tollgate.config_file();
    let config = config.to_str().expect("text");
    let minted = key.token().claim("iss", "https://id.test").claim("aud", "orders").subject("alice").scope("read");
    let output = told(&token(&["inspect", "-c", config], &format!("Bearer {}\n", minted.mint())));
    for line in [
        "  auth corporate: takes it, for alice\n",
        "  auth partner: refuses it: another issuer\n",
        "  route read: lets in, known by corporate\n",
        "  route write: refuses (403): the scope write and /tenant/plan with one of gold, silver is missing\n",
        "  route partner: refuses (401): none of its auth takes it (partner)\n",
        "  route open: open to everybody\n",
    ] {
        assert!(output.contains(line), "{line}: {output}");
    }
    assert!(output.contains("\"sub\": \"alice\"") && output.contains("  exp is "), "{output}");
    // What the command says is what happens.
    let bearer = minted.mint();
    for (path, status) in [("/read", 200), ("/write", 403), ("/partner", 401), ("/open", 200)] {
        tollgate.get(path).bearer(&bearer).send().expect(status);
    }
    let expired = key.token().claim("iss", "https://id.test").claim("aud", "orders").expired().mint();
    let output = told(&token(&["inspect", "-c", config, &expired], ""));
    assert!(output.contains("  auth corporate: refuses it: it has expired\n"), "{output}");
    let partner = key.token().claim("iss", "https://partner.test").mint();
    let output = told(&token(&["inspect", "-c", config, &partner], ""));
    assert!(output.contains("  auth partner: the keys are not here: --online fetches them\n"), "{output}");
    let nothing = token(&["inspect", "-c", config], "\n");
    assert_eq!((nothing.status.code(), &*nothing.stderr), (Some(1), &b"error: there is no token\n"[..]));
}

#[test]
fn keys_behind_a_url_are_fetched_when_asked_for() {
    let key = Key::es256();
    let issuer = JwksServer::serving(&[&key]);
    let text = auth("corporate", "https://id.test", &format!("jwks_url = \"{}\"", issuer.url()))
        + "[routes.main]\nauth = \"corporate\"\nrespond = { body = \"in\" }\n";
    let prepared = Tollgate::prepared(&text);
    let config = prepared.directory().join("tollgate.toml");
    let tollgate = prepared.start();
    let minted = key.token().claim("iss", "https://id.test").claim("aud", "orders").subject("alice").mint();
    let arguments = ["inspect", "--online", "-c", config.to_str().expect("text")];
    let output = told(&token(&arguments, &minted));
    assert!(output.contains("  auth corporate: takes it, for alice\n"), "{output}");
    drop(tollgate);
}

#[test]
fn a_token_made_here_is_taken_here() {
    let prepared = Tollgate::prepared(
        "[auth.tests]\ntype = \"jwt\"\nissuer = \"https://id.test\"\naudience = [\"orders\"]\nalgorithms = [\"HS256\"]\n\
         secret_file = \"jwt.secret\"\n\
         [routes.main]\nauth = \"tests\"\nrequire = { scopes = [\"read\"], claims = { tenant = [\"acme\"] } }\n\
         respond = { body = \"in\" }\n",
    )
    .file("jwt.secret", "a secret of at least thirty-two bytes\n");
    let secret = prepared.directory().join("jwt.secret");
    let tollgate = prepared.start();
    let config = tollgate.config_file();
    let config = config.to_str().expect("text");
    let mint = |more: &[&str]| {
        let arguments = [&["mint", "-c", config, "--auth", "tests", "--subject", "alice"], more].concat();
        told(&token(&arguments, "")).trim().to_owned()
    };
    let good = ["--scope", "read", "--scope", "more", "--claim", "tenant=acme"];
    tollgate.get("/").bearer(&mint(&good)).send().expect(200);
    tollgate.get("/").bearer(&mint(&["--scope", "read"])).send().expect(403);
    tollgate.get("/").bearer(&mint(&[&good[..], &["--expires-in", "-5m"]].concat())).send().expect(401);
    // The same with everything written out.
    let secret = secret.to_str().expect("text");
    let long = ["mint", "--secret-file", secret, "--issuer", "https://id.test", "--audience", "orders"];
    let minted = told(&token(&[&long[..], &good].concat(), ""));
    tollgate.get("/").bearer(minted.trim()).send().expect(200);
    for (arguments, said) in [
        (&["mint"][..], "nothing to sign with"),
        (&["mint", "--secret-file", secret, "--algorithm", "RS256"], "does not fit RS256"),
        (&["mint", "--secret-file", config, "--key", config], "cannot be used with"),
        (&["mint", "--key", config], "no private key"),
        (&["mint", "-c", config, "--auth", "nobody"], "no auth has the name"),
    ] {
        let output = token(arguments, "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(said), "{arguments:?}: {stderr}");
    }
}
