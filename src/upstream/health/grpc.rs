//! The two messages of `grpc.health.v1`, each with one field: too little for a library.
//!
//! A message on the wire is a byte that says whether it is compressed, four with its length, and its fields in protobuf.

use bytes::{BufMut, Bytes, BytesMut};

/// `HealthCheckRequest.service`: field 1, a string.
const SERVICE: u8 = 1 << 3 | 2;
/// `HealthCheckResponse.status`: field 1, a number.
const STATUS: u64 = 1 << 3;
/// `SERVING`
const SERVING: u64 = 1;

/// The message that asks about a service; without a name about the server as a whole.
pub(super) fn question(service: &str) -> Bytes {
    let mut fields = BytesMut::new();
    if !service.is_empty() {
        fields.put_u8(SERVICE);
        let mut length = service.len();
        while length >= 0x80 {
            fields.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        fields.put_u8(length as u8);
        fields.put_slice(service.as_bytes());
    }
    let mut message = BytesMut::with_capacity(5 + fields.len());
    message.put_u8(0);
    message.put_u32(fields.len() as u32);
    message.put_slice(&fields);
    message.freeze()
}

/// Whether the answer says that it serves, and what it says instead.
pub(super) fn serves(body: &[u8]) -> Result<(), &'static str> {
    let [compressed, a, b, c, d, fields @ ..] = body else {
        return Err("no gRPC message");
    };
    let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
    if *compressed != 0 || fields.len() != length {
        return Err("no gRPC message that can be read");
    }
    match status(fields) {
        Some(SERVING) => Ok(()),
        Some(2) => Err("NOT_SERVING"),
        Some(3) => Err("SERVICE_UNKNOWN"),
        Some(_) => Err("UNKNOWN"),
        None => Err("no gRPC message that can be read"),
    }
}

/// The last status there is, as protobuf has it; a field that is not there is 0. Nothing if it is no message.
fn status(mut fields: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !fields.is_empty() {
        let tag = number(&mut fields)?;
        let value = match tag & 7 {
            0 => number(&mut fields)?,
            1 => skip(&mut fields, 8)?,
            2 => {
                let length = usize::try_from(number(&mut fields)?).ok()?;
                skip(&mut fields, length)?
            }
            5 => skip(&mut fields, 4)?,
            _ => return None,
        };
        if tag == STATUS {
            status = value;
        }
    }
    Some(status)
}

/// A number in base 128, the least significant digits first.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7F).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn skip(bytes: &mut &[u8], count: usize) -> Option<u64> {
    *bytes = bytes.get(count..)?;
    Some(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_question_names_the_service() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        let long = question(&"x".repeat(200));
        assert_eq!(long[..8], [0, 0, 0, 0, 203, 0x0A, 0xC8, 1]);
    }

    #[test]
    fn only_serving_is_well() {
        assert_eq!(serves(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        assert_eq!(serves(&[0, 0, 0, 0, 2, 8, 2]), Err("NOT_SERVING"));
        assert_eq!(serves(&[0, 0, 0, 0, 0]), Err("UNKNOWN"));
        assert_eq!(serves(&[]), Err("no gRPC message"));
        for wrong in [
            &[1, 0, 0, 0, 2, 8, 1][..],
            &[0, 0, 0, 0, 3, 8, 1],
            &[0, 0, 0, 0, 1, 8],
            &[0, 0, 0, 0, 2, 8, 0x81],
            &[0, 0, 0, 0, 2, 0x0A, 9],
        ] {
            assert_eq!(serves(wrong), Err("no gRPC message that can be read"), "{wrong:?}");
        }
        assert_eq!(serves(&[0, 0, 0, 0, 6, 0x12, 2, 8, 2, 8, 1]), Ok(()), "a field of a later version is passed over");
    }

    proptest! {
        #[test]
        fn nothing_that_an_endpoint_says_breaks_it(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = serves(&body);
            let mut message = vec![0, 0, 0, 0, body.len() as u8];
            message.extend(body);
            let _ = serves(&message);
        }
    }
}
