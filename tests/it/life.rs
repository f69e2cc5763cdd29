//! From the start to the end: what a process says of itself, and how its commands answer.

use std::fs;

use crate::support::process::{self, Signal};
use crate::support::{Client, Gate, Origin, Request, Tollgate, open_to, ports, wait};

#[test]
fn it_serves_logs_and_counts() {
    let origin = Origin::replying("hello");
    let tollgate = Tollgate::with(&open_to(&[origin.addr()]));
    let response = tollgate.get("/a?b=c").send().expect(200);
    assert_eq!(response.text(), "hello");
    let line = tollgate.logged(&response);
    assert_eq!((&line["status"], &line["path"], &line["route"]), (&200.into(), &"/a".into(), &"main".into()));
    tollgate.wait_for_metric(r#"tollgate_http_requests_total{route="main",method="GET",code="200"}"#, 1.0);
    assert_eq!(origin.hits(), 1);
}

#[test]
fn it_says_that_it_lives_and_that_it_is_ready() {
    let tollgate = Tollgate::with("[routes.main]\nauth = \"none\"\nrespond = { body = \"here\" }\n");
    assert_eq!(tollgate.admin("/healthz").status(), 200);
    assert_eq!(tollgate.admin("/readyz").status(), 200);
    assert_eq!(tollgate.get("/").send().text(), "here");
    let status = tollgate.command("status").succeeded().stdout;
    assert!(status.contains(&tollgate.pid().to_string()), "{status}");
}

#[test]
fn a_configuration_that_cannot_be_served_ends_the_start_with_its_place() {
    let prepared = Tollgate::prepared("[routes.main]\nauth = \"none\"\nupstream = \"nowhere\"\n");
    let stderr = prepared.fails_to_start().failed(78);
    assert!(stderr.contains("routes.main.upstream") && stderr.contains("tollgate.toml:4:"), "{stderr}");
}

#[test]
fn check_says_the_same_as_a_start() {
    let tollgate = Tollgate::with("[routes.main]\nauth = \"none\"\nrespond = { body = \"here\" }\n");
    tollgate.check().succeeded();
    tollgate.replace("auth = \"none\"", "auth = \"nobody\"");
    let stderr = tollgate.check().failed(1);
    assert!(stderr.contains("routes.main.auth"), "{stderr}");
    assert_eq!(tollgate.get("/").send().status(), 200, "a check is not a reload");
}

#[test]
fn health_is_what_readyz_says_whatever_has_become_of_the_configuration_file() {
    let mut tollgate = Tollgate::with("[routes.main]\nauth = \"none\"\nrespond = { body = \"here\" }\n");
    assert_eq!(tollgate.command("health").succeeded().stdout, "ready\n");
    tollgate.replace("auth = \"none\"", "auth = \"nobody\"");
    tollgate.command("health").succeeded();
    let pid = tollgate.pid();
    tollgate.signal(Signal::TERM);
    assert_eq!(tollgate.ended(pid), 0);
    let stderr = tollgate.command("health").failed(1);
    assert!(stderr.contains(&tollgate.admin_addr().to_string()), "{stderr}");
}

#[test]
fn a_usage_error_is_told_apart() {
    process::tollgate(["nonsense"]).failed(2);
    process::tollgate(["run", "--nonsense"]).failed(2);
    process::tollgate(["version"]).succeeded();
    let stderr = process::tollgate(["check", "-c", "/nowhere/tollgate.toml"]).failed(1);
    assert!(stderr.contains("/nowhere/tollgate.toml"), "{stderr}");
}

#[test]
fn an_address_that_is_taken_is_named_with_its_key() {
    let origin = Origin::replying("");
    let text = format!(
        "[listeners.web]\naddress = \"{}\"\n[routes.main]\nauth = \"none\"\nrespond = {{ body = \"\" }}\n",
        origin.addr()
    );
    let stderr = Tollgate::prepared(&text).fails_to_start().failed(1);
    assert!(stderr.contains("listeners.web.address") && stderr.contains(&origin.addr().to_string()), "{stderr}");
}

#[test]
fn a_second_process_with_the_same_runtime_directory_is_refused() {
    let text = "[routes.main]\nauth = \"none\"\nrespond = { body = \"first\" }\n";
    let first = Tollgate::with(text);
    let second = format!("[server]\nruntime_dir = \"{}\"\n{text}", first.path("run").display());
    let stderr = Tollgate::prepared(&second).fails_to_start().failed(1);
    assert!(stderr.contains("runtime_dir") && stderr.contains("--upgrade"), "{stderr}");
    assert_eq!(first.get("/").send().text(), "first");
    first.reload().succeeded();
}

#[test]
fn a_command_without_a_running_process_says_where_it_looked() {
    let mut tollgate = Tollgate::with("[routes.main]\nauth = \"none\"\nrespond = { body = \"\" }\n");
    tollgate.stop();
    for verb in ["reload", "upgrade", "status"] {
        let stderr = tollgate.command(verb).failed(1);
        assert!(stderr.contains(&*tollgate.path("run").to_string_lossy()), "{stderr}");
    }
}

#[test]
fn a_process_that_was_killed_leaves_nothing_that_keeps_the_next_one_from_starting() {
    let text = "[routes.main]\nauth = \"none\"\nrespond = { body = \"first\" }\n";
    let mut first = Tollgate::with(text);
    let pid = first.pid();
    process::signal(pid, Signal::KILL);
    assert_eq!(first.ended(pid), -9);
    let second = format!("[server]\nruntime_dir = \"{}\"\n{text}", first.path("run").display());
    let second = Tollgate::with(&second);
    second.reload().succeeded();
}

#[test]
fn nobody_else_may_reach_the_control_socket() {
    use std::os::unix::fs::PermissionsExt;
    let tollgate = Tollgate::with("[routes.main]\nauth = \"none\"\nrespond = { body = \"\" }\n");
    let mode = |name: &str| fs::metadata(tollgate.path(name)).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode("run"), mode("run/control.sock")), (0o700, 0o600));
    tollgate.upgrade().succeeded();
    assert_eq!((mode("run"), mode("run/control.sock")), (0o700, 0o600));
}

#[test]
fn int_leaves_at_once() {
    let origin = Origin::hanging();
    let mut tollgate = Tollgate::with(&open_to(&[origin.addr()]));
    let mut client = Client::connect(tollgate.addr());
    client.begin(&Request::get("/")).expect("sent");
    wait::until("the request to arrive", || origin.hits() == 1);
    let pid = tollgate.pid();
    tollgate.signal(Signal::INT);
    assert_eq!(tollgate.ended(pid), 0);
    assert!(client.finish("GET").is_err(), "nobody was there to answer");
}

#[test]
fn usr1_reopens_the_access_log() {
    let tollgate = Tollgate::with("[routes.main]\nauth = \"none\"\nrespond = { body = \"\" }\n");
    let before = tollgate.get("/before").send();
    tollgate.logged(&before);
    let moved = tollgate.path("access.log.1");
    fs::rename(tollgate.access_log_file(), &moved).expect("moved");
    tollgate.signal(Signal::USR1);
    wait::until("a new file", || tollgate.access_log_file().exists());
    let after = tollgate.get("/after").send();
    tollgate.logged(&after);
    let old = fs::read_to_string(moved).expect("read");
    assert!(old.contains("/before") && !old.contains("/after"), "{old}");
    assert_eq!(tollgate.access_log().len(), 1);
}

#[test]
fn a_health_address_serves_probes_and_metrics_alone() {
    let port = ports::claim();
    let tollgate = Tollgate::with(&format!(
        "[admin]\nhealth_address = \"{port}\"\n[routes.main]\nauth = \"none\"\nrespond = {{ body = \"\" }}\n"
    ));
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(Request::get(path).to(port).send().status(), 200, "{path}");
    }
    assert_eq!(Request::get("/api/status").to(port).send().status(), 404);
    assert_eq!(tollgate.admin("/readyz").status(), 200, "and where they were");
}

#[test]
fn a_gate_holds_an_origin_back() {
    // Of the support, through the gateway: what other tests rely on to have a request in flight.
    let (origin, gate): (Origin, Gate) = Origin::gated("late");
    let tollgate = Tollgate::with(&open_to(&[origin.addr()]));
    let mut client = Client::connect(tollgate.addr());
    client.begin(&Request::get("/")).expect("sent");
    wait::until("the request to arrive", || origin.hits() == 1);
    let in_flight = r#"tollgate_http_requests_in_flight{route="main"}"#;
    tollgate.wait_for_metric(in_flight, 1.0);
    gate.open();
    assert_eq!(client.finish("GET").expect("answered").text(), "late");
    tollgate.wait_for_metric(in_flight, 0.0);
}
