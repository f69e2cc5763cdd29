//! Consistent hashing as ketama does it: each endpoint has points on a ring, a key belongs to the next point.
//!
//! Not `pingora-ketama`: its points are 32 bits of a CRC, of which two endpoints that share one lose theirs; an endpoint
//! has 160 for each unit of its weight, which weights up to 1000 make a hundred million; it knows no Unix sockets; and
//! it cannot ask whether an endpoint has room. Here an endpoint's points depend on its address alone and their number
//! on its weight, so that nobody else's keys move when it comes, goes or grows.

use aws_lc_rs::digest::{SHA256, digest};

use super::random::nth;

/// Points of an endpoint of average weight, between this many and half of it.
const POINTS: u64 = 256;
/// All points of a ring: 12 MiB.
const MOST_POINTS: u64 = 1 << 20;
/// Points that are looked at for an open endpoint before all endpoints are.
const STEPS: usize = 64;

/// Points in the order of the ring.
#[derive(Debug)]
pub(in crate::upstream) struct Ring {
    points: Box<[u64]>,
    /// Whose each point is
    places: Box<[u32]>,
    /// What it was made for: the next layout of the same endpoints has it too
    made_for: Box<[Member]>,
}

/// An endpoint on the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) struct Member {
    /// In the list of all endpoints
    pub(in crate::upstream) place: u32,
    /// From its address
    pub(in crate::upstream) seed: u64,
    /// Hundredths
    pub(in crate::upstream) weight: u32,
}

/// How many points a unit of weight has, as a power of two: the first points of an endpoint stay the same when it gets
/// more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) struct Density(i32);

impl Density {
    /// For endpoints that have such weights as a rule. Taken from what is written and not from who is there, so that
    /// no coming and going changes it.
    pub(in crate::upstream) fn for_weights(weights: impl Iterator<Item = u32>) -> Self {
        let (count, total) =
            weights.fold((0_u64, 0_u64), |(count, total), weight| (count + 1, total + u64::from(weight)));
        let average = total.max(1).div_ceil(count.max(1));
        let mut exponent = 0;
        while average << (exponent + 1) <= POINTS {
            exponent += 1;
        }
        while exponent <= 0 && average >> -exponent > POINTS {
            exponent -= 1;
        }
        Self(exponent)
    }

    /// The points of `weight` hundredths.
    fn points(self, weight: u32) -> u64 {
        let weight = u64::from(weight);
        let hundredths = if self.0 < 0 { weight >> -self.0 } else { weight << self.0 };
        hundredths.div_ceil(100).max(1)
    }
}

/// What an endpoint's points are made from.
pub(in crate::upstream) fn seed_of(address: &str) -> u64 {
    let digest = digest(&SHA256, address.as_bytes());
    u64::from_be_bytes(digest.as_ref()[..8].try_into().expect("a digest of 32 bytes"))
}

impl Ring {
    pub(in crate::upstream) fn new(members: &[Member], mut density: Density) -> Self {
        let total = |density: Density| members.iter().map(|member| density.points(member.weight)).sum::<u64>();
        // Names may have many more addresses than was written.
        while total(density) > MOST_POINTS && members.len() as u64 <= MOST_POINTS / 2 && density.0 > -32 {
            density.0 -= 1;
        }
        let mut points: Vec<(u64, u32)> = Vec::with_capacity(total(density) as usize);
        for member in members {
            points.extend((0..density.points(member.weight)).map(|index| (nth(member.seed, index), member.place)));
        }
        points.sort_unstable();
        let (points, places): (Vec<_>, Vec<_>) = points.into_iter().unzip();
        Self { points: points.into(), places: places.into(), made_for: members.into() }
    }

    pub(in crate::upstream) fn is_for(&self, members: &[Member]) -> bool {
        *self.made_for == *members
    }

    /// The endpoint of `key`, or the next on the ring that is open. After many that are not, any that is: the same for
    /// the same key.
    pub(in crate::upstream) fn find(&self, key: u64, is_open: impl Fn(u32) -> bool) -> Option<u32> {
        let start = self.points.partition_point(|point| *point < key);
        let around = self.places[start..].iter().chain(&self.places[..start]);
        let mut last = None;
        for &place in around.take(STEPS) {
            if last != Some(place) && is_open(place) {
                return Some(place);
            }
            last = Some(place);
        }
        let start = (key % self.made_for.len().max(1) as u64) as usize;
        let (before, after) = self.made_for.split_at(start.min(self.made_for.len()));
        after.iter().chain(before).map(|member| member.place).find(|place| is_open(*place))
    }
}

/// How many requests an endpoint may have at once before its keys go to the next: its share of all there are with this
/// one, times `factor` hundredths, but never less than one (Mirrokni, Thorup, Zadimoghaddam: *Consistent Hashing with
/// Bounded Loads*).
pub(in crate::upstream) fn bound(factor: u32, all: u32, weight: u32, total_weight: u64) -> u32 {
    let share = u128::from(factor) * (u128::from(all) + 1) * u128::from(weight);
    let bound = share.div_ceil(100 * u128::from(total_weight.max(1)));
    u32::try_from(bound).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::balance::random::mix;

    fn members(weights: &[u32]) -> Vec<Member> {
        let member = |(place, weight): (u32, &u32)| Member {
            place,
            seed: seed_of(&format!("10.0.{}.{}:80", place / 256, place % 256)),
            weight: weight * 100,
        };
        (0..).zip(weights).map(member).collect()
    }

    fn ring(members: &[Member], weights: &[u32]) -> Ring {
        Ring::new(members, Density::for_weights(weights.iter().copied()))
    }

    fn keys(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(|key| mix(key ^ 0x5EED))
    }

    #[test]
    fn weights_are_shares_of_the_keys() {
        let weights = [1, 2, 7];
        let ring = ring(&members(&weights), &weights);
        let mut counts = [0_u32; 3];
        keys(100_000).for_each(|key| counts[ring.find(key, |_| true).expect("open") as usize] += 1);
        for (count, due) in counts.iter().zip([10_000_i64, 20_000, 70_000]) {
            assert!((i64::from(*count) - due).abs() < due / 5, "{counts:?}");
        }
    }

    #[test]
    fn only_the_keys_of_an_endpoint_that_is_down_move_and_to_many_others() {
        let weights = [1; 10];
        let ring = ring(&members(&weights), &weights);
        let mut heirs = [0_u32; 10];
        for key in keys(20_000) {
            let before = ring.find(key, |_| true).expect("open");
            let after = ring.find(key, |place| place != 4).expect("open");
            if before == 4 {
                heirs[after as usize] += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        assert!((0..10).filter(|place| *place != 4).all(|place| heirs[place] > 40), "{heirs:?}");
    }

    #[test]
    fn an_open_endpoint_is_found_however_many_are_not() {
        let weights = [1; 500];
        let ring = ring(&members(&weights), &weights);
        for key in keys(1000) {
            assert_eq!(ring.find(key, |place| place == 321), Some(321));
            assert_eq!(ring.find(key, |_| false), None);
        }
        assert_eq!(Ring::new(&[], Density::for_weights([1].into_iter())).find(7, |_| true), None);
    }

    #[test]
    fn weights_of_all_sizes_make_rings_of_a_bounded_size() {
        for (weights, most) in
            [(vec![1; 1000], 1000 * POINTS), (vec![1000; 1000], 1000 * POINTS), (vec![1; 20_000], MOST_POINTS)]
        {
            let ring = ring(&members(&weights), &weights);
            let points = ring.points.len() as u64;
            assert!(points <= most && points >= most / 4, "{points} of {most}");
        }
        let skewed: Vec<u32> = std::iter::once(1000).chain([1; 99]).collect();
        assert!(ring(&members(&skewed), &skewed).points.len() < 100 * 300);
    }

    #[test]
    fn nobody_is_bound_to_less_than_one_and_the_bounds_hold_all() {
        assert_eq!(bound(125, 0, 1, 1000), 1);
        assert_eq!(bound(125, 9, 1, 2), 7);
        let weights = [1_u32, 2, 7];
        for all in 0..200 {
            let room: u32 = weights.iter().map(|weight| bound(105, all, *weight, 10)).sum();
            assert!(room > all, "one more fits in somewhere");
        }
    }

    proptest! {
        #[test]
        fn few_keys_move_when_an_endpoint_comes_or_goes(
            weights in prop::collection::vec(1_u32..=20, 3..40),
            gone in any::<prop::sample::Index>(),
        ) {
            let all = members(&weights);
            let gone = gone.index(all.len());
            let rest: Vec<Member> = all.iter().copied().filter(|member| member.place as usize != gone).collect();
            let (before, after) = (ring(&all, &weights), ring(&rest, &weights));
            const KEYS: u64 = 5000;
            let mut moved = 0;
            for key in keys(KEYS) {
                let (old, new) = (before.find(key, |_| true), after.find(key, |_| true));
                if old == Some(gone as u32) {
                    moved += 1;
                } else {
                    prop_assert_eq!(old, new, "a key of somebody else moved");
                }
            }
            let total: u32 = weights.iter().sum();
            let due = KEYS as f64 * f64::from(weights[gone]) / f64::from(total);
            prop_assert!(f64::from(moved) < due * 1.8 + 40.0, "{moved} instead of {due}");
        }

        #[test]
        fn an_endpoint_that_grows_takes_keys_and_gives_none(weights in prop::collection::vec(1_u32..=20, 2..20)) {
            let mut all = members(&weights);
            all[0].weight /= 2;
            let before = ring(&all, &weights);
            all[0].weight = weights[0] * 100;
            let after = ring(&all, &weights);
            for key in keys(2000) {
                let (old, new) = (before.find(key, |_| true), after.find(key, |_| true));
                prop_assert!(old == new || new == Some(0));
            }
        }
    }
}
