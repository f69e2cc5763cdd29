//! Keys that verify signatures, and which algorithms each is for.
//!
//! A key that could not be used, or should not be, is refused when it is read, not when a token comes.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use jsonwebtoken::DecodingKey;

use crate::config::{Algorithm, Secret};

/// Keys tried for a token that names none.
pub(super) const MAX_TRIES: usize = 8;
/// RFC 7518 sections 3.3 and 3.5 ask for 2048 bits or more; the library stops at 8192.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A key and what it is for.
#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    kind: Kind,
    /// `alg` of a JWK: this algorithm and no other
    only: Option<Algorithm>,
    fingerprint: [u8; 32],
    material: Material,
}

/// What does the arithmetic.
#[derive(Debug)]
pub(super) enum Material {
    Library(DecodingKey),
    /// A curve that the library lacks
    P521(ParsedPublicKey),
}

/// What an algorithm asks of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Secret { bytes: usize },
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

impl Kind {
    /// Whether a key of this kind can verify `algorithm`. A secret is at least as long as its hash (RFC 7518 section 3.2).
    pub(super) fn fits(self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::HS256 => matches!(self, Self::Secret { bytes } if bytes >= 32),
            Algorithm::HS384 => matches!(self, Self::Secret { bytes } if bytes >= 48),
            Algorithm::HS512 => matches!(self, Self::Secret { bytes } if bytes >= 64),
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512 => self == Self::Rsa,
            Algorithm::ES256 => self == Self::P256,
            Algorithm::ES384 => self == Self::P384,
            Algorithm::ES512 => self == Self::P521,
            Algorithm::EdDSA => self == Self::Ed25519,
        }
    }
}

/// What an algorithm asks for, in the operator's words.
pub(super) fn needs(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::HS256 => "a secret of at least 32 bytes",
        Algorithm::HS384 => "a secret of at least 48 bytes",
        Algorithm::HS512 => "a secret of at least 64 bytes",
        Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512 => "an RSA key",
        Algorithm::ES256 => "an EC key of curve P-256",
        Algorithm::ES384 => "an EC key of curve P-384",
        Algorithm::ES512 => "an EC key of curve P-521",
        Algorithm::EdDSA => "an Ed25519 key",
    }
}

impl Key {
    pub(super) fn secret(secret: &Secret) -> Self {
        let bytes = secret.expose();
        Self::new(Kind::Secret { bytes: bytes.len() }, &[bytes], Material::Library(DecodingKey::from_secret(bytes)))
    }

    /// From modulus and exponent, big-endian.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, &'static str> {
        let (n, e) = (without_leading_zeros(modulus), without_leading_zeros(exponent));
        let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
        if bits < *RSA_BITS.start() {
            return Err("an RSA key of less than 2048 bits");
        }
        if bits > *RSA_BITS.end() {
            return Err("an RSA key of more than 8192 bits");
        }
        // With an exponent of 1 every message is its own signature.
        if e.len() > 4 || e == [1] || e.last().is_none_or(|last| last % 2 == 0) {
            return Err("an RSA key with an exponent that is not odd, between 3 and 2^32");
        }
        RsaPublicKeyComponents { n, e }
            .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
            .map_err(|_| "not an RSA public key")?;
        Ok(Self::new(Kind::Rsa, &[n, e], Material::Library(DecodingKey::from_rsa_raw_components(n, e))))
    }

    /// From an uncompressed point.
    pub(super) fn p256(point: &[u8]) -> Result<Self, &'static str> {
        check_point(&ECDSA_P256_SHA256_FIXED, point, 65)?;
        Ok(Self::new(Kind::P256, &[point], Material::Library(DecodingKey::from_ec_der(point))))
    }

    /// From an uncompressed point.
    pub(super) fn p384(point: &[u8]) -> Result<Self, &'static str> {
        check_point(&ECDSA_P384_SHA384_FIXED, point, 97)?;
        Ok(Self::new(Kind::P384, &[point], Material::Library(DecodingKey::from_ec_der(point))))
    }

    /// From an uncompressed point.
    pub(super) fn p521(point: &[u8]) -> Result<Self, &'static str> {
        check_point(&ECDSA_P521_SHA512_FIXED, point, 133)?;
        let key = ParsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point).map_err(|_| "not a point of its curve")?;
        Ok(Self::new(Kind::P521, &[point], Material::P521(key)))
    }

    pub(super) fn ed25519(public: &[u8]) -> Result<Self, &'static str> {
        if public.len() != 32 || UnparsedPublicKey::new(&ED25519, public).parse().is_err() {
            return Err("not an Ed25519 public key");
        }
        Ok(Self::new(Kind::Ed25519, &[public], Material::Library(DecodingKey::from_ed_der(public))))
    }

    fn new(kind: Kind, parts: &[&[u8]], material: Material) -> Self {
        let mut hashed = Vec::new();
        for part in parts {
            hashed.extend_from_slice(&part.len().to_be_bytes());
            hashed.extend_from_slice(part);
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, &hashed).as_ref());
        Self { id: None, kind, only: None, fingerprint, material }
    }

    /// The same key as a JWK has it.
    pub(super) fn named(self, id: Option<String>, only: Option<Algorithm>) -> Self {
        Self { id, only, ..self }
    }

    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.kind.fits(algorithm) && self.only.is_none_or(|only| only == algorithm)
    }

    pub(super) fn material(&self) -> &Material {
        &self.material
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (&self.id, self.kind, self.only, self.fingerprint) == (&other.id, other.kind, other.only, other.fingerprint)
    }
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

fn check_point(algorithm: &'static dyn VerificationAlgorithm, point: &[u8], length: usize) -> Result<(), &'static str> {
    if point.len() != length || point[0] != 4 || UnparsedPublicKey::new(algorithm, point).parse().is_err() {
        return Err("not a point of its curve");
    }
    Ok(())
}

/// Why the key that a token names is not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// Not in the set, perhaps not yet
    Unknown,
    OfAnotherAlgorithm,
}

/// The keys of one moment.
#[derive(Debug, PartialEq)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// Whether a `kid` means anything here: it does in a JWKS, it does not for a secret or PEM
    named: bool,
}

impl KeySet {
    /// Keys without names: what a token says of its key does not matter.
    pub(super) fn unnamed(keys: Vec<Key>) -> Self {
        Self { keys, named: false }
    }

    /// The keys of a JWKS. Where two have one `kid`, neither is used: which was meant, nobody knows.
    pub(super) fn named(mut keys: Vec<Key>) -> Self {
        let ids: Vec<_> = keys.iter().map(|key| key.id.clone()).collect();
        let is_repeated = |id: &Option<String>| id.is_some() && ids.iter().filter(|other| *other == id).count() > 1;
        keys.retain(|key| !is_repeated(&key.id));
        Self { keys, named: true }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether any key could verify `algorithm`.
    pub(super) fn serves(&self, algorithm: Algorithm) -> bool {
        self.keys.iter().any(|key| key.fits(algorithm))
    }

    /// The keys to try: the one that is named, or those that fit.
    pub(super) fn pick(&self, algorithm: Algorithm, key_id: Option<&str>) -> Result<Vec<&Key>, NoKey> {
        match key_id {
            Some(id) if self.named => {
                let key = self.keys.iter().find(|key| key.id.as_deref() == Some(id)).ok_or(NoKey::Unknown)?;
                if !key.fits(algorithm) {
                    return Err(NoKey::OfAnotherAlgorithm);
                }
                Ok(vec![key])
            }
            _ => Ok(self.keys.iter().filter(|key| key.fits(algorithm)).take(MAX_TRIES).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(id: &str, byte: u8) -> Key {
        Key::secret(&Secret::new(vec![byte; 64])).named(Some(id.to_owned()), None)
    }

    #[test]
    fn a_secret_fits_the_hashes_it_is_as_long_as() {
        let fits = |bytes: usize| {
            let key = Key::secret(&Secret::new(vec![7; bytes]));
            [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512].map(|algorithm| key.fits(algorithm))
        };
        assert_eq!(fits(31), [false, false, false]);
        assert_eq!(fits(32), [true, false, false]);
        assert_eq!(fits(48), [true, true, false]);
        assert_eq!(fits(64), [true, true, true]);
        assert!(!Key::secret(&Secret::new(vec![7; 64])).fits(Algorithm::RS256), "the classic confusion");
    }

    #[test]
    fn weak_and_senseless_rsa_keys_are_refused() {
        let mut modulus = vec![0xff; 256];
        let refusal = |n: &[u8], e: &[u8]| Key::rsa(n, e).map(drop).expect_err("refused");
        assert_eq!(refusal(&modulus[1..], &[1, 0, 1]), "an RSA key of less than 2048 bits");
        modulus[0] = 0x7f;
        assert_eq!(refusal(&modulus, &[1, 0, 1]), "an RSA key of less than 2048 bits");
        modulus[0] = 0;
        assert_eq!(refusal(&modulus, &[1, 0, 1]), "an RSA key of less than 2048 bits");
        modulus[0] = 0xff;
        assert_eq!(refusal(&vec![0xff; 1025], &[1, 0, 1]), "an RSA key of more than 8192 bits");
        for exponent in [&[][..], &[0], &[1], &[0, 1], &[2], &[1, 0, 0], &[1, 0, 0, 0, 1]] {
            assert!(refusal(&modulus, exponent).contains("exponent"), "{exponent:?}");
        }
        assert_eq!(refusal(&[], &[3]), "an RSA key of less than 2048 bits");
    }

    #[test]
    fn a_point_off_its_curve_is_no_key() {
        let mut point = vec![4];
        point.resize(65, 1);
        assert_eq!(Key::p256(&point).map(drop), Err("not a point of its curve"));
        assert_eq!(Key::p256(&[]).map(drop), Err("not a point of its curve"));
        point.resize(97, 1);
        assert_eq!(Key::p384(&point).map(drop), Err("not a point of its curve"));
        point.resize(133, 1);
        assert_eq!(Key::p521(&point).map(drop), Err("not a point of its curve"));
        assert_eq!(Key::p521(&[4; 65]).map(drop), Err("not a point of its curve"));
        assert_eq!(Key::ed25519(&[1; 31]).map(drop), Err("not an Ed25519 public key"));
    }

    #[test]
    fn two_keys_of_one_name_are_both_refused() {
        let set = KeySet::named(vec![secret("a", 1), secret("b", 2), secret("a", 3)]);
        assert_eq!(set.len(), 1);
        assert_eq!(set.pick(Algorithm::HS256, Some("a")), Err(NoKey::Unknown));
        assert_eq!(set.pick(Algorithm::HS256, Some("b")).map(|keys| keys.len()), Ok(1));
    }

    #[test]
    fn a_token_that_names_no_key_tries_a_bounded_number_of_those_that_fit() {
        let set = KeySet::named((0..20).map(|id| secret(&id.to_string(), id)).collect());
        assert_eq!(set.pick(Algorithm::HS256, None).map(|keys| keys.len()), Ok(MAX_TRIES));
        assert_eq!(set.pick(Algorithm::ES256, None).map(|keys| keys.len()), Ok(0));
    }

    #[test]
    fn a_name_means_nothing_where_keys_have_none() {
        let set = KeySet::unnamed(vec![Key::secret(&Secret::new(vec![7; 32]))]);
        assert_eq!(set.pick(Algorithm::HS256, Some("whatever")).map(|keys| keys.len()), Ok(1));
    }

    #[test]
    fn a_key_for_one_algorithm_serves_no_other() {
        let key = Key::secret(&Secret::new(vec![7; 64])).named(Some("a".into()), Some(Algorithm::HS384));
        let set = KeySet::named(vec![key]);
        assert!(set.serves(Algorithm::HS384) && !set.serves(Algorithm::HS256));
        assert_eq!(set.pick(Algorithm::HS256, Some("a")), Err(NoKey::OfAnotherAlgorithm));
    }
}
