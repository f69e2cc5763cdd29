//! Sockets that the service manager has bound (sd_listen_fds(3)): the tests stand for it, and keep them open.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::net::sockopt::set_socket_reuseport;
use rustix::net::{AddressFamily, SocketType};
use tempfile::TempDir;

use crate::support::process::{self, Output, Signal};
use crate::support::{Request, ports, wait};

/// What the shell makes of its standard input and output before it becomes the gateway.
const ONE: &str = "exec 3<&0 < /dev/null > /dev/null; LISTEN_PID=${FOR:-$$} exec \"$@\"";
const TWO: &str = "exec 3<&0 4<&1 < /dev/null > /dev/null; LISTEN_PID=$$ exec \"$@\"";

/// A gateway with one listener, and the sockets that are passed to it.
struct Unit {
    directory: TempDir,
    sockets: Vec<TcpListener>,
}

impl Unit {
    /// `[listeners.http]` at the addresses of these sockets.
    fn with(sockets: Vec<TcpListener>) -> Self {
        process::adopt_orphans();
        let unit = Self { directory: tempfile::tempdir().expect("a directory"), sockets };
        let mut addresses: Vec<_> = unit.addresses().iter().map(|address| format!("\"{address}\"")).collect();
        addresses.dedup();
        let text = format!(
            "version = 1\n[server]\nruntime_dir = \"{}\"\n[admin]\naddress = \"{}\"\n[listeners.http]\naddresses = [{}]\n\
             [routes.main]\nauth = \"none\"\nrespond = {{ body = \"activated\" }}\n",
            unit.directory.path().join("run").display(),
            ports::claim(),
            addresses.join(", "),
        );
        fs::write(unit.file(), text).expect("written");
        unit
    }

    /// One socket, at a port that was free.
    fn new() -> Self {
        Self::with(vec![bound()])
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("tollgate.toml")
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|socket| socket.local_addr().expect("bound")).collect()
    }

    /// Starts a process with what the variables say, and up to two sockets.
    fn start(&self, count: &str, names: &str, environment: &[(&str, &str)]) -> Child {
        let copy = |socket: &TcpListener| Stdio::from(OwnedFd::from(socket.try_clone().expect("a copy")));
        let mut command = Command::new("sh");
        command.args(["-c", if self.sockets.len() > 1 { TWO } else { ONE }, "sh", process::BINARY, "run", "-c"]);
        command.arg(self.file()).env("LISTEN_FDS", count).env("LISTEN_FDNAMES", names);
        command.envs(environment.iter().copied());
        command.stdin(self.sockets.first().map_or_else(Stdio::null, copy));
        command.stdout(self.sockets.get(1).map_or_else(Stdio::null, copy)).stderr(Stdio::piped());
        command.spawn().expect("started")
    }

    /// Starts a process that serves.
    fn serving(&self, names: &str) -> Child {
        self.start(&self.sockets.len().to_string(), names, &[])
    }

    /// Starts a process that says `reason`, and serves nobody.
    #[track_caller]
    fn refused(&self, count: &str, names: &str, environment: &[(&str, &str)], reason: &str) {
        let ended = self.start(count, names, environment).wait_with_output().expect("ended");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.code() == Some(1) && said.contains(reason), "{reason:?} in {:?}: {said}", ended.status);
    }

    #[track_caller]
    fn is_served(&self) {
        for address in self.addresses() {
            assert_eq!(Request::get("/").to(address).send().text(), "activated", "{address}");
        }
    }

    #[track_caller]
    fn upgrade(&self) -> Output {
        process::tollgate(["upgrade".as_ref(), "-c".as_ref(), self.file().as_os_str()])
    }

    fn kill(&self) {
        let pids = process::serving(&self.file());
        for pid in &pids {
            process::signal(*pid, Signal::KILL);
        }
        wait::until("all to be gone", || pids.iter().all(|pid| process::is_gone(*pid)));
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.kill();
    }
}

fn bound() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("bound")
}

#[test]
fn a_socket_of_the_service_manager_is_served_by_the_name_of_its_listener() {
    let unit = Unit::new();
    let mut process = unit.serving("http");
    // Asked before anybody accepts: the service manager's socket has a queue.
    unit.is_served();
    process::signal(process.id(), Signal::TERM);
    assert_eq!(process.wait().expect("ended").code(), Some(0));
}

#[test]
fn a_listener_has_as_many_sockets_as_addresses() {
    let unit = Unit::with(vec![bound(), bound()]);
    let mut process = unit.serving("http:http");
    unit.is_served();
    process::signal(process.id(), Signal::TERM);
    assert_eq!(process.wait().expect("ended").code(), Some(0));
}

#[test]
fn a_socket_that_no_listener_is_called_like_or_that_listens_elsewhere_is_refused() {
    let unit = Unit::new();
    unit.refused("1", "other", &[], "there is no [listeners.other]");
    let elsewhere = Unit { directory: tempfile::tempdir().expect("a directory"), sockets: vec![bound()] };
    fs::copy(unit.file(), elsewhere.file()).expect("copied");
    elsewhere.refused("1", "http", &[], "is no address of [listeners.http]");
}

#[test]
fn what_the_variables_promise_has_to_be_there() {
    let unit = Unit::new();
    unit.refused("2", "http", &[], "LISTEN_FDS promises 2 sockets, LISTEN_FDNAMES names 1");
    unit.refused("2", "http:http", &[], "\"http\" that the service manager passes is not open");
    unit.refused("many", "http", &[], "LISTEN_FDS is no number");
    let nothing = Unit::with(Vec::new());
    fs::copy(unit.file(), nothing.file()).expect("copied");
    nothing.refused("1", "http", &[], "does not listen");
}

/// The one that came first was closed, and whoever the kernel gave to it waited for ever.
#[test]
fn two_sockets_at_one_address_are_refused() {
    let first = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    set_socket_reuseport(&first, true).expect("shared");
    rustix::net::bind(&first, &"127.0.0.1:0".parse::<SocketAddr>().expect("an address")).expect("bound");
    rustix::net::listen(&first, 16).expect("listening");
    let first = TcpListener::from(first);
    let second = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    set_socket_reuseport(&second, true).expect("shared");
    rustix::net::bind(&second, &first.local_addr().expect("bound")).expect("shared");
    rustix::net::listen(&second, 16).expect("listening");
    let unit = Unit::with(vec![first, TcpListener::from(second)]);
    unit.refused("2", "http:http", &[], "two sockets that listen at");
}

#[test]
fn sockets_for_another_process_are_not_taken() {
    let unit = Unit::new();
    // It binds for itself, where the service manager listens already.
    unit.refused("1", "http", &[("FOR", "1")], "cannot listen at");
}

#[test]
fn sockets_of_the_service_manager_are_handed_over_like_all_others() {
    let unit = Unit::new();
    let mut first = unit.serving("http");
    unit.is_served();
    for _ in 0..2 {
        unit.upgrade().succeeded();
        unit.is_served();
    }
    assert_eq!(first.wait().expect("ended").code(), Some(0));
    let served_by = process::serving(&unit.file()).pop().expect("a process that serves");
    assert_ne!(served_by, first.id());
    // It dies, and the next one answers who has come in between.
    unit.kill();
    let address = unit.addresses()[0];
    let waiting = thread::spawn(move || Request::get("/").to(address).send().text());
    let mut second = unit.serving("http");
    assert_eq!(waiting.join().expect("answered"), "activated");
    process::signal(second.id(), Signal::TERM);
    assert_eq!(second.wait().expect("ended").code(), Some(0));
}
