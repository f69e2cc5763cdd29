//! HTTP/1 messages as bytes: enough of RFC 9112 to know where each one ends, strict where a proxy could hide a fault.

use std::io::{self, BufRead, Read};

use serde_json::Value;

/// More than any head in a test.
const MAX_HEAD: usize = 1 << 20;

/// Header or trailer fields, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl Fields {
    /// The only value of a name, whatever its case.
    #[track_caller]
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} stands there more than once: {all:?}");
        all.first().copied()
    }

    /// Every value of a name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    /// Whether the name is there at all.
    pub(crate) fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }
}

/// A response, whole: a body that breaks off is an error, not a shorter body.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) version: String,
    pub(crate) headers: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// Statuses of the interim responses before it
    pub(crate) interim: Vec<u16>,
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    /// The id under which the gateway has logged it.
    #[track_caller]
    pub(crate) fn request_id(&self) -> &str {
        self.header("x-request-id").expect("every answer carries its request id")
    }

    /// Fails with everything that was answered if the status is another.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.text());
        self
    }
}

/// A head's bytes, the empty line included; empty when the other end has closed before the first.
pub(crate) fn read_head(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    loop {
        let line = head.len();
        reader.by_ref().take((MAX_HEAD - line) as u64).read_until(b'\n', &mut head)?;
        match &head[line..] {
            [] if line == 0 => return Ok(head),
            b"\r\n" | b"\n" if line > 0 => return Ok(head),
            [.., b'\n'] => {}
            _ => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a head that breaks off")),
        }
    }
}

/// The first line and the fields of a head.
pub(crate) fn parse_head(head: &[u8]) -> io::Result<(String, Fields)> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n").take_while(|line| !line.is_empty());
    let first = lines.next().ok_or_else(|| malformed("no first line"))?.to_owned();
    Ok((first, parse_fields(lines)?))
}

fn parse_fields<'a>(lines: impl Iterator<Item = &'a str>) -> io::Result<Fields> {
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').ok_or_else(|| malformed(line))?;
            Ok((name.to_owned(), value.trim().to_owned()))
        })
        .collect::<io::Result<_>>()
        .map(Fields)
}

/// Reads the response to a request of `method`, interim ones first.
pub(crate) fn read_response(reader: &mut impl BufRead, method: &str) -> io::Result<Response> {
    let mut interim = Vec::new();
    loop {
        let head = read_head(reader)?;
        if head.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before a response"));
        }
        let (line, headers) = parse_head(&head)?;
        let mut words = line.splitn(3, ' ');
        let version = words.next().unwrap_or_default().to_owned();
        let status: u16 = words.next().and_then(|word| word.parse().ok()).ok_or_else(|| malformed(&line))?;
        if (100..200).contains(&status) && status != 101 {
            interim.push(status);
            continue;
        }
        let bodiless = method == "HEAD" || matches!(status, 101 | 204 | 304);
        let framing = if bodiless { Framing::None } else { framing(&headers)?.unwrap_or(Framing::UntilClose) };
        let (body, trailers) = read_body(reader, framing)?;
        return Ok(Response { status, version, headers, body, trailers, interim });
    }
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// What the header fields say of the body's end, if they say anything.
pub(crate) fn framing(headers: &Fields) -> io::Result<Option<Framing>> {
    match (headers.all("transfer-encoding").as_slice(), headers.all("content-length").as_slice()) {
        ([], []) => Ok(None),
        ([], [length]) => Ok(Some(Framing::Length(length.parse().map_err(|_| malformed(length))?))),
        ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
        _ => Err(malformed("two ways to say where the body ends")),
    }
}

pub(crate) fn read_body(reader: &mut impl BufRead, framing: Framing) -> io::Result<(Vec<u8>, Fields)> {
    let mut body = Vec::new();
    match framing {
        Framing::None => {}
        Framing::UntilClose => drop(reader.read_to_end(&mut body)?),
        Framing::Length(length) => exactly(reader, length, &mut body)?,
        Framing::Chunked => {
            loop {
                let line = read_line(reader)?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).map_err(|_| malformed(&line))?;
                if size == 0 {
                    break;
                }
                exactly(reader, size, &mut body)?;
                if !read_line(reader)?.is_empty() {
                    return Err(malformed("a chunk longer than its size"));
                }
            }
            let mut lines = Vec::new();
            loop {
                let line = read_line(reader)?;
                if line.is_empty() {
                    break;
                }
                lines.push(line);
            }
            return Ok((body, parse_fields(lines.iter().map(String::as_str))?));
        }
    }
    Ok((body, Fields::default()))
}

fn exactly(reader: &mut impl BufRead, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
    let read = reader.by_ref().take(length).read_to_end(body)? as u64;
    if read == length {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("a body that breaks off {} bytes early", length - read)))
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.by_ref().take(MAX_HEAD as u64).read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a body that breaks off between chunks")),
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {what}"))
}
