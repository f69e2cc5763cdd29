//! A canonical path stays what it is, and has nothing in it that an upstream could read as another path.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::config::EncodedSlash;
use tollgate::http::canonical;

fuzz_target!(|data: &[u8]| {
    for slash in [EncodedSlash::Refuse, EncodedSlash::Keep] {
        let Ok(found) = canonical(data, slash) else { continue };
        let again = canonical(found.path.as_bytes(), slash).expect("what is canonical is accepted");
        assert_eq!((&again.path, again.encoded_slash), (&found.path, found.encoded_slash));
        assert!(found.path == "*" || found.path.starts_with('/'));
        assert!(found.path.split('/').all(|segment| segment != "." && segment != ".."));
        assert!(found.path.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'\\'));
        let upper = found.path.to_ascii_uppercase();
        assert!(["%00", "%5C", "%2E"].iter().all(|escape| !upper.contains(escape)));
        assert!(slash == EncodedSlash::Keep || !upper.contains("%2F"));
    }
});
