//! Every algorithm, with every source its keys can have.

use super::*;
use crate::filter::auth::Counts;

const ALL: [Algorithm; 13] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::ES512,
    Algorithm::EdDSA,
];

fn sources(algorithm: Algorithm) -> Vec<KeySource> {
    let signer = signer(algorithm);
    if signer.pem.is_empty() {
        return vec![KeySource::Secret(Secret::new(SECRET.as_slice()))];
    }
    vec![
        KeySource::PublicKey(file(signer.pem.as_str())),
        KeySource::JwksFile(file(jwks(std::slice::from_ref(&signer.jwk)))),
    ]
}

#[tokio::test]
async fn each_algorithm_verifies_with_a_key_from_each_source() {
    for algorithm in ALL {
        for source in sources(algorithm) {
            let route = route(spec(&[algorithm], source));
            let identity = Call::bearer(&token(algorithm, &claims())).accepted(&route).await;
            assert_eq!(identity.subject(), Some("alice"), "{algorithm:?}");
            assert_eq!(&*identity.auth, "corporate");
        }
    }
}

#[tokio::test]
async fn a_token_changed_in_any_segment_is_refused() {
    for algorithm in ALL {
        let route = route(spec(&[algorithm], sources(algorithm).remove(0)));
        let good = token(algorithm, &claims());
        let segments: Vec<&str> = good.split('.').collect();
        let payload = URL_SAFE_NO_PAD.encode(claims_with(&json!({"sub": "mallory"})).to_string());
        let other_header = URL_SAFE_NO_PAD.encode(json!({"alg": format!("{algorithm:?}"), "x": 1}).to_string());
        let mut signature = URL_SAFE_NO_PAD.decode(segments[2]).expect("base64url");
        signature[5] ^= 1;
        let (short, long) =
            (URL_SAFE_NO_PAD.encode(&signature[1..]), URL_SAFE_NO_PAD.encode([&[0], &*signature].concat()));
        let signature = URL_SAFE_NO_PAD.encode(&signature);
        for bad in [
            [segments[0], &payload, segments[2]],
            [&other_header, segments[1], segments[2]],
            [segments[0], segments[1], &signature],
            [segments[0], segments[1], &short],
            [segments[0], segments[1], &long],
        ] {
            assert_eq!(Call::bearer(&bad.join(".")).refused(&route).await, Reason::InvalidToken, "{algorithm:?}");
        }
    }
}

#[tokio::test]
async fn another_key_of_the_same_kind_is_refused() {
    for (algorithm, other) in [
        (Algorithm::RS256, Signer::rsa()),
        (Algorithm::PS256, Signer::rsa()),
        (Algorithm::ES256, Signer::p256()),
        (Algorithm::ES384, Signer::p384()),
        (Algorithm::ES512, Signer::p521()),
        (Algorithm::EdDSA, Signer::ed25519()),
    ] {
        let route = route(spec(&[algorithm], sources(algorithm).remove(0)));
        let forged = other.sign(&header(algorithm), &claims());
        assert_eq!(Call::bearer(&forged).refused(&route).await, Reason::InvalidToken, "{algorithm:?}");
    }
}

#[tokio::test]
async fn only_the_algorithms_of_the_provider_are_accepted() {
    let source = || KeySource::PublicKey(file(signer(Algorithm::RS256).pem.as_str()));
    let route = route(spec(&[Algorithm::RS256], source()));
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        let refused = Call::bearer(&token(algorithm, &claims())).refused(&route).await;
        assert_eq!(refused, Reason::InvalidToken, "the same key, but {algorithm:?}");
    }
    let both = super::route(spec(&[Algorithm::RS256, Algorithm::PS256], source()));
    for algorithm in [Algorithm::RS256, Algorithm::PS256] {
        Call::bearer(&token(algorithm, &claims())).accepted(&both).await;
    }
}

#[tokio::test]
async fn algorithms_of_several_families_stand_side_by_side() {
    let keys: Vec<_> = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA].map(|one| signer(one).jwk.clone()).into();
    let algorithms = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    let route = route(spec(&algorithms, KeySource::JwksFile(file(jwks(&keys)))));
    for algorithm in algorithms {
        Call::bearer(&token(algorithm, &claims())).accepted(&route).await;
    }
}

#[tokio::test]
async fn a_public_key_is_never_taken_for_a_shared_secret() {
    let signer = signer(Algorithm::RS256);
    let secret = EncodingKey::from_secret(signer.pem.as_bytes());
    let forged = jsonwebtoken::encode(&header(Algorithm::HS256), &claims(), &secret).expect("signed");
    for source in sources(Algorithm::RS256) {
        let route = route(spec(&[Algorithm::RS256], source));
        assert_eq!(Call::bearer(&forged).refused(&route).await, Reason::InvalidToken);
    }
}

#[tokio::test]
async fn a_token_that_brings_its_own_key_is_judged_by_ours() {
    let route = route(spec(&[Algorithm::ES256], sources(Algorithm::ES256).remove(1)));
    let own = Signer::p256();
    let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(own.jwk.clone()).expect("a JWK");
    let brought = Header {
        jwk: Some(jwk),
        jku: Some("https://evil.example/jwks.json".into()),
        x5u: Some("https://evil.example/key.pem".into()),
        ..header(Algorithm::ES256)
    };
    assert_eq!(Call::bearer(&own.sign(&brought, &claims())).refused(&route).await, Reason::InvalidToken);
    // The headers themselves are no reason: signed by our key, the token is good.
    Call::bearer(&signer(Algorithm::ES256).sign(&brought, &claims())).accepted(&route).await;
}

#[tokio::test]
async fn a_kid_picks_the_key_and_a_token_without_one_tries_those_that_fit() {
    let (first, second) = (Signer::p256(), Signer::p256());
    let keys = [first.jwk(&json!({"kid": "first"})), second.jwk(&json!({"kid": "second"}))];
    let route = route(spec(&[Algorithm::ES256], KeySource::JwksFile(file(jwks(&keys)))));
    let with = |signer: &Signer, kid: Option<&str>| {
        let header = Header { kid: kid.map(str::to_owned), ..header(Algorithm::ES256) };
        Call::bearer(&signer.sign(&header, &claims()))
    };
    with(&second, Some("second")).accepted(&route).await;
    with(&second, None).accepted(&route).await;
    assert_eq!(with(&second, Some("first")).refused(&route).await, Reason::InvalidToken);
    assert_eq!(with(&second, Some("third")).refused(&route).await, Reason::InvalidToken);
    assert_eq!(with(&Signer::p256(), None).refused(&route).await, Reason::InvalidToken);
}

#[tokio::test]
async fn several_keys_in_pem_are_several_keys() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let route = route(spec(&[Algorithm::ES256], KeySource::PublicKey(file(format!("{}{}", old.pem, new.pem)))));
    for signer in [&old, &new] {
        Call::bearer(&signer.sign(&header(Algorithm::ES256), &claims())).accepted(&route).await;
    }
}

#[tokio::test]
async fn a_certificate_and_a_pkcs1_key_are_read_too() {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("generated");
    let certificate = rcgen::CertificateParams::new(vec![]).expect("parameters").self_signed(&pair).expect("signed");
    let signer = Signer::new(&pair, EncodingKey::from_ec_pem);
    let from_certificate = route(spec(&[Algorithm::ES256], KeySource::PublicKey(file(certificate.pem()))));
    Call::bearer(&signer.sign(&header(Algorithm::ES256), &claims())).accepted(&from_certificate).await;

    let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("generated");
    let pkcs1 = pem("RSA PUBLIC KEY", pair.public_key_raw());
    let signer = Signer::new(&pair, EncodingKey::from_rsa_pem);
    let from_pkcs1 = route(spec(&[Algorithm::RS256], KeySource::PublicKey(file(pkcs1))));
    Call::bearer(&signer.sign(&header(Algorithm::RS256), &claims())).accepted(&from_pkcs1).await;
}

#[test]
fn keys_that_do_not_fit_the_algorithms_are_problems() {
    let of_p256 = |algorithm| problem(spec(&[algorithm], sources(Algorithm::ES256).remove(0)));
    for algorithm in [Algorithm::ES384, Algorithm::RS256, Algorithm::EdDSA, Algorithm::HS256] {
        assert_eq!(of_p256(algorithm).path, "public_key_file", "{algorithm:?}");
    }
    assert!(of_p256(Algorithm::ES384).message.contains("P-384"), "it says what is needed");
    let of_set = spec(&[Algorithm::ES384, Algorithm::EdDSA], sources(Algorithm::ES256).remove(1));
    assert_eq!(problem(of_set).path, "jwks_file");
    let both = spec(&[Algorithm::ES384, Algorithm::ES256], sources(Algorithm::ES256).remove(1));
    assert_eq!(build(both).counts().keys, Some(1), "a set may be on its way from one algorithm to another");
    for (algorithm, bytes) in [(Algorithm::HS256, 31), (Algorithm::HS384, 47), (Algorithm::HS512, 63)] {
        let problem = problem(spec(&[algorithm], KeySource::Secret(Secret::new(vec![b'x'; bytes]))));
        assert_eq!(problem.path, "secret");
        assert!(!problem.message.contains("xx"), "a secret is never quoted");
    }
}

#[test]
fn pem_that_cannot_be_used_is_a_problem_that_quotes_nothing() {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("generated");
    // The point of a P-256 key, said to be of another curve.
    let other_curve = pem(
        "PUBLIC KEY",
        &[&[0x30, 0x56, 0x30, 0x10, 0x06, 7], ID_EC, &[0x06, 5], SECP256K1, &[3, 66, 0], pair.public_key_raw()]
            .concat(),
    );
    let small = pem("RSA PUBLIC KEY", &small_rsa_key());
    let many = pair.public_key_pem().repeat(9);
    for (text, why) in [
        (String::new(), "no key in it"),
        ("sesame".to_owned(), "no key in it"),
        (pair.serialize_pem(), "a private key"),
        (pem("RSA PRIVATE KEY", b"sesame"), "a private key"),
        (pem("PUBLIC KEY", b"sesame"), "cannot be read"),
        (pem("CERTIFICATE", b"sesame"), "cannot be read"),
        (pem("SESAME", b"sesame"), "neither"),
        ("-----BEGIN PUBLIC KEY-----\nsesame!\n-----END PUBLIC KEY-----\n".to_owned(), "not PEM"),
        (other_curve, "curve"),
        (small, "less than 2048 bits"),
        (many, "more than 8 keys"),
    ] {
        let problem = problem(spec(&[Algorithm::ES256], KeySource::PublicKey(file(text))));
        assert_eq!(problem.path, "public_key_file");
        assert!(problem.message.contains(why), "{why}: {}", problem.message);
        assert!(!problem.message.contains("sesame"), "{}", problem.message);
    }
}

/// DER: the object identifiers of EC keys, and of a curve that no algorithm here uses.
const ID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const SECP256K1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x0a];

/// DER: a sequence of a modulus of 1024 bits and 65537.
fn small_rsa_key() -> Vec<u8> {
    let mut der = vec![0x30, 0x81, 137, 0x02, 0x81, 129, 0];
    der.extend([0xff; 128]);
    der.extend([0x02, 3, 1, 0, 1]);
    der
}

#[test]
fn a_curve_fits_its_own_algorithm_alone() {
    let of_p521 = |algorithm| problem(spec(&[algorithm], sources(Algorithm::ES512).remove(0)));
    for algorithm in [Algorithm::ES256, Algorithm::ES384] {
        assert_eq!(of_p521(algorithm).path, "public_key_file", "{algorithm:?}");
    }
    let of_p384 = problem(spec(&[Algorithm::ES512], sources(Algorithm::ES384).remove(0)));
    assert!(of_p384.message.contains("P-521"), "it says what is needed");
}

#[test]
fn what_is_not_fetched_has_no_numbers_of_fetching() {
    let Counts { refreshes, jwks_age, keys, remembered, .. } = build(shared()).counts();
    assert_eq!((refreshes, jwks_age, keys, remembered), (Vec::new(), None, Some(1), Some(0)));
}
