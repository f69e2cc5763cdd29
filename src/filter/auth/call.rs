//! A request to be judged, and what it presents to be known by.

use std::sync::OnceLock;
use std::time::SystemTime;

use super::cache::Fingerprint;
use super::jwt::Token;
use crate::http::Request;

/// A request to be judged.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) request: &'a Request<'a>,
    /// The credentials it carries where this route looks for some
    pub(super) presented: Option<Presented<'a>>,
    pub(super) wall: SystemTime,
}

/// Credentials as they came: perhaps a token, perhaps a key, perhaps nonsense.
///
/// What several ways of knowing would each work out of them is worked out once, when the first asks.
#[derive(Debug)]
pub(super) struct Presented<'a> {
    text: &'a str,
    source: usize,
    fingerprint: Fingerprint,
    token: OnceLock<Result<Token<'a>, &'static str>>,
}

impl<'a> Presented<'a> {
    /// `source` is which of the route's sources they came from.
    pub(super) fn new(text: &'a str, source: usize) -> Self {
        Self { text, source, fingerprint: Fingerprint::of(text), token: OnceLock::new() }
    }

    /// Which of the route's sources they came from
    pub(super) fn source(&self) -> usize {
        self.source
    }

    /// As they came
    pub(super) fn text(&self) -> &str {
        self.text
    }

    /// SHA-256 of the whole
    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Taken apart as a JSON Web Token, or what is wrong with it as one
    pub(super) fn token(&self) -> Result<&Token<'a>, &'static str> {
        self.token.get_or_init(|| Token::parse(self.text)).as_ref().map_err(|why| *why)
    }
}
