//! What a client of HTTP/2 may ask of us besides requests: an allowance of frames.
//!
//! Most frames carry nothing and still cost us work: a PING or SETTINGS its answer, a PRIORITY or an empty DATA its
//! reading, a WINDOW_UPDATE of one byte a frame of one byte, a reset a whole request. The h2 crate bounds what such
//! frames may hold in memory, but not how many may come. So they are counted where the bytes pass: each takes from an
//! allowance, which what we serve and the time that passes restore.

use std::time::{Duration, Instant};

use super::frames::{Frames, PREFACE};

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const END_STREAM: u8 = 0x1;

/// What a client may take at once.
const ALLOWANCE: u32 = 10_000;
/// How much of it comes back in a second.
const REGAINED: u32 = 1_000;
/// What a reset takes, of whichever side: a request was begun for nothing.
const RESET: u32 = 10;
/// What any other frame without use takes.
const FRAME: u32 = 1;
/// What a response gives back. A client acknowledges with pings and window updates what it is sent.
const RESPONSE: u32 = 4;
/// Bytes in a DATA frame of ours for each piece of the allowance that it gives back, up to that of a response. Frames
/// that are smaller than this give nothing: a client that opens its window by single bytes makes us send such.
const DATA_BYTES: u32 = 64;
/// The same without that bound: there are clients that acknowledge each 4 KiB twice.
const MORE_BYTES: u32 = 1024;

/// The allowance of one connection.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    /// Until when the time that passed is in `left`
    regained: Instant,
    spent: bool,
    received: Frames,
    sent: Frames,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: ALLOWANCE,
            regained: now,
            spent: false,
            received: Frames::behind(PREFACE),
            sent: Frames::behind(0),
        }
    }

    /// Whether the client has asked for too much; it stays so.
    pub(super) fn is_spent(&self) -> bool {
        self.spent
    }

    /// The window with which its streams begin, in bytes.
    pub(super) fn window(&self) -> u32 {
        self.received.window()
    }

    /// Bytes of the client.
    pub(super) fn received(&mut self, bytes: &[u8], now: impl Fn() -> Instant) {
        let mut cost = 0;
        self.received.advance(bytes, |frame| {
            cost += match frame.kind {
                DATA if frame.len > 0 || frame.flags & END_STREAM != 0 => 0,
                HEADERS => 0,
                RST_STREAM => RESET,
                _ => FRAME,
            };
        });
        self.take(cost, now);
    }

    /// Bytes of ours.
    pub(super) fn sent(&mut self, bytes: &[u8], now: impl Fn() -> Instant) {
        let (mut cost, mut gain) = (0, 0);
        self.sent.advance(bytes, |frame| match frame.kind {
            DATA => gain += (frame.len / DATA_BYTES).min(RESPONSE) + frame.len / MORE_BYTES,
            HEADERS => gain += RESPONSE,
            RST_STREAM => cost += RESET,
            _ => {}
        });
        self.give(gain);
        self.take(cost, now);
    }

    fn give(&mut self, gain: u32) {
        self.left = self.left.saturating_add(gain).min(ALLOWANCE);
    }

    /// The clock is looked at only once the rest is not enough.
    fn take(&mut self, cost: u32, now: impl Fn() -> Instant) {
        if cost > self.left {
            let now = now();
            let passed = now.saturating_duration_since(self.regained);
            let gain = passed.as_millis() * u128::from(REGAINED) / 1000;
            if gain > 0 {
                self.regained += Duration::from_millis(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX));
                self.give(u32::try_from(gain).unwrap_or(u32::MAX));
            }
        }
        self.spent |= cost > self.left;
        self.left = self.left.saturating_sub(cost);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::frames;
    use super::*;

    const PING: u8 = 0x6;
    const WINDOW_UPDATE: u8 = 0x8;

    fn frame(kind: u8, flags: u8, len: usize) -> Vec<u8> {
        frames::tests::frame(kind, flags, &vec![0xff; len])
    }

    /// One that has seen the preface, and when it was made.
    fn allowance() -> (Allowance, Instant) {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        allowance.received(&[0; PREFACE], || now);
        (allowance, now)
    }

    /// How many such frames it takes until a new allowance is spent, if it ever is.
    fn until_spent(kind: u8, flags: u8, len: usize) -> Option<u32> {
        let (mut allowance, now) = allowance();
        let bytes = frame(kind, flags, len);
        (1..=20_000).find(|_| {
            allowance.received(&bytes, || now);
            allowance.is_spent()
        })
    }

    #[test]
    fn what_carries_something_is_free_and_what_does_not_is_counted() {
        assert_eq!(until_spent(HEADERS, 0, 30), None);
        assert_eq!(until_spent(DATA, 0, 1), None);
        assert_eq!(until_spent(DATA, END_STREAM, 0), None);
        assert_eq!(until_spent(DATA, 0, 0), Some(10_001));
        assert_eq!(until_spent(PING, 0, 8), Some(10_001));
        assert_eq!(until_spent(0xee, 0, 0), Some(10_001));
        assert_eq!(until_spent(RST_STREAM, 0, 4), Some(1_001));
    }

    #[test]
    fn time_restores_it_up_to_its_size() {
        let (mut allowance, now) = allowance();
        let pings = |count| frame(PING, 0, 8).repeat(count);
        allowance.received(&pings(10_000), || now);
        allowance.received(&pings(1_000), || now + Duration::from_secs(1));
        allowance.received(&pings(10_000), || now + Duration::from_secs(1000));
        assert!(!allowance.is_spent());
        allowance.received(&pings(2), || now + Duration::from_millis(1_000_001));
        assert!(allowance.is_spent());
    }

    /// A client that answers each frame of an event stream with two window updates, one that pings for each answer, and
    /// one that takes a download in pieces of 4 KiB.
    #[test]
    fn answers_restore_what_their_acknowledgements_take() {
        let (mut allowance, now) = allowance();
        for _ in 0..50_000 {
            allowance.sent(&frame(DATA, 0, 200), || now);
            allowance.received(&frame(WINDOW_UPDATE, 0, 4).repeat(2), || now);
            allowance.sent(&frame(HEADERS, 0, 50), || now);
            allowance.received(&frame(PING, 0, 8), || now);
        }
        for _ in 0..50_000 {
            allowance.sent(&frame(DATA, 0, 16_384), || now);
            allowance.received(&frame(WINDOW_UPDATE, 0, 4).repeat(8), || now);
        }
        assert!(!allowance.is_spent());
    }

    #[test]
    fn resets_are_the_client_s_whoever_sends_them_and_dribbled_bytes_restore_nothing() {
        let (mut allowance, now) = allowance();
        allowance.sent(&frame(RST_STREAM, 0, 4).repeat(1_001), || now);
        assert!(allowance.is_spent());
        let (mut allowance, now) = self::allowance();
        for _ in 0..10_001 {
            allowance.received(&frame(WINDOW_UPDATE, 0, 4), || now);
            allowance.sent(&frame(DATA, 0, 1), || now);
        }
        assert!(allowance.is_spent());
    }

    proptest! {
        #[test]
        fn nothing_that_arrives_is_too_strange(pieces in vec(vec(any::<u8>(), 0..200), 0..20)) {
            let (mut allowance, now) = allowance();
            for piece in pieces {
                allowance.received(&piece, || now);
                allowance.sent(&piece, || now);
            }
        }
    }
}
