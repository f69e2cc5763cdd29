//! HTTP/2 frame by frame, for clients that no library would be.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};

use super::wait::PATIENCE;

pub(crate) const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const PRIORITY: u8 = 0x2;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const SETTINGS: u8 = 0x4;
pub(crate) const PING: u8 = 0x6;
pub(crate) const GOAWAY: u8 = 0x7;
pub(crate) const WINDOW_UPDATE: u8 = 0x8;
pub(crate) const CONTINUATION: u8 = 0x9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;

pub(crate) const PROTOCOL_ERROR: u32 = 0x1;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 0x3;
pub(crate) const REFUSED_STREAM: u32 = 0x7;
pub(crate) const CANCEL: u32 = 0x8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 0xb;

const INITIAL_WINDOW_SIZE: u16 = 0x4;
/// Setting and value that close the window of each stream.
pub(crate) const NO_WINDOW: (u16, u32) = (INITIAL_WINDOW_SIZE, 0);
/// The same for a window that closes soon.
pub(crate) const SMALL_WINDOW: (u16, u32) = (INITIAL_WINDOW_SIZE, 1024);
/// The same for what it is by default.
pub(crate) const WINDOW: (u16, u32) = (INITIAL_WINDOW_SIZE, 65_535);

/// `GET /` of `http://a`, compressed (RFC 7541).
pub(crate) const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'a'];
/// The same as a POST.
pub(crate) const POST: &[u8] = &[0x83, 0x86, 0x84, 0x41, 1, b'a'];

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a payload of less than 16 MiB").to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A whole request.
pub(crate) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, GET)
}

pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

pub(crate) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub(crate) fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let entry = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &settings.iter().flat_map(entry).collect::<Vec<_>>())
}

/// The numbers that a client may give its streams.
pub(crate) fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

/// What the other end has sent.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// Why the connection is over, if it said so
    pub(crate) goaway: Option<u32>,
    /// How often a stream was reset for which reason
    pub(crate) resets: BTreeMap<u32, usize>,
    /// Frames of each kind
    pub(crate) frames: BTreeMap<u8, usize>,
}

/// A connection whose answers are read while a test sends.
pub(crate) struct Frames {
    socket: TcpStream,
    reader: Option<JoinHandle<Answers>>,
}

impl Frames {
    /// Sends preface and settings.
    #[track_caller]
    pub(crate) fn connect(addr: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self::deaf(addr, settings);
        let socket = frames.socket.try_clone().expect("a socket");
        frames.reader = Some(thread::spawn(move || read_all(socket)));
        frames
    }

    /// The same, but nothing of what comes back is ever read.
    #[track_caller]
    pub(crate) fn deaf(addr: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut socket = TcpStream::connect_timeout(&addr, PATIENCE).expect("connected");
        socket.set_nodelay(true).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        socket.set_write_timeout(Some(PATIENCE)).expect("a socket");
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
        socket.write_all(&[preface, &self::settings(settings)].concat()).expect("sent");
        Self { socket, reader: None }
    }

    /// Fails once the other end has closed.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.socket.write_all(bytes.as_ref())
    }

    /// Sends all of `pieces`, or as much as is taken. Whether all were.
    pub(crate) fn send_all(&mut self, pieces: impl IntoIterator<Item = Vec<u8>>) -> bool {
        let mut gathered = Vec::new();
        for piece in pieces {
            gathered.extend(piece);
            if gathered.len() > 16 * 1024 {
                if self.send(&gathered).is_err() {
                    return false;
                }
                gathered.clear();
            }
        }
        self.send(&gathered).is_ok()
    }

    /// Waits until the other end closes, and returns what it said until then.
    #[track_caller]
    pub(crate) fn answers(self) -> Answers {
        self.reader.expect("not deaf").join().expect("closed in time")
    }

    /// Sends nothing more, and then the same.
    #[track_caller]
    pub(crate) fn finish(self) -> Answers {
        // It may be closed already.
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
        self.answers()
    }
}

/// Reads until the end, which may be a reset.
fn read_all(mut socket: TcpStream) -> Answers {
    let mut answers = Answers::default();
    let mut head = [0; 9];
    while socket.read_exact(&mut head).inspect_err(expect_end).is_ok() {
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; len as usize];
        if socket.read_exact(&mut payload).inspect_err(expect_end).is_err() {
            break;
        }
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four"));
        *answers.frames.entry(head[3]).or_default() += 1;
        match head[3] {
            RST_STREAM => *answers.resets.entry(code(0)).or_default() += 1,
            GOAWAY => answers.goaway = Some(code(4)),
            _ => {}
        }
    }
    answers
}

fn expect_end(error: &io::Error) {
    assert!(error.kind() != io::ErrorKind::WouldBlock, "neither closed nor answered");
}
