//! What one route asks of its callers.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::cache::Fingerprint;
use super::carrier::{self, Carried};
use super::challenge::Challenges;
use super::require::Requirement;
use super::token::Token;
use super::{Authenticator, Refused};
use crate::config::{AuthChoice, Mode, Name, Problem, TokenSource};
use crate::filter::Identity;
use crate::http::{Reason, Reply, Request};

/// Seconds between two warnings that a route only pretends to ask.
const WARN_INTERVAL: u64 = 60;

/// Any of several ways of knowing, and what the caller must have.
#[derive(Debug)]
pub struct RouteAuth {
    /// In the order they are tried; at least one
    members: Vec<Member>,
    /// Everywhere any of them looks
    sources: Vec<TokenSource>,
    require: Requirement,
    challenges: Challenges,
    mode: Mode,
    /// When shadow mode was last warned about, in seconds since 1970
    warned: AtomicU64,
}

#[derive(Debug)]
struct Member {
    authenticator: Arc<Authenticator>,
    /// Which of the route's sources are its own
    looks_in: Vec<bool>,
}

/// What a request presents, and when.
#[derive(Clone, Copy, Debug)]
struct Presented {
    fingerprint: Fingerprint,
    /// Which of the route's sources it came from
    source: usize,
    wall: SystemTime,
}

/// A refusal, and by which member.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    reason: Reason,
    member: usize,
}

impl RouteAuth {
    /// `None` for a route that anybody may use.
    ///
    /// # Errors
    /// A name that nothing has, or a scope that cannot be one.
    pub fn build(
        choice: &AuthChoice,
        mode: Mode,
        authenticators: &BTreeMap<Name, Arc<Authenticator>>,
    ) -> Result<Option<Self>, Problem> {
        let AuthChoice::AnyOf { names, require } = choice else { return Ok(None) };
        let named = names.iter().map(|name| {
            let found = authenticators.get(name).map(Arc::clone);
            found.ok_or_else(|| Problem::new("auth", format!("nothing has the name \"{name}\"")))
        });
        let named: Vec<_> = named.collect::<Result<_, _>>()?;
        if named.is_empty() {
            return Err(Problem::new("auth", "the list is empty: name an auth, or write \"none\""));
        }
        let mut sources: Vec<TokenSource> = Vec::new();
        for source in named.iter().flat_map(|authenticator| &authenticator.spec().token_from) {
            if !sources.contains(source) {
                sources.push(source.clone());
            }
        }
        let members = named.into_iter().map(|authenticator| {
            let looks_in = sources.iter().map(|source| authenticator.spec().token_from.contains(source)).collect();
            Member { authenticator, looks_in }
        });
        let require = Requirement::build(require)?;
        Ok(Some(Self {
            members: members.collect(),
            challenges: Challenges::new(&require.sufficient_scope()),
            sources,
            require,
            mode,
            warned: AtomicU64::new(0),
        }))
    }

    /// Whether the caller may go on, and as whom. In shadow mode everybody may, but only as who they prove to be.
    pub async fn on_request(&self, request: &Request<'_>, wall: SystemTime) -> ControlFlow<Reply, Option<Identity>> {
        match self.decide(request, wall).await {
            Ok((identity, member)) => {
                self.members[member].authenticator.counters().accepted();
                ControlFlow::Continue(Some(identity))
            }
            Err(Refusal { reason, member }) => {
                self.members[member].authenticator.counters().refused(reason, self.mode);
                match self.mode {
                    Mode::Enforce => ControlFlow::Break(self.challenges.reply(reason)),
                    Mode::Shadow => {
                        self.warn(request.route, reason, wall);
                        ControlFlow::Continue(None)
                    }
                }
            }
        }
    }

    /// A remembered token comes to its end before the first `await`.
    async fn decide(&self, request: &Request<'_>, wall: SystemTime) -> Result<(Identity, usize), Refusal> {
        let (text, source) = match carrier::find(request, &self.sources) {
            Carried::One { token, source } => (token, source),
            Carried::Nothing => return Err(Refusal { reason: Reason::NoCredentials, member: 0 }),
            Carried::Several => return Err(Refusal { reason: Reason::MultipleCredentials, member: 0 }),
        };
        let presented = Presented { fingerprint: Fingerprint::of(&text), source, wall };
        let mut refusals = Refusals::default();
        let mut fresh = Vec::new();
        for (index, member) in self.members.iter().enumerate().filter(|(_, member)| member.looks_in[source]) {
            match member.authenticator.recall(presented.fingerprint, wall) {
                Some(Ok(claims)) => match self.admit(index, claims, source) {
                    Ok(identity) => return Ok((identity, index)),
                    Err(reason) => refusals.add(reason, index),
                },
                Some(Err(refused)) => refusals.add(reason(refused), index),
                None => fresh.push(index),
            }
        }
        let Some(first) = fresh.first() else { return Err(refusals.answer()) };
        match Token::parse(&text) {
            Ok(token) => self.verify(&token, presented, &fresh, refusals).await,
            Err(why) => {
                log::debug!("route {}: not a token: {why}", request.route);
                refusals.add(Reason::InvalidToken, *first);
                Err(refusals.answer())
            }
        }
    }

    /// A token that `members` do not remember. Only when none of them accepts it, newer keys are looked for.
    async fn verify(
        &self,
        token: &Token<'_>,
        presented: Presented,
        members: &[usize],
        mut refusals: Refusals,
    ) -> Result<(Identity, usize), Refusal> {
        let mut unknown = Vec::new();
        for &index in members {
            let (generation, verdict) = self.ask(index, token, presented);
            if verdict == Err(Refused::UnknownKey) {
                unknown.push((index, generation));
            }
            match self.conclude(verdict, index, token, presented.source) {
                Ok(identity) => return Ok((identity, index)),
                Err(reason) => refusals.add(reason, index),
            }
        }
        for (index, generation) in unknown {
            if !self.members[index].authenticator.newer_keys(generation).await {
                continue;
            }
            let (_, verdict) = self.ask(index, token, presented);
            match self.conclude(verdict, index, token, presented.source) {
                Ok(identity) => return Ok((identity, index)),
                Err(reason) => refusals.add(reason, index),
            }
        }
        Err(refusals.answer())
    }

    fn ask(&self, index: usize, token: &Token<'_>, presented: Presented) -> (u64, Result<(), Refused>) {
        let authenticator = &self.members[index].authenticator;
        let (generation, verdict) = authenticator.verify(token, presented.fingerprint, presented.wall);
        if let Err(Refused::Invalid(why)) = verdict {
            log::debug!("auth {}: a token is refused: {why}", authenticator.name());
        }
        (generation, verdict)
    }

    fn conclude(
        &self,
        verdict: Result<(), Refused>,
        index: usize,
        token: &Token<'_>,
        source: usize,
    ) -> Result<Identity, Reason> {
        verdict.map_err(reason)?;
        self.admit(index, Arc::clone(&token.claims), source)
    }

    /// A token that is valid: is it also enough for this route?
    fn admit(&self, index: usize, claims: Arc<Map<String, Value>>, source: usize) -> Result<Identity, Reason> {
        let authenticator = &self.members[index].authenticator;
        let carried_by = authenticator.carried_by(&self.sources[source]);
        let identity = Identity { auth: Arc::clone(authenticator.name()), claims, carried_by };
        if self.require.is_met_by(&identity) { Ok(identity) } else { Err(Reason::InsufficientScope) }
    }

    fn warn(&self, route: &str, reason: Reason, wall: SystemTime) {
        let now = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let last = self.warned.load(Ordering::Relaxed);
        if now.saturating_sub(last) < WARN_INTERVAL {
            return;
        }
        if self.warned.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let reason = reason.name();
            log::warn!("route {route}: auth_mode is shadow, so a request passes that enforce would refuse ({reason})");
        }
    }
}

fn reason(refused: Refused) -> Reason {
    match refused {
        Refused::Invalid(_) | Refused::UnknownKey => Reason::InvalidToken,
        Refused::Expired => Reason::TokenExpired,
        Refused::Unavailable => Reason::AuthUnavailable,
    }
}

/// Refusals by several members; the one that tells the caller most is the answer.
#[derive(Debug, Default)]
struct Refusals(Option<Refusal>);

impl Refusals {
    fn add(&mut self, reason: Reason, member: usize) {
        if self.0.is_none_or(|known| telling(reason) > telling(known.reason)) {
            self.0 = Some(Refusal { reason, member });
        }
    }

    fn answer(self) -> Refusal {
        self.0.unwrap_or(Refusal { reason: Reason::InvalidToken, member: 0 })
    }
}

/// Known but not allowed says more than known once, and that more than not knowing for want of keys.
fn telling(reason: Reason) -> u8 {
    match reason {
        Reason::InsufficientScope => 3,
        Reason::TokenExpired => 2,
        Reason::AuthUnavailable => 1,
        _ => 0,
    }
}
