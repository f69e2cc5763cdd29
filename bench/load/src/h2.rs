//! HTTP/2, one request after another on a connection of its own; several lanes' workers make the streams of a
//! real client.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;

use crate::h1::Answer;
use crate::wire::{self, Tls};

/// A connection.
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    /// Scheme and authority
    base: String,
}

/// Why there is no answer.
pub(crate) enum Trouble {
    /// Nothing was sent: the other end had said goodbye before
    Gone,
    /// It was sent, and the other end has said that it has not looked at it: a GOAWAY that names an earlier request as
    /// the last one, or REFUSED_STREAM. Then, and only then, every request may be sent again (RFC 9113 section 8.7)
    Unprocessed,
    /// Something was sent
    Failed(String),
}

impl From<h2::Error> for Trouble {
    fn from(error: h2::Error) -> Self {
        let goodbye = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
        let refused = error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        if goodbye || refused { Self::Unprocessed } else { Self::Failed(error.to_string()) }
    }
}

impl Connection {
    pub(crate) async fn open(addr: SocketAddr, tls: Option<&Tls>) -> Result<Self, String> {
        let (stream, _) = wire::connect(addr, tls).await.map_err(|error| error.to_string())?;
        let (sender, connection) = h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
        // It ends with the last handle; how, each request learns by itself.
        tokio::spawn(async move { drop(connection.await) });
        let (scheme, authority) = match tls {
            None => ("http", addr.to_string()),
            Some(tls) => ("https", tls.server.clone()),
        };
        Ok(Self { sender, base: format!("{scheme}://{authority}") })
    }

    /// Another handle to the same connection, for another stream.
    pub(crate) fn share(&self) -> Self {
        Self { sender: self.sender.clone(), base: self.base.clone() }
    }

    pub(crate) async fn ask(&mut self, method: &str, target: &str, body: Option<Vec<u8>>) -> Result<Answer, Trouble> {
        let mut sender = self.sender.clone().ready().await.map_err(|_| Trouble::Gone)?;
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{target}", self.base))
            .version(http::Version::HTTP_2)
            .body(())
            .map_err(|error| Trouble::Failed(error.to_string()))?;
        let (response, mut stream) = sender.send_request(request, body.is_none()).map_err(|_| Trouble::Gone)?;
        if let Some(body) = body {
            stream.reserve_capacity(body.len());
            stream.send_data(body.into(), true)?;
        }
        let response = response.await?;
        let status = response.status().as_u16();
        let (mut receiver, mut body) = (response.into_body(), Vec::new());
        while let Some(piece) = receiver.data().await {
            let piece = piece?;
            // The stream may have ended with this piece; then there is no window to enlarge.
            let _ = receiver.flow_control().release_capacity(piece.len());
            body.extend_from_slice(&piece);
        }
        Ok(Answer { status, body })
    }
}
