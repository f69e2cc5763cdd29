//! Version 1: one line of text (section 2.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{Ends, Header, Malformed};

/// What it begins with.
pub(super) const BEGIN: &[u8] = b"PROXY ";
/// Bytes of the longest line, CRLF included.
const MAX_LINE: usize = 107;

pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let line = &bytes[..bytes.len().min(MAX_LINE)];
    let Some(end) = memchr::memchr2(b'\r', b'\n', line) else {
        return if bytes.len() < MAX_LINE { Ok(None) } else { Err(Malformed("the line is too long")) };
    };
    match line[end..] {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if bytes.len() < MAX_LINE => return Ok(None),
        [b'\r'] => return Err(Malformed("the line is too long")),
        _ => return Err(Malformed("the line does not end in CRLF")),
    }
    let said = line.get(BEGIN.len()..end).ok_or(Malformed("the line is too short"))?;
    let ends = ends(said)?;
    Ok(Some((Header { version: 1, ends, ..Header::default() }, end + 2)))
}

fn ends(said: &[u8]) -> Result<Option<Ends>, Malformed> {
    // What follows this word is to be ignored.
    if said == b"UNKNOWN" || said.starts_with(b"UNKNOWN ") {
        return Ok(None);
    }
    let said = std::str::from_utf8(said).map_err(|_| Malformed("the line is not ASCII"))?;
    let mut words = said.split(' ');
    let mut word = || words.next().ok_or(Malformed("the line has too few words"));
    let family = word()?;
    let (source, destination, source_port, destination_port) = (word()?, word()?, word()?, word()?);
    if words.next().is_some() {
        return Err(Malformed("the line has too many words"));
    }
    let address = match family {
        "TCP4" => address::<Ipv4Addr>,
        // A tail in dots is how every system writes a mapped address, and has one reading.
        "TCP6" => address::<Ipv6Addr>,
        _ => return Err(Malformed("the line names no family that exists")),
    };
    Ok(Some(Ends {
        source: SocketAddr::new(address(source)?, port(source_port)?),
        destination: SocketAddr::new(address(destination)?, port(destination_port)?),
    }))
}

/// The parsers of the standard library take no leading zeros, no zones, and nothing around the address.
fn address<A: FromStr + Into<IpAddr>>(word: &str) -> Result<IpAddr, Malformed> {
    word.parse::<A>().map(Into::into).map_err(|_| Malformed("an address is not one of its family"))
}

/// Decimal, without a sign and without leading zeros.
fn port(word: &str) -> Result<u16, Malformed> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| is_plain).ok_or(Malformed("a port is not a number below 65,536"))
}
