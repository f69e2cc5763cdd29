//! `[limits.NAME]`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::leaf::{quantity, selector};
use super::node::Node;
use super::table::Table;
use super::{queue, store, value};
use crate::config::{Limit, LimitKind, OnFull, Rate};

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
/// Longest time in which a whole burst is earned again.
const MAX_REFILL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(super) fn limit(mut table: Table<'_>) -> Option<Limit> {
    let kind = kind(&mut table);
    let is_rate = matches!(kind, Some(LimitKind::Rate { .. }));
    let queue = queue::queue(&mut table, is_rate.then_some("nobody waits for a rate: it belongs to \"concurrent\""));
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
    table.finish(&[]);
    Some(Limit {
        kind: kind?,
        queue: queue?,
        key: key?,
        max_keys: max_keys?,
        on_full: on_full?,
        mode: mode?,
        store: store?,
    })
}

fn kind(table: &mut Table<'_>) -> Option<LimitKind> {
    let burst = table.get("burst");
    let bounds = ["min_concurrent", "max_concurrent"].map(|key| table.get(key));
    let is_adaptive = table.entries().any(|(key, node)| key == "concurrent" && node.is_text());
    for bound in bounds.iter().flatten().filter(|_| !is_adaptive) {
        bound.problem_of_key("only a limit that is found has bounds: concurrent = \"adaptive\"");
    }
    match table.one_of(&["rate", "concurrent"]) {
        Some(("rate", node)) => {
            let rate = node.parse(quantity::rate)?;
            let burst = match &burst {
                Some(node) => self::burst(node, rate)?,
                None => rate.count,
            };
            Some(LimitKind::Rate { rate, burst })
        }
        Some((_, node)) => {
            if let Some(burst) = burst {
                burst.problem_of_key("requests in flight have no burst: it belongs to \"rate\"");
            }
            concurrent(table, &node)
        }
        None => {
            table.node.problem("\"rate\" or \"concurrent\" is missing: how much, \"100/s\" or 500");
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
