//! What a service manager is told, and by whom: systemd listens to the main process alone (`NotifyAccess=main`).

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixDatagram;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg,
    sockopt::{Timeout, set_socket_passcred, set_socket_timeout},
};

use crate::support::process::Signal;
use crate::support::wait::{self, PATIENCE};
use crate::support::{Client, Origin, Request, Tollgate, open_to};

const HERE: &str = "[routes.main]\nauth = \"none\"\nrespond = { body = \"first\" }\n";

/// The socket that `NOTIFY_SOCKET` names.
struct ServiceManager(UnixDatagram);

/// A message, and the process that sent it.
#[derive(Debug)]
struct Message {
    text: String,
    pid: u32,
}

impl ServiceManager {
    /// Starts a gateway that tells it things; `environment` comes on top.
    fn starting(environment: &[(&str, &str)]) -> (Self, Tollgate) {
        Self::starting_with(HERE, environment)
    }

    fn starting_with(configuration: &str, environment: &[(&str, &str)]) -> (Self, Tollgate) {
        let mut prepared = Tollgate::prepared(configuration);
        let file = prepared.directory().join("notify.sock");
        let socket = UnixDatagram::bind(&file).expect("a socket");
        set_socket_passcred(&socket, true).expect("a socket");
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).expect("a socket");
        prepared = prepared.env("NOTIFY_SOCKET", &file.to_string_lossy());
        for (name, value) in environment {
            prepared = prepared.env(name, value);
        }
        (Self(socket), prepared.start())
    }

    /// The next message.
    #[track_caller]
    fn next(&self) -> Message {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::empty());
        let length = received.expect("a message in time").bytes;
        let pid = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials.pid.as_raw_nonzero().get()),
            _ => None,
        });
        let text = String::from_utf8(bytes[..length].to_vec()).expect("text");
        Message { text, pid: pid.and_then(|pid| u32::try_from(pid).ok()).expect("a sender") }
    }

    /// The next message that has this line.
    #[track_caller]
    fn told(&self, line: &str) -> Message {
        loop {
            let message = self.next();
            if message.text.lines().any(|other| other == line) {
                return message;
            }
        }
    }
}

#[test]
fn it_is_told_when_the_process_serves_and_when_it_leaves() {
    let (manager, mut tollgate) = ServiceManager::starting(&[]);
    let pid = tollgate.pid();
    assert_eq!(manager.told("READY=1").pid, pid);
    tollgate.signal(Signal::TERM);
    assert_eq!(manager.told("STOPPING=1").pid, pid);
    assert_eq!(tollgate.ended(pid), 0);
}

#[test]
fn the_process_that_leaves_names_its_successor() {
    let (manager, mut tollgate) = ServiceManager::starting(&[]);
    let first = tollgate.pid();
    assert_eq!(manager.told("READY=1").pid, first);
    for _ in 0..2 {
        let old = tollgate.pid();
        tollgate.upgrade().succeeded();
        let new = tollgate.pid();
        let message = manager.told(&format!("MAINPID={new}"));
        assert_eq!(message.pid, old, "only the main process is listened to, which its successor is not yet");
        assert!(message.text.lines().any(|line| line == "READY=1"), "{message:?}");
        assert_eq!(tollgate.ended(old), 0);
    }
}

#[test]
fn a_hand_over_that_fails_tells_it_nothing_that_counts() {
    let (manager, tollgate) = ServiceManager::starting(&[]);
    let pid = tollgate.pid();
    manager.told("READY=1");
    tollgate.install("#!/bin/sh\nexit 3\n");
    tollgate.upgrade().failed(1);
    tollgate.reinstall();
    tollgate.upgrade().succeeded();
    // Nothing of the failed attempt is in between.
    loop {
        let message = manager.next();
        assert_eq!(message.pid, pid, "{message:?}");
        if message.text.contains("MAINPID=") {
            assert!(message.text.contains(&format!("MAINPID={}\n", tollgate.pid())), "{message:?}");
            break;
        }
    }
}

#[test]
fn the_watchdog_is_fed_by_the_process_that_serves() {
    let (manager, mut tollgate) = ServiceManager::starting(&[("WATCHDOG_USEC", "200000")]);
    let old = tollgate.pid();
    assert_eq!(manager.told("WATCHDOG=1").pid, old);
    assert_eq!(manager.told("WATCHDOG=1").pid, old, "again and again");
    tollgate.upgrade().succeeded();
    let new = tollgate.pid();
    assert_eq!(tollgate.ended(old), 0);
    while manager.told("WATCHDOG=1").pid != new {}
}

/// systemd complains of every message of a process that is the main one no more.
#[test]
fn a_process_that_drains_leaves_the_watchdog_to_its_successor() {
    let (origin, gate) = Origin::gated("late");
    let (manager, mut tollgate) =
        ServiceManager::starting_with(&open_to(&[origin.addr()]), &[("WATCHDOG_USEC", "50000")]);
    let old = tollgate.pid();
    let mut client = Client::connect(tollgate.addr());
    client.begin(&Request::get("/")).expect("sent");
    wait::until("the request to arrive", || origin.hits() == 1);
    tollgate.upgrade().succeeded();
    let new = tollgate.pid();
    manager.told(&format!("MAINPID={new}"));
    for _ in 0..20 {
        assert_eq!(manager.told("WATCHDOG=1").pid, new);
    }
    gate.open();
    assert_eq!(client.finish("GET").expect("answered").text(), "late");
    assert_eq!(tollgate.ended(old), 0);
}

#[test]
fn a_manager_that_does_not_read_stops_nobody() {
    let (manager, mut tollgate) = ServiceManager::starting(&[("WATCHDOG_USEC", "20000")]);
    let old = tollgate.pid();
    assert_eq!(manager.told("READY=1").pid, old);
    let sender = UnixDatagram::unbound().expect("a socket");
    sender.set_nonblocking(true).expect("a socket");
    while sender.send_to(b"X=1", tollgate.path("notify.sock")).is_ok() {}
    tollgate.upgrade().succeeded();
    assert_eq!(tollgate.ended(old), 0);
    assert_eq!(tollgate.readiness(), Some(200));
}
