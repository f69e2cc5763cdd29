//! An issuer: keys of every kind, tokens good and bad, and a JWKS server that can misbehave.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Map, Value, json};

use super::origin::Origin;

/// Who issues, unless a token says otherwise.
pub(crate) const ISSUER: &str = "https://issuer.test";
/// For whom, unless a token says otherwise.
pub(crate) const AUDIENCE: &str = "tollgate";

/// A key that signs.
pub(crate) struct Key {
    pub(crate) id: String,
    algorithm: Algorithm,
    encoding: EncodingKey,
    /// PEM of the public key; empty for HMAC
    public: String,
    jwk: Value,
}

/// A token that is being written: valid for an hour unless told otherwise.
#[derive(Clone)]
pub(crate) struct Token<'a> {
    key: &'a Key,
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

impl Key {
    /// A new one, for one algorithm.
    pub(crate) fn new(id: &str, algorithm: Algorithm) -> Self {
        let (encoding, public) = match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
                let secret = format!("a secret of the tests that is long enough for every digest there is: {id}");
                (EncodingKey::from_secret(secret.as_bytes()), String::new())
            }
            Algorithm::ES256 | Algorithm::ES384 => {
                let curve =
                    if algorithm == Algorithm::ES256 { &PKCS_ECDSA_P256_SHA256 } else { &PKCS_ECDSA_P384_SHA384 };
                let pair = KeyPair::generate_for(curve).expect("a key");
                let encoding = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes());
                (encoding.expect("our own PEM"), pair.public_key_pem())
            }
            Algorithm::EdDSA => {
                let pair = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
                let encoding = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).expect("our own PEM");
                // The library's own way wants the older encoding of the private key.
                let x = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
                let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": id, "x": x });
                return Self { id: id.to_owned(), algorithm, encoding, public: pair.public_key_pem(), jwk };
            }
            _ => {
                let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key");
                let encoding = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes());
                (encoding.expect("our own PEM"), pair.public_key_pem())
            }
        };
        let mut jwk = Jwk::from_encoding_key(&encoding, algorithm).expect("a key that has a JWK");
        jwk.common.key_id = Some(id.to_owned());
        let jwk = serde_json::to_value(jwk).expect("JSON");
        Self { id: id.to_owned(), algorithm, encoding, public, jwk }
    }

    /// The kind most tests want: fast to make and to check.
    pub(crate) fn es256() -> Self {
        Self::new("first", Algorithm::ES256)
    }

    /// What a JWKS says of it.
    pub(crate) fn jwk(&self) -> Value {
        self.jwk.clone()
    }

    /// For `public_key_file`.
    pub(crate) fn public_pem(&self) -> &str {
        &self.public
    }

    /// For `secret`.
    pub(crate) fn secret(&self) -> &str {
        assert!(self.public.is_empty(), "{} has no secret that is shared", self.id);
        std::str::from_utf8(self.encoding.as_bytes()).expect("text")
    }

    pub(crate) fn token(&self) -> Token<'_> {
        let header = json!({ "alg": self.algorithm, "typ": "JWT", "kid": self.id });
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": from_now(0), "exp": from_now(3600),
        });
        let (Value::Object(header), Value::Object(claims)) = (header, claims) else { unreachable!() };
        Token { key: self, header, claims }
    }
}

impl Token<'_> {
    #[must_use]
    pub(crate) fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    #[must_use]
    pub(crate) fn without(mut self, claim: &str) -> Self {
        self.claims.remove(claim);
        self
    }

    #[must_use]
    pub(crate) fn subject(self, subject: &str) -> Self {
        self.claim("sub", subject)
    }

    #[must_use]
    pub(crate) fn scope(self, scope: &str) -> Self {
        self.claim("scope", scope)
    }

    /// Long ago enough for every leeway.
    #[must_use]
    pub(crate) fn expired(self) -> Self {
        self.claim("exp", from_now(-3600))
    }

    /// Expires so many seconds from now.
    #[must_use]
    pub(crate) fn expires_in(self, seconds: i64) -> Self {
        self.claim("exp", from_now(seconds))
    }

    /// Later than every leeway.
    #[must_use]
    pub(crate) fn not_yet_valid(self) -> Self {
        self.claim("nbf", from_now(3600))
    }

    /// A field of its own header.
    #[must_use]
    pub(crate) fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    #[must_use]
    pub(crate) fn without_header(mut self, name: &str) -> Self {
        self.header.remove(name);
        self
    }

    /// Signed with the key, whatever its header says.
    pub(crate) fn mint(&self) -> String {
        let message = self.message();
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key.encoding, self.key.algorithm);
        format!("{message}.{}", signature.expect("signed"))
    }

    /// With `alg: none` and no signature.
    pub(crate) fn unsigned(self) -> String {
        format!("{}.", self.header("alg", "none").message())
    }

    /// Signed with HS256, whatever the key: as somebody would who takes a public key for a shared secret.
    pub(crate) fn signed_with_secret(self, secret: &[u8]) -> String {
        let message = self.header("alg", "HS256").message();
        let key = EncodingKey::from_secret(secret);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
        format!("{message}.{}", signature.expect("signed"))
    }

    /// With one bit of the signature turned.
    pub(crate) fn forged(&self) -> String {
        let (message, mut signature) = (self.message(), self.signature());
        signature[0] ^= 1;
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn signature(&self) -> Vec<u8> {
        let token = self.mint();
        let (_, signature) = token.rsplit_once('.').expect("three parts");
        URL_SAFE_NO_PAD.decode(signature).expect("base64url")
    }

    fn message(&self) -> String {
        let part = |map: &Map<String, Value>| URL_SAFE_NO_PAD.encode(serde_json::to_vec(map).expect("JSON"));
        format!("{}.{}", part(&self.header), part(&self.claims))
    }
}

/// Serves keys on loopback.
pub(crate) struct JwksServer {
    origin: Origin,
    behaviour: Arc<Mutex<Behaviour>>,
}

#[derive(Clone)]
enum Behaviour {
    Serve(String),
    Fail(u16),
    Hang,
}

impl JwksServer {
    pub(crate) fn serving(keys: &[&Key]) -> Self {
        let behaviour = Arc::new(Mutex::new(Behaviour::Serve(key_set(keys))));
        let origin = Origin::scripted({
            let behaviour = Arc::clone(&behaviour);
            move |_, connection| {
                let behaviour = behaviour.lock().unwrap_or_else(PoisonError::into_inner).clone();
                match behaviour {
                    Behaviour::Serve(text) => connection.reply(200, &[("content-type", "application/json")], text),
                    Behaviour::Fail(status) => connection.reply(status, &[], "no keys today"),
                    Behaviour::Hang => connection.hang(),
                }
            }
        });
        Self { origin, behaviour }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/jwks.json", self.origin.addr())
    }

    pub(crate) fn hits(&self) -> usize {
        self.origin.hits()
    }

    /// From now on, these keys and no others.
    pub(crate) fn rotate(&self, keys: &[&Key]) {
        self.publish(&key_set(keys));
    }

    /// From now on, this text.
    pub(crate) fn publish(&self, text: &str) {
        self.behave(Behaviour::Serve(text.to_owned()));
    }

    /// From now on, this status.
    pub(crate) fn fail(&self, status: u16) {
        self.behave(Behaviour::Fail(status));
    }

    /// From now on, no answer.
    pub(crate) fn hang(&self) {
        self.behave(Behaviour::Hang);
    }

    fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }
}

/// A JWKS with these keys.
pub(crate) fn key_set(keys: &[&Key]) -> String {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string()
}

/// Seconds since 1970, so many from now.
pub(crate) fn from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("for a long time yet") + seconds
}
