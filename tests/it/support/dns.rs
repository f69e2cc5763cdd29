//! A DNS server of a test's own: Debian's dnsmasq, with the zone that the test wants.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::process::is_installed;
use super::{ports, wait};

/// A server that runs until it goes out of scope.
pub(crate) struct Dns {
    directory: TempDir,
    addr: SocketAddr,
    child: Child,
}

impl Dns {
    /// Starts one with these lines of `dnsmasq.conf`; `None`, told loudly, where it is not installed.
    pub(crate) fn start(zone: &str) -> Option<Self> {
        if !is_installed("dnsmasq") {
            return None;
        }
        let directory = tempfile::Builder::new().prefix("dns-").tempdir().expect("a directory");
        let addr = ports::claim();
        let child = spawn(&directory, addr, zone);
        let dns = Self { directory, addr, child };
        dns.answers();
        Some(dns)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// As a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// Starts it at the same address with another zone.
    pub(crate) fn start_again(&mut self, zone: &str) {
        self.child = spawn(&self.directory, self.addr, zone);
        self.answers();
    }

    fn answers(&self) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("an address");
        socket.set_read_timeout(Some(wait::MOMENT)).expect("a socket");
        // A query for the root's addresses: whatever it says to that is an answer.
        let query = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        wait::until("dnsmasq to answer", || {
            let sent = socket.send_to(&query, self.addr);
            sent.is_ok() && socket.recv_from(&mut [0; 512]).is_ok()
        });
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(directory: &TempDir, addr: SocketAddr, zone: &str) -> Child {
    let file = directory.path().join("dnsmasq.conf");
    let text = format!(
        "listen-address={}\nport={}\nbind-interfaces\nno-resolv\nno-hosts\nlocal-ttl=1\nuser=\npid-file=\n{zone}\n",
        addr.ip(),
        addr.port()
    );
    fs::write(&file, text).expect("written");
    let mut command = Command::new("/usr/sbin/dnsmasq");
    command.arg("--keep-in-foreground").arg(format!("--conf-file={}", file.display()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("it is installed")
}
