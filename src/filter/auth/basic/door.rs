//! The door in front of the threads that compute hashes: few are let in at once, few wait, and nobody waits for long.
//!
//! A queue that is only short is filled by whoever asks most, and honest users would find it full. So each address has a
//! share of it, and each user's name has: a flood from one address leaves room for others, and one from many addresses
//! that guesses at one user's password leaves room for other users. One that does both can fill it; its addresses are to
//! be limited before anybody is asked who they are (`limits` with `key = ["client.address"]`). Who has been verified
//! lately is remembered and does not come here at all.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::http::network;

/// More would need more memory at once than a gateway can spare: one hash may take 256 MiB.
const MAX_AT_ONCE: usize = 8;
/// Waiting and computing, all together.
const MAX_QUEUE: usize = 256;
/// Of one address.
const MAX_OF_CLIENT: usize = 32;
/// Of one user's name: different passwords, for the same one is judged once.
const MAX_OF_USER: usize = 4;
/// How long anybody waits.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Who is inside, and who waits.
#[derive(Debug)]
pub(super) struct Door {
    inside: Arc<Semaphore>,
    queue: Mutex<Queue>,
    names: RandomState,
}

#[derive(Debug, Default)]
struct Queue {
    all: usize,
    shares: HashMap<Share, usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Share {
    Client(IpAddr),
    /// By its hash: a name can be long
    User(u64),
}

/// A place in the queue, and later inside. Left when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    door: Arc<Door>,
    shares: [Share; 2],
    permit: Option<OwnedSemaphorePermit>,
}

impl Door {
    /// Half of the machine at most: the other half serves those who are known.
    pub(super) fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::letting_in((cores / 2).clamp(1, MAX_AT_ONCE))
    }

    fn letting_in(at_once: usize) -> Self {
        Self { inside: Arc::new(Semaphore::new(at_once)), queue: Mutex::default(), names: RandomState::new() }
    }

    /// A place for a password of `user` from `client`; `None` when there is no room for one more.
    pub(super) fn queue(self: &Arc<Self>, user: &str, client: IpAddr) -> Option<Place> {
        let shares = [Share::Client(network(client)), Share::User(self.names.hash_one(user))];
        let mut queue = self.queue.lock();
        let has_room = |share: &Share| {
            let most = match share {
                Share::Client(_) => MAX_OF_CLIENT,
                Share::User(_) => MAX_OF_USER,
            };
            queue.shares.get(share).is_none_or(|taken| *taken < most)
        };
        if queue.all >= MAX_QUEUE || !shares.iter().all(has_room) {
            return None;
        }
        queue.all += 1;
        for share in shares {
            *queue.shares.entry(share).or_default() += 1;
        }
        drop(queue);
        Some(Place { door: Arc::clone(self), shares, permit: None })
    }
}

impl Place {
    /// Waits to be let in, in the order of arrival; `None` when that takes too long.
    pub(super) async fn admitted(mut self) -> Option<Self> {
        let inside = Arc::clone(&self.door.inside);
        self.permit = Some(timeout(PATIENCE, inside.acquire_owned()).await.ok()?.ok()?);
        Some(self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queue = self.door.queue.lock();
        queue.all -= 1;
        for share in self.shares {
            if let Some(taken) = queue.shares.get_mut(&share) {
                *taken -= 1;
                if *taken == 0 {
                    queue.shares.remove(&share);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn a_flood_from_one_address_leaves_room_for_others() {
        let door = Arc::new(Door::letting_in(1));
        let flood: Vec<_> = (0..1000).filter_map(|guess| door.queue(&format!("user{guess}"), client(1))).collect();
        assert_eq!(flood.len(), MAX_OF_CLIENT);
        door.queue("alice", client(2)).expect("room");
        drop(flood);
        door.queue("alice", client(1)).expect("room again");
        assert!(door.queue.lock().shares.is_empty() && door.queue.lock().all == 0);
    }

    #[test]
    fn a_flood_for_one_user_from_everywhere_leaves_room_for_other_users() {
        let door = Arc::new(Door::letting_in(1));
        let flood: Vec<_> = (0..=255).filter_map(|last| door.queue("alice", client(last))).collect();
        assert_eq!(flood.len(), MAX_OF_USER);
        door.queue("bob", client(1)).expect("room");
    }

    #[test]
    fn all_together_are_bounded_and_addresses_of_one_subscriber_are_one() {
        let door = Arc::new(Door::letting_in(1));
        let address = |subscriber: u16, last: u16| IpAddr::from([0x2001, 0xdb8, 0, subscriber, 0, 0, 0, last]);
        let one: Vec<_> = (0..100).filter_map(|last| door.queue(&format!("user{last}"), address(0, last))).collect();
        assert_eq!(one.len(), MAX_OF_CLIENT);
        let all = (1..1000).filter_map(|subscriber| door.queue(&format!("name{subscriber}"), address(subscriber, 0)));
        assert_eq!(one.len() + all.collect::<Vec<_>>().len(), MAX_QUEUE);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_long_and_who_gives_up_leaves_the_queue() {
        let door = Arc::new(Door::letting_in(1));
        let first = door.queue("alice", client(1)).expect("room").admitted().await.expect("let in");
        let second = door.queue("bob", client(2)).expect("room");
        let begin = tokio::time::Instant::now();
        assert!(second.admitted().await.is_none());
        assert_eq!((begin.elapsed(), door.queue.lock().all), (PATIENCE, 1));
        let third = door.queue("bob", client(2)).expect("room");
        let (third, ()) = tokio::join!(third.admitted(), async { drop(first) });
        third.expect("let in when the first has left");
    }
}
