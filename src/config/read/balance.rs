//! `balance`, `hash_key`, `sticky` and the like in `[upstreams.NAME]`.

use std::time::Duration;

use super::leaf::{header, selector};
use super::node::Node;
use super::table::Table;
use super::{file, value};
use crate::config::{Balance, SameSite, Secret, Sticky};

/// What only one way of balancing has use for.
const OF_ONE: [(&str, &str); 3] =
    [("hash_key", "consistent_hash"), ("hash_balance_factor", "consistent_hash"), ("ewma_decay", "peak_ewma")];
const MAX_PARTS: usize = 8;
const DEFAULT_FACTOR: u32 = 125;
const DEFAULT_DECAY: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Shorter ones can be found by trying.
const MIN_SECRET: usize = 32;
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

pub(super) fn balance(table: &mut Table<'_>) -> Option<Balance> {
    let words = [
        ("round_robin", "round_robin"),
        ("least_request", "least_request"),
        ("peak_ewma", "peak_ewma"),
        ("random", "random"),
        ("consistent_hash", "consistent_hash"),
    ];
    let word = table.or("balance", "round_robin", |node| node.word(&words, &[]));
    let key = table.optional("hash_key", hash_key);
    let factor = table.or("hash_balance_factor", Some(DEFAULT_FACTOR), factor);
    let decay = table.or("ewma_decay", DEFAULT_DECAY, |node| value::duration(node, HOUR));
    let word = word?;
    for (name, owner) in OF_ONE {
        if owner != word
            && let Some(node) = table.get(name)
        {
            node.problem_of_key(format!("this is for balance = \"{owner}\""));
        }
    }
    Some(match word {
        "least_request" => Balance::LeastRequest,
        "peak_ewma" => Balance::PeakEwma { decay: decay? },
        "random" => Balance::Random,
        "consistent_hash" => {
            let key = key?;
            if key.is_none() {
                table.node.problem("\"hash_key\" is missing: what is sent to the same endpoint, [\"client.address\"]");
            }
            Balance::ConsistentHash { key: key?, factor: factor? }
        }
        _ => Balance::RoundRobin,
    })
}

/// One selector, or a list of them.
fn hash_key(node: &Node<'_>) -> Option<Vec<crate::config::Selector>> {
    if node.is_list() {
        return node.some(MAX_PARTS, "name what is sent to the same endpoint", |item| item.parse(selector::selector));
    }
    node.parse(selector::selector).map(|selector| vec![selector])
}

/// `1.25`, or `"none"`; hundredths.
fn factor(node: &Node<'_>) -> Option<Option<u32>> {
    if node.is_text() {
        return node.word(&[("none", None)], &[]);
    }
    // Within bounds it fits.
    node.number(1.05..=10.0).map(|factor| Some((factor * 100.0).round() as u32))
}

/// `sticky = { cookie = "route", secret_file = "…", ttl = "1h" }`.
pub(super) fn sticky(mut table: Table<'_>) -> Option<Sticky> {
    let cookie = table.required("cookie", "its name, \"route\"", |node| node.parse(header::cookie));
    let secret = match table.one_of(&["secret", "secret_file"]) {
        Some(("secret", node)) => {
            node.text().map(|text| Secret::new(text.as_str().as_bytes())).and_then(|it| long(it, &node))
        }
        Some((_, node)) => file::secret(&node).and_then(|secret| long(secret, &node)),
        None => {
            table.node.problem("\"secret_file\" is missing: what the cookie is signed with");
            None
        }
    };
    let ttl = table.optional("ttl", |node| value::duration(node, YEAR));
    let words = [("lax", SameSite::Lax), ("strict", SameSite::Strict), ("none", SameSite::None)];
    let same_site = table.or("same_site", SameSite::Lax, |node| node.word(&words, &[]));
    table.finish(&[]);
    Some(Sticky { cookie: cookie?, secret: secret?, ttl: ttl?, same_site: same_site? })
}

fn long(secret: Secret, node: &Node<'_>) -> Option<Secret> {
    if secret.expose().len() < MIN_SECRET {
        node.problem(format!("this secret is shorter than {MIN_SECRET} bytes: `openssl rand -base64 33` makes one"));
        return None;
    }
    Some(secret)
}
