//! A Redis server of a test's own: Debian's, on a Unix socket and perhaps a port, in a directory that goes with it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::process::{Signal, is_installed, signal};
use super::wait;

/// A server that runs until it goes out of scope.
pub(crate) struct Redis {
    directory: TempDir,
    config: String,
    role: Role,
    child: Child,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Store,
    Sentinel,
}

impl Redis {
    /// Starts one with these lines of `redis.conf` besides; `None`, told loudly, where it is not installed.
    pub(crate) fn start(config: &str) -> Option<Self> {
        Self::start_as(Role::Store, config)
    }

    /// The same, of a sentinel.
    pub(crate) fn start_sentinel(config: &str) -> Option<Self> {
        Self::start_as(Role::Sentinel, config)
    }

    fn start_as(role: Role, config: &str) -> Option<Self> {
        if !is_installed("redis-server") {
            return None;
        }
        let directory = tempfile::Builder::new().prefix("redis-").tempdir().expect("a directory");
        let child = spawn(&directory, role, config);
        let redis = Self { directory, config: config.to_owned(), role, child };
        redis.listens();
        Some(redis)
    }

    /// A file of its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `unix://…`, with what stands before the path.
    pub(crate) fn url_as(&self, credentials: &str) -> String {
        format!("unix://{credentials}{}", self.path("redis.sock").display())
    }

    pub(crate) fn url(&self) -> String {
        self.url_as("")
    }

    pub(crate) fn signal(&self, which: Signal) {
        signal(self.child.id(), which);
    }

    /// As a crash would: nothing is kept.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.directory, self.role, &self.config);
        self.listens();
    }

    /// What it answers to one command.
    pub(crate) fn ask(&self, command: &str) -> String {
        self.try_ask(command).expect("a server that answers")
    }

    fn try_ask(&self, command: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.path("redis.sock")).ok()?;
        stream.set_read_timeout(Some(wait::PATIENCE)).expect("a socket");
        stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
        // Sentinels know no QUIT.
        stream.shutdown(Shutdown::Write).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        (!answer.is_empty()).then_some(answer)
    }

    fn listens(&self) {
        // One that wants a password says so, which is an answer too.
        wait::until("redis-server to answer", || self.try_ask("PING").is_some());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(directory: &TempDir, role: Role, config: &str) -> Child {
    let file = directory.path().join("redis.conf");
    let socket = directory.path().join("redis.sock");
    // A crash leaves it, and the server would not start.
    drop(std::fs::remove_file(&socket));
    let here = directory.path().display();
    let port = if config.contains("port ") { "" } else { "port 0\n" };
    let text = format!(
        "{port}unixsocket {}\ndir {here}\nsave \"\"\nappendonly no\nlogfile {here}/redis.log\n{config}\n",
        socket.display()
    );
    std::fs::write(&file, text).expect("written");
    let mut command = Command::new("redis-server");
    command
        .arg(&file)
        .args((role == Role::Sentinel).then_some("--sentinel"))
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command.spawn().expect("it is installed")
}

/// The address of a server that has a port too.
pub(crate) fn port_line(addr: SocketAddr, tls: bool) -> String {
    let port = if tls { "port 0\ntls-port" } else { "port" };
    format!("bind {}\n{port} {}", addr.ip(), addr.port())
}
