//! Ports that stay a test's own, whether somebody listens at them or nobody does.
//!
//! A port that the kernel chose and that was let go is free for a moment only: the next socket anywhere on the machine
//! that asks for any port may get it, and then a test of an endpoint that is down speaks to somebody. These lie below
//! those that the kernel gives (`net.ipv4.ip_local_port_range`, from 32768 on), so that nobody gets one by chance, and
//! a test that takes one says so to the others by a name that ends with its process.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::sync::Mutex;

const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// The names of the ports of this process, and which comes next.
struct Claimed {
    names: Vec<UnixDatagram>,
    next: u32,
}

static CLAIMED: Mutex<Option<Claimed>> = Mutex::new(None);

/// An address that is this process's alone until it ends.
pub(crate) fn claim() -> SocketAddr {
    let mut claimed = CLAIMED.lock().expect("nobody panics with it");
    // Processes follow each other closely: what one has just left need not be what the next begins with.
    let Claimed { names, next } =
        claimed.get_or_insert_with(|| Claimed { names: Vec::new(), next: std::process::id().wrapping_mul(37) });
    for _ in 0..COUNT {
        let port = FIRST + u16::try_from(*next % u32::from(COUNT)).expect("less than a port");
        *next = next.wrapping_add(1);
        let name = UnixAddr::from_abstract_name(format!("tollgate-test-port-{port}")).expect("a short name");
        let Ok(name) = UnixDatagram::bind_addr(&name) else { continue };
        if is_free((Ipv4Addr::LOCALHOST, port).into()) {
            names.push(name);
            return (Ipv4Addr::LOCALHOST, port).into();
        }
    }
    panic!("each of {COUNT} ports from {FIRST} on is taken");
}

/// Whether nobody has it, by either transport: somebody outside the tests may.
fn is_free(addr: SocketAddr) -> bool {
    TcpListener::bind(addr).is_ok() && UdpSocket::bind(addr).is_ok()
}
