use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::config::ProxyHeader;
use crate::upstream::{Announced, announcement};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v4(source: [u8; 4], port: u16) -> SocketAddr {
    (Ipv4Addr::from(source), port).into()
}

/// A header of version 2, its length included.
fn binary(command: u8, family: u8, addresses: &[u8], list: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> = list.iter().flat_map(|(kind, value)| entry(*kind, value)).collect();
    let len = u16::try_from(addresses.len() + list.len()).expect("tests are short").to_be_bytes();
    [SIGNATURE, &[command, family], &len, addresses, &list].concat()
}

fn entry(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], &u16::try_from(value.len()).expect("tests are short").to_be_bytes()[..], value].concat()
}

/// With a checksum behind the list.
fn checked(mut header: Vec<u8>) -> Vec<u8> {
    let len = u16::from_be_bytes([header[14], header[15]]) + 7;
    header[14..16].copy_from_slice(&len.to_be_bytes());
    header.extend_from_slice(&entry(0x03, &[0; 4]));
    let sum = v2::crc32c(&header).to_be_bytes();
    let at = header.len() - 4;
    header[at..].copy_from_slice(&sum);
    header
}

fn ends_v4() -> Vec<u8> {
    [&[192, 0, 2, 1][..], &[198, 51, 100, 7], &4711u16.to_be_bytes(), &443u16.to_be_bytes()].concat()
}

fn whole(bytes: &[u8]) -> Header {
    let (header, len) = parse(bytes).expect("well formed").expect("whole");
    assert_eq!(len, bytes.len());
    header
}

proptest! {
    /// What upstreams are told is read by the same words.
    #[test]
    fn what_we_write_is_what_we_read(ends: (SocketAddr, SocketAddr), is_text: bool) {
        let (source, destination) = ends;
        let version = if is_text { ProxyHeader::V1 } else { ProxyHeader::V2 };
        let bytes = announcement(version, Some(Announced { source, destination }));
        let (header, length) = parse(&bytes).expect("a header").expect("whole");
        prop_assert_eq!(length, bytes.len());
        let read = header.ends.expect("with its ends");
        for (read, told) in [(read.source, source), (read.destination, destination)] {
            prop_assert_eq!((read.ip().to_canonical(), read.port()), (told.ip().to_canonical(), told.port()));
        }
    }
}

#[test]
fn a_connection_of_our_own_names_nobody() {
    for version in [ProxyHeader::V1, ProxyHeader::V2] {
        let bytes = announcement(version, None);
        let (header, length) = parse(&bytes).expect("a header").expect("whole");
        assert_eq!((header.ends, length), (None, bytes.len()));
    }
}

#[test]
fn a_line_names_both_ends() {
    let header = whole(b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n");
    let ends = Ends { source: v4([192, 0, 2, 1], 56324), destination: v4([198, 51, 100, 7], 443) };
    assert_eq!(header, Header { version: 1, ends: Some(ends), ..Header::default() });
    let header = whole(b"PROXY TCP6 2001:DB8::1 ::ffff:192.0.2.1 0 65535\r\n");
    let ends = header.ends.expect("there are ends");
    assert_eq!((ends.source.to_string(), ends.destination.port()), ("[2001:db8::1]:0".to_owned(), 65535));
    let longest = format!("PROXY TCP6 {0} {0} 65535 65535\r\n", ["ffff"; 8].join(":"));
    assert!(whole(longest.as_bytes()).ends.is_some());
}

#[test]
fn an_unknown_connection_has_the_ends_of_its_socket() {
    for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", "PROXY UNKNOWN a \t\0\r\n"] {
        assert_eq!(whole(line.as_bytes()), Header { version: 1, ..Header::default() }, "{line:?}");
    }
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 16));
    assert_eq!(whole(longest.as_bytes()).ends, None);
    let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 15));
    assert!(parse(longer.as_bytes()).is_err());
}

#[test]
fn a_line_with_more_than_one_reading_is_refused() {
    for said in [
        "",
        "TCP4",
        "TCP5 192.0.2.1 192.0.2.2 1 2",
        "tcp4 192.0.2.1 192.0.2.2 1 2",
        "UNKNOWNS",
        "unknown",
        "TCP4 192.0.2.1 192.0.2.2 1",
        "TCP4 192.0.2.1 192.0.2.2 1 2 3",
        "TCP4 192.0.2.1 192.0.2.2 1 2 ",
        "TCP4  192.0.2.1 192.0.2.2 1 2",
        " TCP4 192.0.2.1 192.0.2.2 1 2",
        "TCP4\t192.0.2.1 192.0.2.2 1 2",
        "TCP4 192.0.2.01 192.0.2.2 1 2",
        "TCP4 192.0.2 192.0.2.2 1 2",
        "TCP4 0xc0.0.2.1 192.0.2.2 1 2",
        "TCP4 2001:db8::1 2001:db8::2 1 2",
        "TCP6 192.0.2.1 192.0.2.2 1 2",
        "TCP6 fe80::1%eth0 fe80::2 1 2",
        "TCP6 [2001:db8::1] 2001:db8::2 1 2",
        "TCP6 2001:00db8::1 2001:db8::2 1 2",
        "TCP4 192.0.2.1 192.0.2.2 +1 2",
        "TCP4 192.0.2.1 192.0.2.2 -1 2",
        "TCP4 192.0.2.1 192.0.2.2 01 2",
        "TCP4 192.0.2.1 192.0.2.2 00 2",
        "TCP4 192.0.2.1 192.0.2.2 65536 2",
        "TCP4 192.0.2.1 192.0.2.2 1 x",
        "TCP4 192.0.2.1 192.0.2.2 1 ",
        "TCP4 192.0.2.1 192.0.2.2 1 2\u{e9}",
    ] {
        assert!(parse(format!("PROXY {said}\r\n").as_bytes()).is_err(), "{said:?}");
    }
    for bytes in [&b"PROXY UNKNOWN\n"[..], b"PROXY UNKNOWN\r\r\n", b"PROXY UNKNOWN\rx", b"proxy UNKNOWN\r\n", b"PROXYX"]
    {
        assert!(parse(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn a_binary_header_names_both_ends_and_what_the_balancer_knows() {
    let list: [(u8, &[u8]); 6] = [
        (0x01, b"h2"),
        (0x02, b"www.example.com"),
        (0x04, b""),
        (0x05, b"\x00\xff id"),
        (0x20, b"\x01\x00\x00\x00\x00\x21\x00\x07TLSv1.3\xee\x00\x00"),
        (0xea, b"\x01vpce-1"),
    ];
    let header = whole(&checked(binary(0x21, 0x11, &ends_v4(), &list)));
    let ends = Ends { source: v4([192, 0, 2, 1], 4711), destination: v4([198, 51, 100, 7], 443) };
    assert_eq!((header.version, header.ends, header.encrypted), (2, Some(ends), true));
    assert_eq!(header.authority.as_deref(), Some("www.example.com"));
    assert_eq!(header.unique_id.as_deref(), Some(&b"\x00\xff id"[..]));

    let v6 = [&Ipv6Addr::LOCALHOST.octets()[..], &[0xff; 16], &1u16.to_be_bytes(), &2u16.to_be_bytes()].concat();
    let ends = whole(&binary(0x21, 0x21, &v6, &[])).ends.expect("there are ends");
    assert_eq!(ends.source, SocketAddr::from((Ipv6Addr::LOCALHOST, 1)));
    assert_eq!(ends.destination.port(), 2);
    assert!(!whole(&binary(0x21, 0x11, &ends_v4(), &[(0x20, &[0; 5])])).encrypted);
}

#[test]
fn what_has_no_ip_address_has_the_ends_of_its_socket() {
    assert_eq!(whole(&binary(0x21, 0x31, &[b'/'; 216], &[(0x05, b"id")])).unique_id.as_deref(), Some(&b"id"[..]));
    assert_eq!(whole(&binary(0x21, 0x31, &[b'/'; 216], &[])).ends, None);
    assert_eq!(whole(&binary(0x21, 0x00, &[], &[])).ends, None);
    // Of a check of the balancer's own nothing is read, the family included.
    let local = Header { version: 2, ..Header::default() };
    assert_eq!(whole(&binary(0x20, 0x00, &[], &[])), local);
    assert_eq!(whole(&binary(0x20, 0x11, &ends_v4(), &[(0x05, b"id"), (0x03, b"wrong")])), local);
    assert_eq!(whole(&binary(0x20, 0xff, b"garbage", &[])), local);
}

#[test]
fn a_binary_header_that_is_not_exact_is_refused() {
    for (command, family) in
        [(0x22, 0x11), (0x2f, 0x11), (0x11, 0x11), (0x31, 0x11), (0x01, 0x11), (0x21, 0x41), (0x21, 0x13)]
    {
        assert!(parse(&binary(command, family, &ends_v4(), &[])).is_err(), "{command:x} {family:x}");
    }
    for family in [0x01, 0x02, 0x10, 0x12, 0x20, 0x22, 0x30, 0x32] {
        assert!(parse(&binary(0x21, family, &[0; 300], &[])).is_err(), "{family:x}");
    }
    for (family, short) in [(0x11, 11), (0x21, 35), (0x31, 215)] {
        assert!(parse(&binary(0x21, family, &vec![0; short], &[])).is_err(), "{family:x}");
    }
    let long = "x".repeat(256);
    for list in [
        &[(0x05, long.as_bytes())][..],
        &[(0x02, long.as_bytes())],
        &[(0x02, b"")],
        &[(0x02, b"a\nb")],
        &[(0x02, b"\xff")],
        &[(0x05, b"a"), (0x05, b"a")],
        &[(0x02, b"a"), (0x02, b"a")],
        &[(0x20, &[0; 5]), (0x20, &[0; 5])],
        &[(0x20, &[1; 4])],
        &[(0x20, b"\x01\0\0\0\0\x21\0\x08TLSv1.3")],
        &[(0x03, &[0; 4])],
        &[(0x03, &[0; 3])],
        &[(0x03, &[0; 5])],
    ] {
        assert!(parse(&binary(0x21, 0x11, &ends_v4(), list)).is_err(), "{list:?}");
    }
    for rest in [&[0x04][..], &[0x04, 0], &[0x04, 0, 1], &[0x04, 0xff, 0xff, 0]] {
        assert!(parse(&binary(0x21, 0x11, &[&ends_v4(), rest].concat(), &[])).is_err(), "{rest:?}");
    }
    assert!(parse(&checked(checked(binary(0x21, 0x11, &ends_v4(), &[])))).is_err(), "two checksums");
}

#[test]
fn a_header_has_a_bound_that_is_known_from_its_first_bytes() {
    let padded = |rest: usize| binary(0x21, 0x00, &[], &[(0x04, &vec![0; rest - 3])]);
    assert!(whole(&padded(MAX_HEADER - 16)).ends.is_none());
    for command in [0x20, 0x21] {
        let mut longer = padded(MAX_HEADER - 15);
        longer[12] = command;
        assert!(parse(&longer[..16]).is_err());
    }
}

/// RFC 3720 section B.4.
#[test]
fn the_checksum_is_that_of_iscsi() {
    assert_eq!(v2::crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(v2::crc32c(&[0xff; 32]), 0x62a8_ab43);
    assert_eq!(v2::crc32c(b"123456789"), 0xe306_9283);
}

fn end() -> impl Strategy<Value = (u128, u16)> {
    (any::<u128>(), any::<u16>())
}

/// Every form there is, with the ends that it names.
fn any_header() -> impl Strategy<Value = (Vec<u8>, Option<Ends>)> {
    let v4 = |bits: u128| Ipv4Addr::from(bits as u32);
    let v6 = Ipv6Addr::from;
    let list = proptest::collection::vec((0xe0..=0xefu8, proptest::collection::vec(any::<u8>(), 0..40)), 0..4);
    (end(), end(), 0..5u8, any::<bool>(), list).prop_map(move |(source, destination, form, with_sum, list)| {
        let list: Vec<(u8, &[u8])> = list.iter().map(|(kind, value)| (*kind, &value[..])).collect();
        let sum = |header| if with_sum { checked(header) } else { header };
        let ports = [source.1.to_be_bytes(), destination.1.to_be_bytes()].concat();
        let ends = match form {
            0 | 1 => Some(Ends {
                source: (v4(source.0), source.1).into(),
                destination: (v4(destination.0), destination.1).into(),
            }),
            2 | 3 => Some(Ends {
                source: (v6(source.0), source.1).into(),
                destination: (v6(destination.0), destination.1).into(),
            }),
            _ => None,
        };
        let line = |family: &str| {
            let ends = ends.expect("this form has ends");
            let (source, destination) = (ends.source, ends.destination);
            let text = format!(
                "PROXY {family} {} {} {} {}\r\n",
                source.ip(),
                destination.ip(),
                source.port(),
                destination.port()
            );
            text.into_bytes()
        };
        let bytes = match form {
            0 => line("TCP4"),
            1 => {
                let addresses = [v4(source.0).octets(), v4(destination.0).octets()].concat();
                sum(binary(0x21, 0x11, &[addresses, ports].concat(), &list))
            }
            2 => line("TCP6"),
            3 => {
                let addresses = [v6(source.0).octets(), v6(destination.0).octets()].concat();
                sum(binary(0x21, 0x21, &[addresses, ports].concat(), &list))
            }
            _ => sum(binary(0x21, 0x00, &[], &list)),
        };
        (bytes, ends)
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_wherever_it_is_cut(
        (bytes, ends) in any_header(),
        behind in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let all = [&bytes[..], &behind].concat();
        for end in 0..bytes.len() {
            prop_assert_eq!(parse(&all[..end]), Ok(None), "cut at {}", end);
        }
        for end in bytes.len()..=all.len() {
            let (header, len) = parse(&all[..end]).expect("well formed").expect("whole");
            prop_assert_eq!((header.ends, len), (ends, bytes.len()));
        }
    }

    #[test]
    fn a_wrong_bit_in_an_address_or_in_the_checksum_is_found(at in 0..16usize, bit in 0..8u8) {
        let mut bytes = checked(binary(0x21, 0x11, &ends_v4(), &[]));
        // Twelve bytes of addresses and ports, then three that say that a checksum follows.
        let at = 16 + if at < 12 { at } else { at + 3 };
        bytes[at] ^= 1 << bit;
        prop_assert!(parse(&bytes).is_err());
    }

    #[test]
    fn no_garbage_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        // Nothing random begins with what a header begins with.
        prop_assert!(parse(&bytes).map_or(true, |found| found.is_none() && bytes.len() < 12));
    }

    #[test]
    fn what_only_begins_like_a_header_never_panics(
        begin in prop_oneof![Just(&b"PROXY "[..]), Just(&b"PROXY TCP4 "[..]), Just(&b"PROXY TCP6 "[..]),
            Just(SIGNATURE), Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x40"[..]), Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x20"[..])],
        rest in prop_oneof![proptest::collection::vec(any::<u8>(), 0..300),
            "[ 0-9a-f.:\\r\\n]{0,120}".prop_map(String::into_bytes)],
    ) {
        let bytes = [begin, &rest].concat();
        match parse(&bytes) {
            Ok(Some((_, len))) => {
                prop_assert!(len <= bytes.len());
                prop_assert_eq!(parse(&bytes[..len]), parse(&bytes));
            }
            Ok(None) => prop_assert!(bytes.len() < MAX_HEADER),
            Err(_) => {}
        }
    }
}
