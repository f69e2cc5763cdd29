//! `sticky`: a cookie that brings a client back to the endpoint that it was at.
//!
//! The cookie is 32 bytes: a tag that stands for the endpoint, the time at which the cookie ends, and half an HMAC over
//! both. The tag is an HMAC of the endpoint's address, so the cookie names it to whoever has the secret (every gateway
//! of a fleet) and tells nobody else where it is; a client can neither make a cookie nor make one last longer.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use subtle::ConstantTimeEq as _;

use crate::config::{self, Name, SameSite};

const TAG: usize = 8;
const SIGNED: usize = TAG + 8;
const COOKIE: usize = SIGNED + 16;
/// Its length as text.
const TEXT: usize = COOKIE.div_ceil(3) * 4 - 1;
/// Never: a cookie without an end of its own.
const NO_END: u64 = u64::MAX;

/// Makes cookies for one upstream, and reads them.
pub struct Sticky {
    spec: config::Sticky,
    key: hmac::Key,
}

/// What a client's cookie says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bond {
    pub(in crate::upstream) tag: Tag,
    /// Less than half of its time is left: a client that keeps coming keeps its endpoint
    wanes: bool,
}

/// Stands for an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::upstream) struct Tag([u8; TAG]);

impl fmt::Debug for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sticky").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl Sticky {
    /// For one upstream.
    pub fn build(upstream: &Name, spec: &config::Sticky) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, spec.secret.expose());
        // A key for each upstream: the cookie of one says nothing to another with the same secret.
        let key = hmac::sign(&secret, format!("tollgate sticky v1: {upstream}").as_bytes());
        Self { spec: spec.clone(), key: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()) }
    }

    /// The cookie's name.
    pub fn name(&self) -> &str {
        &self.spec.cookie
    }

    /// What stands for the endpoint at this address.
    pub(in crate::upstream) fn tag(&self, address: &str) -> Tag {
        let digest = hmac::sign(&self.key, format!("endpoint {address}").as_bytes());
        Tag(digest.as_ref()[..TAG].try_into().expect("a digest of 32 bytes"))
    }

    /// What a cookie of ours says; `None` for one that is not, and for one that has ended.
    pub fn read(&self, value: &str, now: SystemTime) -> Option<Bond> {
        if value.len() != TEXT {
            return None;
        }
        let mut cookie = [0; COOKIE];
        let length = URL_SAFE_NO_PAD.decode_slice(value, &mut cookie).ok()?;
        let (signed, seal) = cookie.split_at(SIGNED);
        if length != COOKIE || !bool::from(self.seal(signed).ct_eq(seal)) {
            return None;
        }
        let (tag, end) = signed.split_at(TAG);
        let end = u64::from_be_bytes(end.try_into().ok()?);
        let left = end.checked_sub(seconds(now)).filter(|left| *left > 0)?;
        // One that was made when cookies lasted longer does not last longer than they do now.
        let wanes = match self.spec.ttl {
            None => end != NO_END,
            Some(ttl) => left < ttl.as_secs() / 2 || left > ttl.as_secs(),
        };
        Some(Bond { tag: Tag(tag.try_into().ok()?), wanes })
    }

    /// The `Set-Cookie` field that binds a client to an endpoint. Over TLS alone, if it came over TLS.
    pub(in crate::upstream) fn cookie(&self, tag: Tag, now: SystemTime, is_encrypted: bool) -> HeaderValue {
        let mut cookie = [0; COOKIE];
        let end = self.spec.ttl.map_or(NO_END, |ttl| seconds(now).saturating_add(ttl.as_secs().max(1)));
        cookie[..TAG].copy_from_slice(&tag.0);
        cookie[TAG..SIGNED].copy_from_slice(&end.to_be_bytes());
        let seal = self.seal(&cookie[..SIGNED]);
        cookie[SIGNED..].copy_from_slice(&seal);
        let mut text = format!("{}={}; Path=/", self.spec.cookie, URL_SAFE_NO_PAD.encode(cookie));
        if let Some(ttl) = self.spec.ttl {
            text.push_str(&format!("; Max-Age={}", ttl.as_secs().max(1)));
        }
        text.push_str("; HttpOnly; SameSite=");
        text.push_str(match self.spec.same_site {
            SameSite::Strict => "Strict",
            SameSite::Lax => "Lax",
            SameSite::None => "None",
        });
        // Browsers take no "None" without it.
        if is_encrypted || self.spec.same_site == SameSite::None {
            text.push_str("; Secure");
        }
        HeaderValue::try_from(text).expect("a cookie's name is a token, and the rest is ours")
    }

    fn seal(&self, signed: &[u8]) -> [u8; COOKIE - SIGNED] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(b"cookie ");
        context.update(signed);
        let digest = context.sign();
        digest.as_ref()[..COOKIE - SIGNED].try_into().expect("a digest of 32 bytes")
    }
}

impl Bond {
    pub(in crate::upstream) fn is_to(self, tag: Tag) -> bool {
        self.tag == tag
    }

    /// Whether a client that is now at the endpoint of `tag` may keep its cookie.
    pub(in crate::upstream) fn holds(self, tag: Tag) -> bool {
        self.tag == tag && !self.wanes
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Secret;

    fn sticky(upstream: &str, secret: &[u8], ttl: Option<u64>) -> Sticky {
        let spec = config::Sticky {
            cookie: "route".into(),
            secret: Secret::new(secret),
            ttl: ttl.map(Duration::from_secs),
            same_site: SameSite::Lax,
        };
        Sticky::build(&upstream.into(), &spec)
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn value(cookie: &HeaderValue) -> String {
        let text = cookie.to_str().expect("visible ASCII");
        let pair = text.split(';').next().expect("a pair");
        pair.strip_prefix("route=").expect("its name").to_owned()
    }

    const SECRET: &[u8] = &[7; 32];

    #[test]
    fn a_cookie_brings_back_to_its_endpoint_for_as_long_as_it_is_good() {
        let sticky = sticky("orders", SECRET, Some(3600));
        let tag = sticky.tag("10.0.0.1:80");
        let cookie = sticky.cookie(tag, at(1000), true);
        let text = cookie.to_str().expect("ASCII");
        assert!(text.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure"), "{text}");
        let read = |seconds| sticky.read(&value(&cookie), at(seconds));
        assert!(read(1000).expect("new").holds(tag));
        let waning = read(3000).expect("in its second half");
        assert!(waning.tag == tag && !waning.holds(tag), "renewed");
        assert!(read(4599).is_some());
        assert_eq!(read(4600), None);
        assert!(!read(1000).expect("new").holds(sticky.tag("10.0.0.2:80")));
    }

    #[test]
    fn a_cookie_without_an_end_is_the_sessions() {
        let endless = sticky("orders", SECRET, None);
        let tag = endless.tag("10.0.0.1:80");
        let cookie = endless.cookie(tag, at(1000), false);
        let text = cookie.to_str().expect("ASCII");
        assert!(text.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{text}");
        assert!(endless.read(&value(&cookie), at(4_000_000_000)).expect("good").holds(tag));
        // After cookies were given an end, this one is replaced by one that has it.
        assert!(!sticky("orders", SECRET, Some(60)).read(&value(&cookie), at(1000)).expect("good").holds(tag));
    }

    #[test]
    fn nobody_elses_cookie_is_believed() {
        let sticky_ = sticky("orders", SECRET, None);
        let tag = sticky_.tag("10.0.0.1:80");
        let text = value(&sticky_.cookie(tag, at(0), true));
        for other in [sticky("payments", SECRET, None), sticky("orders", &[8; 32], None)] {
            assert_eq!(other.read(&text, at(0)), None);
            assert_ne!(other.tag("10.0.0.1:80"), tag);
        }
        assert!(!text.contains("10.0.0.1") && !format!("{sticky_:?}").contains("7, 7"));
    }

    proptest! {
        #[test]
        fn what_was_changed_is_not_read(at_bit in 0_usize..COOKIE * 8, junk in "[A-Za-z0-9_-]{0,60}") {
            let sticky = sticky("orders", SECRET, Some(100));
            let text = value(&sticky.cookie(sticky.tag("10.0.0.1:80"), at(0), true));
            prop_assert!(sticky.read(&text, at(0)).is_some());
            let mut bytes = URL_SAFE_NO_PAD.decode(&text).expect("base64");
            bytes[at_bit / 8] ^= 1 << (at_bit % 8);
            prop_assert_eq!(sticky.read(&URL_SAFE_NO_PAD.encode(bytes), at(0)), None);
            prop_assert_eq!(sticky.read(&junk, at(0)), None);
        }
    }
}
