//! What happens to the gateway while it is under load.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tempfile::TempDir;
use tollgate_load::{Lane, Load, Pace, Protocol, duplicates};

use super::Failure;
use super::gateway::{Gateway, Service};
use super::peers::Peer;
use super::verdict::{Step, Verdict, panics};

/// Threads of our own load.
const THREADS: usize = 1;
/// How often it hands over, and reads its configuration anew, in a drill.
const UPGRADES: u32 = 5;
const RELOADS: u32 = 10;
/// What a configuration that cannot be served looks like.
const BROKEN: &str = "\n[routes.broken]\nauth = \"none\"\nupstream = \"wrok\"\n";

/// Programs that do not become a successor, and what is said of them.
const CRASHES: [(&str, &str); 3] = [
    ("#!/bin/sh\nexit 3\n", "exit status: 3"),
    ("#!/bin/sh\nkill -SEGV $$\n", "signal: 11"),
    ("no program at all", "cannot be started"),
];

/// A drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Scenario {
    /// Hands over and reloads again and again
    Upgrade,
    /// Is told to hand over to a binary that crashes
    Crash,
    /// Is told to reload, and to hand over to, a configuration that is broken
    Broken,
    /// Loses one of three origins to kill -9
    KillOrigin,
    /// Serves an honest client beside many that send a byte a second
    Slow,
    /// Serves honest clients beside requests from a million addresses, each of which has a budget
    Flood,
}

impl Scenario {
    /// Those in which something could be lost.
    pub(super) const ALL: &[Self] = &[Self::Upgrade, Self::Crash, Self::Broken, Self::KillOrigin];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Upgrade => "upgrade",
            Self::Crash => "crash",
            Self::Broken => "broken",
            Self::KillOrigin => "kill-origin",
            Self::Slow => "slow",
            Self::Flood => "flood",
        }
    }

    pub(super) fn story(self) -> &'static str {
        match self {
            Self::Upgrade => "five hand-overs and ten reloads; nothing may be lost",
            Self::Crash => "a hand-over to a binary that crashes; the old process serves on and says why",
            Self::Broken => "a reload and a hand-over with a broken configuration; the old one serves on and says why",
            Self::KillOrigin => "kill -9 of one of three origins; no GET may be lost, no POST may be sent twice",
            Self::Slow => "clients that send a byte a second; an honest one must not wait longer for them",
            Self::Flood => "a million addresses, each with its budget; honest clients must not wait longer for them",
        }
    }

    /// Runs it for about `time`.
    pub(super) fn run(self, binary: &Path, time: Duration, alone: bool) -> Result<Verdict, Failure> {
        let records = TempDir::new()?;
        let mut services = ["a", "b", "c"]
            .map(|name| Service::start(records.path(), name))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        let mut gateway = Gateway::start(binary, &services, "")?;
        let lanes = lanes(&gateway);
        let at_once: usize = lanes.iter().map(|lane| lane.workers).sum();
        let load = Load::start(lanes, THREADS)?;
        let peers = if alone { Vec::new() } else { Peer::start_all(gateway.http, time)? };
        let end = Instant::now() + time;
        let mut story = Story { gateway: &gateway, begin: Instant::now(), steps: Vec::new() };
        let happened = self.happen(&mut story, &mut services, time);
        let steps = story.steps;
        thread::sleep(end.saturating_duration_since(Instant::now()));
        let report = load.stop();
        let opinions = peers.into_iter().map(Peer::finish).collect::<Result<Vec<_>, _>>()?;
        happened.map_err(|error| format!("{error}\n{report}\n{}", gateway.log()))?;
        gateway.settled()?;
        gateway.stop()?;
        let posts = services.iter().map(Service::posts).collect::<Result<Vec<_>, _>>()?.concat();
        let twice = duplicates(posts.iter().copied().filter(|id| *id != 0)).len();
        let seen: std::collections::HashSet<_> = posts.into_iter().collect();
        let vanished = report.posted().filter(|id| !seen.contains(id)).count();
        // What a dead origin was working on and may not be sent again is answered with an error, once.
        let allowed_posts = if self == Self::KillOrigin { at_once } else { 0 };
        let panics = panics(&gateway.log());
        Ok(Verdict { scenario: self.name(), steps, report, opinions, twice, vanished, panics, allowed_posts })
    }

    fn happen(self, story: &mut Story<'_>, services: &mut [Service], time: Duration) -> Result<(), Failure> {
        let gateway = story.gateway;
        match self {
            Self::Upgrade => {
                // A beat before, between and after each; the last ones drain while load goes on.
                let beat = time / (UPGRADES + RELOADS + 2);
                for step in 0..UPGRADES + RELOADS {
                    thread::sleep(beat);
                    if step % 3 == 2 {
                        story.does("upgrade")?;
                    } else {
                        gateway.configure(|text| with_marker(text, step))?;
                        story.does("reload")?;
                    }
                }
            }
            Self::Crash => {
                let before = gateway.status()?;
                for (program, says) in CRASHES {
                    thread::sleep(time / 6);
                    gateway.install(Some(program))?;
                    story.refuses("upgrade", says)?;
                }
                gateway.install(None)?;
                story.still(&before)?;
                thread::sleep(time / 6);
                story.does("upgrade")?;
            }
            Self::Broken => {
                let before = gateway.status()?;
                thread::sleep(time / 5);
                gateway.configure(|text| format!("{text}{BROKEN}"))?;
                story.refuses("reload", "routes.broken.upstream")?;
                thread::sleep(time / 5);
                story.refuses("upgrade", "routes.broken.upstream")?;
                gateway.configure(|text| text.replace(BROKEN, ""))?;
                story.still(&before)?;
                thread::sleep(time / 5);
                story.does("reload")?;
                story.does("upgrade")?;
            }
            Self::KillOrigin => {
                thread::sleep(time / 3);
                services[1].kill()?;
                story.tell("kill -9 of one origin", String::new(), true);
            }
            // Nothing happens to the gateway but its clients.
            Self::Slow | Self::Flood => {}
        }
        Ok(())
    }
}

/// What is done to a gateway, one step after the other.
struct Story<'a> {
    gateway: &'a Gateway,
    begin: Instant,
    steps: Vec<Step>,
}

impl Story<'_> {
    fn tell(&mut self, what: &str, text: String, as_wanted: bool) {
        let at = self.begin.elapsed().as_secs_f64();
        self.steps.push(Step { at, took: 0.0, what: what.to_owned(), text, as_wanted });
    }

    /// A verb that has to be done.
    fn does(&mut self, verb: &str) -> Result<(), Failure> {
        self.verb(verb, true, "")
    }

    /// A verb that has to be refused, with a reason that says this.
    fn refuses(&mut self, verb: &str, says: &str) -> Result<(), Failure> {
        self.verb(verb, false, says)
    }

    fn verb(&mut self, verb: &str, wanted: bool, says: &str) -> Result<(), Failure> {
        let at = self.begin.elapsed();
        let (done, text) = self.gateway.command(verb)?;
        let as_wanted = done == wanted && text.contains(says);
        let (at, took) = (at.as_secs_f64(), (self.begin.elapsed() - at).as_secs_f64());
        self.steps.push(Step { at, took, what: verb.to_owned(), text, as_wanted });
        Ok(())
    }

    /// The process and the configuration that serve have to be the ones from `before`.
    fn still(&mut self, before: &str) -> Result<(), Failure> {
        let after = self.gateway.status()?;
        let as_wanted = after == before;
        self.tell("status", after, as_wanted);
        Ok(())
    }
}

/// A configuration that is another one, and does the same.
fn with_marker(text: &str, step: u32) -> String {
    const MARKER: &str = "\n[routes.marker]\n";
    let text = text.split(MARKER).next().unwrap_or_default();
    format!("{text}{MARKER}path = \"/marker/{step}\"\nauth = \"none\"\nrespond = {{ body = \"{step}\" }}\n")
}

/// Clients of every kind at once.
fn lanes(gateway: &Gateway) -> Vec<Lane> {
    let http = |name: &str| Lane::new(name, gateway.http);
    let https = |name: &str, protocol: &str| Lane {
        tls: Some(gateway.tls(protocol)),
        target: gateway.https,
        ..Lane::new(name, gateway.https)
    };
    vec![
        http("h1 kept, closed loop"),
        Lane { pace: Pace::Rate(200.0), workers: 16, ..http("h1 kept, 200/s") },
        Lane { pace: Pace::Rate(100.0), workers: 50, fresh: true, ..http("h1 fresh, 100/s") },
        Lane { fresh: true, workers: 4, ..http("h1 fresh, closed loop") },
        Lane { delay: Duration::from_millis(400), workers: 16, ..http("h1 kept, slow origin") },
        Lane { bytes: 100_000, pace: Pace::Rate(40.0), ..http("h1 kept, 100 kB") },
        Lane { pace: Pace::Rate(100.0), ..https("h1 TLS kept, 100/s", "http/1.1") },
        Lane { pace: Pace::Rate(20.0), fresh: true, ..https("h1 TLS fresh, 20/s", "http/1.1") },
        Lane { protocol: Protocol::Http2, workers: 16, pace: Pace::Rate(400.0), ..https("h2, 400/s", "h2") },
        Lane { protocol: Protocol::Http2, delay: Duration::from_millis(400), ..https("h2, slow origin", "h2") },
        Lane { protocol: Protocol::Http2, pace: Pace::Rate(20.0), fresh: true, ..https("h2 fresh, 20/s", "h2") },
    ]
}
