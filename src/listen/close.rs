//! The end of a connection: what was written arrives, and no reset overtakes it.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::stream::Place;
use super::transport::Transport;

/// How long a client may take to take the rest of an answer.
const FLUSH: Duration = Duration::from_secs(5);
/// How long a connection is still read after its last answer if the client was not done sending. Closing with unread
/// bytes would reset it, and the client might lose the answer (RFC 9112 section 9.6).
const LINGER_UNREAD: Duration = Duration::from_secs(2);
/// The same for a connection with nothing unread: a request that crosses our goodbye must find that, not a reset.
const LINGER: Duration = Duration::from_millis(500);
/// How much is read and thrown away in that time.
const LINGER_BYTES: usize = 1024 * 1024;

/// A connection about to be closed.
pub(super) struct Closing {
    pub(super) transport: Transport,
    pub(super) place: Place,
    /// Not yet sent
    pub(super) output: BytesMut,
    /// The client has sent, or is sending, what nobody will read
    pub(super) unread: bool,
    /// The client will send no more
    pub(super) ended: bool,
    /// We have said goodbye
    pub(super) shut: bool,
}

/// Closes in the background.
pub(super) fn begin(closing: Closing) {
    let done = closing.shut && closing.ended;
    // Outside a runtime nobody could close it in a better way than the kernel does.
    if let (false, Ok(runtime)) = (done, tokio::runtime::Handle::try_current()) {
        runtime.spawn(close(closing));
    }
}

async fn close(closing: Closing) {
    let Closing { mut transport, place, output, unread, ended, shut } = closing;
    if !shut {
        let goodbye = async {
            transport.write_all(&output).await?;
            transport.shutdown().await
        };
        if !matches!(timeout(FLUSH, goodbye).await, Ok(Ok(()))) {
            return;
        }
    }
    if ended {
        return;
    }
    let linger = if unread {
        LINGER_UNREAD
    } else {
        // Everything was said: a process that leaves need not wait for what may cross it.
        drop(place.drain);
        LINGER
    };
    // However it ends, the connection is gone and nobody waits for it.
    drop(timeout(linger, discard(&mut transport)).await);
    drop((place.permit, place.served, place.gauge, place.member));
}

async fn discard(transport: &mut Transport) -> io::Result<()> {
    // Not in the future itself, which is moved about before it is anywhere.
    let mut sink = vec![0; 4096];
    let mut left = LINGER_BYTES;
    loop {
        match transport.read(&mut sink).await? {
            0 => return Ok(()),
            count if count >= left => return Ok(()),
            count => left -= count,
        }
    }
}
