//! `[routes.NAME]`.

mod access;
mod action;
mod condition;
mod cors;
mod headers;

use std::time::Duration;

use http::HeaderName;

use super::defaults::Defaults;
use super::leaf::template::Scope;
use super::node::Node;
use super::section::Named;
use super::table::Table;
use super::{Objects, value};
use crate::config::{ClientRules, EncodedSlash, HeaderRules, Limit, Route};

pub(super) use self::access::{AuthNames, auth_names};
pub(super) use self::headers::{Direction, header_rules};

/// Largest body that can be allowed without saying "none".
const MAX_BODY: u64 = 1 << 40;
const STREAM_IDLE: Duration = Duration::from_secs(5 * 60);

/// What a route may refer to.
pub(super) struct Known<'k, 'a> {
    pub(super) listeners: &'k Named<'a>,
    pub(super) auth: &'k Named<'a>,
    pub(super) limits: &'k Named<'a>,
    pub(super) upstreams: &'k Named<'a>,
    pub(super) read_limits: &'k Objects<Limit>,
    /// Which only we may set
    pub(super) identity_headers: Vec<HeaderName>,
}

pub(super) fn route(mut owned: Table<'_>, known: &Known<'_, '_>, defaults: &Defaults) -> Option<Route> {
    let table = &mut owned;
    let hosts = condition::hosts(table);
    let slashes = [("refuse", EncodedSlash::Refuse), ("keep", EncodedSlash::Keep)];
    let encoded_slash = table.or("encoded_slash", EncodedSlash::Refuse, |node| node.word(&slashes, &[]));
    let path = condition::path(table, encoded_slash.unwrap_or(EncodedSlash::Keep));
    let methods = condition::methods(table);
    let match_headers = condition::match_headers(table, &known.identity_headers);
    let match_query = condition::match_query(table);
    let listeners = condition::listeners(table, known.listeners);
    let names = access::names(table, known, defaults);
    let is_open = matches!(names, Some(AuthNames::Open));
    let auth = access::auth(table, names);
    let auth_mode = access::auth_mode(table, is_open);
    let limits = access::own_limits(table, known, defaults, is_open);
    let clients = table.or("clients", ClientRules::default(), |node| access::clients(node.table()?));
    let cors = table.optional("cors", |node| cors::cors(node, methods.as_deref()));
    let parameters = condition::parameters(path.as_ref());
    let no_claims = is_open.then_some("this route has auth = \"none\", so nobody is known");
    let scope = Scope { parameters: &parameters, no_claims };
    let action = action::action(table, known.upstreams, scope);
    let rewrite = action::rewrite(table, scope, path.as_ref(), action.as_ref());
    let request_headers = table.or("request_headers", HeaderRules::default(), |node| {
        header_rules(node.table()?, scope, &Direction::Request { identity_headers: &known.identity_headers })
    });
    let response_headers = match table.get("response_headers") {
        Some(node) => node.table().and_then(|table| header_rules(table, scope, &Direction::Response)),
        None => defaults.response_headers.clone(),
    };
    let timeout = table.get("timeout").map_or(defaults.timeout, |node| value::duration_or_none(&node, value::DAY));
    let stream_idle = table.or("stream_idle", STREAM_IDLE, |node| value::duration(node, value::DAY));
    let max_body = table.get("max_body").map_or(defaults.max_body, |node| max_body(&node));
    owned.finish(&["split", "compression"]);
    Some(Route {
        hosts: hosts?,
        path: path?,
        methods: methods?,
        match_headers: match_headers?,
        match_query: match_query?,
        listeners: listeners?,
        auth: auth?,
        auth_mode: auth_mode?,
        limits: limits?,
        cors: cors?,
        clients: clients?,
        action: action?,
        rewrite: rewrite?,
        encoded_slash: encoded_slash?,
        request_headers: request_headers?,
        response_headers: response_headers?,
        timeout: timeout?,
        stream_idle: stream_idle?,
        max_body: max_body?,
    })
}

pub(super) fn max_body(node: &Node<'_>) -> Option<Option<u64>> {
    value::size_or_none(node, 1..=MAX_BODY)
}
