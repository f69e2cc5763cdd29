//! `tollgate token mint`

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::cli::Failure;
use crate::config::{AuthKind, Config, KeySource};

/// Sign a token with a key of your own, for tests
#[derive(Debug, Args)]
pub struct Mint {
    /// The private key in PEM (PKCS #8, or RSA in PKCS #1)
    #[arg(long, value_name = "FILE", conflicts_with = "secret_file")]
    key: Option<PathBuf>,
    /// The shared secret of HS256, HS384 and HS512
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Default: what fits the key best
    #[arg(long, value_name = "NAME", ignore_case = true)]
    algorithm: Option<Name>,
    /// "kid" of the header
    #[arg(long, value_name = "ID")]
    kid: Option<String>,
    /// "typ" of the header
    #[arg(long, value_name = "TYPE", default_value = "JWT")]
    typ: String,
    /// Take issuer, audience, and the secret if it has one, from this auth of the configuration
    #[arg(long, value_name = "NAME", requires = "config")]
    auth: Option<String>,
    /// The configuration file that --auth is in
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// "iss"
    #[arg(long)]
    issuer: Option<String>,
    /// "aud"; several make a list
    #[arg(long)]
    audience: Vec<String>,
    /// "sub"
    #[arg(long)]
    subject: Option<String>,
    /// "scope"; several are joined by spaces
    #[arg(long)]
    scope: Vec<String>,
    /// Another claim: JSON, or text where it is none
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, Value)>,
    /// Until "exp": 90s, 15m, 1h, 7d; with "-" in front it has passed
    #[arg(long, value_name = "TIME", default_value = "15m", allow_hyphen_values = true, value_parser = life)]
    expires_in: i64,
}

/// A signature algorithm
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(super) enum Name {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    #[value(name = "EdDSA")]
    EdDsa,
}

impl Mint {
    pub(super) fn run(mut self) -> Result<(), Failure> {
        let configured = self.configured()?;
        let (key, fits) = match (&self.key, &self.secret_file, configured) {
            (Some(file), ..) => signing_key(&read(file)?)?,
            (None, Some(file), _) => {
                let mut secret = read(file)?;
                // One newline at its end is the editor's, as in `secret_file` of the configuration.
                if secret.last() == Some(&b'\n') {
                    secret.pop();
                }
                shared(&secret)?
            }
            (None, None, Some(secret)) => shared(&secret)?,
            (None, None, None) => return Err("nothing to sign with: name a file with --key or --secret-file".into()),
        };
        let algorithm = self.algorithm.map_or(fits[0], library);
        if !fits.contains(&algorithm) {
            return Err(format!("this key does not fit {algorithm:?}: it signs {fits:?}").into());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let mut header = Header::new(algorithm);
        header.kid = self.kid.take();
        header.typ = Some(self.typ.clone());
        println!("{}", jsonwebtoken::encode(&header, &self.claims(now), &key)?);
        Ok(())
    }

    /// Fills in what the configuration says, and gives its secret if it has one.
    fn configured(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let (Some(name), Some(file)) = (&self.auth, &self.config) else { return Ok(None) };
        let config = Config::load(file)?;
        let auth = config.auth.get(name.as_str()).ok_or_else(|| format!("no auth has the name \"{name}\""))?;
        let AuthKind::Jwt(jwt) = &auth.kind else {
            return Err(format!("{name} is of the type {}, which takes no JWT", auth.kind.name()).into());
        };
        self.issuer.get_or_insert_with(|| jwt.issuer.clone());
        if self.audience.is_empty() {
            self.audience.extend(jwt.audience.first().cloned());
        }
        Ok(match &jwt.keys {
            KeySource::Secret(secret) => Some(secret.expose().to_vec()),
            _ => None,
        })
    }

    fn claims(self, now: Duration) -> Map<String, Value> {
        let mut claims = Map::new();
        let issued = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let audience = match &self.audience[..] {
            [] => None,
            [one] => Some(json!(one)),
            several => Some(json!(several)),
        };
        let scope = (!self.scope.is_empty()).then(|| json!(self.scope.join(" ")));
        for (name, value) in [
            ("iss", self.issuer.map(Value::from)),
            ("aud", audience),
            ("sub", self.subject.map(Value::from)),
            ("scope", scope),
            ("iat", Some(issued.into())),
            ("exp", Some(issued.saturating_add(self.expires_in).into())),
            ("jti", Some(Uuid::now_v7().to_string().into())),
        ] {
            if let Some(value) = value {
                claims.insert(name.to_owned(), value);
            }
        }
        // What is written out comes last: it may say anything, for tests want wrong tokens too.
        claims.extend(self.claims);
        claims
    }
}

fn read(file: &PathBuf) -> Result<Vec<u8>, Failure> {
    fs::read(file).map_err(|error| format!("{} cannot be read: {error}", file.display()).into())
}

fn shared(secret: &[u8]) -> Result<(EncodingKey, &'static [Algorithm]), Failure> {
    let fits: &[Algorithm] = match secret.len() {
        ..32 => return Err("the secret is too short: HS256 needs 32 bytes (RFC 7518 section 3.2)".into()),
        32..48 => &[Algorithm::HS256],
        48..64 => &[Algorithm::HS256, Algorithm::HS384],
        _ => &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
    };
    Ok((EncodingKey::from_secret(secret), fits))
}

type Parse = fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>;

/// The key, and what it can sign, the usual first.
fn signing_key(pem: &[u8]) -> Result<(EncodingKey, &'static [Algorithm]), Failure> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let rsa: &[Algorithm] = &[RS256, RS384, RS512, PS256, PS384, PS512];
    let kinds: [(Parse, &[&[Algorithm]]); 3] = [
        (EncodingKey::from_rsa_pem, &[rsa]),
        (EncodingKey::from_ec_pem, &[&[ES256], &[ES384]]),
        (EncodingKey::from_ed_pem, &[&[EdDSA]]),
    ];
    for (parse, candidates) in kinds {
        let Ok(key) = parse(pem) else { continue };
        // Which curve a key is of shows when it signs.
        let signs = |fits: &&&[Algorithm]| jsonwebtoken::encode(&Header::new(fits[0]), &json!({}), &key).is_ok();
        if let Some(fits) = candidates.iter().find(signs) {
            return Ok((key, fits));
        }
    }
    Err("this is no private key in PEM of RSA, P-256, P-384 or Ed25519".into())
}

fn library(name: Name) -> Algorithm {
    match name {
        Name::Hs256 => Algorithm::HS256,
        Name::Hs384 => Algorithm::HS384,
        Name::Hs512 => Algorithm::HS512,
        Name::Rs256 => Algorithm::RS256,
        Name::Rs384 => Algorithm::RS384,
        Name::Rs512 => Algorithm::RS512,
        Name::Ps256 => Algorithm::PS256,
        Name::Ps384 => Algorithm::PS384,
        Name::Ps512 => Algorithm::PS512,
        Name::Es256 => Algorithm::ES256,
        Name::Es384 => Algorithm::ES384,
        Name::EdDsa => Algorithm::EdDSA,
    }
}

fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("this has no \"=\", as in tenant=acme")?;
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::from(value))))
}

/// Seconds, perhaps below zero.
fn life(text: &str) -> Result<i64, String> {
    let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let bad = || "write a number and s, m, h or d, as in 15m".to_owned();
    let unit = rest.chars().last().ok_or_else(bad)?;
    let number: i64 = rest[..rest.len() - unit.len_utf8()].parse().map_err(|_| bad())?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(bad()),
    };
    number.checked_mul(seconds * sign).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_a_number_with_a_unit() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("1h", 3_600), ("7d", 604_800), ("-5m", -300)] {
            assert_eq!(life(text), Ok(seconds));
        }
        for text in ["", "m", "15", "1.5h", "15 m", "9223372036854775807d", "1\u{e4}"] {
            life(text).expect_err(text);
        }
    }

    #[test]
    fn a_claim_is_json_or_text() {
        assert_eq!(claim("tenant=acme"), Ok(("tenant".into(), json!("acme"))));
        assert_eq!(claim("roles=[\"a\",\"b\"]"), Ok(("roles".into(), json!(["a", "b"]))));
        assert_eq!(claim("level=7"), Ok(("level".into(), json!(7))));
        claim("tenant").expect_err("no value");
    }
}
