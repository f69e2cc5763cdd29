//! May a request pass, and how is it changed? One file a filter.
//!
//! A filter is a plain struct with `build` and `on_request`; [`Filters`] is the chain, in the one order there is. The
//! set is closed and has one caller, so there is no trait and no `dyn` in the request path.

pub mod auth;
pub mod limit;

mod affinity;
mod clients;
mod cors;
mod facts;
mod headers;
mod identity;
mod prehashed;
mod redirect;
mod respond;
mod rewrite;
mod template;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

pub use self::affinity::affinity;
use self::auth::RouteAuth;
pub use self::clients::ClientRules;
pub use self::cors::{Cors, CorsAnswer, asked_method};
pub use self::facts::Facts;
pub use self::headers::{HeaderRules, Rendered};
pub use self::identity::Identity;
use self::limit::{Admission, Limit, Notes};
pub use self::redirect::Redirect;
pub use self::respond::Respond;
pub use self::rewrite::Rewrite;
pub use self::template::Parameters;
use crate::http::{Reason, Reply, Request};

/// The chain. Field order is execution order; each reason is load-bearing.
#[derive(Debug)]
pub struct Filters {
    /// First: a preflight carries no credentials, and refusals need its headers too
    pub cors: Option<Cors>,
    /// Cheap, and cannot be forged once the client's address is trusted
    pub clients: Option<ClientRules>,
    /// Bound the work before doing any
    pub size: SizeLimit,
    /// Keyed by address or header: protects the identity step itself from being hammered
    pub client_limits: Vec<Arc<Limit>>,
    /// Ask nobody for credentials only to say "go elsewhere"
    pub redirect: Option<Redirect>,
    /// Yields the identity that later steps and the upstream may use
    pub auth: Option<RouteAuth>,
    /// Keyed by identity: must know who
    pub consumer_limits: Vec<Arc<Limit>>,
    /// An answer of the route's own, for those who may have it
    pub respond: Option<Respond>,
    /// Last change of the request: everything above judged the path the client sent
    pub rewrite: Option<Rewrite>,
    /// What the upstream is told besides
    pub request_headers: HeaderRules,
    /// What the client is told besides, by every response of the route
    pub response_headers: HeaderRules,
}

/// What a request that may pass takes along.
#[derive(Debug, Default)]
pub struct Passage {
    /// Who calls
    pub identity: Option<Identity>,
    /// Permits of the client limits, given back when the request ends
    pub client_admission: Admission,
    /// Permits of the consumer limits
    pub consumer_admission: Admission,
    /// What limits have to say to the operator
    pub notes: Notes,
    /// The path to ask the upstream for, if it is another
    pub path: Option<String>,
    /// Headers to set upstream
    pub request_headers: Rendered,
    /// What a browser is told of whose pages may read the response
    pub cors: CorsAnswer,
    /// Headers to set towards the client
    pub response_headers: Rendered,
}

/// The clocks of one request: limits count on the steady one, tokens expire by the other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Never goes back
    pub steady: Instant,
    /// The time of day
    pub wall: SystemTime,
}

impl Filters {
    /// Runs the chain. `passage` is filled as far as the request came, so that an answer of ours can still carry what
    /// the route's responses carry.
    pub async fn on_request(
        &self,
        request: &Request<'_>,
        content_length: Option<u64>,
        parameters: Parameters<'_>,
        clock: Clock,
        passage: &mut Passage,
    ) -> ControlFlow<Reply> {
        let Self {
            cors,
            clients,
            size,
            client_limits,
            redirect,
            auth,
            consumer_limits,
            respond,
            rewrite,
            request_headers,
            response_headers,
        } = self;
        let anonymous = Facts { request, identity: None };
        passage.response_headers = response_headers.render(&anonymous, parameters);
        if let Some(cors) = cors {
            cors.on_request(request, &mut passage.cors)?;
        }
        if let Some(clients) = clients {
            clients.on_request(request)?;
        }
        size.on_request(content_length)?;
        passage.client_admission = admit(client_limits, &anonymous, clock, &mut passage.notes).await?;
        if let Some(redirect) = redirect {
            return ControlFlow::Break(redirect.reply(&anonymous, parameters));
        }
        if let Some(auth) = auth {
            passage.identity = auth.on_request(request, clock.wall).await?;
        }
        let facts = Facts { request, identity: passage.identity.as_ref() };
        if facts.identity.is_some() {
            passage.response_headers = response_headers.render(&facts, parameters);
        }
        passage.consumer_admission = admit(consumer_limits, &facts, clock, &mut passage.notes).await?;
        if let Some(respond) = respond {
            return ControlFlow::Break(respond.reply());
        }
        if let Some(rewrite) = rewrite {
            passage.path = Some(rewrite.on_request(&facts, parameters)?);
        }
        passage.request_headers = request_headers.render(&facts, parameters);
        ControlFlow::Continue(())
    }
}

async fn admit(
    limits: &[Arc<Limit>],
    facts: &Facts<'_>,
    clock: Clock,
    notes: &mut Notes,
) -> ControlFlow<Reply, Admission> {
    if limits.is_empty() {
        return ControlFlow::Continue(Admission::default());
    }
    match limit::admit(limits, facts, clock, notes).await {
        Ok(admission) => ControlFlow::Continue(admission),
        Err(refusal) => ControlFlow::Break(refusal.reply()),
    }
}

/// `max_body`: judged by the announced length here, and counted as the body passes.
#[derive(Clone, Copy, Debug)]
pub struct SizeLimit {
    /// Bytes; `None` is no limit
    pub max_body: Option<u64>,
}

impl SizeLimit {
    fn on_request(self, content_length: Option<u64>) -> ControlFlow<Reply> {
        match content_length {
            Some(length) if !self.allows(length) => ControlFlow::Break(Self::reply()),
            _ => ControlFlow::Continue(()),
        }
    }

    /// Whether a body may have so many bytes.
    pub fn allows(self, bytes: u64) -> bool {
        self.max_body.is_none_or(|max| bytes <= max)
    }

    /// What a larger body is answered with.
    pub fn reply() -> Reply {
        Reply::problem(Reason::BodyTooLarge, "The request's body is larger than this route takes.")
    }
}
