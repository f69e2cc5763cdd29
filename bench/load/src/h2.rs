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
    /// Something was sent
    Failed(String),
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
        let failed = |error: h2::Error| Trouble::Failed(error.to_string());
        if let Some(body) = body {
            stream.reserve_capacity(body.len());
            stream.send_data(body.into(), true).map_err(failed)?;
        }
        let response = response.await.map_err(failed)?;
        let status = response.status().as_u16();
        let (mut receiver, mut body) = (response.into_body(), Vec::new());
        while let Some(piece) = receiver.data().await {
            let piece = piece.map_err(failed)?;
            // The stream may have ended with this piece; then there is no window to enlarge.
            let _ = receiver.flow_control().release_capacity(piece.len());
            body.extend_from_slice(&piece);
        }
        Ok(Answer { status, body })
    }
}
