//! Smooth weighted round robin as a precomputed cycle.

/// Bounds the work (slots times endpoints) of laying out a cycle, and with it the memory the cycle takes.
const LAYOUT_BUDGET: u64 = 4_000_000;
/// The longest cycle.
const LONGEST_CYCLE: u64 = 65_536;

/// One cycle of smooth weighted round robin: the places in `weights`, each as often as its weight says, spread out as
/// nginx does it (`5, 1, 1` gives `a a b a c a a`, not `a a a a a b c`).
///
/// Exact, unless the weights' sum over their common divisor is too long a cycle; then each share is rounded to the
/// nearest slot, and nobody's to less than one.
pub(in crate::upstream) fn smooth_cycle(weights: &[u32]) -> Vec<u32> {
    let weights = shortened(weights);
    let total: i64 = weights.iter().sum();
    if total == weights.len() as i64 {
        return (0..weights.len() as u32).collect();
    }
    let mut current = vec![0_i64; weights.len()];
    (0..total)
        .map(|_| {
            let mut best = 0;
            for (place, weight) in weights.iter().enumerate() {
                current[place] += weight;
                if current[place] > current[best] {
                    best = place;
                }
            }
            current[best] -= total;
            best as u32
        })
        .collect()
}

/// The same proportions in the smallest numbers that fit the bounds.
fn shortened(weights: &[u32]) -> Vec<i64> {
    let divisor = |weights: &[u64]| weights.iter().copied().fold(0, gcd).max(1);
    let mut weights: Vec<u64> = weights.iter().map(|weight| u64::from(*weight)).collect();
    let common = divisor(&weights);
    weights.iter_mut().for_each(|weight| *weight /= common);
    let count = weights.len().max(1) as u64;
    let total: u64 = weights.iter().sum();
    let longest = (LAYOUT_BUDGET / count).min(LONGEST_CYCLE).max(count);
    if total > longest {
        weights.iter_mut().for_each(|weight| *weight = ((*weight * longest + total / 2) / total).max(1));
        let common = divisor(&weights);
        weights.iter_mut().for_each(|weight| *weight /= common);
    }
    weights.into_iter().map(|weight| weight as i64).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(cycle: &[u32], places: usize) -> Vec<u64> {
        let mut counts = vec![0; places];
        cycle.iter().for_each(|place| counts[*place as usize] += 1);
        counts
    }

    #[test]
    fn the_cycle_is_spread_out_as_nginx_does_it() {
        assert_eq!(smooth_cycle(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(smooth_cycle(&[2, 1]), [0, 1, 0]);
        assert_eq!(smooth_cycle(&[]), [] as [u32; 0]);
    }

    #[test]
    fn equal_weights_take_turns_whatever_they_are() {
        assert_eq!(smooth_cycle(&[1000, 1000, 1000]), [0, 1, 2]);
        assert_eq!(smooth_cycle(&vec![7; 10_000]).len(), 10_000);
    }

    #[test]
    fn a_cycle_that_would_be_too_long_is_rounded_and_starves_nobody() {
        let weights: Vec<u32> = (1..=1000).collect();
        let cycle = smooth_cycle(&weights);
        assert!(cycle.len() <= 6000, "{}", cycle.len());
        assert!(counts(&cycle, 1000).iter().all(|count| *count > 0));
    }

    proptest! {
        #[test]
        fn shares_of_a_cycle_are_exactly_the_weights(weights in prop::collection::vec(1_u32..=1000, 1..20)) {
            let counts = counts(&smooth_cycle(&weights), weights.len());
            let (first, unit) = (u64::from(weights[0]), counts[0]);
            for (weight, count) in weights.iter().zip(&counts) {
                prop_assert_eq!(u64::from(*weight) * unit, count * first);
            }
        }

        #[test]
        fn no_part_of_the_cycle_is_far_from_its_share(weights in prop::collection::vec(1_u32..=20, 2..6)) {
            let cycle = smooth_cycle(&weights);
            let total: u32 = weights.iter().sum();
            for (place, weight) in weights.iter().enumerate() {
                for length in 1..=cycle.len() {
                    let seen = cycle[..length].iter().filter(|slot| **slot as usize == place).count();
                    let due = length as f64 * f64::from(*weight) / f64::from(total);
                    prop_assert!((seen as f64 - due).abs() < weights.len() as f64);
                }
            }
        }
    }
}
