//! Who says who calls: a key made at the start, published as a JWKS, and the tokens it signs.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::server::{Server, json};

/// Who the tokens are for.
pub(super) const AUDIENCE: &str = "demo";
/// The name of the one key.
const KEY_ID: &str = "demo-1";
/// How long a token is valid.
const LIFE: Duration = Duration::from_secs(3600);

/// Serves its keys until it is dropped.
pub(super) struct Issuer {
    key: EncodingKey,
    server: Server,
}

impl Issuer {
    pub(super) async fn start() -> io::Result<Self> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| io::Error::other("no key can be made"))?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())
            .map_err(|_| io::Error::other("no key can be made"))?;
        let keys = key_set(pair.public_key().as_ref());
        let server = Server::start(move |request| {
            let found = request.uri().path() == "/jwks.json";
            let answer = if found { json(StatusCode::OK, &keys) } else { json(StatusCode::NOT_FOUND, &Value::Null) };
            std::future::ready(answer)
        });
        Ok(Self { key: EncodingKey::from_ec_der(pkcs8.as_ref()), server: server.await? })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// A token that is valid for an hour.
    pub(super) fn token(&self, subject: &str, scope: &str, now: SystemTime) -> io::Result<String> {
        let now = now.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
        let claims = json!({
            "iss": issuer(self.addr()),
            "aud": AUDIENCE,
            "sub": subject,
            "scope": scope,
            "iat": now.as_secs(),
            "exp": (now + LIFE).as_secs(),
        });
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(KEY_ID.to_owned());
        jsonwebtoken::encode(&header, &claims, &self.key).map_err(io::Error::other)
    }
}

/// The `iss` of its tokens.
pub(super) fn issuer(addr: SocketAddr) -> String {
    format!("http://{addr}")
}

/// The JWK Set (RFC 7517) of one P-256 key, which is given as an uncompressed point (SEC 1 section 2.3.3).
fn key_set(point: &[u8]) -> Value {
    let (x, y) = point[1..].split_at(32);
    json!({ "keys": [{
        "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": KEY_ID,
        "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
    }] })
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{DecodingKey, Validation};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn get(addr: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(addr).await.expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn its_tokens_verify_with_the_keys_it_publishes() {
        let issuer = Issuer::start().await.expect("started");
        let answer = get(issuer.addr(), "/jwks.json").await;
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        let keys: JwkSet = serde_json::from_str(body).expect("a JWK Set");
        let token = issuer.token("alice", "orders.read", SystemTime::now()).expect("signed");
        let kid = jsonwebtoken::decode_header(&token).expect("a header").kid.expect("a kid");
        let key = DecodingKey::from_jwk(keys.find(&kid).expect("the key")).expect("usable");
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[super::issuer(issuer.addr())]);
        let claims = jsonwebtoken::decode::<Value>(&token, &key, &validation).expect("valid").claims;
        assert_eq!((&claims["sub"], &claims["scope"]), (&json!("alice"), &json!("orders.read")));
        assert!(get(issuer.addr(), "/").await.starts_with("HTTP/1.1 404 "));
    }
}
