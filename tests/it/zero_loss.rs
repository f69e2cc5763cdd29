//! The promise, under load and in short: what `make load` does for a minute and with more clients.

use std::collections::HashSet;
use std::time::Duration;

use tollgate_load::{Lane, Load, Origin, Pace, Protocol, Report, Tls, duplicates};

use crate::support::certs::Ca;
use crate::support::{Tollgate, wait};

/// Requests that are answered between two events.
const BEAT: u64 = 1_500;

/// A gateway in front of three origins, with clients of every kind.
struct Drill {
    origins: Vec<Origin>,
    tollgate: Tollgate,
    load: Option<Load>,
}

impl Drill {
    fn begin() -> Self {
        let ca = Ca::new("an authority");
        let identity = ca.server(&["gateway.test"]);
        let origins: Vec<_> = (0..3).map(|_| Origin::start().expect("an origin")).collect();
        let endpoints: Vec<_> = origins.iter().map(|origin| format!("\"{}\"", origin.addr())).collect();
        let tollgate = Tollgate::prepared(&format!(
            r#"
            [server]
            drain_timeout = "30s"
            [listeners.http]
            [listeners.https]
            [listeners.https.tls]
            certificates = [{{ cert_file = "gateway.pem", key_file = "gateway.key" }}]
            [upstreams.main]
            endpoints = [{}]
            [routes.main]
            auth = "none"
            upstream = "main"
            "#,
            endpoints.join(", ")
        ))
        .file("gateway.pem", &identity.cert)
        .file("gateway.key", &identity.key)
        .start();
        let http = |name: &str| Lane::new(name, tollgate.addr_of("http"));
        let https = |name: &str, protocol: &str| Lane {
            tls: Some(Tls { server: "gateway.test".to_owned(), config: ca.trusting(&[protocol]) }),
            ..Lane::new(name, tollgate.addr_of("https"))
        };
        let lanes = vec![
            Lane { workers: 4, ..http("h1 kept") },
            Lane { workers: 2, fresh: true, ..http("h1 fresh") },
            Lane { workers: 8, delay: Duration::from_millis(300), ..http("h1 slow") },
            Lane { workers: 8, pace: Pace::Rate(80.0), fresh: true, ..http("h1 fresh, 80/s") },
            Lane { workers: 2, pace: Pace::Rate(40.0), ..https("h1 TLS, 40/s", "http/1.1") },
            Lane { workers: 8, pace: Pace::Rate(150.0), protocol: Protocol::Http2, ..https("h2, 150/s", "h2") },
        ];
        let load = Some(Load::start(lanes, 1).expect("load"));
        let drill = Self { origins, tollgate, load };
        drill.beat();
        drill
    }

    /// Lets load go on for a while.
    fn beat(&self) {
        let load = self.load.as_ref().expect("under load");
        let (before, begin) = (load.answered(), std::time::Instant::now());
        // Enough answers, and enough time for slow ones, both.
        wait::until("the load to go on", || {
            load.answered() > before + BEAT && begin.elapsed() > Duration::from_millis(700)
        });
    }

    /// Ends the load: no GET has failed, no POST has arrived twice or vanished.
    #[track_caller]
    fn end(&mut self) -> Report {
        self.beat();
        let report = self.load.take().expect("under load").stop();
        println!("{report}");
        assert_eq!(report.failed_gets(), 0, "\n{report}");
        assert!(report.lanes.iter().all(|lane| lane.answered > 0), "\n{report}");
        let posts: Vec<_> = self.origins.iter().flat_map(Origin::posts).collect();
        assert_eq!(duplicates(posts.iter().copied()), Vec::<u64>::new(), "POSTs that arrived twice");
        let seen: HashSet<_> = posts.into_iter().collect();
        assert!(report.posted().all(|id| seen.contains(&id)), "a POST was answered that never arrived");
        report
    }
}

#[test]
fn hand_overs_and_reloads_lose_nothing() {
    let mut drill = Drill::begin();
    for step in 0..3 {
        drill.tollgate.edit(|text| {
            text.push_str(&format!("[routes.a{step}]\npath = \"/a{step}\"\nauth = \"none\"\nrespond = {{}}\n"));
        });
        drill.tollgate.reload().succeeded();
        drill.beat();
        drill.tollgate.upgrade().succeeded();
        drill.beat();
    }
    let report = drill.end();
    assert_eq!(report.failed(), 0, "\n{report}");
    wait::until("one process to be left", || drill.tollgate.pids().len() == 1);
}

#[test]
fn a_crashing_binary_and_a_broken_configuration_lose_nothing() {
    let mut drill = Drill::begin();
    let pid = drill.tollgate.pid();
    drill.tollgate.install("#!/bin/sh\nexit 3\n");
    drill.tollgate.upgrade().failed(1);
    drill.beat();
    drill.tollgate.reinstall();
    drill.tollgate.edit(|text| text.push_str("[routes.broken]\nauth = \"none\"\nupstream = \"nowhere\"\n"));
    drill.tollgate.upgrade().failed(1);
    drill.tollgate.reload().failed(1);
    let report = drill.end();
    assert_eq!(report.failed(), 0, "\n{report}");
    assert_eq!(drill.tollgate.pids(), [pid]);
}

#[test]
fn the_death_of_one_of_three_origins_loses_no_get_and_doubles_no_post() {
    let mut drill = Drill::begin();
    drill.origins[1].kill();
    let report = drill.end();
    // What the dead origin was working on and may not be sent again is answered with an error, once.
    let at_once = 4 + 2 + 8 + 8 + 2 + 8;
    assert!(report.failed() <= at_once, "\n{report}");
}
