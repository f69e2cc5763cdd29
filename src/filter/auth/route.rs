//! What one route asks of its callers.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::SystemTime;

use super::call::{Call, Presented};
use super::carrier::{self, Carried};
use super::challenge::Challenges;
use super::forward::Denial;
use super::require::Requirement;
use super::seldom::Seldom;
use super::{Authenticator, Claims, Refused};
use crate::config::{AuthChoice, Mode, Name, Problem, TokenSource};
use crate::filter::Identity;
use crate::http::{Reason, Reply, Request};

/// Any of several ways of knowing, and what the caller must have.
#[derive(Debug)]
pub struct RouteAuth {
    /// In the order they are tried; at least one
    members: Vec<Member>,
    /// Everywhere any of them looks
    sources: Vec<TokenSource>,
    require: Requirement,
    challenges: Challenges,
    /// Whoever presents nothing may pass, as nobody
    anonymous: bool,
    mode: Mode,
    /// That the route only pretends to ask
    warned: Seldom,
}

#[derive(Debug)]
struct Member {
    authenticator: Arc<Authenticator>,
    /// Which of the route's sources are its own
    looks_in: Vec<bool>,
    /// Earlier members that could accept the same credentials
    rivals: Vec<usize>,
}

impl Member {
    /// It knows its callers by something else than what a request carries.
    fn carries_nothing(&self) -> bool {
        self.authenticator.spec().sources.is_empty()
    }
}

/// Who is believed to call, and by which member.
struct Accepted {
    identity: Identity,
    member: usize,
}

/// A refusal, and by which member.
#[derive(Debug)]
struct Refusal {
    reason: Reason,
    member: usize,
    /// In the words of a service that decides
    denial: Option<Box<Denial>>,
}

impl Refusal {
    fn new(reason: Reason, member: usize) -> Self {
        Self { reason, member, denial: None }
    }
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
        let AuthChoice::AnyOf { names, anonymous, require } = choice else { return Ok(None) };
        let named = names.iter().map(|name| {
            let found = authenticators.get(name).map(Arc::clone);
            found.ok_or_else(|| Problem::new("auth", format!("nothing has the name \"{name}\"")))
        });
        let named: Vec<_> = named.collect::<Result<_, _>>()?;
        if named.is_empty() {
            return Err(Problem::new("auth", "the list is empty: name an auth, or write \"none\""));
        }
        if let Some(decider) = named.iter().find(|named| *anonymous && named.decides_about_nobody()) {
            let message = format!(
                "\"{}\" decides about those who present nothing, too: \"none\" beside it would let nobody in",
                decider.name()
            );
            return Err(Problem::new("auth", message));
        }
        let mut sources: Vec<TokenSource> = Vec::new();
        for source in named.iter().flat_map(|authenticator| &authenticator.spec().sources) {
            if !sources.contains(source) {
                sources.push(source.clone());
            }
        }
        let members = named.iter().enumerate().map(|(index, authenticator)| Member {
            looks_in: sources.iter().map(|source| authenticator.spec().sources.contains(source)).collect(),
            rivals: (0..index).filter(|earlier| authenticator.rivals(&named[*earlier])).collect(),
            authenticator: Arc::clone(authenticator),
        });
        let members = members.collect();
        let require = Requirement::build(require)?;
        Ok(Some(Self {
            members,
            challenges: Challenges::new(named.iter().map(|named| named.asks()), &require.sufficient_scope()),
            sources,
            require,
            anonymous: *anonymous,
            mode,
            warned: Seldom::default(),
        }))
    }

    pub(super) fn requirement(&self) -> &Requirement {
        &self.require
    }

    /// Whether the caller may go on, and as whom. In shadow mode everybody may, but only as who they prove to be.
    pub async fn on_request(&self, request: &Request<'_>, wall: SystemTime) -> ControlFlow<Reply, Option<Identity>> {
        match self.decide(request, wall).await {
            Ok(Accepted { identity, member }) => {
                self.members[member].authenticator.counters().accepted();
                ControlFlow::Continue(Some(identity))
            }
            Err(Refusal { reason: Reason::NoCredentials, member, .. }) if self.anonymous => {
                self.members[member].authenticator.counters().anonymous();
                ControlFlow::Continue(None)
            }
            Err(Refusal { reason, member, denial }) => {
                self.members[member].authenticator.counters().refused(reason, self.mode);
                match self.mode {
                    Mode::Enforce => ControlFlow::Break(match denial {
                        Some(denial) => self.challenges.denied(*denial, member),
                        None => self.challenges.reply(reason, member),
                    }),
                    Mode::Shadow => {
                        self.warn(request.route, reason, wall);
                        ControlFlow::Continue(None)
                    }
                }
            }
        }
    }

    /// What is known at once comes to its end before the first `await`.
    async fn decide(&self, request: &Request<'_>, wall: SystemTime) -> Result<Accepted, Refusal> {
        let carried = carrier::find(request, &self.sources);
        let presented = match &carried {
            Carried::One { token, source } => Some(Presented::new(token, *source)),
            Carried::Nothing => None,
            Carried::Several => return Err(Refusal::new(Reason::MultipleCredentials, 0)),
        };
        let call = Call { request, presented, wall };
        match self.recall(&call) {
            Some(verdict) => verdict,
            // Seldom needed, so its state is not a part of every request's.
            None => Box::pin(self.ask(&call)).await,
        }
    }

    /// Those who know what to make of the call, in the order of the route.
    fn concerned(&self, call: &Call<'_>) -> impl Iterator<Item = (usize, &Member)> {
        let source = call.presented.as_ref().map(Presented::source);
        let all = self.members.iter().enumerate();
        all.filter(move |(_, member)| member.carries_nothing() || source.is_some_and(|source| member.looks_in[source]))
    }

    /// The verdict as far as it can be given without waiting; `None` when somebody has to be asked.
    fn recall(&self, call: &Call<'_>) -> Option<Result<Accepted, Refusal>> {
        let mut refusals = Refusals::default();
        let mut silent: u32 = 0;
        for (index, member) in self.concerned(call) {
            match member.authenticator.recall(call) {
                Some(verdict) => match self.conclude(verdict, index, call) {
                    // Somebody named earlier may know the caller as another.
                    Ok(_) if member.rivals.iter().any(|rival| silent & 1 << rival != 0) => return None,
                    Ok(accepted) => return Some(Ok(accepted)),
                    Err(refusal) => refusals.add(refusal),
                },
                None => silent |= 1 << index,
            }
        }
        (silent == 0).then(|| Err(refusals.answer()))
    }

    /// Asks one after the other. Only when none of them accepts, newer keys are looked for.
    async fn ask(&self, call: &Call<'_>) -> Result<Accepted, Refusal> {
        let mut refusals = Refusals::default();
        let mut unknown = Vec::new();
        for (index, member) in self.concerned(call) {
            let verdict = match member.authenticator.recall(call) {
                Some(verdict) => verdict,
                None => member.authenticator.ask(call).await,
            };
            if let Err(Refused::UnknownKey { generation }) = verdict {
                unknown.push((index, generation));
            }
            match self.conclude(verdict, index, call) {
                Ok(accepted) => return Ok(accepted),
                Err(refusal) => refusals.add(refusal),
            }
        }
        for (index, generation) in unknown {
            let authenticator = &self.members[index].authenticator;
            let Some(verdict) = authenticator.ask_again(call, generation).await else { continue };
            match self.conclude(verdict, index, call) {
                Ok(accepted) => return Ok(accepted),
                Err(refusal) => refusals.add(refusal),
            }
        }
        Err(refusals.answer())
    }

    /// A caller who is known: is that also enough for this route?
    fn conclude(&self, verdict: Result<Claims, Refused>, index: usize, call: &Call<'_>) -> Result<Accepted, Refusal> {
        let member = &self.members[index];
        let authenticator = &member.authenticator;
        let claims = verdict.map_err(|refused| {
            let reason = authenticator.reason(&refused);
            let denial = if let Refused::Denied(denial) = refused { Some(denial) } else { None };
            Refusal { reason, member: index, denial }
        })?;
        let source = call.presented.as_ref().map(Presented::source);
        let is_removed = !member.carries_nothing() && !authenticator.spec().forward_token;
        let carried_by = source.filter(|_| is_removed).map(|source| self.sources[source].clone());
        let identity = Identity { auth: Arc::clone(authenticator.name()), claims, carried_by };
        if self.require.is_met_by(&identity) {
            Ok(Accepted { identity, member: index })
        } else {
            Err(Refusal::new(Reason::InsufficientScope, index))
        }
    }

    fn warn(&self, route: &str, reason: Reason, wall: SystemTime) {
        if self.warned.is_due(wall) {
            let reason = reason.name();
            log::warn!("route {route}: auth_mode is shadow, so a request passes that enforce would refuse ({reason})");
        }
    }
}

/// Refusals by several members; the one that tells the caller most is the answer.
#[derive(Debug, Default)]
struct Refusals(Option<Refusal>);

impl Refusals {
    fn add(&mut self, refusal: Refusal) {
        if self.0.as_ref().is_none_or(|known| telling(refusal.reason) > telling(known.reason)) {
            self.0 = Some(refusal);
        }
    }

    fn answer(self) -> Refusal {
        self.0.unwrap_or_else(|| Refusal::new(Reason::NoCredentials, 0))
    }
}

/// Known but not allowed says more than known once, that more than not knowing for want of somebody who could tell, and
/// to have shown something more than to have shown nothing.
fn telling(reason: Reason) -> u8 {
    match reason {
        Reason::InsufficientScope => 4,
        Reason::TokenExpired | Reason::CredentialsExpired => 3,
        Reason::AuthUnavailable => 2,
        Reason::NoCredentials => 0,
        _ => 1,
    }
}
