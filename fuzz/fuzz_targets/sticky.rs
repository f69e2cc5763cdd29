//! Whatever a client sends as its cookie, it is bound to nothing that we did not sign.

#![no_main]

use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use tollgate::config::{self, SameSite, Secret};
use tollgate::upstream::Sticky;

fuzz_target!(|value: &str| {
    let spec = config::Sticky {
        cookie: "route".to_owned(),
        secret: Secret::new(*b"0123456789abcdef0123456789abcdef"),
        ttl: None,
        same_site: SameSite::Lax,
    };
    assert!(Sticky::build(&"main".into(), &spec).read(value, SystemTime::UNIX_EPOCH).is_none());
});
