//! Messages between two processes of this machine, with sockets beside them.
//!
//! A message is one packet of a `SOCK_SEQPACKET` Unix socket: JSON, and up to [`MAX_SOCKETS`] descriptors (SCM_RIGHTS).
//! The kernel keeps packets apart, so there is no framing to get wrong. Calls block, within the timeout they are given:
//! both ends use them off their serving threads.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Descriptors beside one message; the kernel takes at most 253.
pub(super) const MAX_SOCKETS: usize = 64;
/// Bytes of one message.
const MAX_MESSAGE: usize = 128 * 1024;

/// One end of a connection between two processes.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Two ends that are connected.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (left, right) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(left), Self(right)))
    }

    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// Nobody listens there, or it may not be reached.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self(socket))
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The other end is gone or does not read within `timeout`, or the message is too large.
    pub fn send<M: Serialize>(&self, message: &M, sockets: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<()> {
        // It may carry keys, which nobody is to find in memory that was given back.
        let bytes = Zeroizing::new(serde_json::to_vec(message)?);
        if bytes.len() > MAX_MESSAGE || sockets.len() > MAX_SOCKETS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too large to send"));
        }
        sockopt::set_socket_timeout(&self.0, Timeout::Send, Some(timeout))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() {
            beside.push(SendAncillaryMessage::ScmRights(sockets));
        }
        // A peer that is gone is an error to handle, not a signal to die from.
        rustix::net::sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut beside, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next message, or `None` when the other end is gone.
    ///
    /// # Errors
    /// Nothing came within `timeout` (`WouldBlock`), or what came is no such message.
    pub fn receive<M: DeserializeOwned>(&self, timeout: Duration) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        sockopt::set_socket_timeout(&self.0, Timeout::Recv, Some(timeout))?;
        let mut bytes = Zeroizing::new(vec![0; MAX_MESSAGE]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(&self.0, &mut parts, &mut beside, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                other => break other?,
            }
        };
        let mut sockets = Vec::new();
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                sockets.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the message was cut"));
        }
        Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, sockets)))
    }

    /// Who is at the other end, as of when the connection was made: process and user.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn peer(&self) -> io::Result<(u32, u32)> {
        let credentials = sockopt::socket_peercred(&self.0)?;
        let pid = u32::try_from(credentials.pid.as_raw_nonzero().get()).map_err(io::Error::other)?;
        Ok((pid, credentials.uid.as_raw()))
    }
}

impl From<OwnedFd> for Channel {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn a_message_arrives_with_its_sockets() {
        let (left, right) = Channel::pair().expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        left.send(&vec!["http"], &[listener.as_fd()], SOON).expect("sent");
        drop(listener);
        let (names, sockets): (Vec<String>, _) = right.receive(SOON).expect("received").expect("open");
        assert_eq!(names, ["http"]);
        let passed = TcpListener::from(sockets.into_iter().next().expect("one socket"));
        TcpStream::connect(address).expect("still listening").write_all(b"x").expect("written");
        passed.accept().expect("accepted by the receiver");
    }

    #[test]
    fn an_end_that_is_gone_is_seen() {
        let (left, right) = Channel::pair().expect("a pair");
        drop(left);
        assert!(right.receive::<String>(SOON).expect("no error").is_none());
        assert!(right.send(&"x", &[], SOON).is_err());
    }

    #[test]
    fn silence_ends_with_the_timeout() {
        let (_left, right) = Channel::pair().expect("a pair");
        let error = right.receive::<String>(Duration::from_millis(10)).expect_err("nothing came");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let (left, right) = Channel::pair().expect("a pair");
        left.send(&7, &[], SOON).expect("sent");
        let error = right.receive::<Vec<String>>(SOON).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let long = "x".repeat(MAX_MESSAGE);
        assert_eq!(left.send(&long, &[], SOON).expect_err("refused").kind(), io::ErrorKind::InvalidInput);
    }
}
