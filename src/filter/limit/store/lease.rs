//! `redis_mode = "batched"`: shares of budgets, leased from the store and spent here without asking.
//!
//! A share is taken before it is spent, and what is not spent within [`LIFE`] is given back. So in any time t a fleet
//! lets through `burst + rate * (t + LIFE)` at most: what was leased before that time began is all that can be too much,
//! and it is neither older than `LIFE` nor larger than one share for each gateway.
//!
//! A share doubles while it runs out before its time, and shrinks to what was spent when it does not.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::key::Hash;
use super::terms::{Answer, Standing, Terms};
use crate::filter::prehashed::Prehashed;

/// How long a share may be spent, and the time by whose rate it is bounded.
pub(super) const LIFE: Duration = Duration::from_millis(100);
/// The largest share of a quota.
const MOST_OF_QUOTA: u64 = 10_000;
const SHARDS: usize = 16;

/// The shares of one limit.
#[derive(Debug)]
pub(super) struct Leases {
    terms: Terms,
    /// The largest share
    most: u32,
    max_keys: usize,
    keys: AtomicUsize,
    shards: [Mutex<HashMap<Slot, Share, Prehashed>>; SHARDS],
    /// There is something to give back some time
    wake: Notify,
}

/// A hash hashes as its first half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot(Hash);

impl std::hash::Hash for Slot {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    }
}

#[derive(Clone, Copy, Debug)]
struct Share {
    /// To be spent until `end`
    held: u32,
    end: Instant,
    /// How large it was
    size: u32,
    /// To be given back
    unspent: u32,
    /// What the store said last
    standing: Standing,
    /// The store refused: no use in asking before
    refused_until: Option<Instant>,
    /// Somebody asks for the next share; if he has not come back by then, he has left
    asking_until: Option<Instant>,
}

/// What there is for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spend {
    /// It is paid for; this is how things would stand if nothing more were spent
    Paid(Standing),
    /// The store said so, a moment ago
    Refused(Standing),
    /// Ask for so many, and say what came of it
    Lease(u32),
    /// Ask for what it costs: another request asks for the next share, or what is held of this one is too little
    Alone,
}

impl Leases {
    pub(super) fn new(terms: Terms, max_keys: NonZeroUsize) -> Self {
        let most = match terms {
            // What is earned in that time, and never so much that gateways take everything from one another.
            Terms::Rate { interval, burst } => {
                let life = u64::try_from(LIFE.as_nanos()).unwrap_or(u64::MAX);
                (life / interval).min(burst / interval / 4).max(1)
            }
            // It has no pace: so little that it hardly matters who holds it.
            Terms::Quota { count, .. } => u64::from(count / 100).clamp(1, MOST_OF_QUOTA),
        };
        Self {
            terms,
            most: u32::try_from(most).unwrap_or(u32::MAX),
            max_keys: max_keys.get(),
            keys: AtomicUsize::new(0),
            shards: Default::default(),
            wake: Notify::new(),
        }
    }

    /// Spends `cost`, or says what to ask. `patience` is how long whoever asks may take.
    pub(super) fn spend(&self, hash: Hash, cost: u32, now: Instant, patience: Duration) -> Spend {
        let mut shard = self.shard(hash).lock();
        let share = match shard.entry(Slot(hash)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                if self.keys.fetch_add(1, Ordering::Relaxed) >= self.max_keys {
                    self.keys.fetch_sub(1, Ordering::Relaxed);
                    return Spend::Alone;
                }
                self.wake.notify_one();
                let asking_until = Some(now + patience);
                entry.insert(Share {
                    held: 0,
                    end: now + LIFE,
                    size: 1,
                    unspent: 0,
                    standing: Standing::default(),
                    refused_until: None,
                    asking_until,
                });
                return Spend::Lease(cost);
            }
        };
        if share.held >= cost && now < share.end {
            share.held -= cost;
            return Spend::Paid(share.standing.without(self.terms, share.held));
        }
        // What is cheaper than what was refused may pass.
        if share.refused_until.is_some_and(|until| now < until) && self.terms.wait(share.standing, cost) > 0 {
            return Spend::Refused(share.standing);
        }
        let is_asked_for = share.asking_until.is_some_and(|until| now < until);
        if is_asked_for || (share.held > 0 && now < share.end) {
            return Spend::Alone;
        }
        share.size = if share.held > 0 { share.expire() } else { share.size.saturating_mul(2) };
        share.size = share.size.clamp(1, self.most);
        share.asking_until = Some(now + patience);
        Spend::Lease(share.size.max(cost))
    }

    /// What the store said to [`Spend::Lease`], at `now`, the moment of asking: `cost` of it is spent at once.
    pub(super) fn leased(&self, hash: Hash, answer: Answer, cost: u32, now: Instant) {
        if let Some(share) = self.shard(hash).lock().get_mut(&Slot(hash)) {
            share.asking_until = None;
            if share.standing.ends == answer.standing.ends {
                // What another one leased meanwhile, whom we thought gone.
                share.unspent = share.unspent.saturating_add(share.held);
            } else {
                // What is left of another period is nobody's.
                share.unspent = 0;
            }
            share.standing = answer.standing;
            share.held = answer.granted.saturating_sub(cost);
            // By the server's clock: whoever asked did so before it looked.
            share.end = now + self.life(answer.standing);
            if answer.granted == 0 {
                let wait = Duration::from_nanos(self.terms.wait(answer.standing, cost));
                share.refused_until = Some(now + wait.min(LIFE));
            }
        }
    }

    /// Nothing came of asking.
    pub(super) fn failed(&self, hash: Hash) {
        if let Some(share) = self.shard(hash).lock().get_mut(&Slot(hash)) {
            share.asking_until = None;
        }
    }

    /// A request that paid is refused by another limit: it goes back into the share, or to the store.
    pub(super) fn give_back(&self, hash: Hash, cost: u32, ends: u64, now: Instant) -> bool {
        match self.shard(hash).lock().get_mut(&Slot(hash)) {
            Some(share) if now < share.end && ends == share.standing.ends => {
                share.held += cost;
                true
            }
            _ => false,
        }
    }

    /// What is to be given back to the store, of a quota in the period that ends then. Keys that nobody uses are forgotten.
    pub(super) fn sweep(&self, now: Instant) -> Vec<(Hash, u32, u64)> {
        let mut unspent = Vec::new();
        for shard in &self.shards {
            shard.lock().retain(|slot, share| {
                let has_ended = now >= share.end;
                if has_ended && share.held > 0 {
                    share.size = share.expire();
                }
                if share.unspent > 0 {
                    unspent.push((slot.0, std::mem::take(&mut share.unspent), share.standing.ends));
                }
                let is_waited_for =
                    [share.asking_until, share.refused_until].iter().flatten().any(|until| now < *until);
                let is_kept = !has_ended || is_waited_for || now < share.end + LIFE;
                if !is_kept {
                    self.keys.fetch_sub(1, Ordering::Relaxed);
                }
                is_kept
            });
        }
        unspent
    }

    /// Resolves when there is a share where there was none.
    pub(super) async fn used(&self) {
        self.wake.notified().await;
    }

    pub(super) fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// A share of a quota is spent in its period alone: the server rounds what is left of it up to milliseconds.
    fn life(&self, standing: Standing) -> Duration {
        match self.terms {
            Terms::Rate { .. } => LIFE,
            Terms::Quota { .. } => LIFE.min(Duration::from_millis(standing.left.saturating_sub(1))),
        }
    }

    fn shard(&self, hash: Hash) -> &Mutex<HashMap<Slot, Share, Prehashed>> {
        &self.shards[usize::from(hash[15]) % SHARDS]
    }
}

impl Share {
    /// What is left goes back; what was spent is what the next one should hold.
    fn expire(&mut self) -> u32 {
        let left = std::mem::take(&mut self.held);
        self.unspent = self.unspent.saturating_add(left);
        self.size.saturating_sub(left).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: u64 = 1_000_000;
    const BURST: u64 = 1_000_000_000;
    const TERMS: Terms = Terms::Rate { interval: INTERVAL, burst: BURST };
    const PATIENCE: Duration = Duration::from_millis(50);
    const KEY: Hash = [7; 16];

    fn leases(terms: Terms, max_keys: usize) -> Leases {
        Leases::new(terms, NonZeroUsize::new(max_keys).expect("not zero"))
    }

    fn granted(granted: u32) -> Answer {
        Answer { granted, standing: owing(TERMS.price(granted)) }
    }

    fn owing(owed: u64) -> Standing {
        Standing { owed, ..Standing::default() }
    }

    #[test]
    fn a_share_doubles_while_it_runs_out_and_is_bounded() {
        let (leases, now) = (leases(TERMS, 10), Instant::now());
        let mut sizes = Vec::new();
        for _ in 0..12 {
            let Spend::Lease(size) = leases.spend(KEY, 1, now, PATIENCE) else { panic!("nothing is held") };
            leases.leased(KEY, granted(size), 1, now);
            for _ in 1..size {
                assert!(matches!(leases.spend(KEY, 1, now, PATIENCE), Spend::Paid(_)));
            }
            sizes.push(size);
        }
        assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 64, 100, 100, 100, 100, 100], "100 are earned in LIFE");
    }

    #[test]
    fn what_is_not_spent_in_time_is_given_back_once_and_never_spent() {
        let (leases, now) = (leases(TERMS, 10), Instant::now());
        leases.spend(KEY, 1, now, PATIENCE);
        leases.leased(KEY, granted(10), 1, now);
        assert!(matches!(leases.spend(KEY, 1, now, PATIENCE), Spend::Paid(_)));
        assert!(leases.sweep(now).is_empty());
        assert!(matches!(leases.spend(KEY, 1, now + LIFE, PATIENCE), Spend::Lease(_)));
        assert_eq!(leases.sweep(now + LIFE), vec![(KEY, 8, 0)]);
        assert!(leases.sweep(now + LIFE).is_empty());
        assert_eq!((leases.keys(), leases.sweep(now + 3 * LIFE), leases.keys()), (1, vec![], 0));
    }

    #[test]
    fn one_request_asks_for_a_share_and_others_for_themselves() {
        let (leases, now) = (leases(TERMS, 10), Instant::now());
        assert_eq!(leases.spend(KEY, 1, now, PATIENCE), Spend::Lease(1));
        assert_eq!(leases.spend(KEY, 1, now, PATIENCE), Spend::Alone);
        assert_eq!(leases.spend(KEY, 1, now + PATIENCE, PATIENCE), Spend::Lease(2), "the first has left");
        leases.failed(KEY);
        assert_eq!(leases.spend(KEY, 1, now + PATIENCE, PATIENCE), Spend::Lease(4));
    }

    #[test]
    fn a_refusal_is_believed_for_a_moment() {
        let (leases, now) = (leases(TERMS, 10), Instant::now());
        leases.spend(KEY, 1, now, PATIENCE);
        leases.leased(KEY, Answer { granted: 0, standing: owing(BURST) }, 1, now);
        let wait = Duration::from_nanos(INTERVAL);
        assert_eq!(leases.spend(KEY, 1, now, PATIENCE), Spend::Refused(owing(BURST)));
        assert!(matches!(leases.spend(KEY, 1, now + wait, PATIENCE), Spend::Lease(_)));
    }

    #[test]
    fn what_costs_more_than_is_held_is_asked_for_alone_and_what_is_cheaper_than_a_refusal_may_pass() {
        let (leases, now) = (leases(TERMS, 10), Instant::now());
        assert_eq!(leases.spend(KEY, 5, now, PATIENCE), Spend::Lease(5));
        leases.leased(KEY, granted(9), 5, now);
        assert_eq!(leases.spend(KEY, 5, now, PATIENCE), Spend::Alone);
        assert!(matches!(leases.spend(KEY, 3, now, PATIENCE), Spend::Paid(_)));
        assert!(leases.give_back(KEY, 3, 0, now));
        assert!(matches!(leases.spend(KEY, 4, now, PATIENCE), Spend::Paid(_)));
        assert_eq!(leases.spend(KEY, 5, now, PATIENCE), Spend::Lease(5));
        leases.leased(KEY, Answer { granted: 0, standing: owing(BURST - 2 * INTERVAL) }, 5, now);
        assert!(matches!(leases.spend(KEY, 3, now, PATIENCE), Spend::Refused(_)));
        assert!(matches!(leases.spend(KEY, 2, now, PATIENCE), Spend::Lease(_)));
    }

    #[test]
    fn a_slow_rate_is_asked_for_each_time_and_a_full_table_too() {
        let hour = 3_600_000_000_000;
        let slow = leases(Terms::Rate { interval: hour, burst: 1000 * hour }, 10);
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(slow.spend(KEY, 1, now, PATIENCE), Spend::Lease(1));
            slow.leased(KEY, Answer { granted: 1, standing: owing(hour) }, 1, now);
        }
        let full = leases(TERMS, 1);
        assert_eq!(full.spend(KEY, 1, now, PATIENCE), Spend::Lease(1));
        assert_eq!(full.spend([8; 16], 1, now, PATIENCE), Spend::Alone);
        assert_eq!(full.keys(), 1);
    }

    #[test]
    fn a_share_of_a_quota_is_spent_and_given_back_in_its_period_alone() {
        use crate::config::Period;
        let leases = leases(Terms::Quota { count: 1000, period: Period::Minute }, 10);
        let now = Instant::now();
        let answer = |granted, left, ends| Answer { granted, standing: Standing { owed: 50, left, ends } };
        assert_eq!(leases.spend(KEY, 1, now, PATIENCE), Spend::Lease(1));
        leases.leased(KEY, answer(9, 21, 60), 1, now);
        assert!(matches!(leases.spend(KEY, 1, now + Duration::from_millis(19), PATIENCE), Spend::Paid(_)));
        let next = now + Duration::from_millis(20);
        let spend = leases.spend(KEY, 1, next, PATIENCE);
        assert!(matches!(spend, Spend::Lease(_)), "what is held is of a period that is over: {spend:?}");
        assert_eq!(leases.sweep(next), vec![(KEY, 7, 60)]);
        assert!(!leases.give_back(KEY, 1, 60, next));
        leases.leased(KEY, answer(2, 60_000, 120), 1, next);
        assert!(!leases.give_back(KEY, 1, 60, next), "a share of another period");
        assert!(leases.give_back(KEY, 1, 120, next));
        leases.failed(KEY);
        let end = next + LIFE;
        assert!(matches!(leases.spend(KEY, 3, end, PATIENCE), Spend::Lease(_)));
        leases.leased(KEY, answer(3, 60_000, 180), 3, end);
        assert!(leases.sweep(end).is_empty(), "what was left of the period before is nobody's");
    }

    #[test]
    fn a_share_of_a_quota_is_a_hundredth_at_most() {
        for (count, most) in [(1, 1), (99, 1), (250, 2), (100_000, 1000), (u32::MAX, 10_000)] {
            let leases = leases(Terms::Quota { count, period: crate::config::Period::Day }, 1);
            assert_eq!(leases.most, most);
        }
    }
}
