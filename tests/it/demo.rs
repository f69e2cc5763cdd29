//! `tollgate demo`, as a newcomer uses it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::message::Response;
use crate::support::process::{BINARY, Signal, serving, signal};
use crate::support::{Request, wait};

/// A demo that runs, and what it has told.
struct Demo {
    child: Child,
    /// Where it keeps its files
    directory: TempDir,
    told: BTreeMap<String, String>,
}

impl Demo {
    /// Starts one for a script. It would end by itself if this test did not.
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut child = Command::new(BINARY)
            .args(["demo", "--port", "0", "--quiet", "--for", "120"])
            .env("TMPDIR", directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let told = lines.take(4).map(|line| {
            let line = line.expect("text");
            let (name, value) = line.split_once('=').expect("an assignment");
            (name.to_owned(), value.to_owned())
        });
        Self { told: told.collect(), child, directory }
    }

    fn told(&self, name: &str) -> &str {
        &self.told[name]
    }

    fn addr(&self, name: &str) -> SocketAddr {
        self.told(name).strip_prefix("http://").expect("a URL").parse().expect("an address")
    }

    fn get(&self, path: &str) -> Request {
        Request::get(path).to(self.addr("GATEWAY"))
    }

    fn order(&self, token: &str) -> Response {
        self.get("/orders/42").bearer(self.told(token)).send()
    }

    fn config_file(&self) -> std::path::PathBuf {
        let mut entries = fs::read_dir(self.directory.path()).expect("a directory");
        entries.next().expect("the demo's own").expect("read").path().join("tollgate.toml")
    }

    /// Tells it to end, and expects that nothing is left of it.
    fn end(mut self, how: Signal) {
        let file = self.config_file();
        assert!(!serving(&file).is_empty());
        signal(self.child.id(), how);
        let status = wait::some("the demo ends", || self.child.try_wait().expect("our own child"));
        assert!(status.success(), "{status}");
        assert_eq!(serving(&file), [0; 0], "the gateway is gone");
        assert_eq!(fs::read_dir(self.directory.path()).expect("a directory").count(), 0, "no file is left");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Only where the test has failed: then it cleans up by itself.
        signal(self.child.id(), Signal::TERM);
        let _ = self.child.wait();
    }
}

#[test]
fn a_newcomer_sees_who_calls_how_much_and_where_to() {
    let demo = Demo::start();
    demo.get("/orders/42").send().expect(401);
    demo.order("NO_SCOPE").expect(403);
    let order = demo.order("TOKEN").expect(200);
    assert_eq!(order.json()["caller"], "alice", "the service is told who calls");

    let statuses: Vec<_> = (0..30).map(|_| demo.order("TOKEN").status()).collect();
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");

    let served = |name: &str| (0..8).filter(|_| demo.get("/hello").send().json()["service"] == name).count();
    assert_eq!(served("orders-a"), 6, "three of four");

    demo.get("/catalog?slow").send().expect(504);
    demo.get("/catalog?fail").send().expect(500);
    let moved = demo.get("/shop/shoes").send().expect(308);
    assert_eq!(moved.header("location"), Some(&*format!("{}/catalog", demo.told("GATEWAY"))));
    assert!(demo.get("/robots.txt").send().expect(200).text().contains("Disallow"));

    let admin = |path: &str| Request::get(path).to(demo.addr("ADMIN")).send().expect(200).text();
    assert_eq!(admin("/readyz"), "ready\n");
    assert!(admin("/metrics").contains("\ntollgate_limit_decisions_total{limit=\"per_user\",result=\"allowed\"} "));
    demo.end(Signal::INT);
}

#[test]
fn a_demo_whose_gateway_was_upgraded_ends_the_successor_too() {
    let demo = Demo::start();
    let file = demo.config_file();
    let before = serving(&file);
    let upgrade = Command::new(BINARY).arg("upgrade").arg("-c").arg(&file).output().expect("run");
    assert!(upgrade.status.success(), "{upgrade:?}");
    wait::until("the successor is alone", || matches!(serving(&file)[..], [one] if !before.contains(&one)));
    demo.get("/hello").send().expect(200);
    demo.end(Signal::TERM);
}
