//! WebSocket, both ends.

use std::net::{SocketAddr, TcpStream};

use tungstenite::client::IntoClientRequest as _;
use tungstenite::handshake::client::Response;
use tungstenite::http::{HeaderName, HeaderValue};
use tungstenite::{Message, WebSocket};

use super::origin::Origin;
use super::wait::PATIENCE;

/// A service that sends every message back.
pub(crate) fn echo_origin() -> Origin {
    Origin::raw(|connection| {
        let Ok(mut socket) = tungstenite::accept(connection.stream()) else { return };
        while let Ok(message) = socket.read() {
            let answered = match message {
                Message::Text(_) | Message::Binary(_) => socket.send(message),
                // Pings and the closing handshake are answered while reading.
                _ => socket.flush(),
            };
            if answered.is_err() {
                return;
            }
        }
    })
}

/// Opens a WebSocket through `addr`; the error is the refusal.
pub(crate) fn connect(
    addr: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<(WebSocket<TcpStream>, Response), Box<tungstenite::Error>> {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    let mut request = format!("ws://{addr}{path}").into_client_request().map_err(Box::new)?;
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a value"));
    }
    tungstenite::client(request, stream).map_err(|error| match error {
        tungstenite::HandshakeError::Failure(error) => Box::new(error),
        tungstenite::HandshakeError::Interrupted(_) => panic!("no answer to a handshake in {PATIENCE:?}"),
    })
}
