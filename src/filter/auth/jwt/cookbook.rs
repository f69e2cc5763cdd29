//! The signatures of RFC 7520 section 4, verified with its keys. None of what is signed there is JSON, so none of it is a
//! token; but keys are read and signatures checked by what judges tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::key::{Key, KeySet};
use super::token::Token;
use super::vectors::{set, signed, tampered};
use crate::config::{Algorithm, Secret};

const RSA_AND_EC: &str = "bilbo.baggins@hobbiton.example";
const PAYLOAD: &str = "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aG\
    Ugcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1p\
    Z2h0IGJlIHN3ZXB0IG9mZiB0by4";

fn rsa() -> Value {
    let modulus = "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJM\
    RBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1\
    FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSn\
    bLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw";
    json!({"kty": "RSA", "kid": RSA_AND_EC, "use": "sig", "n": modulus, "e": "AQAB"})
}

fn p521() -> Value {
    let x = "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt";
    let y = "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1";
    json!({"kty": "EC", "kid": RSA_AND_EC, "use": "sig", "crv": "P-521", "x": x, "y": y})
}

fn secret() -> KeySet {
    let secret = URL_SAFE_NO_PAD.decode("hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg").expect("base64url");
    KeySet::unnamed(vec![Key::secret(&Secret::new(secret))])
}

/// The signature is that key's over this header, and neither over another payload nor any other signature.
fn check(keys: &KeySet, algorithm: Algorithm, header: &str, signature: &str) {
    let [key] = keys.pick(algorithm, None).expect("keys")[..] else { panic!("one key") };
    let message = format!("{header}.{PAYLOAD}");
    assert!(signed(key, algorithm, &message, signature), "{algorithm:?}");
    assert!(!signed(key, algorithm, &message, &tampered(signature)), "{algorithm:?}");
    assert!(!signed(key, algorithm, &message.replacen('S', "T", 1), signature), "{algorithm:?}");
    Token::parse(&format!("{message}.{signature}")).expect_err("not JSON");
}

fn header(algorithm: Algorithm, kid: Option<&str>) -> String {
    let kid = kid.map_or(String::new(), |kid| format!(r#","kid":"{kid}""#));
    URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm:?}"{kid}}}"#))
}

#[test]
fn section_4_1_rs256() {
    let signature = "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PND\
    i84wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4Q\
    PocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd\
    6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg";
    check(&set(&rsa()), Algorithm::RS256, &header(Algorithm::RS256, Some(RSA_AND_EC)), signature);
}

#[test]
fn section_4_2_ps384() {
    let signature = "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDI\
    tllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8\
    Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbBy\
    i7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw";
    check(&set(&rsa()), Algorithm::PS384, &header(Algorithm::PS384, Some(RSA_AND_EC)), signature);
}

#[test]
fn section_4_3_es512() {
    let signature = "AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_\
                     sDDyYjnAMDxXPn7XrT0lw-kvAD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2";
    check(&set(&p521()), Algorithm::ES512, &header(Algorithm::ES512, Some(RSA_AND_EC)), signature);
}

#[test]
fn section_4_4_hs256_and_section_4_5_without_its_content() {
    let signature = "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0";
    let header = header(Algorithm::HS256, Some("018c0ae5-4d9b-471b-bfd6-eef314bc7037"));
    check(&secret(), Algorithm::HS256, &header, signature);
    Token::parse(&format!("{header}..{signature}")).expect_err("no payload");
}

#[test]
fn section_4_6_some_of_the_header_is_protected() {
    let signature = "bWUSVaxorn7bEF1djytBd0kHv70Ly5pvbomzMWSOr20";
    check(&secret(), Algorithm::HS256, &header(Algorithm::HS256, None), signature);
}

#[test]
fn section_4_7_none_of_the_header_is_protected() {
    check(&secret(), Algorithm::HS256, "", "xuLifqLGiblpv9zBpuZczWhNj1gARaLV3UxvxhJxZuk");
}

#[test]
fn section_4_8_several_signatures() {
    let by_rsa = "MIsjqtVlOpa71KE-Mss8_Nq2YH4FGhiocsqrgi5NvyG53uoimic1tcMdSg-qptrzZc7CG6Svw2Y13TDIqHzTUrL_lR2ZFcryNF\
    iHkSw129EghGpwkpxaTn_THJTCglNbADko1MZBCdwzJxwqZc-1RlpO2HibUYyXSwO97BSe0_evZKdjvvKSgsIqjytKSeAMbhMB\
    dMma622_BG5t4sdbuCHtFjp9iJmkio47AIwqkZV1aIZsv33uPUqBBCXbYoQJwt7mxPftHmNlGoOSMxR_3thmXTCm4US-xiNOyh\
    bm8afKK64jU6_TPtQHiJeQJxz9G3Tx-083B745_AfYOnlC9w";
    check(&set(&rsa()), Algorithm::RS256, &header(Algorithm::RS256, None), by_rsa);
    let by_p521 = "ARcVLnaJJaUWG8fG-8t5BREVAuTY8n8YHjwDO1muhcdCoFZFFjfISu0Cdkn9Ybdlmi54ho0x924DUz8sK7ZXkhc7AFM8ObLfTvNC\
                   rqcI3Jkl2U5IX3utNhODH6v7xgy1Qahsn0fyb4zSAkje8bAWz4vIfj5pCMYxxm4fgV3q7ZYhm5eD";
    check(&set(&p521()), Algorithm::ES512, "", by_p521);
}
