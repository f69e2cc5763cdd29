//! How many connections each address has open. Only those are remembered, so the cap on connections bounds the memory.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::http::network;

/// Tables, so that workers seldom meet at one.
const SHARDS: usize = 32;

/// Counts connections by address; IPv6 by /64, as limits do.
#[derive(Debug)]
pub struct Crowd {
    hasher: RandomState,
    shards: [Mutex<HashMap<IpAddr, usize>>; SHARDS],
}

/// Counts as a connection of its address until dropped.
#[derive(Debug)]
pub(super) struct Member {
    crowd: Arc<Crowd>,
    network: IpAddr,
}

impl Crowd {
    /// Nobody is there.
    #[expect(clippy::new_without_default, reason = "a second one beside the first would count half of them")]
    pub fn new() -> Self {
        Self { hasher: RandomState::new(), shards: Default::default() }
    }

    /// One more connection of `address`, unless it has `most` already.
    pub(super) fn join(self: &Arc<Self>, address: IpAddr, most: NonZeroUsize) -> Option<Member> {
        let network = network(address);
        let mut shard = self.shard(network).lock();
        let count = shard.entry(network).or_insert(0);
        // An entry is there as long as it counts something, and `most` is not zero: a refusal leaves none behind.
        if *count >= most.get() {
            return None;
        }
        *count += 1;
        Some(Member { crowd: Arc::clone(self), network })
    }

    fn shard(&self, network: IpAddr) -> &Mutex<HashMap<IpAddr, usize>> {
        &self.shards[self.hasher.hash_one(network) as usize % SHARDS]
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut shard = self.crowd.shard(self.network).lock();
        match shard.get_mut(&self.network) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(shard.remove(&self.network)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn most(count: usize) -> NonZeroUsize {
        NonZeroUsize::new(count).expect("tests use counts from 1")
    }

    fn tracked(crowd: &Crowd) -> usize {
        crowd.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_address_has_its_own_count_and_ipv6_one_for_a_network() {
        let crowd = Arc::new(Crowd::new());
        let join = |text| crowd.join(address(text), most(2));
        let members =
            [join("192.0.2.1"), join("192.0.2.1"), join("192.0.2.2"), join("2001:db8::1"), join("2001:db8::2")];
        assert!(members.iter().all(Option::is_some));
        assert!(join("192.0.2.1").is_none() && join("2001:db8::3").is_none());
        assert!(join("192.0.2.2").is_some() && join("2001:db8:0:1::1").is_some());
        drop(members);
        assert_eq!(tracked(&crowd), 0);
    }

    #[test]
    fn a_lowered_cap_holds_for_those_who_come_later() {
        let crowd = Arc::new(Crowd::new());
        let mut members: Vec<_> = (0..3).map(|_| crowd.join(address("192.0.2.1"), most(3)).expect("a place")).collect();
        for _ in 0..3 {
            assert!(crowd.join(address("192.0.2.1"), most(1)).is_none());
            members.pop();
        }
        assert!(crowd.join(address("192.0.2.1"), most(1)).is_some());
    }

    proptest! {
        #[test]
        fn what_is_counted_is_what_is_open(steps in proptest::collection::vec((any::<bool>(), 0..4u8), 0..200)) {
            let crowd = Arc::new(Crowd::new());
            let mut open: [Vec<Member>; 4] = Default::default();
            for (joins, who) in steps {
                let members = &mut open[usize::from(who)];
                if joins {
                    let member = crowd.join(IpAddr::from([192, 0, 2, who]), most(3));
                    prop_assert_eq!(member.is_some(), members.len() < 3);
                    members.extend(member);
                } else {
                    members.pop();
                }
            }
            prop_assert_eq!(tracked(&crowd), open.iter().filter(|members| !members.is_empty()).count());
        }
    }
}
