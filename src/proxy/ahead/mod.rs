//! What is read of a response ahead of a client that does not take it.
//!
//! Pingora reads an HTTP/1 upstream in pieces of 64 KiB and has up to ten of them on their way, whatever the client
//! does. Its number of pieces cannot be changed; their size is that of what a read finds. So connections to upstreams
//! are streams of our own ([`Connector`]), which count what is held for clients and read less at once when a worker
//! holds much: first those that already have much ahead. An honest client loses nothing by it but the size of pieces.
//!
//! What a request costs besides is not so small either, and one connection of HTTP/2 brings a hundred of them. So the
//! more streams wait for their clients, the shorter is the [`patience`](Budget::patience) with one that begins to.

mod connector;
mod pool;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pingora_core::protocols::Digest;
use pingora_proxy::Session;

pub use self::connector::Connector;
pub(super) use self::connector::speak_http1;
use super::ctx::{RequestCtx, is_http2};
use super::patience::CLIENT_SILENCE;
use crate::http::Connection;
use crate::http::Deadline;

/// What all workers together hold before every request is down to [`SCANTY`].
const BUDGET: usize = 16 * 1024 * 1024;
/// What one request may have ahead where there is plenty: one piece that is being written and one to follow.
const PLENTY: usize = 2 * FULL;
/// The same where nothing is left.
const SCANTY: usize = 4 * 1024;
/// More than Pingora ever has on its way for one request.
const MOST: usize = 10 * FULL;
/// What Pingora reads at once.
const FULL: usize = 64 * 1024;
/// Pingora reads on until its own queue is full, so each read beyond a request's share is allowed this part of it.
const EXTRA: usize = 8;
/// Streams that may wait for their clients, over all workers, before patience begins to shorten.
const CALM: usize = 64;
/// Pieces that one connection may have untaken with all patience there is, however many wait on others: a crowd is of
/// those who bring many streams each.
const FEW: usize = 16;
/// The shortest patience with a client that has closed its window, and how many have to wait for it to be that.
const CLOSED: (Duration, usize) = (Duration::from_secs(1), 192);
/// The same with any other. It may be slow and honest, and what it has asked for at once comes in turn.
const SLOW: (Duration, usize) = (Duration::from_secs(10), 512);

/// What one worker holds of responses.
#[derive(Debug)]
pub(super) struct Budget {
    held: AtomicUsize,
    most: usize,
    /// Streams whose clients have not taken all that was passed on
    waiting: AtomicUsize,
    workers: usize,
}

impl Budget {
    /// That of one of so many workers.
    fn of_one(workers: usize) -> Arc<Self> {
        let workers = workers.max(1);
        Arc::new(Self { held: AtomicUsize::new(0), most: BUDGET / workers, waiting: AtomicUsize::new(0), workers })
    }

    /// What one request may have ahead. All of it up to half of the budget, and from there on less and less.
    fn share(&self) -> usize {
        let half = self.most / 2;
        let left = self.most.saturating_sub(self.held.load(Ordering::Relaxed)).min(half);
        SCANTY + (PLENTY - SCANTY) * left / half.max(1)
    }

    /// How long a stream may wait for its client to take a piece: as long as anybody may, unless many wait, and this
    /// client has pieces untaken that are many too, or has closed its window and taken nothing.
    fn patience(&self, client: &Connection, progress: bool) -> Duration {
        let waiting = self.waiting.load(Ordering::Relaxed) * self.workers;
        let closed = client.window.is_closed() && !progress;
        if waiting <= CALM || (!closed && client.untaken.load(Ordering::Relaxed) <= FEW) {
            return CLIENT_SILENCE;
        }
        let (shortest, crowd) = if closed { CLOSED } else { SLOW };
        let left = crowd.saturating_sub(waiting) as u32;
        shortest + (CLIENT_SILENCE - shortest) * left / (crowd - CALM) as u32
    }
}

/// What has been read ahead on one connection.
#[derive(Debug)]
pub(super) struct Ahead {
    budget: Arc<Budget>,
    /// Read, and not yet come to a filter
    coming: AtomicUsize,
    /// Passed on to an h2 client, and not yet free again
    held: AtomicUsize,
    /// The same in pieces
    pieces: AtomicUsize,
    /// Whether an h2 client has taken a piece of this response
    progress: AtomicBool,
    /// Passed on to an HTTP/1 client, and not yet written when last looked at
    unsent: AtomicUsize,
    /// Pingora copies several pieces that it writes at once into one buffer, which is there until the end
    copied: AtomicUsize,
    /// What of the last two is in the budget: the larger
    unsent_counted: AtomicUsize,
    /// What the buffer has grown to that Pingora reads into: it has one for each response, which is there until its end
    buffer: AtomicUsize,
    /// When a read gives up
    patience: Deadline,
    /// Odd while there is a response: which it is
    turn: AtomicUsize,
}

/// One response's use of a connection, and which it is: the next may begin before this one's client has taken all.
#[derive(Debug)]
pub(super) struct Reading(Arc<Ahead>, usize);

impl Ahead {
    fn new(budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self {
            budget,
            coming: AtomicUsize::default(),
            held: AtomicUsize::default(),
            pieces: AtomicUsize::default(),
            progress: AtomicBool::default(),
            unsent: AtomicUsize::default(),
            copied: AtomicUsize::default(),
            unsent_counted: AtomicUsize::default(),
            buffer: AtomicUsize::default(),
            patience: Deadline::default(),
            turn: AtomicUsize::default(),
        })
    }

    /// Whether something that was read has not come to a filter yet.
    fn is_coming(&self) -> bool {
        self.coming.load(Ordering::Relaxed) > 0
    }

    /// How much may be read now.
    fn next(&self) -> usize {
        let share = self.budget.share();
        let [coming, held, unsent] = [&self.coming, &self.held, &self.unsent].map(|part| part.load(Ordering::Relaxed));
        let ahead = coming + held + unsent;
        share.saturating_sub(ahead).max(share / EXTRA).min(FULL)
    }

    fn read(&self, count: usize) {
        self.coming.fetch_add(count, Ordering::Relaxed);
        let grown = count.saturating_sub(self.buffer.fetch_max(count, Ordering::Relaxed));
        self.budget.held.fetch_add(count + grown, Ordering::Relaxed);
    }

    /// A piece has come. Pingora passes on at once whatever it has, so nothing is left that could be coming; framing,
    /// which no filter sees, is forgotten by that.
    fn come(&self) {
        self.budget.held.fetch_sub(self.coming.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The response is over: nothing is coming any more, and its buffers are gone.
    fn rest(&self) {
        self.patience.lift();
        for part in [&self.unsent, &self.copied] {
            part.store(0, Ordering::Relaxed);
        }
        self.progress.store(false, Ordering::Relaxed);
        for part in [&self.coming, &self.buffer, &self.unsent_counted] {
            self.budget.held.fetch_sub(part.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.rest();
    }
}

impl Reading {
    /// That of the connection with this digest; only connections to HTTP/1 upstreams are counted.
    pub(super) fn begin(digest: Option<&Digest>) -> Option<Self> {
        digest?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref::<Arc<Ahead>>().map(Self::of)
    }

    fn of(ahead: &Arc<Ahead>) -> Self {
        let mut turn = ahead.turn.load(Ordering::Relaxed) + 1;
        if turn.is_multiple_of(2) {
            // The one before is not over.
            ahead.rest();
            turn += 1;
        }
        ahead.turn.store(turn, Ordering::Relaxed);
        Self(Arc::clone(ahead), turn)
    }

    /// Reads fail from then on.
    pub(super) fn give_up_at(&self, at: Instant) {
        self.0.patience.allow(at, Duration::ZERO, None);
    }

    /// No longer.
    pub(super) fn be_patient(&self) {
        self.0.patience.lift();
    }

    /// Counts a piece for an h2 client until its memory is free again.
    fn pass(&self, piece: Bytes, client: &Arc<Connection>) -> Bytes {
        let ahead = &self.0;
        client.untaken.fetch_add(1, Ordering::Relaxed);
        ahead.held.fetch_add(piece.len(), Ordering::Relaxed);
        ahead.budget.held.fetch_add(piece.len(), Ordering::Relaxed);
        if ahead.pieces.fetch_add(1, Ordering::Relaxed) == 0 {
            ahead.budget.waiting.fetch_add(1, Ordering::Relaxed);
        }
        ahead.come();
        Bytes::from_owner(Held { piece, ahead: Arc::clone(ahead), client: Arc::clone(client) })
    }

    fn patience(&self, client: &Connection) -> Duration {
        self.0.budget.patience(client, self.0.progress.load(Ordering::Relaxed))
    }

    /// A piece of this size is passed on to an HTTP/1 client; with it so much is not yet written.
    fn pass_unsent(&self, piece: usize, unsent: usize) {
        let ahead = &self.0;
        ahead.unsent.store(unsent, Ordering::Relaxed);
        let copied = if unsent > piece { unsent } else { 0 };
        let counted = unsent.max(ahead.copied.fetch_max(copied, Ordering::Relaxed));
        ahead.budget.held.fetch_add(counted, Ordering::Relaxed);
        ahead.budget.held.fetch_sub(ahead.unsent_counted.swap(counted, Ordering::Relaxed), Ordering::Relaxed);
        ahead.come();
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.0.turn.load(Ordering::Relaxed) == self.1 {
            self.0.rest();
            self.0.turn.store(self.1 + 1, Ordering::Relaxed);
        }
    }
}

/// Counts what is on its way to the client.
pub(super) fn pass(session: &mut Session, body: &mut Option<Bytes>, ctx: &RequestCtx) {
    let Some(reading) = &ctx.attempt.reading else {
        return;
    };
    if let Some(client) = ctx.connection.as_ref().filter(|connection| is_http2(connection)) {
        *body = body.take().map(|piece| reading.pass(piece, client));
        session.set_write_timeout(Some(reading.patience(client)));
    } else {
        let passed = usize::try_from(ctx.progress.sent_bytes).unwrap_or(usize::MAX);
        let unsent = passed.saturating_sub(session.body_bytes_sent()).min(MOST);
        reading.pass_unsent(body.as_ref().map_or(0, Bytes::len), unsent);
    }
}

/// A piece of a body on its way to the client.
struct Held {
    piece: Bytes,
    ahead: Arc<Ahead>,
    client: Arc<Connection>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let ahead = &self.ahead;
        self.client.untaken.fetch_sub(1, Ordering::Relaxed);
        ahead.held.fetch_sub(self.piece.len(), Ordering::Relaxed);
        ahead.budget.held.fetch_sub(self.piece.len(), Ordering::Relaxed);
        ahead.progress.store(true, Ordering::Relaxed);
        if ahead.pieces.fetch_sub(1, Ordering::Relaxed) == 1 {
            ahead.budget.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Ends;

    /// Reads as Pingora does for a client that takes nothing: on and on, until its queue is full.
    fn stall(budget: &Arc<Budget>) -> (Reading, Vec<Bytes>) {
        stall_for(budget, &client())
    }

    fn client() -> Arc<Connection> {
        let here = ([127, 0, 0, 1], 1).into();
        let ends = Ends { peer: here, source: here, local: here };
        Arc::new(Connection::new("http".into(), ends, None, None))
    }

    fn stall_for(budget: &Arc<Budget>, client: &Arc<Connection>) -> (Reading, Vec<Bytes>) {
        let reading = Reading::of(&Ahead::new(Arc::clone(budget)));
        let pieces = (0..10).map(|_| {
            let count = reading.0.next();
            reading.0.read(count);
            reading.pass(Bytes::from(vec![0; count]), client)
        });
        let pieces = pieces.collect();
        (reading, pieces)
    }

    #[test]
    fn a_single_request_has_two_whole_pieces_ahead_and_smaller_ones() {
        let budget = Budget::of_one(1);
        let (_reading, pieces) = stall(&budget);
        let sizes: Vec<_> = pieces.iter().map(Bytes::len).collect();
        assert_eq!(sizes[..3], [FULL, FULL, PLENTY / EXTRA]);
    }

    #[test]
    fn many_hold_the_budget_and_a_little_each() {
        for workers in [1, 2, 16] {
            let budget = Budget::of_one(workers);
            let stalled: Vec<_> = (0..2000).map(|_| stall(&budget)).collect();
            let held = budget.held.load(Ordering::Relaxed);
            assert!(held < BUDGET / workers + stalled.len() * 4 * SCANTY, "{workers}: {held}");
            drop(stalled);
            assert_eq!(budget.held.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn the_more_streams_wait_the_shorter_they_may() {
        for workers in [1, 2, 16] {
            for (window, (shortest, crowd)) in [(0, CLOSED), (65_535, SLOW)] {
                let budget = Budget::of_one(workers);
                let (many, few) = (client(), client());
                for client in [&many, &few] {
                    client.window.set(window);
                }
                let mut patience = Vec::new();
                let stalled: Vec<_> = (0..crowd / workers)
                    .map(|_| {
                        let stalled = stall_for(&budget, &many);
                        patience.push(stalled.0.patience(&many));
                        stalled
                    })
                    .collect();
                assert_eq!(patience[..CALM / workers], vec![CLIENT_SILENCE; CALM / workers]);
                assert!(patience.is_sorted_by(|before, after| before >= after));
                assert_eq!(patience.last(), Some(&shortest), "{workers}");
                let (alone, mut pieces) = stall_for(&budget, &few);
                let patience = if window == 0 { shortest } else { CLIENT_SILENCE };
                assert_eq!(alone.patience(&few), patience, "it has one stream alone");
                pieces.pop();
                assert_eq!(alone.patience(&few), CLIENT_SILENCE, "it takes a piece now and then");
                drop((stalled, alone, pieces));
                assert_eq!([&many, &few].map(|client| client.untaken.load(Ordering::Relaxed)), [0, 0]);
                assert_eq!(budget.waiting.load(Ordering::Relaxed), 0);
            }
        }
    }

    #[test]
    fn what_is_written_to_an_http_1_client_makes_room() {
        let budget = Budget::of_one(16);
        let _others: Vec<_> = (0..200).map(|_| stall(&budget)).collect();
        let reading = Reading::of(&Ahead::new(Arc::clone(&budget)));
        let most = reading.0.next();
        reading.0.read(most);
        reading.pass_unsent(most, most);
        assert!(reading.0.next() < most);
        reading.pass_unsent(0, 0);
        assert!(reading.0.next() > most / 2);
    }

    #[test]
    fn who_is_late_to_end_takes_nothing_from_who_came_next() {
        let budget = Budget::of_one(1);
        let ahead = Ahead::new(Arc::clone(&budget));
        let first = Reading::of(&ahead);
        ahead.read(1000);
        let second = Reading::of(&ahead);
        second.give_up_at(Instant::now());
        ahead.read(500);
        drop(first);
        assert!(ahead.patience.at().is_some());
        assert!((500..=1000).contains(&budget.held.load(Ordering::Relaxed)));
        drop(second);
        assert_eq!((ahead.patience.at(), budget.held.load(Ordering::Relaxed)), (None, 0));
    }

    #[test]
    fn all_is_given_back_at_the_end_whatever_of_it_was_framing() {
        let budget = Budget::of_one(1);
        let reading = Reading::of(&Ahead::new(Arc::clone(&budget)));
        for _ in 0..100 {
            reading.0.read(1000);
            drop(reading.pass(Bytes::from_static(&[0; 700]), &client()));
            reading.0.read(1000);
            reading.pass_unsent(10, 20);
        }
        reading.0.read(1000);
        drop(reading);
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }
}
