//! A connection with deadlines, with or without TLS.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use super::wait::PATIENCE;

/// What bytes go over.
pub(crate) trait Duplex: Read + Write + Send {}

impl<T: Read + Write + Send> Duplex for T {}

/// An open connection.
pub(crate) struct Wire {
    /// Read from it
    pub(crate) reader: BufReader<Box<dyn Duplex>>,
    socket: TcpStream,
}

impl Wire {
    pub(crate) fn connect(addr: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&addr, PATIENCE)?;
        Self::over(socket, |socket| Ok(Box::new(socket)))
    }

    /// With TLS, for the name `server`; an empty name sends no SNI.
    pub(crate) fn connect_tls(addr: SocketAddr, server: &str, config: Arc<ClientConfig>) -> io::Result<Self> {
        Self::connect_tls_behind(addr, b"", server, config)
    }

    /// The same, with `header` in front of the handshake.
    pub(crate) fn connect_tls_behind(
        addr: SocketAddr,
        header: &[u8],
        server: &str,
        config: Arc<ClientConfig>,
    ) -> io::Result<Self> {
        let mut socket = TcpStream::connect_timeout(&addr, PATIENCE)?;
        socket.write_all(header)?;
        let name = ServerName::try_from(server.to_owned()).expect("a name for SNI");
        Self::over(socket, |mut socket| {
            let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
            while tls.is_handshaking() {
                tls.complete_io(&mut socket)?;
            }
            Ok(Box::new(StreamOwned::new(tls, socket)))
        })
    }

    pub(crate) fn accepted(socket: TcpStream) -> io::Result<Self> {
        Self::over(socket, |socket| Ok(Box::new(socket)))
    }

    pub(crate) fn accepted_tls(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        Self::over(socket, |mut socket| {
            let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
            while tls.is_handshaking() {
                tls.complete_io(&mut socket)?;
            }
            Ok(Box::new(StreamOwned::new(tls, socket)))
        })
    }

    fn over(socket: TcpStream, wrap: impl FnOnce(TcpStream) -> io::Result<Box<dyn Duplex>>) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let stream = wrap(socket.try_clone()?)?;
        Ok(Self { reader: BufReader::new(stream), socket })
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let stream = self.reader.get_mut();
        stream.write_all(bytes.as_ref())?;
        stream.flush()
    }

    /// The socket below.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish_sending(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// Ends it with a reset instead of a goodbye.
    pub(crate) fn reset(self) {
        reset_on_close(&self.socket);
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.reader.get_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.reader.get_mut().flush()
    }
}

/// The socket's end will be a reset (RST) once its last handle is closed.
pub(crate) fn reset_on_close(socket: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(socket, Some(std::time::Duration::ZERO)).expect("a socket");
}
