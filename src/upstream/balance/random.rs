//! Chance: numbers that workers draw without a lock, and draws by weight in constant time.

use std::sync::atomic::{AtomicU64, Ordering};

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// A source of random numbers that workers share without a lock: SplitMix64 over a counter.
#[derive(Debug)]
pub(in crate::upstream) struct Random(AtomicU64);

impl Random {
    pub(in crate::upstream) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub(in crate::upstream) fn next(&self) -> u64 {
        mix(self.0.fetch_add(STEP, Ordering::Relaxed))
    }

    /// A number below `bound`, which is not 0.
    pub(in crate::upstream) fn below(&self, bound: usize) -> usize {
        scaled(self.next() >> 32, bound)
    }
}

/// SplitMix64's mixing: neighbours become strangers.
pub(in crate::upstream) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The number `index` of the sequence that begins at `seed`.
pub(in crate::upstream) fn nth(seed: u64, index: u64) -> u64 {
    mix(seed.wrapping_add(index.wrapping_mul(STEP)))
}

/// From 32 random bits to a number below `bound`.
fn scaled(half: u64, bound: usize) -> usize {
    ((half * bound as u64) >> 32) as usize
}

/// Places drawn by weight (Walker's alias method): each slot holds one place up to a threshold, and another above it.
#[derive(Clone, Debug)]
pub(in crate::upstream) struct Shares(Box<[Slot]>);

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Of 2^32
    own: u32,
    other: u32,
}

impl Shares {
    /// `weights` are of the places 0, 1, 2, …
    pub(in crate::upstream) fn new(weights: &[u32]) -> Self {
        let count = weights.len() as u64;
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        // Scaled so that a full slot is `total`.
        let mut left: Vec<u64> = weights.iter().map(|weight| u64::from(*weight) * count).collect();
        let mut slots: Vec<Slot> =
            (0_u32..).zip(weights).map(|(place, _)| Slot { own: u32::MAX, other: place }).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..left.len()).partition(|place| left[*place] < total);
        while let (Some(poor), Some(rich)) = (small.pop(), large.pop()) {
            // Less than `total`, so less than 2^32 of it.
            let own = ((u128::from(left[poor]) << 32) / u128::from(total.max(1))) as u32;
            slots[poor] = Slot { own, other: rich as u32 };
            left[rich] -= total - left[poor];
            if left[rich] < total { small.push(rich) } else { large.push(rich) }
        }
        Self(slots.into())
    }

    pub(in crate::upstream) fn len(&self) -> usize {
        self.0.len()
    }

    /// One place, by weight; there is at least one.
    pub(in crate::upstream) fn draw(&self, random: u64) -> usize {
        let slot = scaled(random >> 32, self.0.len());
        let Slot { own, other } = self.0[slot];
        if (random as u32) < own { slot } else { other as usize }
    }

    /// Another place than `first`, each as likely; there are at least two.
    pub(in crate::upstream) fn another(&self, first: usize, random: u64) -> usize {
        let step = scaled(mix(random ^ STEP) >> 32, self.len() - 1);
        (first + 1 + step) % self.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn random_numbers_reach_every_place_about_equally() {
        let random = Random::new(1);
        let mut counts = [0_u32; 8];
        (0..80_000).for_each(|_| counts[random.below(8)] += 1);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn random_numbers_stay_below_their_bounds(seed: u64, bound in 1_usize..5000) {
            let random = Random::new(seed);
            prop_assert!((0..100).all(|_| random.below(bound) < bound));
        }

        #[test]
        fn places_are_drawn_by_weight(weights in prop::collection::vec(1_u32..=1000, 1..40), seed: u64) {
            let (shares, random) = (Shares::new(&weights), Random::new(seed));
            let mut counts = vec![0_u32; weights.len()];
            const DRAWS: u32 = 20_000;
            (0..DRAWS).for_each(|_| counts[shares.draw(random.next())] += 1);
            let total: u32 = weights.iter().sum();
            for (weight, count) in weights.iter().zip(&counts) {
                let due = f64::from(DRAWS) * f64::from(*weight) / f64::from(total);
                // Six deviations of a binomial, and a little for small numbers.
                prop_assert!((f64::from(*count) - due).abs() < 6.0 * due.sqrt() + 6.0, "{count} instead of {due}");
            }
        }

        #[test]
        fn another_is_never_the_same(count in 2_usize..100, first in 0_usize..100, random: u64) {
            let shares = Shares::new(&vec![1; count]);
            let first = first % count;
            let other = shares.another(first, random);
            prop_assert!(other != first && other < count);
        }
    }

    #[test]
    fn another_is_each_of_the_others_about_as_often() {
        let (shares, random) = (Shares::new(&[1; 5]), Random::new(7));
        let mut counts = [0_u32; 5];
        (0..40_000).for_each(|_| counts[shares.another(2, random.next())] += 1);
        assert_eq!(counts[2], 0);
        assert!([0, 1, 3, 4].iter().all(|place| (9_500..10_500).contains(&counts[*place])), "{counts:?}");
    }
}
