//! `[limits.NAME]`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::leaf::{header, quantity, selector};
use super::node::Node;
use super::table::Table;
use super::{store, value};
use crate::config::{Cost, Limit, LimitKind, OnFull, Rate, Selector};

const MAX_BURST: u32 = 1_000_000_000;
const MAX_CONCURRENT: u32 = 10_000_000;
const MAX_KEYS: usize = 100_000_000;
const DEFAULT_KEYS: NonZeroUsize = NonZeroUsize::new(1_000_000).expect("it is not zero");
const MAX_PARTS: usize = 8;
const MAX_METHODS: usize = 32;
/// Longest time in which a whole burst is earned again.
const MAX_REFILL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(super) fn limit(mut table: Table<'_>) -> Option<Limit> {
    let kind = kind(&mut table);
    let why = "what is counted apart, [\"client.address\"]; [] counts everything together";
    let key = table.required("key", why, |node| node.distinct(MAX_PARTS, |item| item.parse(selector::selector)));
    let max_keys = table.or("max_keys", DEFAULT_KEYS, |node| NonZeroUsize::new(node.integer(1..=MAX_KEYS)?));
    let full = [("allow", OnFull::Allow), ("deny", OnFull::Deny)];
    let on_full = table.or("on_full", OnFull::Allow, |node| node.word(&full, &[]));
    let mode = value::mode(&mut table, "mode");
    let store = store::store(&mut table);
    let cost = table.or("cost", Cost::One, |node| cost(node, kind));
    let legacy_headers = table.or("legacy_headers", false, Node::boolean);
    let partition_key = table.or("partition_key", false, Node::boolean);
    let show_keys = table.or("show_keys", false, Node::boolean);
    table.finish(&[]);
    Some(Limit {
        kind: kind?,
        cost: cost?,
        key: key?,
        max_keys: max_keys?,
        on_full: on_full?,
        mode: mode?,
        store: store?,
        legacy_headers: legacy_headers?,
        partition_key: partition_key?,
        show_keys: show_keys?,
    })
}

fn kind(table: &mut Table<'_>) -> Option<LimitKind> {
    let burst = table.get("burst");
    match table.one_of(&["rate", "quota", "concurrent"]) {
        Some(("rate", node)) => {
            let rate = node.parse(quantity::rate)?;
            let burst = match &burst {
                Some(node) => self::burst(node, rate)?,
                None => rate.count,
            };
            Some(LimitKind::Rate { rate, burst })
        }
        Some(("quota", node)) => {
            if let Some(burst) = burst {
                burst.problem_of_key("a quota may be used up at once: \"burst\" belongs to \"rate\"");
            }
            let (count, period) = node.parse(quantity::quota)?;
            Some(LimitKind::Quota { count, period })
        }
        Some((_, node)) => {
            if let Some(burst) = burst {
                burst.problem_of_key("requests in flight have no burst: it belongs to \"rate\"");
            }
            NonZeroU32::new(node.integer(1..=MAX_CONCURRENT)?).map(LimitKind::Concurrent)
        }
        None => {
            let missing =
                "\"rate\", \"quota\" or \"concurrent\" is missing: how much, \"100/s\", \"100000/month\" or 500";
            table.node.problem(missing);
            None
        }
    }
}

fn burst(node: &Node<'_>, rate: Rate) -> Option<NonZeroU32> {
    let burst = NonZeroU32::new(node.integer(1..=MAX_BURST)?)?;
    let refill = rate.per.as_nanos() * u128::from(burst.get()) / u128::from(rate.count.get());
    if refill > MAX_REFILL.as_nanos() {
        node.problem("at this rate so large a burst takes more than 30 days to be earned again");
        return None;
    }
    Some(burst)
}

/// By method or by header. What costs more than there ever is would never pass.
fn cost(node: &Node<'_>, kind: Option<LimitKind>) -> Option<Cost> {
    let (most, what) = match kind? {
        LimitKind::Rate { burst, .. } => (burst, "burst"),
        LimitKind::Quota { count, .. } => (count, "quota"),
        LimitKind::Concurrent(_) => {
            node.problem_of_key("a request in flight is one: \"cost\" belongs to \"rate\" or \"quota\"");
            return None;
        }
    };
    let Some(table) = node.inline_table() else {
        return match node.parse(selector::selector)? {
            Selector::Header(name) => Some(Cost::Header(name)),
            _ => {
                node.problem("a cost is said by a header, \"header.x-cost\", or by method, { POST = 5 }");
                None
            }
        };
    };
    let mut costs = Vec::new();
    let mut is_right = true;
    for (name, node) in table.entries() {
        let method = node.parse_key(name, header::method);
        let cost = node.integer(1..=MAX_BURST).and_then(NonZeroU32::new);
        if cost.is_some_and(|cost| cost > most) {
            node.problem(format!("the {what} is {most}: what costs more never passes"));
            is_right = false;
        }
        match (method, cost) {
            (Some(method), Some(cost)) => costs.push((method, cost)),
            _ => is_right = false,
        }
    }
    if costs.len() > MAX_METHODS {
        node.problem(format!("{MAX_METHODS} methods can have costs at most"));
        return None;
    }
    is_right.then_some(Cost::Method(costs))
}
