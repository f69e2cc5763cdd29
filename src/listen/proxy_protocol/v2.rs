//! Version 2: binary (section 2.2).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Ends, Header, MAX_HEADER, Malformed};

/// What it begins with: no other protocol does.
pub(super) const BEGIN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length of the rest.
const FIXED: usize = 16;

const LOCAL: u8 = 0;
const PROXY: u8 = 1;
/// Bytes of the two addresses of Unix sockets.
const UNIX: usize = 216;

const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
/// Bytes of a DNS name.
const MAX_AUTHORITY: usize = 255;
const MAX_UNIQUE_ID: usize = 128;
/// In the first byte of `SSL`: the client came by TLS.
const CLIENT_SSL: u8 = 1;
/// In `SSL`, what stands before its own list: that byte, and the result of verifying the client's certificate.
const SSL_FIXED: usize = 5;

pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let Some((fixed, _)) = bytes.split_first_chunk::<FIXED>() else {
        return Ok(None);
    };
    let (version, command) = (fixed[12] >> 4, fixed[12] & 0xf);
    if version != 2 || command > PROXY {
        return Err(Malformed("the version or the command does not exist"));
    }
    let len = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if len > MAX_HEADER {
        return Err(Malformed("the header is too long"));
    }
    let Some(whole) = bytes.get(..len) else {
        return Ok(None);
    };
    // A check of the balancer's own: whatever else it says is to be ignored, the family included.
    if command == LOCAL {
        return Ok(Some((Header { version: 2, ..Header::default() }, len)));
    }
    let (ends, list) = ends(fixed[13], &whole[FIXED..])?;
    let mut header = Header { version: 2, ends, ..Header::default() };
    list_of(&mut header, whole, len - list.len())?;
    Ok(Some((header, len)))
}

/// The addresses, and what follows them.
fn ends(family: u8, block: &[u8]) -> Result<(Option<Ends>, &[u8]), Malformed> {
    let short = Malformed("the header is shorter than its addresses");
    match family {
        // Unspecified: there are none.
        0x00 => Ok((None, block)),
        0x11 => {
            let (block, list) = block.split_first_chunk::<12>().ok_or(short)?;
            let address = |at: usize| Ipv4Addr::new(block[at], block[at + 1], block[at + 2], block[at + 3]);
            let end = |address: Ipv4Addr, port: usize| SocketAddr::from((address, number(block, port)));
            Ok((Some(Ends { source: end(address(0), 8), destination: end(address(4), 10) }), list))
        }
        0x21 => {
            let (block, list) = block.split_first_chunk::<36>().ok_or(short)?;
            let address = |at: usize| Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|byte| block[at + byte]));
            let end = |address: Ipv6Addr, port: usize| SocketAddr::from((address, number(block, port)));
            Ok((Some(Ends { source: end(address(0), 32), destination: end(address(16), 34) }), list))
        }
        // From a Unix socket: the client has no address that could be meant by a limit or a list.
        0x31 => block.split_at_checked(UNIX).map(|(_, list)| (None, list)).ok_or(short),
        // Datagrams among them: none of them is what arrived here.
        _ => Err(Malformed("the family or the protocol is not one of a connection")),
    }
}

fn number(block: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([block[at], block[at + 1]])
}

/// Reads the list of types, lengths and values that begins at `start`. Types that nobody knows are skipped; one that
/// is known comes once at most.
fn list_of(header: &mut Header, whole: &[u8], start: usize) -> Result<(), Malformed> {
    let mut rest = &whole[start..];
    let (mut checked, mut ssl) = (false, false);
    while !rest.is_empty() {
        let (kind, value, next) = entry(rest)?;
        let is_second = match kind {
            AUTHORITY => header.authority.replace(authority(value)?).is_some(),
            UNIQUE_ID if value.len() > MAX_UNIQUE_ID => return Err(Malformed("the unique id is too long")),
            UNIQUE_ID => header.unique_id.replace(value.into()).is_some(),
            CRC32C => {
                let at = whole.len() - next.len() - value.len();
                verify(whole, at, value)?;
                std::mem::replace(&mut checked, true)
            }
            SSL => {
                header.encrypted = encrypted(value)?;
                std::mem::replace(&mut ssl, true)
            }
            _ => false,
        };
        if is_second {
            return Err(Malformed("something is said twice"));
        }
        rest = next;
    }
    Ok(())
}

/// Type, value, and what follows.
fn entry(rest: &[u8]) -> Result<(u8, &[u8], &[u8]), Malformed> {
    let cut = || {
        let (head, rest) = rest.split_first_chunk::<3>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([head[1], head[2]])))?;
        Some((head[0], value, rest))
    };
    cut().ok_or(Malformed("a value is longer than the header"))
}

fn authority(value: &[u8]) -> Result<String, Malformed> {
    let name = std::str::from_utf8(value).ok();
    let is_name = |name: &&str| !name.is_empty() && name.len() <= MAX_AUTHORITY && !name.contains(char::is_control);
    name.filter(is_name).map(str::to_owned).ok_or(Malformed("the authority is no name"))
}

/// Whether the client came by TLS; its own list has to be one.
fn encrypted(value: &[u8]) -> Result<bool, Malformed> {
    let (fixed, mut list) = value.split_at_checked(SSL_FIXED).ok_or(Malformed("the ssl value is too short"))?;
    while !list.is_empty() {
        list = entry(list)?.2;
    }
    Ok(fixed[0] & CLIENT_SSL != 0)
}

/// The checksum is that of the whole header with zeros in its own place.
fn verify(whole: &[u8], at: usize, value: &[u8]) -> Result<(), Malformed> {
    let expected = <[u8; 4]>::try_from(value).map_err(|_| Malformed("the checksum has another length"))?;
    let sum = update(update(update(!0, &whole[..at]), &[0; 4]), &whole[at + value.len()..]);
    if !sum == u32::from_be_bytes(expected) { Ok(()) } else { Err(Malformed("the checksum is wrong")) }
}

/// CRC-32C (RFC 3720 section B.4), bit by bit reversed.
fn update(sum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(sum, |sum, byte| TABLE[usize::from(sum.to_le_bytes()[0] ^ byte)] ^ (sum >> 8))
}

const TABLE: [u32; 256] = {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let (mut sum, mut bit) = (byte as u32, 0);
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ POLYNOMIAL } else { sum >> 1 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};

/// The checksum of `bytes`.
#[cfg(test)]
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    !update(!0, bytes)
}
