//! Files that are followed: what changes on the disk is served, all of it or nothing, and nobody has to say so.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use jsonwebtoken::Algorithm;

use crate::support::certs::{Ca, Identity};
use crate::support::jwt::{AUDIENCE, ISSUER, Key, key_set};
use crate::support::process::Signal;
use crate::support::tollgate::Prepared;
use crate::support::{Client, Request, Tollgate, wait};

const WATCHED: &str = "[server]\nwatch = true\n";
/// A route that answers by itself.
const HERE: &str = "[routes.main]\nauth = \"none\"\nrespond = { body = \"first\" }\n";
const RELOADED: &str = r#"tollgate_config_reloads_total{result="success"}"#;
const REFUSED: &str = r#"tollgate_config_reloads_total{result="failure"}"#;

/// A listener that shows `gateway.pem` of `directory`.
fn showing(directory: &str) -> Prepared {
    Tollgate::prepared(&format!(
        "{WATCHED}[listeners.https]\n[listeners.https.tls]\n\
         certificates = [{{ cert_file = \"{directory}/gateway.pem\", key_file = \"{directory}/gateway.key\" }}]\n{HERE}"
    ))
}

fn connect(tollgate: &Tollgate, ca: &Ca) -> std::io::Result<Client> {
    let mut client = Client::try_connect_tls(tollgate.addr(), "gateway.test", ca.trusting(&["http/1.1"]))?;
    // A certificate that is not trusted may be told only now.
    client.try_send(&Request::get("/"))?;
    Ok(client)
}

/// As a careful tool does: a whole file takes the place of the old.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("swp");
    fs::write(&new, content).expect("written");
    fs::rename(new, path).expect("renamed");
}

/// It is written when all is done, and counted before.
#[track_caller]
fn wait_for_log(tollgate: &Tollgate, text: &str, times: usize) {
    wait::until(text, || tollgate.stderr().matches(text).count() == times);
}

fn identity(ca: &Ca) -> Identity {
    ca.server(&["gateway.test"])
}

#[test]
fn a_renewed_certificate_is_shown_without_a_word_and_open_connections_go_on() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let prepared = showing("tls");
    fs::create_dir(prepared.directory().join("tls")).expect("made");
    identity(&old).write(&prepared.directory().join("tls"), "gateway");
    let tollgate = prepared.start();
    let mut client = connect(&tollgate, &old).expect("trusted");
    let renewed = identity(&new);
    replace(&tollgate.path("tls/gateway.pem"), &renewed.cert);
    replace(&tollgate.path("tls/gateway.key"), &renewed.key);
    wait::until("the new certificate", || connect(&tollgate, &new).is_ok());
    assert!(connect(&tollgate, &old).is_err());
    assert_eq!(client.get("/").text(), "first", "on the connection of before");
}

#[test]
fn the_link_that_kubernetes_swaps_is_followed_again_and_again() {
    let ca = [Ca::new("one"), Ca::new("two"), Ca::new("three")];
    let prepared = showing("tls");
    let directory = prepared.directory().join("tls");
    // As kubelet's atomic writer does: a directory for each version, and one link that names the one that is valid.
    let publish = |directory: &Path, number: usize| {
        let version = format!("..2026_10_16_{number}");
        fs::create_dir_all(directory.join(&version)).expect("made");
        identity(&ca[number]).write(&directory.join(&version), "gateway");
        symlink(&version, directory.join("..data_tmp")).expect("linked");
        fs::rename(directory.join("..data_tmp"), directory.join("..data")).expect("renamed");
    };
    publish(&directory, 0);
    for name in ["gateway.pem", "gateway.key"] {
        symlink(Path::new("..data").join(name), directory.join(name)).expect("linked");
    }
    let tollgate = prepared.start();
    assert!(connect(&tollgate, &ca[0]).is_ok());
    for number in [1, 2] {
        publish(&tollgate.path("tls"), number);
        wait::until("the next certificate", || connect(&tollgate, &ca[number]).is_ok());
        fs::remove_dir_all(tollgate.path(&format!("tls/..2026_10_16_{}", number - 1))).expect("removed");
    }
    assert_eq!(tollgate.metric(REFUSED).unwrap_or_default(), 0.0);
}

#[test]
fn keys_of_an_issuer_that_turn_are_taken_from_their_file() {
    let (first, second) = (Key::new("first", Algorithm::ES256), Key::new("second", Algorithm::ES256));
    let text = format!(
        "{WATCHED}[auth.corporate]\ntype = \"jwt\"\nissuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]\n\
         algorithms = [\"ES256\"]\njwks_file = \"jwks.json\"\n\
         [routes.main]\nauth = \"corporate\"\nrespond = {{ body = \"first\" }}\n"
    );
    let tollgate = Tollgate::prepared(&text).file("jwks.json", key_set(&[&first])).start();
    let status = |key: &Key| tollgate.get("/").bearer(&key.token().mint()).send().status();
    assert_eq!((status(&first), status(&second)), (200, 401));
    // Written into, as `cp` does.
    fs::write(tollgate.path("jwks.json"), key_set(&[&second])).expect("written");
    wait::until("the second key", || status(&second) == 200);
    assert_eq!(status(&first), 401);
}

#[test]
fn a_file_that_an_include_matches_is_taken_when_it_comes_and_left_when_it_goes() {
    let prepared = Tollgate::prepared(&format!("include = [\"conf.d/*.toml\"]\n{WATCHED}{HERE}"));
    let tollgate = prepared.start();
    let more = "[routes.more]\npath = \"/more\"\nauth = \"none\"\nrespond = { body = \"more\" }\n";
    assert_eq!(tollgate.get("/more").send().text(), "first");
    // Not even the directory was there. The second time, nothing but the pattern is left to be followed.
    for _ in 0..2 {
        fs::create_dir(tollgate.path("conf.d")).expect("made");
        fs::write(tollgate.path("conf.d/more.toml"), more).expect("written");
        wait::until("the included route", || tollgate.get("/more").send().text() == "more");
        fs::remove_dir_all(tollgate.path("conf.d")).expect("removed");
        wait::until("the route to be gone", || tollgate.get("/more").send().text() == "first");
    }
    fs::create_dir(tollgate.path("conf.d")).expect("made");
    fs::write(tollgate.path("conf.d/more.toml"), more).expect("written");
    wait::until("the included route", || tollgate.get("/more").send().text() == "more");
    fs::write(tollgate.path("conf.d/more.toml"), more.replace("\"more\"", "\"even more\"")).expect("written");
    wait::until("the route as it is written now", || tollgate.get("/more").send().text() == "even more");
    fs::remove_file(tollgate.path("conf.d/more.toml")).expect("removed");
    wait::until("the route to be gone", || tollgate.get("/more").send().text() == "first");
}

#[test]
fn a_broken_file_is_told_once_changes_nothing_and_is_taken_when_it_is_mended() {
    let tollgate = Tollgate::with(&format!("{WATCHED}{HERE}"));
    let whole = fs::read_to_string(tollgate.config_file()).expect("read");
    tollgate.edit(|text| *text = text.replace("\"first\"", "\"second\"\nrespnd = 1"));
    tollgate.wait_for_metric(REFUSED, 1.0);
    assert_eq!(tollgate.get("/").send().text(), "first");
    wait::until("the admin side to show it", || tollgate.admin("/api/status").text().contains("respnd"));
    // The same once more, and a neighbour: that is no news.
    tollgate.edit(|text| text.push('\n'));
    tollgate.wait_for_metric(REFUSED, 2.0);
    fs::write(tollgate.path("neighbour.toml"), "x").expect("written");
    let same = fs::read_to_string(tollgate.config_file()).expect("read");
    replace(&tollgate.config_file(), &same);
    wait::never("the same told again", || tollgate.metric(REFUSED) != Some(2.0));
    // Gone, and there again as it was: nothing has changed but that all is well.
    fs::remove_file(tollgate.config_file()).expect("removed");
    tollgate.wait_for_metric(REFUSED, 3.0);
    fs::write(tollgate.config_file(), &whole).expect("written");
    tollgate.wait_for_metric("tollgate_config_last_reload_successful", 1.0);
    tollgate.wait_for_metric("tollgate_config_generation", 1.0);
    fs::write(tollgate.config_file(), whole.replace("\"first\"", "\"second\"")).expect("written");
    wait::until("what was meant", || tollgate.get("/").send().text() == "second");
    tollgate.wait_for_metric(REFUSED, 3.0);
    tollgate.wait_for_metric("tollgate_config_generation", 2.0);
    wait_for_log(&tollgate, "was not reloaded", 3);
}

#[test]
fn what_changes_nothing_is_no_reload() {
    let tollgate = Tollgate::prepared(&format!(
        "include = [\"conf.d/*.toml\"]\n{WATCHED}[admin]\ntoken_file = \"run.token\"\n{HERE}"
    ));
    fs::create_dir(tollgate.directory().join("conf.d")).expect("made");
    let token = tollgate.directory().join("run.token");
    fs::write(&token, "abcdef\n").expect("written");
    let tollgate = tollgate.start();
    let generation = || tollgate.logged(&tollgate.get("/").send())["config_generation"].as_u64().expect("a number");
    let still = |what: &str| wait::never(what, || generation() != 1);
    assert_eq!(generation(), 1);
    fs::write(tollgate.path("editor.swp"), "x").expect("written");
    fs::write(tollgate.path("conf.d/.more.toml.swp"), "x").expect("written");
    still("a file beside");
    replace(&token, "abcdef\n");
    still("the same bytes in another file");
    tollgate.edit(|text| text.push_str("# a word of explanation\n"));
    still("a comment");
    tollgate.replace("\"first\"", "\"second\"");
    wait::until("a real change", || generation() != 1);
    assert_eq!(generation(), 2);
    wait_for_log(&tollgate, "configuration 2 serves", 1);
}

#[test]
fn nothing_is_followed_that_nobody_asked_to_follow() {
    let tollgate = Tollgate::with(HERE);
    tollgate.replace("\"first\"", "\"second\"");
    wait::never("a reload", || tollgate.get("/").send().text() != "first");
    tollgate.reload().succeeded();
    tollgate.wait_for_metric("tollgate_config_generation", 2.0);
    tollgate.wait_for_metric(RELOADED, 1.0);
}

#[test]
fn following_is_begun_and_ended_by_a_reload() {
    let tollgate = Tollgate::with(&format!("[server]\nwatch = false\n{HERE}"));
    tollgate.replace("watch = false", "watch = true");
    tollgate.reload().succeeded();
    tollgate.replace("\"first\"", "\"second\"");
    wait::until("it to be followed", || tollgate.get("/").send().text() == "second");
    tollgate.replace("watch = true", "watch = false");
    tollgate.wait_for_metric("tollgate_config_generation", 4.0);
    tollgate.replace("\"second\"", "\"third\"");
    wait::never("a reload", || tollgate.get("/").send().text() != "second");
    tollgate.reload().succeeded();
    tollgate.wait_for_metric("tollgate_config_generation", 5.0);
}

#[test]
fn what_needs_an_upgrade_is_refused_as_for_a_reload_and_the_successor_follows_on() {
    let tollgate = Tollgate::with(&format!("[server]\nwatch = true\nthreads = 1\n{HERE}"));
    tollgate.replace("threads = 1", "threads = 2");
    tollgate.wait_for_metric(REFUSED, 1.0);
    wait_for_log(&tollgate, "server.threads cannot change while the process runs", 1);
    tollgate.upgrade().succeeded();
    tollgate.replace("\"first\"", "\"second\"");
    wait::until("the successor to follow", || tollgate.get("/").send().text() == "second");
}

#[test]
fn a_process_that_drains_does_not_follow_any_more() {
    let mut tollgate = Tollgate::with(&format!("[server]\nwatch = true\ndrain_delay = \"1s\"\n{HERE}"));
    let pid = tollgate.pid();
    tollgate.signal(Signal::TERM);
    wait::until("it to leave", || tollgate.readiness() == Some(503));
    tollgate.edit(|text| text.push_str("nonsense"));
    // Four times as long as it takes to see a change.
    assert_eq!(tollgate.ended(pid), 0);
    assert!(!tollgate.stderr().contains("was not reloaded"), "{}", tollgate.stderr());
}
