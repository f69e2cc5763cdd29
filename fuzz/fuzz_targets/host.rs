//! A host has one spelling.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::http::Host;

fuzz_target!(|text: &str| {
    let Ok(host) = Host::parse(text) else { return };
    assert!(!host.name.bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_whitespace()));
    let spelt = if host.name.contains(':') { format!("[{}]", host.name) } else { host.name.clone().into_owned() };
    let again = Host::parse(&spelt).expect("a host's name is a host");
    assert_eq!(again.name, host.name);
});
