//! Sockets that the service manager has bound for us (sd_listen_fds(3)): it keeps them while nobody serves, so that
//! connections wait instead of being refused.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{SocketType, sockopt};

/// The first descriptor that is passed.
const FIRST: RawFd = 3;
/// Descriptors that are taken at most.
const MAX_PASSED: usize = 1024;
/// Names the process that is meant; the other variables count for it alone.
pub const LISTEN_PID: &str = "LISTEN_PID";

/// A socket that was passed to this process, and what the service manager calls it.
#[derive(Debug)]
pub struct Activated {
    /// `FileDescriptorName=` of the socket unit
    pub name: String,
    /// Where it listens
    pub address: SocketAddr,
    /// It
    pub socket: OwnedFd,
}

/// What the service manager has passed to this process; to be called once, before any descriptor is opened.
///
/// # Errors
/// What was passed is not what the variables say, or not a TCP socket that listens.
pub fn activated() -> Result<Vec<Activated>, String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "set by the service manager for this process alone: no configuration"
    )]
    let [pid, count, names] = [LISTEN_PID, "LISTEN_FDS", "LISTEN_FDNAMES"].map(|name| std::env::var(name).ok());
    // A successor inherits the variables of the process that was meant.
    if pid.as_deref() != Some(std::process::id().to_string().as_str()) {
        return Ok(Vec::new());
    }
    let names = self::names(count.as_deref().unwrap_or_default(), names.as_deref())?;
    (FIRST..).zip(names).map(|(number, name)| take(number, name)).collect()
}

/// The name of each descriptor.
fn names(count: &str, names: Option<&str>) -> Result<Vec<String>, String> {
    let expected = count.parse().ok().filter(|count| *count <= MAX_PASSED);
    let expected = expected.ok_or_else(|| format!("LISTEN_FDS is no number up to {MAX_PASSED}"))?;
    let names: Vec<_> = names.map_or_else(Vec::new, |names| names.split(':').map(str::to_owned).collect());
    if expected > 0 && names.len() != expected {
        return Err(format!("LISTEN_FDS promises {expected} sockets, LISTEN_FDNAMES names {}", names.len()));
    }
    Ok(names.into_iter().take(expected).collect())
}

#[expect(unsafe_code, reason = "a number from the environment becomes a descriptor")]
fn take(number: RawFd, name: String) -> Result<Activated, String> {
    let wrong = |what: &str| format!("the socket \"{name}\" that the service manager passes {what}");
    // It may have been closed on the way, and the number be nobody's or somebody else's of this process.
    if std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_err() {
        return Err(wrong("is not open"));
    }
    // SAFETY: the descriptor is open, was there when the process began, and is passed to this process alone, which asks
    // once: nobody else here owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let prepared = || -> io::Result<bool> {
        // Successors get sockets by message, and other programs none.
        fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(sockopt::socket_type(&socket)? == SocketType::STREAM && sockopt::socket_acceptconn(&socket)?)
    };
    if !matches!(prepared(), Ok(true)) {
        return Err(wrong("does not listen: it has to be ListenStream= with Accept=no"));
    }
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().map_err(|_| wrong("is none of TCP"))?;
    Ok(Activated { address, socket: OwnedFd::from(listener), name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_socket_has_a_name() {
        assert_eq!(names("2", Some("http:https")).expect("right"), ["http", "https"]);
        assert!(names("0", Some("")).expect("right").is_empty());
        for (count, given) in [("2", Some("http")), ("1", None), ("", Some("a")), ("-1", None), ("9999999", Some("a"))]
        {
            assert!(names(count, given).is_err(), "{count:?} {given:?}");
        }
    }
}
