//! `request_headers` and `response_headers`.

use http::HeaderName;
use http::header::HOST;

use crate::config::HeaderRules;
use crate::config::read::leaf::header;
use crate::config::read::leaf::template::{self, Scope};
use crate::config::read::node::Node;
use crate::config::read::table::Table;

const MAX_RULES: usize = 100;

/// Which way the headers go.
pub(crate) enum Direction<'a> {
    /// To the upstream
    Request {
        /// Nobody but the gateway sets these
        identity_headers: &'a [HeaderName],
    },
    /// To the client
    Response,
}

pub(crate) fn header_rules(mut table: Table<'_>, scope: Scope<'_>, direction: &Direction<'_>) -> Option<HeaderRules> {
    let set = table.or("set", Vec::new(), |node| {
        let mut set: Vec<(HeaderName, _)> = Vec::new();
        let mut complete = true;
        for (key, node) in node.table()?.entries() {
            let name = node.parse_key(key, header::changeable).filter(|name| is_ours(&node, name, direction));
            let value = node.parse(|text| template::header_value(text, scope));
            match name.zip(value) {
                Some((name, _)) if set.iter().any(|(other, _)| *other == name) => {
                    node.problem_of_key("this header is set already");
                    complete = false;
                }
                Some(rule) => set.push(rule),
                None => complete = false,
            }
        }
        if set.len() > MAX_RULES {
            node.problem(format!("{MAX_RULES} headers can be set at most"));
        }
        complete.then_some(set)
    });
    let remove = table.or("remove", Vec::new(), |node| {
        node.distinct(MAX_RULES, |item| item.parse(header::changeable).filter(|name| is_ours(item, name, direction)))
    });
    table.finish(&[]);
    Some(HeaderRules { set: set?, remove: remove? })
}

/// Whether a rule may have this header.
fn is_ours(node: &Node<'_>, name: &HeaderName, direction: &Direction<'_>) -> bool {
    let Direction::Request { identity_headers } = direction else {
        return true;
    };
    if *name == HOST {
        node.problem_of_key("what the upstream sees as Host is the \"host\" of the upstream");
        return false;
    }
    if header::is_among(name, identity_headers) {
        node.problem_of_key("this header carries an identity: only what is known of the caller gets into it");
        return false;
    }
    true
}
