//! A token has one spelling: bounded, of three segments, and nothing can be added to it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::filter::auth::is_token;

fuzz_target!(|text: &str| {
    if !is_token(text) {
        return;
    }
    assert!(text.len() <= 16 * 1024);
    assert_eq!(text.split('.').count(), 3);
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
    for more in ["=", " ", "\n", ".", "\0"] {
        assert!(!is_token(&format!("{text}{more}")) && !is_token(&format!("{more}{text}")));
    }
});
