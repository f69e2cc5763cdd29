//! Who may pass a route, and how often.

use ipnet::IpNet;

use super::Known;
use crate::config::read::complaint::quote;
use crate::config::read::defaults::Defaults;
use crate::config::read::leaf::{address, selector};
use crate::config::read::node::Node;
use crate::config::read::table::Table;
use crate::config::read::value;
use crate::config::{AuthChoice, Claim, ClientRules, Limit, Mode, Name, Require};

const MAX_AUTH: usize = 16;
const MAX_NETWORKS: usize = 10_000;
const MAX_SCOPES: usize = 64;
const MAX_CLAIMS: usize = 64;

/// `auth`, as it is written.
#[derive(Clone)]
pub(crate) enum AuthNames {
    /// `"none"` alone
    Open,
    AnyOf {
        /// At least one
        names: Vec<Name>,
        /// `"none"` stands at the end
        anonymous: bool,
    },
}

/// A name, any of several, or `"none"`, which may also end a list.
pub(crate) fn auth_names(node: &Node<'_>, known: &Known<'_, '_>) -> Option<AuthNames> {
    let is_none = |node: &Node<'_>| node.text().is_some_and(|text| text.as_str() == "none");
    if !node.is_list() {
        if is_none(node) {
            return Some(AuthNames::Open);
        }
        return known.auth.refer(node).map(|name| AuthNames::AnyOf { names: vec![name], anonymous: false });
    }
    let names = node.some(MAX_AUTH, "to let everybody in, write \"none\"", |item| {
        if is_none(item) { Some(None) } else { known.auth.refer(item).map(Some) }
    })?;
    let anonymous = names.last() == Some(&None);
    let named: Vec<Name> = names.iter().flatten().cloned().collect();
    if named.is_empty() {
        return Some(AuthNames::Open);
    }
    if named.len() + usize::from(anonymous) < names.len() {
        node.problem("\"none\" lets in whoever shows nothing: it comes last");
        return None;
    }
    Some(AuthNames::AnyOf { names: named, anonymous })
}

/// What the route says, or what the defaults say; saying nothing is no decision.
pub(super) fn names(table: &mut Table<'_>, known: &Known<'_, '_>, defaults: &Defaults) -> Option<AuthNames> {
    match (table.get("auth"), &defaults.auth) {
        (Some(node), _) => auth_names(&node, known),
        (None, Some(names)) => names.clone(),
        (None, None) => {
            table.node.problem(
                "\"auth\" is missing: name who may pass, or write auth = \"none\", which is a decision that has to be \
                 written down",
            );
            None
        }
    }
}

/// Who may pass, and what they must have.
pub(super) fn auth(table: &mut Table<'_>, names: Option<AuthNames>) -> Option<AuthChoice> {
    let written = table.get("require");
    let require = written.as_ref().map_or(Some(Require::default()), |node| require(node.table()?));
    match (names?, written) {
        (AuthNames::Open, Some(node)) => {
            node.problem_of_key("with auth = \"none\" nobody is known of whom this could be required");
            None
        }
        (AuthNames::Open, None) => Some(AuthChoice::Open),
        (AuthNames::AnyOf { anonymous: true, .. }, Some(node)) => {
            node.problem_of_key("with \"none\" in auth whoever shows nothing may pass, so nothing can be required");
            None
        }
        (AuthNames::AnyOf { names, anonymous }, _) => Some(AuthChoice::AnyOf { names, anonymous, require: require? }),
    }
}

pub(super) fn auth_mode(table: &mut Table<'_>, is_open: bool) -> Option<Mode> {
    let mode = value::mode(table, "auth_mode");
    if let Some(node) = table.get("auth_mode")
        && is_open
    {
        node.problem_of_key("with auth = \"none\" there is nothing to decide: leave it out");
    }
    mode
}

fn require(mut table: Table<'_>) -> Option<Require> {
    let scopes = table.or("scopes", Vec::new(), |node| node.distinct(MAX_SCOPES, scope));
    let any_scope = table.or("any_scope", Vec::new(), |node| node.distinct(MAX_SCOPES, scope));
    let any = table.or("claims", Vec::new(), |node| claims(&node.table()?));
    let all = table.or("all_claims", Vec::new(), |node| claims(&node.table()?));
    table.finish(&[]);
    Some(Require { scopes: scopes?, any_scope: any_scope?, claims: any?, all_claims: all? })
}

/// A scope token (RFC 6749 section 3.3): what separates scopes cannot be in one.
fn scope(node: &Node<'_>) -> Option<String> {
    let scope = value::text(node)?;
    if scope.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
        return Some(scope);
    }
    node.problem("a scope is visible ASCII without spaces, quotes and backslashes: write several as several items");
    None
}

fn claims(table: &Table<'_>) -> Option<Vec<(Claim, Vec<String>)>> {
    let mut claims = Vec::new();
    let mut complete = true;
    for (key, node) in table.entries() {
        let claim = node.parse_key(key, selector::claim);
        let values = node.some(MAX_CLAIMS, "no value would be right", value::text);
        match claim.zip(values) {
            Some(claim) => claims.push(claim),
            None => complete = false,
        }
    }
    complete.then_some(claims)
}

/// The route's list, or the defaults'. Where nobody is known, nothing can be counted by who calls.
pub(super) fn own_limits(
    table: &mut Table<'_>,
    known: &Known<'_, '_>,
    defaults: &Defaults,
    is_open: bool,
) -> Option<Vec<Name>> {
    let needs_identity = |name: &Name| is_open && known.read_limits.get(name).is_some_and(Limit::needs_identity);
    if let Some(node) = table.get("limits") {
        let message = "this limit counts by who calls, and with auth = \"none\" nobody is known";
        return value::names(&node, known.limits, |name| if needs_identity(name) { Err(message) } else { Ok(()) });
    }
    let names = defaults.limits.clone()?;
    for name in names.iter().filter(|name| needs_identity(name)) {
        table.node.problem(format!(
            "defaults.limits has {}, which counts by who calls, and with auth = \"none\" nobody is known: write limits = \
             [] or others",
            quote(name)
        ));
    }
    Some(names)
}

pub(super) fn clients(mut table: Table<'_>) -> Option<ClientRules> {
    let networks = |node: &Node<'_>| node.some(MAX_NETWORKS, "leave it out", |item| item.parse(address::network));
    let allow = table.or("allow", Vec::<IpNet>::new(), networks);
    let deny = table.or("deny", Vec::new(), networks);
    table.finish(&[]);
    Some(ClientRules { allow: allow?, deny: deny? })
}
