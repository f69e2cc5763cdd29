//! The examples of the standards: keys and signatures that somebody else has made.
//!
//! The tokens of RFC 7515 have no audience, so they are refused all the same; but as what, tells whether the signature
//! was good.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::jwk;
use super::key::{Key, KeySet};
use super::keyring::Loaded;
use super::token::Token;
use super::verify::Verifier;
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
    let mut changed = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    changed[3] ^= 4;
    assert_eq!(verdict(&format!("{header}.{PAYLOAD}.{}", URL_SAFE_NO_PAD.encode(changed))), BAD);
}

fn set(key: &Value) -> KeySet {
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

/// What is signed there is not JSON, so there is no token to judge; but the key can be read and has signed it.
#[test]
fn the_eddsa_example_of_rfc_8037_appendix_a_4_is_signed_by_its_key() {
    let key = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let keys = set(&key);
    let [key] = keys.pick(Algorithm::EdDSA, None).expect("keys")[..] else { panic!("one key") };
    let message = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let verified = |message: &str| {
        let algorithm = jsonwebtoken::Algorithm::EdDSA;
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), key.decoding(), algorithm).expect("a key")
    };
    assert!(verified(message));
    assert!(!verified("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmd"));
    Token::parse(&format!("{message}.{signature}")).expect_err("not JSON");
}

/// RFC 7515 appendix A.5: a token that is not signed.
#[tokio::test]
async fn the_unsecured_example_of_rfc_7515_appendix_a_5_is_refused() {
    let route = route(Jwt { issuer: "joe".into(), ..shared() });
    let unsecured = format!("eyJhbGciOiJub25lIn0.{PAYLOAD}.");
    assert_eq!(Call::bearer(&unsecured).refused(&route).await, Reason::InvalidToken);
}
