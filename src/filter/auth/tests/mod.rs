//! Real keys of every algorithm, real tokens, and a route that judges them.

mod algorithms;
mod claims;
mod discovered;
mod fetched;
mod issuer;
mod model;
mod route;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, Method, Uri};
use jsonwebtoken::{EncodingKey, Header};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256,
    RsaKeySize,
};
use serde_json::{Value, json};
use x509_parser::der_parser::der::parse_der;

use super::{Authenticator, RouteAuth};
use crate::config::{
    self, Algorithm, AuthChoice, AuthKind, Claim, FileContent, Jwt, KeySource, Mode, Name, Require, Secret, TokenSource,
};
use crate::filter::Identity;
use crate::http::{Reason, Reply, Request};

const ISSUER: &str = "https://id.example.com";
const AUDIENCE: &str = "orders-api";
const SECRET: &[u8; 64] = b"sixty-four bytes that only the issuer and this test would know..";

/// A key pair as its owner has it.
struct Signer {
    signing: Signing,
    /// `kty` and what belongs to it
    jwk: Value,
    pem: String,
}

enum Signing {
    Library(EncodingKey),
    P521(EcdsaKeyPair),
}

impl Signer {
    fn new(pair: &KeyPair, encoding: fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>) -> Self {
        let signing = Signing::Library(encoding(pair.serialize_pem().as_bytes()).expect("a key of its kind"));
        Self { signing, jwk: public_jwk(pair), pem: pair.public_key_pem() }
    }

    fn rsa() -> Self {
        let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("generated");
        Self::new(&pair, EncodingKey::from_rsa_pem)
    }

    fn p256() -> Self {
        Self::new(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("generated"), EncodingKey::from_ec_pem)
    }

    fn p384() -> Self {
        Self::new(&KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("generated"), EncodingKey::from_ec_pem)
    }

    fn p521() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).expect("generated");
        let signing = EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA512_FIXED_SIGNING, pair.serialized_der()).expect("a key");
        Self { signing: Signing::P521(signing), jwk: public_jwk(&pair), pem: pair.public_key_pem() }
    }

    fn ed25519() -> Self {
        Self::new(&KeyPair::generate_for(&PKCS_ED25519).expect("generated"), EncodingKey::from_ed_pem)
    }

    /// The JWK with more members.
    fn jwk(&self, more: &Value) -> Value {
        let mut jwk = self.jwk.clone();
        for (name, value) in more.as_object().expect("an object") {
            jwk[name] = value.clone();
        }
        jwk
    }

    fn sign(&self, header: &Header, claims: &Value) -> String {
        match &self.signing {
            Signing::Library(key) => jsonwebtoken::encode(header, claims, key).expect("signed"),
            Signing::P521(key) => {
                let mut header = serde_json::to_value(header).expect("JSON");
                header["alg"] = json!("ES512");
                let [header, claims] = [&header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
                let message = format!("{header}.{claims}");
                let signature = key.sign(&SystemRandom::new(), message.as_bytes()).expect("signed");
                format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
            }
        }
    }
}

fn public_jwk(pair: &KeyPair) -> Value {
    let raw = pair.public_key_raw();
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    if pair.is_compatible(&PKCS_ED25519) {
        return json!({"kty": "OKP", "crv": "Ed25519", "x": text(raw)});
    }
    if pair.is_compatible(&PKCS_RSA_SHA256) {
        let (_, key) = parse_der(raw).expect("DER");
        let [modulus, exponent] = &key.as_sequence().expect("a sequence")[..] else { panic!("two numbers") };
        let [modulus, exponent] = [modulus, exponent].map(|number| number.as_slice().expect("a number"));
        let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
        return json!({"kty": "RSA", "n": text(modulus), "e": text(exponent)});
    }
    let curve = match raw.len() {
        65 => "P-256",
        97 => "P-384",
        _ => "P-521",
    };
    let (x, y) = raw[1..].split_at(raw.len() / 2);
    json!({"kty": "EC", "crv": curve, "x": text(x), "y": text(y)})
}

/// One key a kind for all tests: an RSA key takes a while to make.
fn signer(algorithm: Algorithm) -> &'static Signer {
    static RSA: OnceLock<Signer> = OnceLock::new();
    static P256: OnceLock<Signer> = OnceLock::new();
    static P384: OnceLock<Signer> = OnceLock::new();
    static P521: OnceLock<Signer> = OnceLock::new();
    static ED25519: OnceLock<Signer> = OnceLock::new();
    static SHARED: OnceLock<Signer> = OnceLock::new();
    match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => SHARED.get_or_init(|| Signer {
            signing: Signing::Library(EncodingKey::from_secret(SECRET)),
            jwk: json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET)}),
            pem: String::new(),
        }),
        Algorithm::ES256 => P256.get_or_init(Signer::p256),
        Algorithm::ES384 => P384.get_or_init(Signer::p384),
        Algorithm::ES512 => P521.get_or_init(Signer::p521),
        Algorithm::EdDSA => ED25519.get_or_init(Signer::ed25519),
        _ => RSA.get_or_init(Signer::rsa),
    }
}

/// The library has no name for ES512: whoever signs with it writes its own.
fn header(algorithm: Algorithm) -> Header {
    Header::new(format!("{algorithm:?}").parse().unwrap_or(jsonwebtoken::Algorithm::ES384))
}

fn seconds_from_now(offset: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_secs()).expect("before the end of time") + offset
}

/// Claims that are accepted, for an hour.
fn claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": seconds_from_now(3600)})
}

/// [`claims`] with `more` put over them; null takes a claim away.
fn claims_with(more: &Value) -> Value {
    let mut claims = claims();
    let members = claims.as_object_mut().expect("an object");
    for (name, value) in more.as_object().expect("an object") {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    claims
}

fn token(algorithm: Algorithm, claims: &Value) -> String {
    signer(algorithm).sign(&header(algorithm), claims)
}

fn file(text: impl Into<Vec<u8>>) -> FileContent {
    FileContent { path: "keys".into(), content: Secret::new(text.into()) }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

pub(super) fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// A provider as tests change it.
#[derive(Clone)]
pub(super) struct Spec {
    jwt: Jwt,
    token_from: Vec<TokenSource>,
    forward_token: bool,
}

impl From<Jwt> for Spec {
    fn from(jwt: Jwt) -> Self {
        Self { jwt, token_from: vec![TokenSource::Bearer], forward_token: false }
    }
}

impl Spec {
    fn auth(self) -> config::Auth {
        config::Auth {
            kind: AuthKind::Jwt(self.jwt),
            sources: self.token_from,
            forward_token: self.forward_token,
            identity_headers: Vec::new(),
            resource_metadata: None,
        }
    }
}

fn spec(algorithms: &[Algorithm], keys: KeySource) -> Jwt {
    Jwt {
        issuer: ISSUER.into(),
        audience: vec![AUDIENCE.into()],
        algorithms: algorithms.to_vec(),
        keys,
        ca_file: None,
        leeway: Duration::from_secs(30),
        token_type: None,
        required_claims: Vec::new(),
    }
}

/// A provider with one shared secret.
pub(super) fn shared() -> Jwt {
    spec(&[Algorithm::HS256], KeySource::Secret(Secret::new(SECRET.as_slice())))
}

fn build(spec: impl Into<Spec>) -> Arc<Authenticator> {
    named("corporate", spec)
}

fn named(name: &str, spec: impl Into<Spec>) -> Arc<Authenticator> {
    Arc::new(Authenticator::build(&name.into(), &spec.into().auth()).expect("built"))
}

fn problem(spec: impl Into<Spec>) -> config::Problem {
    Authenticator::build(&"corporate".into(), &spec.into().auth()).map(drop).expect_err("a problem")
}

fn route_of(authenticators: &[Arc<Authenticator>], require: Require, mode: Mode) -> RouteAuth {
    let names = authenticators.iter().map(|authenticator| authenticator.name().clone()).collect();
    let by_name: BTreeMap<Name, _> =
        authenticators.iter().map(|authenticator| (authenticator.name().clone(), Arc::clone(authenticator))).collect();
    let choice = AuthChoice::AnyOf { names, anonymous: false, require };
    RouteAuth::build(&choice, mode, &by_name).expect("built").expect("not open")
}

/// A route with one provider that asks for nothing but a token.
pub(super) fn route(spec: impl Into<Spec>) -> RouteAuth {
    route_of(&[build(spec)], Require::default(), Mode::Enforce)
}

/// A request to be judged.
#[derive(Default)]
pub(super) struct Call {
    headers: HeaderMap,
    query: Option<String>,
}

impl Call {
    pub(super) fn bearer(token: &str) -> Self {
        Self::default().header("authorization", &format!("Bearer {token}"))
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, HeaderValue::from_str(value).expect("a header's value"));
        self
    }

    fn query(mut self, query: &str) -> Self {
        self.query = Some(query.to_owned());
        self
    }

    async fn judged_at(&self, route: &RouteAuth, wall: SystemTime) -> Result<Option<Identity>, Reply> {
        let request = Request {
            method: &Method::GET,
            host: "api.example.com",
            path: "/",
            query: self.query.as_deref(),
            headers: &self.headers,
            client: Ipv4Addr::LOCALHOST.into(),
            client_certificate: None,
            route: "orders",
            scheme: "http",
            id: "",
        };
        match route.on_request(&request, wall).await {
            ControlFlow::Continue(identity) => Ok(identity),
            ControlFlow::Break(reply) => Err(reply),
        }
    }

    async fn judged(&self, route: &RouteAuth) -> Result<Option<Identity>, Reply> {
        self.judged_at(route, SystemTime::now()).await
    }

    async fn accepted(&self, route: &RouteAuth) -> Identity {
        self.judged(route).await.expect("accepted").expect("with an identity")
    }

    pub(super) async fn refused(&self, route: &RouteAuth) -> Reason {
        self.judged(route).await.map(|_| ()).expect_err("refused").reason
    }
}

fn challenge(reply: &Reply) -> &str {
    let (_, value) = reply.headers.iter().find(|(name, _)| *name == WWW_AUTHENTICATE).expect("a challenge");
    value.to_str().expect("ASCII")
}

fn counted(authenticator: &Authenticator) -> Vec<(&'static str, u64)> {
    authenticator.counts().decisions.into_iter().filter(|(_, count)| *count > 0).collect()
}
