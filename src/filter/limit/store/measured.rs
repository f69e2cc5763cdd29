//! A stream that a server cannot fill our memory through: it may say about as much as it was asked.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Answers are shorter than their questions, so what may be read is what was written. That much more for the greeting,
/// and no more than that kept for later.
const SLACK: usize = 256 * 1024;

/// The stream, and how much may still be read from it.
#[derive(Debug)]
pub(super) struct Measured<S> {
    stream: S,
    allowance: usize,
}

impl<S> Measured<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, allowance: SLACK }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Measured<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        match self.allowance.checked_sub(read) {
            Some(left) => {
                self.allowance = left;
                Poll::Ready(Ok(()))
            }
            None => Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "it says more than it was asked"))),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Measured<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.allowance = (self.allowance + written).min(SLACK);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, repeat, sink};

    use super::*;

    #[tokio::test]
    async fn who_says_more_than_he_was_asked_is_not_listened_to() {
        let mut stream = Measured::new(tokio::io::join(repeat(0), sink()));
        let mut heard = vec![0; SLACK];
        stream.read_exact(&mut heard).await.expect("the slack");
        let error = stream.read(&mut heard[..1]).await.expect_err("more");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        stream.write_all(&[0; 10]).await.expect("a question");
        stream.read_exact(&mut heard[..10]).await.expect("an answer");
        stream.read(&mut heard[..1]).await.expect_err("more");
    }

    #[tokio::test]
    async fn answers_can_go_on_for_ever() {
        let (near, mut far) = duplex(1024);
        let mut near = Measured::new(near);
        let mut answer = [0; 1024];
        for _ in 0..2 * SLACK / 1024 {
            near.write_all(&[1; 1024]).await.expect("a question");
            far.read_exact(&mut answer).await.expect("asked");
            far.write_all(&answer).await.expect("answered");
            near.read_exact(&mut answer).await.expect("an answer");
        }
    }
}
