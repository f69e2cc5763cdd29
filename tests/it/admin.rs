//! What an operator sees: probes, metrics, the status page, across reloads and upgrades.

use std::sync::mpsc;
use std::thread;

use crate::support::{Origin, Request, Tollgate, wait};

fn routed(origin: &Origin) -> String {
    format!(
        r#"
        [upstreams.orders]
        endpoints = ["{}"]
        [limits.few]
        rate = "2/h"
        key = ["client.address"]
        [routes.orders]
        path = "/orders/*"
        auth = "none"
        limits = ["few"]
        upstream = "orders"
        [routes.open]
        auth = "none"
        upstream = "orders"
        "#,
        origin.addr()
    )
}

#[test]
fn what_goes_through_is_counted_by_every_room() {
    let origin = Origin::replying("hello");
    let tollgate = Tollgate::with(&routed(&origin));
    for status in [200, 200, 429] {
        tollgate.get("/orders/1").send().expect(status);
    }
    let series = [
        ("tollgate_limit_decisions_total{limit=\"few\",result=\"allowed\"}", 2.0),
        ("tollgate_limit_decisions_total{limit=\"few\",result=\"refused\"}", 1.0),
        ("tollgate_limit_keys{limit=\"few\"}", 1.0),
        ("tollgate_upstream_requests_total{result=\"answered\",upstream=\"orders\"}", 2.0),
        ("tollgate_refused_total{listener=\"http\",reason=\"rate_limited\"}", 1.0),
        ("tollgate_ready", 1.0),
    ];
    for (series, value) in series {
        tollgate.wait_for_metric(series, value);
    }
    let status = tollgate.admin("/api/status").json();
    assert_eq!((&status["limits"][0]["allowed"], &status["limits"][0]["refused"]), (&2.into(), &1.into()));
}

#[test]
fn a_failed_reload_is_explained_on_the_status_page_until_one_succeeds() {
    let origin = Origin::replying("hello");
    let tollgate = Tollgate::with(&routed(&origin));
    tollgate.replace("limits = [\"few\"]", "limits = [\"<b>\"]");
    tollgate.reload().failed(1);
    let page = tollgate.admin("/").text();
    assert!(page.contains("The last reload changed nothing"), "{page}");
    assert!(page.contains("limits = [&quot;&lt;b&gt;&quot;]") && !page.contains("<b>"), "{page}");
    assert_eq!(tollgate.admin("/api/status").json()["last_reload"]["succeeded"], false);
    assert_eq!(tollgate.metric("tollgate_config_last_reload_successful"), Some(0.0));
    tollgate.replace("limits = [\"<b>\"]", "limits = [\"few\"]");
    tollgate.reload().succeeded();
    assert!(!tollgate.admin("/").text().contains("changed nothing"));
    assert_eq!(tollgate.metric("tollgate_config_last_reload_successful"), Some(1.0));
}

#[test]
fn a_page_from_elsewhere_cannot_read_the_admin_side() {
    let tollgate = Tollgate::with(&routed(&Origin::replying("hello")));
    for path in ["/", "/api/status", "/metrics", "/healthz"] {
        let rebound = Request::get(path).to(tollgate.admin_addr()).host("attacker.example:9900").send();
        assert!(!rebound.expect(421).text().contains("orders"));
        Request::new("POST", path).to(tollgate.admin_addr()).body("x").send().expect(405);
    }
}

#[test]
fn a_probe_never_reaches_the_process_that_leaves() {
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let origin = Origin::scripted(move |_, connection| {
        let _ = held.lock().expect("one at a time").recv_timeout(wait::PATIENCE);
        connection.reply(200, &[], "late");
    });
    let tollgate = Tollgate::with(&routed(&origin));
    let slow = tollgate.get("/slow");
    let waiting = thread::spawn(move || slow.send());
    wait::until("the origin has the request", || origin.hits() == 1);
    let old = tollgate.pid();
    tollgate.upgrade().succeeded();
    assert!(!tollgate.is_gone(old), "it waits for the slow request");
    for _ in 0..50 {
        assert_eq!(tollgate.admin("/readyz").text(), "ready\n");
    }
    release.send(()).expect("the origin waits");
    waiting.join().expect("answered").expect(200);
    wait::until("the old process leaves", || tollgate.is_gone(old));
}
