//! Handing over to a successor: nobody notices, or nothing happens.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::jwt;
use crate::support::process::{self, Signal};
use crate::support::{Client, Gate, Origin, Raw, Request, Tollgate, open_to, ports, wait, websocket};

/// A route that answers by itself.
const HERE: &str = "[routes.main]\nauth = \"none\"\nrespond = { body = \"first\" }\n";
/// Well below every timeout.
const SOON: Duration = Duration::from_secs(8);

#[test]
fn an_upgrade_hands_over_to_another_process_and_the_old_one_leaves() {
    let mut tollgate = Tollgate::with(HERE);
    let old = tollgate.pid();
    let said = tollgate.upgrade().succeeded().stdout;
    let new = tollgate.pid();
    assert_ne!(old, new);
    assert!(said.contains(&old.to_string()) && said.contains(&new.to_string()), "{said}");
    assert_eq!(tollgate.get("/").send().text(), "first");
    assert_eq!(tollgate.readiness(), Some(200));
    assert_eq!(tollgate.ended(old), 0);
    assert_eq!(tollgate.pids(), [new]);
    let status = tollgate.command("status").succeeded().stdout;
    assert!(status.contains(&new.to_string()), "{status}");
}

#[test]
fn the_successor_can_do_all_that_its_predecessor_could() {
    let mut tollgate = Tollgate::with(HERE);
    let first = tollgate.pid();
    tollgate.upgrade().succeeded();
    assert_eq!(tollgate.ended(first), 0);
    tollgate.replace("\"first\"", "\"second\"");
    tollgate.reload().succeeded();
    assert_eq!(tollgate.get("/").send().text(), "second");
    let second = tollgate.pid();
    tollgate.upgrade().succeeded();
    assert_eq!(tollgate.ended(second), 0);
    tollgate.replace("\"second\"", "\"third\"");
    let third = tollgate.pid();
    tollgate.signal(Signal::QUIT);
    wait::until("the third successor", || tollgate.get("/").send().text() == "third");
    assert_eq!(tollgate.ended(third), 0);
    assert_eq!(tollgate.pids().len(), 1);
}

#[test]
fn an_upgrade_takes_the_configuration_on_disk_with_its_listeners() {
    let tollgate = Tollgate::with(HERE);
    let (old, new) = (tollgate.addr(), ports::claim());
    tollgate.edit(|text| {
        *text = text.replace(&old.to_string(), &new.to_string()).replace("\"first\"", "\"second\"");
    });
    tollgate.upgrade().succeeded();
    assert_eq!(Request::get("/").to(new).send().text(), "second");
    wait::until("the old address to be closed", || Client::try_connect(old).is_err());
}

#[test]
fn whatever_the_number_of_workers_every_queue_is_served() {
    let workers = |count: u32| format!("threads = {count}");
    let mut tollgate = Tollgate::with(&format!("[server]\n{}\n{HERE}", workers(3)));
    for (before, after) in [(3, 1), (1, 4), (4, 2)] {
        let old = tollgate.pid();
        tollgate.replace(&workers(before), &workers(after));
        tollgate.upgrade().succeeded();
        assert_eq!(tollgate.ended(old), 0);
        // The kernel spreads these over the sockets of all processes that have been.
        for _ in 0..40 {
            assert_eq!(tollgate.get("/").send().text(), "first", "{after} workers after {before}");
        }
    }
}

#[test]
fn more_sockets_than_fit_in_one_message_are_handed_over() {
    let listeners: Vec<_> = (0..70).map(|index| format!("[listeners.number_{index}]\n")).collect();
    let mut tollgate = Tollgate::with(&format!("{}{HERE}", listeners.concat()));
    let old = tollgate.pid();
    tollgate.upgrade().succeeded();
    assert_eq!(tollgate.ended(old), 0);
    for index in 0..70 {
        let addr = tollgate.addr_of(&format!("number_{index}"));
        assert_eq!(Request::get("/").to(addr).send().text(), "first", "listener {index}");
    }
}

#[test]
fn a_request_in_flight_is_finished_by_the_process_that_began_it() {
    let (origin, gate) = Origin::gated("late");
    let mut tollgate = Tollgate::with(&open_to(&[origin.addr()]));
    let old = tollgate.pid();
    let mut client = Client::connect(tollgate.addr());
    client.begin(&Request::get("/")).expect("sent");
    wait::until("the request to arrive", || origin.hits() == 1);
    tollgate.upgrade().succeeded();
    assert!(!tollgate.is_gone(old));
    gate.open();
    let response = client.finish("GET").expect("answered");
    assert_eq!((response.text().as_str(), response.header("connection")), ("late", Some("close")));
    let answered = Instant::now();
    assert_eq!(tollgate.ended(old), 0);
    assert!(answered.elapsed() < SOON, "left after {:?}", answered.elapsed());
}

#[test]
fn a_kept_connection_is_told_to_end_with_its_next_answer() {
    let mut tollgate = Tollgate::with(HERE);
    let old = tollgate.pid();
    let mut client = Client::connect(tollgate.addr());
    client.get("/");
    tollgate.upgrade().succeeded();
    assert_eq!(client.get("/").header("connection"), Some("close"));
    assert_eq!(tollgate.ended(old), 0);
}

#[test]
fn a_websocket_lives_on_in_the_old_process() {
    let origin = websocket::echo_origin();
    let mut tollgate = Tollgate::with(&format!("[server]\ndrain_timeout = \"90s\"\n{}", open_to(&[origin.addr()])));
    let old = tollgate.pid();
    let (mut socket, _) = websocket::connect(tollgate.addr(), "/", &[]).expect("open");
    tollgate.upgrade().succeeded();
    socket.send(tungstenite::Message::text("still there?")).expect("sent");
    assert_eq!(socket.read().expect("echoed"), tungstenite::Message::text("still there?"));
    assert_eq!(tollgate.pids().len(), 2);
    socket.close(None).expect("closing");
    while socket.read().is_ok() {}
    drop(socket);
    assert_eq!(tollgate.ended(old), 0);
}

/// Asks for an upgrade that has to fail, saying `reason`, and change nothing.
#[track_caller]
fn refused(tollgate: &Tollgate, reason: &str) {
    let (pid, failures) = (tollgate.pid(), r#"tollgate_upgrades_total{result="failure"}"#);
    let before = tollgate.metric(failures).unwrap_or_default();
    let mut client = Client::connect(tollgate.addr());
    client.get("/");
    let stderr = tollgate.upgrade().failed(1);
    assert!(stderr.contains(reason), "{reason} in\n{stderr}");
    assert!(tollgate.stderr().contains(reason), "the log says it too");
    assert_eq!(tollgate.pids(), [pid]);
    assert_eq!(client.get("/").text(), "first", "on a connection that stays open");
    assert_eq!(tollgate.get("/").send().text(), "first");
    assert_eq!(tollgate.readiness(), Some(200));
    tollgate.wait_for_metric(failures, before + 1.0);
}

#[test]
fn a_binary_that_crashes_leaves_the_old_process_serving() {
    let tollgate = Tollgate::with(HERE);
    tollgate.install("#!/bin/sh\nexit 7\n");
    refused(&tollgate, "exit status: 7");
    tollgate.install("#!/bin/sh\nkill -SEGV $$\n");
    refused(&tollgate, "signal: 11");
    tollgate.install("no program");
    refused(&tollgate, "cannot be started");
    tollgate.reinstall();
    tollgate.upgrade().succeeded();
    assert_eq!(tollgate.get("/").send().text(), "first");
}

#[test]
fn a_binary_that_is_gone_or_may_not_be_run_leaves_the_old_process_serving() {
    let tollgate = Tollgate::with(HERE);
    tollgate.install("#!/bin/sh\nexit 0\n");
    refused(&tollgate, "exit status: 0");
    std::fs::set_permissions(tollgate.program(), std::fs::Permissions::from_mode(0o644)).expect("changed");
    refused(&tollgate, "Permission denied");
    std::fs::remove_file(tollgate.program()).expect("removed");
    refused(&tollgate, "No such file");
}

#[test]
fn a_broken_configuration_leaves_the_old_process_serving() {
    let tollgate = Tollgate::with(HERE);
    tollgate.edit(|text| text.push_str("[routes.other]\nauth = \"none\"\nupstream = \"nowhere\"\n"));
    refused(&tollgate, "routes.other.upstream");
}

#[test]
fn an_address_that_is_taken_leaves_the_old_process_serving() {
    let origin = Origin::replying("");
    let tollgate = Tollgate::with(HERE);
    tollgate.edit(|text| text.push_str(&format!("[listeners.other]\naddress = \"{}\"\n", origin.addr())));
    refused(&tollgate, "listeners.other.address");
}

#[test]
fn a_successor_that_says_nothing_is_ended_when_the_process_is_told_to_leave() {
    let mut tollgate = Tollgate::with(HERE);
    let pid = tollgate.pid();
    let started = tollgate.path("started");
    // It keeps the channel open, and never says READY.
    tollgate.install(&format!("#!/bin/sh\necho $$ > {}\nexec sleep 600\n", started.display()));
    tollgate.signal(Signal::QUIT);
    let candidate = wait::some("the candidate", || std::fs::read_to_string(&started).ok()?.trim().parse::<u32>().ok());
    assert_eq!(tollgate.get("/").send().text(), "first", "meanwhile");
    process::signal(pid, Signal::TERM);
    assert_eq!(tollgate.ended(pid), 0);
    wait::until("the candidate to be gone", || {
        std::fs::read(format!("/proc/{candidate}/cmdline")).map_or(true, |line| line.is_empty())
    });
}

#[test]
fn a_successor_survives_the_death_of_its_predecessor() {
    let origin = Origin::hanging();
    let text = format!(
        "[server]\ndrain_timeout = \"90s\"\n{}[routes.here]\npath = \"/here\"\nauth = \"none\"\nrespond = {{ body = \"first\" }}\n",
        open_to(&[origin.addr()])
    );
    let mut tollgate = Tollgate::with(&text);
    let old = tollgate.pid();
    let mut client = Client::connect(tollgate.addr());
    client.begin(&Request::get("/")).expect("sent");
    wait::until("the request to arrive", || origin.hits() == 1);
    tollgate.upgrade().succeeded();
    process::signal(old, Signal::KILL);
    assert_eq!(tollgate.ended(old), -9);
    assert_eq!(tollgate.get("/here").send().text(), "first");
    tollgate.reload().succeeded();
    tollgate.upgrade().succeeded();
    assert_eq!(tollgate.get("/here").send().text(), "first");
}

/// systemd is told of the end of its own children alone. The successor was once a child of its predecessor until that had
/// drained, and one that died meanwhile was seen by the watchdog only, which ended the predecessor as well.
#[test]
fn a_successor_that_dies_while_its_predecessor_drains_is_seen_by_whoever_started_them() {
    let (origin, gate) = Origin::gated("late");
    let mut tollgate = Tollgate::with(&format!("[server]\ndrain_timeout = \"90s\"\n{}", open_to(&[origin.addr()])));
    let old = tollgate.pid();
    let mut client = Client::connect(tollgate.addr());
    client.begin(&Request::get("/")).expect("sent");
    wait::until("the request to arrive", || origin.hits() == 1);
    tollgate.upgrade().succeeded();
    let new = tollgate.pid();
    assert_eq!(process::parent(new), Some(std::process::id()), "the tests stand for process 1");
    process::signal(new, Signal::KILL);
    assert_eq!(tollgate.ended(new), -9);
    assert_eq!(tollgate.pids(), [old]);
    gate.open();
    assert_eq!(client.finish("GET").expect("answered").text(), "late");
    assert_eq!(tollgate.ended(old), 0);
}

/// A gateway that hands over while a request waits at a gate, with `drain_timeout` far away.
struct Draining {
    tollgate: Tollgate,
    client: Client,
    old: u32,
    new: u32,
    gate: Gate,
    _origin: Origin,
}

fn draining() -> Draining {
    let (origin, gate) = Origin::gated("late");
    let tollgate = Tollgate::with(&format!("[server]\ndrain_timeout = \"90s\"\n{}", open_to(&[origin.addr()])));
    let old = tollgate.pid();
    let mut client = Client::connect(tollgate.addr());
    client.begin(&Request::get("/")).expect("sent");
    wait::until("the request to arrive", || origin.hits() == 1);
    tollgate.upgrade().succeeded();
    let new = tollgate.pid();
    Draining { tollgate, client, old, new, gate, _origin: origin }
}

/// What systemd does then: it tells the rest of the unit to leave, and starts anew when nothing is left of it.
#[test]
fn when_the_successor_has_died_a_predecessor_that_is_told_to_leave_hurries() {
    let Draining { mut tollgate, client: _client, old, new, gate: _gate, _origin } = draining();
    process::signal(new, Signal::KILL);
    assert_eq!(tollgate.ended(new), -9);
    let told = Instant::now();
    process::signal(old, Signal::TERM);
    assert_eq!(tollgate.ended(old), 0);
    assert!(told.elapsed() < 2 * SOON, "left after {:?}", told.elapsed());
    assert!(tollgate.stderr().contains("the successor has died"), "{}", tollgate.stderr());
}

#[test]
fn when_the_successor_leaves_as_it_was_told_a_predecessor_takes_its_time() {
    let Draining { mut tollgate, mut client, old, new, gate, _origin } = draining();
    process::signal(old, Signal::TERM);
    process::signal(new, Signal::TERM);
    assert_eq!(tollgate.ended(new), 0);
    wait::until("the predecessor to go on", || tollgate.stderr().contains("it drains already"));
    gate.open();
    assert_eq!(client.finish("GET").expect("answered").text(), "late");
    assert_eq!(tollgate.ended(old), 0);
    assert!(!tollgate.stderr().contains("the successor has died"), "{}", tollgate.stderr());
}

/// systemd tells all processes of a unit to leave, and once more what is left when the main process has. A predecessor once
/// took the second for impatience, and cut off what it drained.
#[test]
fn a_predecessor_that_drains_finishes_however_often_it_is_told_to_leave() {
    let Draining { mut tollgate, mut client, old, new, gate, _origin } = draining();
    let heard = |times: usize| {
        wait::until("it to be heard", || tollgate.stderr().matches("it drains already").count() == times);
    };
    process::signal(old, Signal::TERM);
    heard(1);
    process::signal(new, Signal::TERM);
    wait::until("the successor to leave", || tollgate.pids() == [old]);
    process::signal(old, Signal::TERM);
    heard(2);
    gate.open();
    assert_eq!(client.finish("GET").expect("answered").text(), "late");
    assert_eq!(tollgate.ended(new), 0);
    assert_eq!(tollgate.ended(old), 0);
}

#[test]
fn a_predecessor_that_drains_leaves_at_once_at_int() {
    let Draining { mut tollgate, client: _client, old, new, gate: _gate, _origin } = draining();
    process::signal(old, Signal::INT);
    assert_eq!(tollgate.ended(old), 0);
    assert_eq!(tollgate.pids(), [new]);
}

#[test]
fn hup_and_quit_are_ignored_by_a_predecessor_that_drains() {
    let (origin, gate) = Origin::gated("late");
    let mut tollgate = Tollgate::with(&format!("[server]\ndrain_timeout = \"90s\"\n{}", open_to(&[origin.addr()])));
    let old = tollgate.pid();
    let mut client = Client::connect(tollgate.addr());
    client.begin(&Request::get("/")).expect("sent");
    wait::until("the request to arrive", || origin.hits() == 1);
    tollgate.upgrade().succeeded();
    let new = tollgate.pid();
    process::signal(old, Signal::HUP);
    process::signal(old, Signal::QUIT);
    wait::until("both to be heard", || tollgate.stderr().matches("is ignored").count() == 2);
    assert_eq!(tollgate.pids(), [old, new]);
    gate.open();
    assert_eq!(client.finish("GET").expect("answered").text(), "late");
    assert_eq!(tollgate.ended(old), 0);
}

#[test]
fn usr1_reaches_a_predecessor_that_drains() {
    let (origin, gate) = Origin::gated("late");
    let mut tollgate = Tollgate::with(&format!("[server]\ndrain_timeout = \"90s\"\n{}", open_to(&[origin.addr()])));
    let old = tollgate.pid();
    let mut client = Client::connect(tollgate.addr());
    client.begin(&Request::get("/of-the-old-one")).expect("sent");
    wait::until("the request to arrive", || origin.hits() == 1);
    tollgate.upgrade().succeeded();
    let moved = tollgate.path("access.log.1");
    std::fs::rename(tollgate.access_log_file(), &moved).expect("moved");
    tollgate.signal(Signal::USR1);
    let opened_by = |pid: u32| {
        let links = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let names: Vec<_> = links.filter_map(|link| std::fs::read_link(link.path()).ok()).collect();
        names.contains(&tollgate.access_log_file()) && !names.contains(&moved)
    };
    wait::until("both to have the new file", || tollgate.pids().into_iter().all(opened_by));
    gate.open();
    client.finish("GET").expect("answered");
    tollgate.logged_where("the old process's line", |line| line["path"] == "/of-the-old-one");
    assert_eq!(tollgate.ended(old), 0);
    assert_eq!(std::fs::read_to_string(moved).expect("read"), "");
}

#[test]
fn run_upgrade_takes_over_from_the_process_that_runs() {
    let mut tollgate = Tollgate::with(HERE);
    let old = tollgate.pid();
    tollgate.replace("\"first\"", "\"second\"");
    let log = || std::fs::File::options().append(true).open(tollgate.path("stderr.log")).expect("the log");
    let mut successor = Command::new(process::BINARY)
        .args(["run".as_ref(), "--upgrade".as_ref(), "-c".as_ref(), tollgate.config_file().as_os_str()])
        .stdin(std::process::Stdio::null())
        .stdout(log())
        .stderr(log())
        .spawn()
        .expect("started");
    assert_eq!(tollgate.ended(old), 0);
    assert_eq!(tollgate.get("/").send().text(), "second");
    assert_eq!(tollgate.pids(), [successor.id()]);
    tollgate.reload().succeeded();
    process::signal(successor.id(), Signal::TERM);
    assert_eq!(successor.wait().expect("our own child").code(), Some(0));
}

#[test]
fn reloads_and_upgrades_at_once_are_all_answered() {
    let tollgate = Tollgate::with(HERE);
    std::thread::scope(|scope| {
        let verbs = ["upgrade", "reload", "reload", "upgrade", "reload", "status"];
        let all: Vec<_> = verbs.map(|verb| scope.spawn(|| tollgate.command(verb))).into_iter().collect();
        for command in all {
            command.join().expect("asked").succeeded();
        }
    });
    assert_eq!(tollgate.get("/").send().text(), "first");
    wait::until("one process to be left", || tollgate.pids().len() == 1);
}

#[test]
fn a_connection_opened_during_the_hand_over_is_served_by_one_of_the_two() {
    let tollgate = Tollgate::with(HERE);
    let addr = tollgate.addr();
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| tollgate.upgrade());
        let mut served = 0;
        while !upgrade.is_finished() {
            let mut raw = Raw::connect(addr);
            raw.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            assert_eq!(raw.response().text(), "first", "after {served}");
            served += 1;
        }
        upgrade.join().expect("asked").succeeded();
        assert!(served > 0);
    });
}

/// A successor has the sockets before it has its keys. It once accepted at once, and turned callers away with 503.
#[test]
fn while_a_successor_waits_for_its_keys_nobody_is_answered_by_it() {
    let key = jwt::Key::es256();
    let issuer = jwt::JwksServer::serving(&[&key]);
    let tollgate = Tollgate::with(&format!(
        "[auth.corporate]\ntype = \"jwt\"\nissuer = \"{}\"\naudience = [\"{}\"]\nalgorithms = [\"ES256\"]\njwks_url = \"{}\"\n\
         [routes.main]\nauth = \"corporate\"\nrespond = {{ body = \"first\" }}\n",
        jwt::ISSUER,
        jwt::AUDIENCE,
        issuer.url()
    ));
    let token = key.token().mint();
    let ask = || tollgate.get("/").bearer(&token).send();
    assert_eq!(ask().status, 200);
    issuer.hang();
    let refused = std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| tollgate.upgrade().failed(1));
        while !upgrade.is_finished() {
            assert_eq!((ask().status, tollgate.readiness()), (200, Some(200)));
        }
        upgrade.join().expect("ended")
    });
    assert!(refused.contains("corporate has no keys"), "{refused}");
    assert_eq!(tollgate.pids().len(), 1);
}
