//! `[limits.NAME]`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::leaf::{header, quantity, selector};
use super::node::Node;
use super::table::Table;
use super::{queue, store, value};
use crate::config::{Cost, Limit, LimitKind, OnFull, Rate, Selector};

const MAX_BURST: u32 = 1_000_000_000;
const MAX_CONCURRENT: u32 = 10_000_000;
const MAX_KEYS: usize = 100_000_000;
const DEFAULT_KEYS: NonZeroUsize = NonZeroUsize::new(1_000_000).expect("it is not zero");
/// Each has a limit of its own to find, and the latencies to find it by.
const DEFAULT_ADAPTIVE_KEYS: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not zero");
const MAX_ADAPTIVE_KEYS: usize = 1_000_000;
const DEFAULT_MIN: NonZeroU32 = NonZeroU32::new(3).expect("it is not zero");
const DEFAULT_MAX: NonZeroU32 = NonZeroU32::new(1000).expect("it is not zero");
const MAX_PARTS: usize = 8;
const MAX_METHODS: usize = 32;
/// Longest time in which a whole burst is earned again.
const MAX_REFILL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(super) fn limit(mut table: Table<'_>) -> Option<Limit> {
    let kind = kind(&mut table);
    let without = match kind {
        Some(LimitKind::Rate { .. }) => Some("nobody waits for a rate: it belongs to \"concurrent\""),
        Some(LimitKind::Quota { .. }) => Some("nobody waits for a quota: it belongs to \"concurrent\""),
        Some(LimitKind::Concurrent(_) | LimitKind::Adaptive { .. }) | None => None,
    };
    let queue = queue::queue(&mut table, without);
    let why = "what is counted apart, [\"client.address\"]; [] counts everything together";
    let key = table.required("key", why, |node| node.distinct(MAX_PARTS, |item| item.parse(selector::selector)));
    let (keys, most) = match kind {
        Some(LimitKind::Adaptive { .. }) => (DEFAULT_ADAPTIVE_KEYS, MAX_ADAPTIVE_KEYS),
        _ => (DEFAULT_KEYS, MAX_KEYS),
    };
    let max_keys = table.or("max_keys", keys, |node| NonZeroUsize::new(node.integer(1..=most)?));
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
        queue: queue?,
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
    let bounds = ["min_concurrent", "max_concurrent"].map(|key| table.get(key));
    let is_adaptive = table.entries().any(|(key, node)| key == "concurrent" && node.is_text());
    for bound in bounds.iter().flatten().filter(|_| !is_adaptive) {
        bound.problem_of_key("only a limit that is found has bounds: concurrent = \"adaptive\"");
    }
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
            concurrent(table, &node)
        }
        None => {
            let missing =
                "\"rate\", \"quota\" or \"concurrent\" is missing: how much, \"100/s\", \"100000/month\" or 500";
            table.node.problem(missing);
            None
        }
    }
}

/// A number, or a word and the bounds of what is found.
fn concurrent(table: &mut Table<'_>, node: &Node<'_>) -> Option<LimitKind> {
    if !node.is_text() {
        return NonZeroU32::new(node.integer(1..=MAX_CONCURRENT)?).map(LimitKind::Concurrent);
    }
    node.word(&[("adaptive", ())], &[])?;
    let bound = |node: &Node<'_>| NonZeroU32::new(node.integer(1..=MAX_CONCURRENT)?);
    let min = table.or("min_concurrent", DEFAULT_MIN, bound);
    let max = table.or("max_concurrent", DEFAULT_MAX, bound);
    let (min, max) = (min?, max?);
    if min > max {
        let wrong = table.get("min_concurrent").or_else(|| table.get("max_concurrent"))?;
        wrong.problem(format!("\"min_concurrent\" would be {min}, and \"max_concurrent\" {max}"));
        return None;
    }
    Some(LimitKind::Adaptive { min, max })
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
        LimitKind::Concurrent(_) | LimitKind::Adaptive { .. } => {
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
