//! Following a request's body on the wire, so that Pingora is given this message and not a byte of the next.
//!
//! The chunked coding is checked as strictly as the head (RFC 9112 section 7.1): what two parsers could read
//! differently is an error.

use super::head::Body;

/// Longest chunk-size line, extensions included. Nobody needs extensions; they are let through, short and printable.
const MAX_CHUNK_LINE: usize = 256;
/// Longest trailer section.
const MAX_TRAILERS: usize = 8 * 1024;

/// The coding was violated; the connection cannot be trusted any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BrokenCoding;

/// Where in its message a connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// So many bytes remain
    Length(u64),
    /// Inside a chunked body
    Chunked(Chunked),
    /// The message is over; what follows belongs to the next
    Done,
    /// Upgraded: bytes are no longer HTTP
    Opaque,
}

impl Progress {
    /// At the end of a head.
    pub(super) fn new(body: Body) -> Self {
        match body {
            Body::Length(0) => Self::Done,
            Body::Length(length) => Self::Length(length),
            Body::Chunked => Self::Chunked(Chunked::Size { value: 0, digits: 0 }),
        }
    }

    /// How many of `bytes` belong to the message; remembers that they passed.
    ///
    /// # Errors
    /// The chunked coding is violated.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<usize, BrokenCoding> {
        match self {
            Self::Opaque => Ok(bytes.len()),
            Self::Done => Ok(0),
            Self::Length(remaining) => {
                let taken = usize::try_from(*remaining).map_or(bytes.len(), |remaining| remaining.min(bytes.len()));
                *remaining -= taken as u64;
                if *remaining == 0 {
                    *self = Self::Done;
                }
                Ok(taken)
            }
            Self::Chunked(state) => {
                let (taken, done) = state.advance(bytes)?;
                if done {
                    *self = Self::Done;
                }
                Ok(taken)
            }
        }
    }
}

/// A position inside the chunked coding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    /// In the hexadecimal size
    Size {
        /// So far
        value: u64,
        /// Digits seen
        digits: u8,
    },
    /// In an extension, `seen` bytes into it
    Extension {
        /// Size of the chunk that follows
        value: u64,
        /// Bytes of the extension
        seen: usize,
    },
    /// After the CR of a size line
    SizeLf(u64),
    /// In the data, so many bytes remain
    Data(u64),
    /// After the data
    DataCr,
    /// After the CR behind the data
    DataLf,
    /// In the trailer section: bytes seen, and bytes of the current line
    Trailer {
        /// Bytes of the section
        seen: usize,
        /// Bytes of the current line
        line: usize,
    },
    /// After a CR in the trailer section
    TrailerLf {
        /// Bytes of the section
        seen: usize,
        /// Bytes of the line that ends
        line: usize,
    },
}

impl Chunked {
    fn advance(&mut self, bytes: &[u8]) -> Result<(usize, bool), BrokenCoding> {
        let mut at = 0;
        while at < bytes.len() {
            if let Self::Data(remaining) = self {
                let rest = bytes.len() - at;
                let taken = usize::try_from(*remaining).map_or(rest, |remaining| remaining.min(rest));
                at += taken;
                *remaining -= taken as u64;
                if *remaining == 0 {
                    *self = Self::DataCr;
                }
                continue;
            }
            let done = self.step(bytes[at])?;
            at += 1;
            if done {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// Takes one byte that is not data; says whether the message is over.
    fn step(&mut self, byte: u8) -> Result<bool, BrokenCoding> {
        *self = match (&*self, byte) {
            (Self::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if *digits < 15 => {
                let digit = u64::from(char::from(byte).to_digit(16).unwrap_or(0));
                Self::Size { value: value * 16 + digit, digits: digits + 1 }
            }
            (Self::Size { value, digits: 1.. }, b'\r') => Self::SizeLf(*value),
            (Self::Size { value, digits: 1.. }, b';') => Self::Extension { value: *value, seen: 0 },
            (Self::Extension { value, .. }, b'\r') => Self::SizeLf(*value),
            (Self::Extension { value, seen }, b'\t' | b' '..=b'~') if *seen < MAX_CHUNK_LINE => {
                Self::Extension { value: *value, seen: seen + 1 }
            }
            (Self::SizeLf(0), b'\n') => Self::Trailer { seen: 0, line: 0 },
            (Self::SizeLf(size), b'\n') => Self::Data(*size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size { value: 0, digits: 0 },
            (Self::Trailer { seen, line }, b'\r') => Self::TrailerLf { seen: *seen, line: *line },
            (Self::Trailer { seen, line }, b'\t' | b' '..=b'~' | 0x80..) if *seen < MAX_TRAILERS => {
                Self::Trailer { seen: seen + 1, line: line + 1 }
            }
            (Self::TrailerLf { line: 0, .. }, b'\n') => return Ok(true),
            (Self::TrailerLf { seen, .. }, b'\n') => Self::Trailer { seen: seen + 1, line: 0 },
            _ => return Err(BrokenCoding),
        };
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunked(bytes: &[u8]) -> Result<(usize, bool), BrokenCoding> {
        let mut progress = Progress::new(Body::Chunked);
        let taken = progress.advance(bytes)?;
        Ok((taken, progress == Progress::Done))
    }

    #[test]
    fn a_length_ends_exactly_there() {
        let mut progress = Progress::new(Body::Length(3));
        assert_eq!(progress.advance(b"ab"), Ok(2));
        assert_eq!(progress.advance(b"cGET /"), Ok(1));
        assert_eq!(progress, Progress::Done);
        assert_eq!(progress.advance(b"GET /"), Ok(0));
    }

    #[test]
    fn a_chunked_body_ends_after_its_trailers() {
        assert_eq!(chunked(b"5\r\nhello\r\n0\r\n\r\nGET"), Ok((15, true)));
        assert_eq!(chunked(b"A;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n"), Ok((30, true)));
    }

    #[test]
    fn every_violation_of_the_coding_is_seen() {
        for bytes in [
            &b"\r\n"[..],
            b"5\nhello",
            b"5 \r\nhello",
            b"0x5\r\n",
            b"-1\r\n",
            b"5\r\nhelloX",
            b"5\r\nhello\n",
            b"5;\n",
            b"1000000000000000\r\n",
            b"0\r\n\n",
            b"0\r\nT: \x01\r\n",
        ] {
            assert_eq!(chunked(bytes), Err(BrokenCoding), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn endless_extensions_and_trailers_are_cut() {
        let extension = [b"1;".to_vec(), vec![b'a'; MAX_CHUNK_LINE + 1]].concat();
        assert_eq!(chunked(&extension), Err(BrokenCoding));
        let trailers = [b"0\r\n".to_vec(), vec![b'a'; MAX_TRAILERS + 1]].concat();
        assert_eq!(chunked(&trailers), Err(BrokenCoding));
    }

    proptest! {
        #[test]
        fn cutting_a_body_anywhere_changes_nothing(chunks in proptest::collection::vec(1usize..40, 0..6), cut in 0usize..300) {
            let mut wire: Vec<u8> = chunks.iter().flat_map(|size| {
                [format!("{size:x}\r\n").into_bytes(), vec![b'x'; *size], b"\r\n".to_vec()].concat()
            }).collect();
            wire.extend_from_slice(b"0\r\n\r\n");
            let end = wire.len();
            wire.extend_from_slice(b"GET / HTTP/1.1\r\n");
            let cut = cut.min(wire.len());
            let mut progress = Progress::new(Body::Chunked);
            let first = progress.advance(&wire[..cut]).expect("valid");
            let second = progress.advance(&wire[first..]).expect("valid");
            prop_assert_eq!(first + second, end);
            prop_assert_eq!(progress, Progress::Done);
        }
    }
}
