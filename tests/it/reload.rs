//! Reading the configuration again: everything changes at once, or nothing does.

use crate::support::certs::Ca;
use crate::support::process::Signal;
use crate::support::{Client, Origin, Request, Tollgate, open_to, ports, wait};

/// A route that answers by itself.
const HERE: &str = "[routes.main]\nauth = \"none\"\nrespond = { body = \"first\" }\n";

#[test]
fn a_reload_changes_what_is_answered() {
    let tollgate = Tollgate::with(HERE);
    let mut client = Client::connect(tollgate.addr());
    assert_eq!(client.get("/").text(), "first");
    tollgate.wait_for_metric("tollgate_config_generation", 1.0);
    tollgate.replace("\"first\"", "\"second\"");
    assert_eq!(client.get("/").text(), "first", "until it is told to");
    let said = tollgate.reload().succeeded().stdout;
    assert!(said.contains("configuration 2"), "{said}");
    let response = client.get("/");
    assert_eq!(response.text(), "second", "on a connection that stays open");
    assert_eq!(tollgate.logged(&response)["config_generation"], 2);
    tollgate.wait_for_metric("tollgate_config_generation", 2.0);
    tollgate.wait_for_metric(r#"tollgate_config_reloads_total{result="success"}"#, 1.0);
}

#[test]
fn hup_reloads() {
    let tollgate = Tollgate::with(HERE);
    tollgate.replace("\"first\"", "\"second\"");
    tollgate.signal(Signal::HUP);
    wait::until("the new configuration", || tollgate.get("/").send().text() == "second");
}

#[test]
fn a_broken_file_changes_nothing_and_says_what_is_wrong_and_where() {
    let tollgate = Tollgate::with(HERE);
    let mut client = Client::connect(tollgate.addr());
    client.get("/");
    let pid = tollgate.pid();
    tollgate.edit(|text| {
        *text = text.replace("\"first\"", "\"second\"");
        text.push_str("[routes.other]\nauth = \"none\"\nupstream = \"nowhere\"\nrespnd = 1\n");
    });
    let stderr = tollgate.reload().failed(1);
    let line = std::fs::read_to_string(tollgate.config_file()).expect("read");
    let line = line.lines().position(|line| line.starts_with("upstream = ")).expect("there") + 1;
    assert!(stderr.contains(&format!("tollgate.toml:{line}:")), "{stderr}");
    for part in ["routes.other.upstream", "upstream = \"nowhere\"", "respnd", "2 problems"] {
        assert!(stderr.contains(part), "{part} in\n{stderr}");
    }
    assert_eq!(client.get("/").text(), "first");
    assert_eq!(tollgate.pid(), pid);
    tollgate.wait_for_metric("tollgate_config_generation", 1.0);
    tollgate.wait_for_metric(r#"tollgate_config_reloads_total{result="failure"}"#, 1.0);
    assert!(tollgate.admin("/api/status").text().contains("routes.other.upstream"), "the admin side shows the text");
    assert!(tollgate.stderr().contains("routes.other.upstream"), "and the log");
    // Mended, it is taken.
    tollgate.edit(|text| *text = text.replace("\"nowhere\"", "\"nowhere\" # mended").replace("[routes.other]", "#"));
    tollgate.edit(|text| *text = text.lines().take_while(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n"));
    tollgate.reload().succeeded();
    assert_eq!(client.get("/").text(), "second");
}

#[test]
fn a_file_that_is_not_toml_or_not_there_changes_nothing() {
    let tollgate = Tollgate::with(HERE);
    let file = tollgate.config_file();
    let whole = std::fs::read_to_string(&file).expect("read");
    tollgate.edit(|text| text.push_str("\n[routes.other\n"));
    let stderr = tollgate.reload().failed(1);
    assert!(stderr.contains("tollgate.toml:"), "{stderr}");
    std::fs::remove_file(&file).expect("removed");
    tollgate.signal(Signal::HUP);
    wait::until("the reload to fail", || {
        tollgate.metric(r#"tollgate_config_reloads_total{result="failure"}"#) == Some(2.0)
    });
    assert_eq!(tollgate.get("/").send().text(), "first");
    std::fs::write(&file, whole.replace("\"first\"", "\"second\"")).expect("written");
    tollgate.reload().succeeded();
    assert_eq!(tollgate.get("/").send().text(), "second");
}

#[test]
fn a_request_in_flight_finishes_by_the_configuration_it_began_with() {
    let (origin, gate) = Origin::gated("late");
    let tollgate = Tollgate::with(&format!(
        "{}response_headers = {{ set = {{ x-configuration = \"old\" }} }}\n",
        open_to(&[origin.addr()])
    ));
    let mut client = Client::connect(tollgate.addr());
    client.begin(&Request::get("/")).expect("sent");
    wait::until("the request to arrive", || origin.hits() == 1);
    tollgate.replace("x-configuration = \"old\"", "x-configuration = \"new\"");
    tollgate.reload().succeeded();
    gate.open();
    let response = client.finish("GET").expect("answered");
    assert_eq!((response.header("x-configuration"), response.text().as_str()), (Some("old"), "late"));
    assert_eq!(tollgate.logged(&response)["config_generation"], 1);
    assert_eq!(client.get("/").header("x-configuration"), Some("new"));
}

#[test]
fn a_route_that_is_gone_is_gone_and_one_that_is_new_is_there() {
    let tollgate = Tollgate::with("[routes.old]\npath = \"/old\"\nauth = \"none\"\nrespond = { body = \"old\" }\n");
    assert_eq!(tollgate.get("/old").send().status(), 200);
    assert_eq!(tollgate.get("/new").send().status(), 404);
    tollgate.edit(|text| *text = text.replace("old", "new"));
    tollgate.reload().succeeded();
    assert_eq!(tollgate.get("/old").send().status(), 404);
    assert_eq!(tollgate.get("/new").send().status(), 200);
}

#[test]
fn buckets_survive_a_reload_that_does_not_change_their_limit() {
    let tollgate = Tollgate::with(
        r#"
        [limits.few]
        rate = "3/h"
        key = ["client.address"]
        [routes.main]
        auth = "none"
        limits = ["few"]
        respond = { body = "first" }
        "#,
    );
    assert_eq!(tollgate.get("/").send().status(), 200);
    assert_eq!(tollgate.get("/").send().status(), 200);
    tollgate.replace("\"first\"", "\"second\"");
    tollgate.reload().succeeded();
    assert_eq!(tollgate.get("/").send().text(), "second");
    assert_eq!(tollgate.get("/").send().status(), 429, "the fourth");
    // Another limit under the same name is another limit.
    tollgate.replace("\"3/h\"", "\"4/h\"");
    tollgate.reload().succeeded();
    assert_eq!(tollgate.get("/").send().status(), 200);
}

#[test]
fn what_cannot_change_in_place_is_refused_by_name_with_everything_else() {
    let tollgate = Tollgate::with(&format!("[server]\nthreads = 2\n{HERE}"));
    let free = ports::claim();
    tollgate.edit(|text| {
        *text = text
            .replace("threads = 2", "threads = 3")
            .replace(&format!("address = \"{}\"", tollgate.addr()), &format!("address = \"{free}\""))
            .replace("\"first\"", "\"second\"");
    });
    let stderr = tollgate.reload().failed(1);
    for part in ["listeners.http.address", "server.threads", "tollgate upgrade"] {
        assert!(stderr.contains(part), "{part} in\n{stderr}");
    }
    assert_eq!(tollgate.get("/").send().text(), "first");
    assert!(Client::try_connect(free).is_err());
}

#[test]
fn a_listener_that_is_new_or_gone_needs_an_upgrade_too() {
    let tollgate = Tollgate::with(HERE);
    let free = ports::claim();
    tollgate.edit(|text| text.push_str(&format!("[listeners.other]\naddress = \"{free}\"\n")));
    let stderr = tollgate.reload().failed(1);
    assert!(stderr.contains("listeners.other"), "{stderr}");
    assert!(Client::try_connect(free).is_err());
}

#[test]
fn a_renewed_certificate_under_the_same_name_is_a_change() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let identity = old.server(&["gateway.test"]);
    let tollgate = Tollgate::prepared(&format!(
        r#"
        [listeners.https]
        [listeners.https.tls]
        certificates = [{{ cert_file = "gateway.pem", key_file = "gateway.key" }}]
        {HERE}
        "#
    ))
    .file("gateway.pem", &identity.cert)
    .file("gateway.key", &identity.key)
    .start();
    let ask =
        |ca: &Ca| Request::get("/").over_tls(tollgate.addr(), "gateway.test", ca.trusting(&["http/1.1"])).try_send();
    assert_eq!(ask(&old).expect("trusted").text(), "first");
    assert!(ask(&new).is_err());
    new.server(&["gateway.test"]).write(&tollgate.path(""), "gateway");
    tollgate.reload().succeeded();
    assert_eq!(ask(&new).expect("trusted").text(), "first");
    assert!(ask(&old).is_err());
    // A key that does not fit its certificate is found before anything changes.
    std::fs::write(tollgate.path("gateway.key"), old.server(&["gateway.test"]).key).expect("written");
    let stderr = tollgate.reload().failed(1);
    assert!(stderr.contains("listeners.https.tls.certificates"), "{stderr}");
    assert_eq!(ask(&new).expect("trusted").text(), "first");
}

#[test]
fn a_secret_in_a_broken_file_is_not_told() {
    let tollgate = Tollgate::with(HERE);
    tollgate.edit(|text| {
        text.push_str(
            "[auth.broken]\ntype = \"jwt\"\nissuer = \"https://a.test\"\naudience = [\"a\"]\nalgorithms = [\"HS999\"]\n\
             secret = \"correct horse battery staple\"\nsecert = \"correct horse battery staple\"\n",
        );
    });
    let stderr = tollgate.reload().failed(1);
    assert!(stderr.contains("auth.broken"), "{stderr}");
    let everywhere = [stderr, tollgate.stderr(), tollgate.admin("/api/status").text(), tollgate.admin("/").text()];
    assert!(everywhere.iter().all(|text| !text.contains("battery")), "{everywhere:?}");
}

#[test]
fn many_reloads_at_once_are_done_one_after_the_other() {
    let tollgate = Tollgate::with(HERE);
    tollgate.replace("\"first\"", "\"second\"");
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(|| tollgate.reload())).collect();
        for reload in all {
            reload.join().expect("asked").succeeded();
        }
    });
    assert_eq!(tollgate.get("/").send().text(), "second");
    tollgate.wait_for_metric(r#"tollgate_config_reloads_total{result="success"}"#, 6.0);
}
