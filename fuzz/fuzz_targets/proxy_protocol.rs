//! A PROXY header has one reading, however it is cut into pieces, and nothing behind it is part of it.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the parser alone, without those who use all of it")]
#[path = "../../src/listen/proxy_protocol/mod.rs"]
mod proxy_protocol;

use proxy_protocol::{MAX_HEADER, parse};

fuzz_target!(|data: &[u8]| {
    let whole = parse(data);
    match &whole {
        Ok(Some((_, len))) => {
            assert!(*len <= data.len().min(MAX_HEADER));
            assert_eq!(parse(&data[..*len]), whole, "what follows a header is not part of it");
        }
        Ok(None) => assert!(data.len() < MAX_HEADER, "a header that never ends"),
        Err(_) => {}
    }
    for end in 0..data.len().min(512) {
        match parse(&data[..end]) {
            Ok(None) => {}
            // What is certain of a part is certain of the whole.
            certain => {
                assert_eq!(certain, whole);
                break;
            }
        }
    }
});
