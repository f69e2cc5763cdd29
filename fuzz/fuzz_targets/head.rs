//! A request head has one reading, however it is cut into pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// What the scanner takes from its crate.
mod http {
    pub(crate) use tollgate::http::{Host, Reason};
}

#[allow(dead_code, unreachable_pub, reason = "the scanner alone, without those who use all of it")]
#[path = "../../src/listen/head.rs"]
mod head;

fuzz_target!(|data: &[u8]| {
    let limits = head::HeadLimits { max_headers: 20, max_bytes: 2048 };
    let whole = head::parse(data, limits);
    if let Ok(Some(found)) = &whole {
        assert!(found.len <= data.len() && data[..found.len].ends_with(b"\r\n\r\n"));
        assert_eq!(head::parse(&data[..found.len], limits), whole, "what follows a head is not part of it");
    }
    for end in 0..data.len().min(512) {
        match head::parse(&data[..end], limits) {
            Ok(None) => {}
            // What is certain of a part is certain of the whole.
            certain => {
                assert_eq!(certain, whole);
                break;
            }
        }
    }
});
