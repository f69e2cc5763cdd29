//! `[defaults]`: what a route has when it does not say.

use std::time::Duration;

use super::leaf::template::Scope;
use super::route::{self, AuthNames, Direction, Known};
use super::table::Table;
use super::value;
use crate::config::{HeaderRules, Name};

const TIMEOUT: Duration = Duration::from_secs(60);
const MAX_BODY: u64 = 10 << 20;

/// Each may have failed; that has been told then.
pub(super) struct Defaults {
    /// If there is one
    pub(super) auth: Option<Option<AuthNames>>,
    pub(super) limits: Option<Vec<Name>>,
    pub(super) timeout: Option<Option<Duration>>,
    pub(super) max_body: Option<Option<u64>>,
    pub(super) response_headers: Option<HeaderRules>,
}

pub(super) fn defaults(mut table: Table<'_>, known: &Known<'_, '_>) -> Defaults {
    // One text for many routes can name only what all of them have.
    let scope = Scope { parameters: &[], no_claims: Some("a default is for routes without auth too") };
    let defaults = Defaults {
        auth: table.get("auth").map(|node| route::auth_names(&node, known)),
        limits: table.or("limits", Vec::new(), |node| value::names(node, known.limits, |_| Ok(()))),
        timeout: table.or("timeout", Some(TIMEOUT), |node| value::duration_or_none(node, value::DAY)),
        max_body: table.or("max_body", Some(MAX_BODY), route::max_body),
        response_headers: table.or("response_headers", HeaderRules::default(), |node| {
            route::header_rules(node.table()?, scope, &Direction::Response)
        }),
    };
    table.finish(&[]);
    defaults
}
