//! A key set is read or refused, and what is read is bounded.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::filter::auth::usable_keys;

fuzz_target!(|set: &[u8]| {
    if let Some(keys) = usable_keys(set) {
        assert!((1..=100).contains(&keys));
    }
});
