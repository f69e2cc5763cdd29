//! Tiers: which part of the traffic each priority and zone has.
//!
//! Endpoints of one priority form two tiers, those of this gateway's zone before the others. A tier takes as much of
//! what the tiers before it left as it is healthy, times 1.4: with five sevenths of its weight healthy it still takes
//! all there is, and with half of it 70 %, as Envoy does it. When all tiers together do not get to 100 %, everything is
//! spread over them in proportion.

/// How far below its whole weight a tier may sink and still take everything, as a percentage.
const OVERPROVISIONING: u64 = 140;
/// All of the traffic.
const ALL: u64 = 1 << 32;

/// Of the weights of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) struct Weights {
    pub(in crate::upstream) healthy: u64,
    pub(in crate::upstream) all: u64,
}

/// Where the share of each tier ends, of 2^32: a number below it that is not below the one before belongs to the tier.
pub(in crate::upstream) fn ends(tiers: &[Weights]) -> Vec<u64> {
    let mut left = ALL;
    let shares: Vec<u64> = tiers
        .iter()
        .map(|tier| {
            let fit = u128::from(ALL) * u128::from(OVERPROVISIONING) * u128::from(tier.healthy);
            let fit = fit / (100 * u128::from(tier.all.max(1)));
            let share = left.min(u64::try_from(fit).unwrap_or(u64::MAX));
            left -= share;
            share
        })
        .collect();
    let total: u64 = shares.iter().sum();
    let mut sum = 0;
    let end = |share: &u64| {
        sum += share;
        if total == 0 { 0 } else { (u128::from(sum) * u128::from(ALL) / u128::from(total)) as u64 }
    };
    shares.iter().map(end).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The shares of tiers that are so healthy, in thousandths of the traffic.
    fn shares(healthy: &[u64]) -> Vec<u64> {
        let tiers: Vec<_> = healthy.iter().map(|healthy| Weights { healthy: *healthy, all: 100 }).collect();
        let ends = ends(&tiers);
        let begins = std::iter::once(&0).chain(&ends);
        begins.zip(&ends).map(|(begin, end)| ((end - begin) * 1000 + ALL / 2) / ALL).collect()
    }

    #[test]
    fn the_next_tier_takes_what_the_first_is_too_ill_for() {
        assert_eq!(shares(&[100, 100]), [1000, 0]);
        assert_eq!(shares(&[72, 100]), [1000, 0]);
        assert_eq!(shares(&[50, 100]), [700, 300]);
        assert_eq!(shares(&[25, 100]), [350, 650]);
        assert_eq!(shares(&[0, 100]), [0, 1000]);
        assert_eq!(shares(&[25, 25, 100]), [350, 350, 300]);
    }

    #[test]
    fn what_nobody_is_healthy_enough_for_is_spread_over_all() {
        assert_eq!(shares(&[25, 25]), [500, 500]);
        assert_eq!(shares(&[20, 0, 10]), [667, 0, 333]);
        assert_eq!(shares(&[10]), [1000]);
        assert_eq!(shares(&[0, 0]), [0, 0]);
    }

    proptest! {
        #[test]
        fn shares_are_whole_and_nobody_ill_has_one(healthy in prop::collection::vec(0_u64..=100, 1..8)) {
            let tiers: Vec<_> = healthy.iter().map(|healthy| Weights { healthy: *healthy, all: 100 }).collect();
            let ends = ends(&tiers);
            let begins = std::iter::once(&0).chain(&ends);
            for ((begin, end), tier) in begins.zip(&ends).zip(&tiers) {
                prop_assert!(begin <= end);
                prop_assert!(tier.healthy > 0 || begin == end);
            }
            let any = healthy.iter().any(|healthy| *healthy > 0);
            prop_assert_eq!(ends.last(), Some(&if any { ALL } else { 0 }));
        }
    }
}
