//! One `[auth.NAME]`: a way of knowing, and what is counted of it.

use std::sync::Arc;

use super::api_key::Keys;
use super::basic::Basic;
use super::call::Call;
use super::certificate::Certificate;
use super::challenge::{Asks, Scheme};
use super::counters::{Counters, Counts};
use super::forward::Forward;
use super::inherited::Inherited;
use super::introspection::Introspection;
use super::jwt::{Jwt, Pace};
use super::{Claims, Refused, Task};
use crate::config::{self, AuthKind, Name, Problem, TokenSource};
use crate::http::Reason;

/// A way of knowing who calls.
#[derive(Debug)]
pub struct Authenticator {
    name: Name,
    spec: config::Auth,
    counters: Inherited<Arc<Counters>>,
    way: Way,
}

/// By its `type`
#[derive(Debug)]
enum Way {
    Jwt(Box<Jwt>),
    Certificate(Certificate),
    ApiKey(Keys),
    Basic(Box<Basic>),
    Introspection(Box<Introspection>),
    Forward(Box<Forward>),
}

impl Authenticator {
    /// Builds it from its configuration. Paths of problems are relative to `[auth.NAME]`.
    ///
    /// Fetches nothing and starts nothing: keys behind a URL are there when [`tasks`](Self::tasks) run.
    ///
    /// # Errors
    /// Keys that cannot be used, or do not fit the algorithms.
    pub fn build(name: &Name, spec: &config::Auth) -> Result<Self, Problem> {
        Self::with_pace(name, spec, Pace::USUAL)
    }

    pub(super) fn with_pace(name: &Name, spec: &config::Auth, pace: Pace) -> Result<Self, Problem> {
        let way = match &spec.kind {
            AuthKind::Jwt(jwt) => Way::Jwt(Box::new(Jwt::build(name, jwt, pace)?)),
            AuthKind::ClientCertificate(certificate) => Way::Certificate(Certificate::new(certificate)),
            AuthKind::ApiKey(keys) => Way::ApiKey(Keys::new(name, keys)),
            AuthKind::Basic(basic) => Way::Basic(Box::new(Basic::build(name, basic)?)),
            AuthKind::Introspection(spec) => Way::Introspection(Box::new(Introspection::build(name, spec)?)),
            AuthKind::Forward(spec) => Way::Forward(Box::new(Forward::build(name, spec)?)),
        };
        Ok(Self { name: Arc::clone(name), spec: spec.clone(), counters: Inherited::default(), way })
    }

    /// Goes on with what an earlier version of this `auth` has counted, and with what it knows as far as that comes from
    /// the same place. To be called once, before [`tasks`](Self::tasks).
    pub fn inherit(&self, previous: &Self) {
        self.counters.inherit(&previous.counters);
        match (&self.way, &previous.way) {
            (Way::Jwt(new), Way::Jwt(old)) => new.inherit(old),
            (Way::Basic(new), Way::Basic(old)) => new.inherit(old),
            (Way::Jwt(_) | Way::Certificate(_) | Way::ApiKey(_) | Way::Basic(_), _) => {}
            // What was said of a caller is asked again.
            (Way::Introspection(_) | Way::Forward(_), _) => {}
        }
    }

    /// What runs in the background for it.
    pub fn tasks(self: &Arc<Self>) -> Vec<Task> {
        match &self.way {
            Way::Jwt(jwt) => jwt.task(self.counters.get()).into_iter().collect(),
            Way::Certificate(_) | Way::ApiKey(_) | Way::Basic(_) | Way::Introspection(_) | Way::Forward(_) => {
                Vec::new()
            }
        }
    }

    /// Waits for what it needs to judge, but not for long. To be awaited, with the tasks running, before calling the
    /// first requests in.
    pub async fn settled(&self) {
        match &self.way {
            Way::Jwt(jwt) => jwt.settled().await,
            Way::Certificate(_) | Way::ApiKey(_) | Way::Basic(_) | Way::Introspection(_) | Way::Forward(_) => {}
        }
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What was counted, since the process started, and what is held now.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { decisions: self.counters.get().decisions(), ..Counts::default() };
        match &self.way {
            Way::Jwt(jwt) => jwt.count(self.counters.get(), &mut counts),
            Way::Certificate(_) => {}
            Way::ApiKey(keys) => counts.keys = Some(keys.len()),
            Way::Basic(basic) => {
                counts.keys = Some(basic.len());
                counts.remembered = Some(basic.remembered());
            }
            Way::Introspection(introspection) => {
                counts.asked = self.counters.get().questions();
                counts.remembered = Some(introspection.remembered());
            }
            Way::Forward(_) => counts.asked = self.counters.get().questions(),
        }
        counts
    }

    /// Whether it has what it judges by. Where keys are not fetched, none is all that there are.
    pub fn is_ready(&self) -> bool {
        match &self.way {
            Way::Jwt(_) => self.counts().keys != Some(0),
            Way::Certificate(_) | Way::ApiKey(_) | Way::Basic(_) | Way::Introspection(_) | Way::Forward(_) => true,
        }
    }

    pub(super) fn spec(&self) -> &config::Auth {
        &self.spec
    }

    /// As if these keys had been fetched.
    #[cfg(test)]
    pub(super) fn rotate(&self, set: &str) {
        let Way::Jwt(jwt) = &self.way else { panic!("{} has no keys", self.name) };
        jwt.rotate(set);
    }

    pub(super) fn counters(&self) -> &Counters {
        self.counters.get()
    }

    /// Whether both could accept the same credentials, so that their order decides who is believed to call.
    pub(super) fn rivals(&self, other: &Self) -> bool {
        match (&self.way, &other.way) {
            (Way::Jwt(one), Way::Jwt(other)) => one.issuer() == other.issuer(),
            (Way::Basic(_), Way::Basic(_)) => true,
            (Way::Jwt(_) | Way::Introspection(_), Way::Introspection(_)) | (Way::Introspection(_), Way::Jwt(_)) => true,
            // It may accept whatever it likes.
            (_, Way::Forward(_)) => true,
            // What is known at once is known in the order of the route.
            (Way::Jwt(_) | Way::Certificate(_) | Way::ApiKey(_) | Way::Basic(_), _) => false,
            (Way::Introspection(_) | Way::Forward(_), _) => false,
        }
    }

    /// Whether it decides about those, too, who present nothing.
    pub(super) fn decides_about_nobody(&self) -> bool {
        matches!(self.way, Way::Forward(_))
    }

    /// What can be said without waiting; `None` where [`ask`](Self::ask) has to be asked.
    pub(super) fn recall(&self, call: &Call<'_>) -> Option<Result<Claims, Refused>> {
        match &self.way {
            Way::Jwt(jwt) => match &call.presented {
                Some(presented) => jwt.recall(presented.fingerprint(), call.wall),
                None => Some(Err(Refused::Missing)),
            },
            Way::Certificate(certificate) => Some(certificate.judge(call.request.client_certificate, call.wall)),
            Way::ApiKey(keys) => Some(keys.judge(call.presented.as_ref(), call.wall)),
            Way::Basic(basic) => basic.recall(call.presented.as_ref(), call.wall),
            Way::Introspection(introspection) => match &call.presented {
                Some(presented) => introspection.recall(presented, call.wall),
                None => Some(Err(Refused::Missing)),
            },
            Way::Forward(_) => None,
        }
    }

    /// Judges, and remembers the answer where that is sound.
    pub(super) async fn ask(&self, call: &Call<'_>) -> Result<Claims, Refused> {
        match &self.way {
            Way::Jwt(jwt) => match &call.presented {
                Some(presented) => jwt.verify(presented.token(), presented.fingerprint(), call.wall),
                None => Err(Refused::Missing),
            },
            Way::Certificate(certificate) => certificate.judge(call.request.client_certificate, call.wall),
            Way::ApiKey(keys) => keys.judge(call.presented.as_ref(), call.wall),
            Way::Basic(basic) => basic.verify(call).await,
            Way::Introspection(introspection) => match &call.presented {
                Some(presented) => introspection.ask(presented, call.wall, self.counters.get()).await,
                None => Err(Refused::Missing),
            },
            Way::Forward(forward) => forward.ask(call.request, self.counters.get()).await,
        }
    }

    /// Judges once more when what was not known a moment ago may be known by now; `None` where nothing has changed.
    /// `generation` comes from [`Refused::UnknownKey`].
    pub(super) async fn ask_again(&self, call: &Call<'_>, generation: u64) -> Option<Result<Claims, Refused>> {
        match &self.way {
            Way::Jwt(jwt) if jwt.newer_keys(generation).await => Some(self.ask(call).await),
            Way::Jwt(_) | Way::Certificate(_) | Way::ApiKey(_) | Way::Basic(_) => None,
            Way::Introspection(_) | Way::Forward(_) => None,
        }
    }

    /// Whether it knows of a token by itself what it is worth.
    pub(super) fn judges_tokens(&self) -> bool {
        matches!(self.way, Way::Jwt(_))
    }

    /// How callers are asked for it.
    pub(super) fn asks(&self) -> Asks<'_> {
        let scheme = match &self.way {
            Way::Jwt(_) | Way::Introspection(_) => Scheme::Bearer,
            Way::Certificate(_) => Scheme::ClientCertificate,
            // What is looked for where tokens are is asked for as one is.
            Way::ApiKey(_) if self.spec.sources == [TokenSource::Bearer] => Scheme::Bearer,
            Way::ApiKey(_) => Scheme::ApiKey,
            Way::Basic(_) => Scheme::Basic,
            Way::Forward(_) => Scheme::Forward,
        };
        let realm = match &self.way {
            Way::Basic(basic) => Some(basic.realm()),
            Way::Jwt(_) | Way::Certificate(_) | Way::ApiKey(_) | Way::Introspection(_) | Way::Forward(_) => None,
        };
        Asks { scheme, realm, resource_metadata: self.spec.resource_metadata.as_deref() }
    }

    /// What a refusal is called in logs, metrics and answers.
    pub(super) fn reason(&self, refused: &Refused) -> Reason {
        let is_token = matches!(self.way, Way::Jwt(_) | Way::Introspection(_));
        match refused {
            Refused::Missing => Reason::NoCredentials,
            Refused::Invalid(_) | Refused::UnknownKey { .. } if is_token => Reason::InvalidToken,
            Refused::Invalid(_) | Refused::UnknownKey { .. } => Reason::InvalidCredentials,
            Refused::Expired if is_token => Reason::TokenExpired,
            Refused::Expired => Reason::CredentialsExpired,
            Refused::Unavailable => Reason::AuthUnavailable,
            Refused::Denied(_) => Reason::AuthDenied,
        }
    }
}
