//! `[upstreams.NAME.outlier]` and `[upstreams.NAME.breaker]`: what requests themselves tell.

use std::num::NonZeroU32;
use std::time::Duration;

use super::node::Node;
use super::table::Table;
use super::value;
use crate::config::{Breaker, Outlier, WhenAllDown};

const MAX_IN_A_ROW: u32 = 1000;
const MAX_REQUESTS: u32 = 1_000_000;
const MAX_TIMES: u32 = 100;
const MAX_TRIALS: u32 = 100;
const HOUR: Duration = Duration::from_secs(60 * 60);

pub(super) fn outlier(mut table: Table<'_>) -> Option<Outlier> {
    let consecutive_failures = table.or("consecutive_failures", NonZeroU32::new(5), in_a_row);
    let consecutive_gateway_errors = table.or("consecutive_gateway_errors", None, in_a_row);
    let success_rate_below = table.optional("success_rate_below", |node| value::percent(node, 1..=99));
    let slower_than = table.optional("slower_than", |node| NonZeroU32::new(node.integer(2..=MAX_TIMES)?));
    let min_requests = table.or("min_requests", 100, |node| node.integer(1..=MAX_REQUESTS));
    let interval = table.or("interval", Duration::from_secs(10), |node| value::duration(node, HOUR));
    let ejection = table.or("ejection", Duration::from_secs(30), |node| value::duration(node, HOUR));
    let max_ejection = table.or("max_ejection", Duration::from_secs(300), |node| value::duration(node, value::DAY));
    let max_ejected = table.or("max_ejected", 50, |node| value::percent(node, 1..=100));
    let node = table.node.clone();
    table.finish(&[]);
    let outlier = Outlier {
        consecutive_failures: consecutive_failures?,
        consecutive_gateway_errors: consecutive_gateway_errors?,
        success_rate_below: success_rate_below?,
        slower_than: slower_than?,
        min_requests: NonZeroU32::new(min_requests?)?,
        interval: interval?,
        ejection: ejection?,
        max_ejection: max_ejection?,
        max_ejected: max_ejected?,
    };
    if outlier.max_ejection < outlier.ejection {
        node.problem("\"max_ejection\" is shorter than \"ejection\"");
    }
    Some(outlier)
}

/// A number of failures; 0 is none.
fn in_a_row(node: &Node<'_>) -> Option<Option<NonZeroU32>> {
    Some(NonZeroU32::new(node.integer(0..=MAX_IN_A_ROW)?))
}

pub(super) fn breaker(mut table: Table<'_>) -> Option<Breaker> {
    let failures = table.or("failures", 50, |node| value::percent(node, 1..=100));
    let min_requests = table.or("min_requests", 20, |node| node.integer(1..=MAX_REQUESTS));
    let window = table.or("window", Duration::from_secs(10), |node| value::duration(node, HOUR));
    let open_for = table.or("open_for", Duration::from_secs(5), |node| value::duration(node, HOUR));
    let trials = table.or("trials", 3, |node| node.integer(1..=MAX_TRIALS));
    table.finish(&[]);
    Some(Breaker {
        failures: failures?,
        min_requests: NonZeroU32::new(min_requests?)?,
        window: window?,
        open_for: open_for?,
        trials: NonZeroU32::new(trials?)?,
    })
}

pub(super) fn when_all_down(table: &mut Table<'_>) -> Option<WhenAllDown> {
    let words = [("refuse", WhenAllDown::Refuse), ("try", WhenAllDown::Try)];
    table.or("when_all_down", WhenAllDown::Refuse, |node| node.word(&words, &[]))
}
