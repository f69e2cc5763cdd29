//! One line of the truth: a route with every name resolved.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Action, EncodedSlash, Name, Problem};
use crate::filter::auth::{Authenticator, RouteAuth};
use crate::filter::limit::{self, Limit};
use crate::filter::{ClientRules, Cors, Filters, HeaderRules, Redirect, Respond, Rewrite, SizeLimit};
use crate::telemetry::{Metrics, RouteMetrics};
use crate::upstream::Upstream;

/// What happens to the requests of a route.
#[derive(Debug)]
pub struct Route {
    /// Its name, for logs and limit keys
    pub name: Name,
    /// May it pass, and how is it changed?
    pub filters: Filters,
    /// Where does it go?
    pub action: RouteAction,
    /// What a `%2F` in the path gets
    pub encoded_slash: EncodedSlash,
    /// From the request's first byte to the response's last
    pub timeout: Option<Duration>,
    /// A stream with nothing in either direction
    pub stream_idle: Duration,
    /// Its counters, found once
    pub metrics: RouteMetrics,
}

/// What answers a request that may pass.
#[derive(Debug)]
pub enum RouteAction {
    /// An upstream
    Upstream(Arc<Upstream>),
    /// The filters answer every request
    Answered,
}

/// The named objects a route refers to.
pub(super) struct Parts<'a> {
    pub(super) authenticators: &'a BTreeMap<Name, Arc<Authenticator>>,
    pub(super) limits: &'a BTreeMap<Name, Arc<Limit>>,
    pub(super) upstreams: &'a BTreeMap<Name, Arc<Upstream>>,
}

impl Route {
    pub(super) fn build<'a>(
        name: &Name,
        spec: &config::Route,
        parts: &Parts<'_>,
        metrics: &Metrics,
        listeners: impl Iterator<Item = &'a Name>,
    ) -> Result<Self, Problem> {
        let action = match &spec.action {
            Action::Upstream(upstream) => RouteAction::Upstream(resolve(parts.upstreams, upstream, "upstream")?),
            Action::Redirect(_) | Action::Respond(_) => RouteAction::Answered,
        };
        let upstream = match &action {
            RouteAction::Upstream(upstream) => Some(upstream.name()),
            RouteAction::Answered => None,
        };
        Ok(Self {
            name: name.clone(),
            metrics: metrics.route(listeners, name, upstream),
            filters: filters(spec, parts)?,
            action,
            encoded_slash: spec.encoded_slash,
            timeout: spec.timeout,
            stream_idle: spec.stream_idle,
        })
    }
}

fn filters(spec: &config::Route, parts: &Parts<'_>) -> Result<Filters, Problem> {
    let limits: Vec<_> =
        spec.limits.iter().map(|name| resolve(parts.limits, name, "limits")).collect::<Result<_, _>>()?;
    let (consumer_limits, client_limits) =
        limit::arranged(limits.into_iter()).into_iter().partition(|limit| limit.needs_identity());
    Ok(Filters {
        cors: spec.cors.as_ref().map(Cors::build),
        clients: ClientRules::build(&spec.clients),
        size: SizeLimit { max_body: spec.max_body },
        client_limits,
        redirect: match &spec.action {
            Action::Redirect(redirect) => Some(Redirect::build(redirect)),
            _ => None,
        },
        auth: RouteAuth::build(&spec.auth, spec.auth_mode, parts.authenticators)?,
        consumer_limits,
        respond: match &spec.action {
            Action::Respond(respond) => Some(Respond::build(respond)),
            _ => None,
        },
        rewrite: spec.rewrite.as_ref().map(Rewrite::build),
        request_headers: HeaderRules::build(&spec.request_headers),
        response_headers: HeaderRules::build(&spec.response_headers),
    })
}

/// The reader has checked every name; one that is missing all the same stops the build rather than a request.
fn resolve<T>(objects: &BTreeMap<Name, Arc<T>>, name: &Name, key: &str) -> Result<Arc<T>, Problem> {
    objects.get(name).cloned().ok_or_else(|| Problem::new(key, format!("nothing has the name \"{name}\"")))
}
