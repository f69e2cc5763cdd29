//! `queue` and `queue_timeout`.

use std::num::NonZeroU32;
use std::time::Duration;

use super::table::Table;
use super::value;
use crate::config::Queue;

/// Longest line.
const MAX_LENGTH: u32 = 10_000;
/// Longer than that nobody waits for an answer; and a client must have begun to be answered within a minute.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// `without` is why there can be no line here, if so. `None` is a problem that was told.
pub(super) fn queue(table: &mut Table<'_>, without: Option<&str>) -> Option<Option<Queue>> {
    let length = table.optional("queue", |node| NonZeroU32::new(node.integer(1..=MAX_LENGTH)?));
    let timeout = table.optional("queue_timeout", |node| value::duration(node, MAX_TIMEOUT));
    if let Some(why) = without
        && let Some(node) = table.get("queue")
    {
        node.problem_of_key(why);
        return None;
    }
    match (length?, timeout?) {
        (Some(length), timeout) => Some(Some(Queue { length, timeout: timeout.unwrap_or(DEFAULT_TIMEOUT) })),
        (None, None) => Some(None),
        (None, Some(_)) => {
            table.get("queue_timeout")?.problem_of_key("\"queue\" is missing: how many may wait so long, 50");
            None
        }
    }
}
