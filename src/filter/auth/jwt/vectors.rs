//! The examples of the standards: keys and signatures that somebody else has made.
//!
//! The tokens of RFC 7515 have no audience, so they are refused all the same; but as what, tells whether the signature
//! was good.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::jwk;
use super::key::{Key, KeySet, Material};
use super::keyring::Loaded;
use super::token::Token;
use super::verify::{Verifier, by_p521};
use crate::config::{Algorithm, Jwt, Secret};
use crate::filter::auth::Refused;
use crate::filter::auth::tests::{Call, jwks, route, shared};
use crate::http::Reason;

const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const GOOD: Refused = Refused::Invalid("without exp, iss or aud");
const BAD: Refused = Refused::Invalid("not signed by the key");

fn check(header: &str, signature: &str, algorithm: Algorithm, set: KeySet) {
    let keys = Loaded { set, generation: 1 };
    let verifier = Verifier::new(&"joe".into(), &Jwt { issuer: "joe".into(), algorithms: vec![algorithm], ..shared() });
    let verdict = |text: &str| {
        let token = Token::parse(text).expect("well-formed");
        verifier.verify(&token, &keys, SystemTime::now()).map(drop).expect_err("no audience")
    };
    assert_eq!(verdict(&format!("{header}.{PAYLOAD}.{signature}")), GOOD);
    assert_eq!(verdict(&format!("{header}.{PAYLOAD}.{}", tampered(signature))), BAD);
}

/// Whether a key has signed that, which may be anything: for examples that are no JSON and so no tokens.
pub(super) fn signed(key: &Key, algorithm: Algorithm, message: &str, signature: &str) -> bool {
    match key.material() {
        Material::P521(key) => by_p521(message, signature, key).is_ok(),
        Material::Library(key) => {
            let algorithm = format!("{algorithm:?}").parse().expect("both have the standard's names");
            jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, algorithm).expect("a key that fits")
        }
    }
}

/// The same signature with one bit turned.
pub(super) fn tampered(signature: &str) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    bytes[3] ^= 4;
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn set(key: &Value) -> KeySet {
    jwk::read(jwks(std::slice::from_ref(key)).as_bytes()).expect("a set").set
}

#[test]
fn the_hmac_example_of_rfc_7515_appendix_a_1_is_signed_by_its_key() {
    let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let secret = Secret::new(URL_SAFE_NO_PAD.decode(secret).expect("base64url"));
    let keys = KeySet::unnamed(vec![Key::secret(&secret)]);
    let signature = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    check("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", signature, Algorithm::HS256, keys);
}

#[test]
fn the_rsa_example_of_rfc_7515_appendix_a_2_is_signed_by_its_key() {
    let modulus = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR\
                   T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXB\
                   dQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9ia\
                   GNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9\
                     uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB\
                     _eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rq\
                     Vt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let key = json!({"kty": "RSA", "n": modulus, "e": "AQAB"});
    check("eyJhbGciOiJSUzI1NiJ9", signature, Algorithm::RS256, set(&key));
}

#[test]
fn the_ecdsa_example_of_rfc_7515_appendix_a_3_is_signed_by_its_key() {
    let key = json!({
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
    });
    let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    check("eyJhbGciOiJFUzI1NiJ9", signature, Algorithm::ES256, set(&key));
}

/// What is signed there is not JSON.
#[test]
fn the_p_521_example_of_rfc_7515_appendix_a_4_is_signed_by_its_key() {
    let keys = set(&json!({
        "kty": "EC",
        "crv": "P-521",
        "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
        "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"
    }));
    let [key] = keys.pick(Algorithm::ES512, None).expect("keys")[..] else { panic!("one key") };
    let message = "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA";
    let signature = "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCA\
                     PZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn";
    assert!(signed(key, Algorithm::ES512, message, signature));
    assert!(!signed(key, Algorithm::ES512, message, &tampered(signature)));
    assert!(!signed(key, Algorithm::ES512, "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZB", signature));
    Token::parse(&format!("{message}.{signature}")).expect_err("not JSON");
}

/// What is signed there is not JSON, so there is no token to judge; but the key can be read and has signed it.
#[test]
fn the_eddsa_example_of_rfc_8037_appendix_a_4_is_signed_by_its_key() {
    let key = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let keys = set(&key);
    let [key] = keys.pick(Algorithm::EdDSA, None).expect("keys")[..] else { panic!("one key") };
    let message = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert!(signed(key, Algorithm::EdDSA, message, signature));
    assert!(!signed(key, Algorithm::EdDSA, "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmd", signature));
    Token::parse(&format!("{message}.{signature}")).expect_err("not JSON");
}

/// RFC 7517 appendices A.1 to A.3: of public keys the one that is for signatures, and never a private or a shared one.
#[test]
fn of_the_key_sets_of_rfc_7517_only_what_is_for_verifying_is_used() {
    let modulus = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRX\
                   jBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaS\
                   qzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksIN\
                   HaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
    let rsa = json!({"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});
    let ec = json!({
        "kty": "EC",
        "crv": "P-256",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        "use": "enc",
        "kid": "1"
    });
    let read = jwk::read(jwks(&[ec.clone(), rsa.clone()]).as_bytes()).expect("a set");
    assert_eq!((read.set.len(), read.skipped.len()), (1, 1));
    assert!(read.set.serves(Algorithm::RS256) && !read.set.serves(Algorithm::PS256), "its alg is one and no other");
    let (mut private_ec, mut private_rsa) = (ec, rsa);
    private_ec["d"] = json!("870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE");
    private_rsa["d"] = json!("AAAA");
    let wrap = json!({"kty": "oct", "alg": "A128KW", "k": "GawgguFyGrWKav7AX4VKUg"});
    let secret = json!({"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"});
    for keys in [[private_ec, private_rsa], [wrap, secret]] {
        jwk::read(jwks(&keys).as_bytes()).map(drop).expect_err("nothing to verify with");
    }
}

/// RFC 7515 appendix A.6 and A.7, RFC 7520 sections 4.6 to 4.8: several signatures, or headers that nobody signed.
#[test]
fn the_json_serialization_is_no_token() {
    for text in [
        format!(r#"{{"payload":"{PAYLOAD}","protected":"eyJhbGciOiJFUzI1NiJ9","signature":"AAAA"}}"#),
        format!(r#"{{"payload":"{PAYLOAD}","signatures":[{{"header":{{"alg":"HS256"}},"signature":"AAAA"}}]}}"#),
    ] {
        Token::parse(&text).expect_err(&text);
    }
    // Without the braces around it: a header that nobody signed.
    Token::parse(&format!(".{PAYLOAD}.AAAA")).expect_err("no header");
}

/// RFC 7515 appendix A.5: a token that is not signed.
#[tokio::test]
async fn the_unsecured_example_of_rfc_7515_appendix_a_5_is_refused() {
    let route = route(Jwt { issuer: "joe".into(), ..shared() });
    let unsecured = format!("eyJhbGciOiJub25lIn0.{PAYLOAD}.");
    assert_eq!(Call::bearer(&unsecured).refused(&route).await, Reason::InvalidToken);
}
