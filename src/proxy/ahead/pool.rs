//! Connections to HTTP/1 upstreams that wait for their next request.
//!
//! Pingora's own pool starts a task for each release, which waits for the upstream to close, and at each re-use asks the
//! kernel whom a connection leads to, since it knows them by a hash alone. Here they rest beside their addresses and
//! without tasks: whether one is still good is seen when it is taken, and one task of the worker looks after the rest.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pingora_core::protocols::l4::socket::SocketAddr;
use tokio::runtime::Handle;

use super::stream::Wire;

/// How often those are looked for that were closed, or have rested for too long.
const ROUND: Duration = Duration::from_secs(1);

/// Those of one worker.
#[derive(Debug)]
pub(super) struct Pool {
    resting: Mutex<Resting>,
    /// How many may rest
    most: usize,
}

#[derive(Debug, Default)]
struct Resting {
    /// By Pingora's hash of all that makes one peer different from another; the last to come at the end
    peers: HashMap<u64, VecDeque<Rest>, BuildHasherDefault<Hashed>>,
    count: usize,
    /// Whether a task looks after them
    watched: bool,
}

/// One that rests.
#[derive(Debug)]
struct Rest {
    wire: Box<Wire>,
    since: Instant,
    until: Option<Instant>,
}

/// Where a connection rests once its response is over.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) pool: Arc<Pool>,
    /// The peer's hash
    pub(super) key: u64,
    /// For how long, if there is an end to it
    pub(super) keep: Option<Duration>,
}

impl Pool {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { resting: Mutex::default(), most })
    }

    /// One that leads to `address` and is as its last response has left it: the last to come, which is the least
    /// likely to be closed soon.
    pub(super) fn take(&self, key: u64, address: &SocketAddr) -> Option<Box<Wire>> {
        loop {
            let mut rest = self.resting.lock().pop(key)?;
            if rest.is_good(Instant::now()) && rest.wire.leads_to(address) {
                return Some(rest.wire);
            }
        }
    }

    /// Has those removed that are of no use any more. Says whether any are left.
    fn tidy(&self, now: Instant) -> bool {
        let mut resting = self.resting.lock();
        resting.peers.retain(|_, rests| {
            rests.retain_mut(|rest| rest.is_good(now));
            !rests.is_empty()
        });
        resting.count = resting.peers.values().map(VecDeque::len).sum();
        resting.watched = resting.count > 0;
        resting.watched
    }
}

impl Resting {
    fn pop(&mut self, key: u64) -> Option<Rest> {
        let rest = self.peers.get_mut(&key)?.pop_back()?;
        self.count -= 1;
        Some(rest)
    }

    /// Makes room: whoever has rested for longest goes.
    fn pop_oldest(&mut self) -> Option<Rest> {
        // Or whoever makes many peers that are not asked again has all of them looked through each time.
        self.peers.retain(|_, rests| !rests.is_empty());
        let rests = self.peers.values_mut().min_by_key(|rests| rests.front().map(|rest| rest.since))?;
        let rest = rests.pop_front()?;
        self.count -= 1;
        Some(rest)
    }
}

impl Rest {
    /// Whether it may be used: nobody has closed it or sent what was not asked for, and its time is not over.
    fn is_good(&mut self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until) && self.wire.is_quiet()
    }
}

impl Home {
    /// Puts a connection to rest.
    pub(super) fn receive(&self, wire: Box<Wire>) {
        if self.keep == Some(Duration::ZERO) {
            return;
        }
        let since = Instant::now();
        let until = self.keep.and_then(|keep| since.checked_add(keep));
        let mut resting = self.pool.resting.lock();
        if resting.count >= self.pool.most && resting.pop_oldest().is_none() {
            return;
        }
        if !resting.watched {
            // Without a runtime the worker has ended.
            let Ok(runtime) = Handle::try_current() else {
                return;
            };
            runtime.spawn(look_after(Arc::downgrade(&self.pool)));
            resting.watched = true;
        }
        resting.peers.entry(self.key).or_default().push_back(Rest { wire, since, until });
        resting.count += 1;
    }
}

/// Once in a while, until there are none.
async fn look_after(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(ROUND).await;
        if !pool.upgrade().is_some_and(|pool| pool.tidy(Instant::now())) {
            return;
        }
    }
}

/// What is a hash already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = self.0.rotate_left(8) ^ hash;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use pingora_core::protocols::Stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::super::Budget;
    use super::super::stream::Counted;
    use super::*;

    const KEY: u64 = 7;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::Inet(([127, 0, 0, 1], port).into())
    }

    /// A connection and the upstream's end of it.
    fn wire(port: u16) -> (Box<Wire>, DuplexStream) {
        let (ours, theirs) = duplex(1024);
        (Wire::new(Box::new(ours), address(port), Budget::of_one(1)), theirs)
    }

    fn home(pool: &Arc<Pool>) -> Home {
        Home { pool: Arc::clone(pool), key: KEY, keep: None }
    }

    /// What Pingora does with a connection whose response is over.
    async fn test(stream: &mut Stream) {
        let mut byte = [0; 1];
        let _ = stream.read(&mut byte[..]).await;
    }

    #[tokio::test]
    async fn a_connection_that_pingora_would_keep_comes_home() {
        let pool = Pool::new(10);
        let (wire, _theirs) = wire(1);
        let mut stream: Stream = Box::new(Counted::new(wire, home(&pool)));
        test(&mut stream).await;
        drop(stream);
        assert!(pool.take(KEY, &address(1)).is_some());
        assert!(pool.take(KEY, &address(1)).is_none(), "there was one");
    }

    #[tokio::test]
    async fn one_that_is_dropped_or_used_again_does_not() {
        let pool = Pool::new(10);
        let (first, _theirs) = wire(1);
        drop(Counted::new(first, home(&pool)));
        let (second, _theirs) = wire(1);
        let mut stream: Stream = Box::new(Counted::new(second, home(&pool)));
        test(&mut stream).await;
        stream.write_all(b"GET").await.expect("room");
        drop(stream);
        assert!(pool.take(KEY, &address(1)).is_none());
    }

    #[tokio::test]
    async fn a_read_into_the_last_byte_of_a_buffer_is_no_test() {
        let pool = Pool::new(10);
        let (wire, _theirs) = wire(1);
        let mut stream: Stream = Box::new(Counted::new(wire, home(&pool)));
        let mut buffer = Vec::with_capacity(8);
        buffer.resize(buffer.capacity() - 1, 0);
        assert!(stream.read_buf(&mut buffer).now_or_never().is_none(), "it waits");
        drop(stream);
        assert!(pool.take(KEY, &address(1)).is_none());
    }

    #[tokio::test]
    async fn what_was_closed_or_speaks_unasked_is_not_taken() {
        let pool = Pool::new(10);
        let (closed, theirs) = wire(1);
        let (talking, mut other) = wire(1);
        home(&pool).receive(closed);
        home(&pool).receive(talking);
        drop(theirs);
        other.write_all(b"HTTP/1.1 408").await.expect("room");
        assert!(pool.take(KEY, &address(1)).is_none());
    }

    #[tokio::test]
    async fn one_hash_with_two_addresses_is_two_peers() {
        let pool = Pool::new(10);
        let (wire, _theirs) = wire(1);
        home(&pool).receive(wire);
        assert!(pool.take(KEY, &address(2)).is_none());
    }

    #[tokio::test]
    async fn whoever_has_rested_for_longest_makes_room() {
        let pool = Pool::new(2);
        let wires: Vec<_> = (1..=3).map(wire).collect();
        let (wires, _theirs): (Vec<_>, Vec<_>) = wires.into_iter().unzip();
        for (key, wire) in wires.into_iter().enumerate() {
            Home { key: key as u64, ..home(&pool) }.receive(wire);
        }
        let kept = [0, 1, 2].map(|key| pool.take(key, &address(key as u16 + 1)).is_some());
        assert_eq!(kept, [false, true, true]);
    }

    #[tokio::test]
    async fn time_that_is_over_is_seen_when_it_is_taken_and_when_it_is_looked_after() {
        let pool = Pool::new(10);
        let (first, _theirs) = wire(1);
        let (second, _theirs2) = wire(1);
        let brief = Home { keep: Some(Duration::from_nanos(1)), ..home(&pool) };
        brief.receive(first);
        assert!(pool.take(KEY, &address(1)).is_none());
        brief.receive(second);
        assert!(!pool.tidy(Instant::now()), "none is left");
        let (third, _theirs3) = wire(1);
        home(&pool).receive(third);
        assert!(pool.tidy(Instant::now()), "one is");
    }
}
