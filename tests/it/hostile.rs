//! Clients that mean harm: what they can make us do and hold, and that others are served meanwhile.

use std::time::Duration;

use super::support::frames::{self, Answers, Frames, frame, get, reset, streams, window_update};
use super::support::h2::H2Client;
use super::support::{Origin, Tollgate, open_to, process, wait};

/// What a flood may make the gateway hold. Its allocator keeps some of what it has returned.
const HELD: u64 = 24 * 1024 * 1024;
/// Frames in a flood, if nobody stops it. Small enough to be read to its end, so that the goodbye is not lost in a reset.
const MANY: usize = 30_000;

fn before(origin: &Origin) -> Tollgate {
    Tollgate::with(&format!("[listeners.h2c]\nprotocols = [\"h2c\"]\n{}", open_to(&[origin.addr()])))
}

/// Lets `attack` loose while an honest client goes on. What it was told in the end.
#[track_caller]
fn besiege(tollgate: &Tollgate, attack: impl FnOnce() -> Answers + Send + 'static) -> Answers {
    let mut honest = H2Client::cleartext(tollgate.addr());
    honest.get("/").expect(200);
    let before = process::resident(tollgate.pid());
    let attack = std::thread::spawn(attack);
    let mut most = before;
    wait::until("the attack to be over", || {
        assert_eq!(honest.get("/").status(), 200);
        most = most.max(process::resident(tollgate.pid()));
        attack.is_finished()
    });
    eprintln!("{} KiB over {} KiB", (most - before) >> 10, before >> 10);
    assert!(most - before < HELD, "{} MiB over {} MiB", (most - before) >> 20, before >> 20);
    honest.get("/").expect(200);
    H2Client::cleartext(tollgate.addr()).get("/").expect(200);
    attack.join().expect("an attack that is over")
}

/// Expects that a connection on which `pieces` are sent is closed before all were, with this word.
#[track_caller]
fn expect_stopped(tollgate: &Tollgate, what: &str, code: u32, pieces: impl Iterator<Item = Vec<u8>> + Send + 'static) {
    let addr = tollgate.addr();
    let answers = besiege(tollgate, move || {
        let mut frames = Frames::connect(addr, &[]);
        frames.send_all(pieces);
        frames.answers()
    });
    assert_eq!(answers.goaway, Some(code), "{what}: {answers:?}");
}

fn wait_for_floods(tollgate: &Tollgate, count: usize) {
    tollgate.wait_for_metric("tollgate_refused_total{listener=\"h2c\",reason=\"flood\"}", count as f64);
}

#[test]
fn frames_that_carry_nothing_are_bounded() {
    let origin = Origin::replying("ok");
    let tollgate = before(&origin);
    let floods = [
        ("pings", frame(frames::PING, 0, 0, &[7; 8])),
        ("answers to no ping", frame(frames::PING, 1, 0, &[7; 8])),
        ("settings", frame(frames::SETTINGS, 0, 0, &[])),
        ("settings that change", frame(frames::SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])),
        ("priorities", frame(frames::PRIORITY, 0, 1, &[0, 0, 0, 0, 9])),
        ("windows", window_update(0, 1)),
        ("frames nobody knows", frame(0xee, 0, 0, b"what?")),
    ];
    for (done, (what, flood)) in floods.into_iter().enumerate() {
        expect_stopped(&tollgate, what, frames::ENHANCE_YOUR_CALM, std::iter::repeat_n(flood, MANY));
        wait_for_floods(&tollgate, done + 1);
    }
}

#[test]
fn a_request_whose_body_is_nothing_again_and_again_is_bounded() {
    let origin = Origin::echoing_bodies();
    let tollgate = before(&origin);
    let post = frame(frames::HEADERS, frames::END_HEADERS, 1, frames::POST);
    let empty = std::iter::repeat_n(frame(frames::DATA, 0, 1, &[]), MANY);
    expect_stopped(&tollgate, "empty data", frames::ENHANCE_YOUR_CALM, std::iter::once(post).chain(empty));
}

/// CVE-2023-44487.
#[test]
fn requests_that_are_reset_as_soon_as_they_are_made_are_bounded() {
    let origin = Origin::replying("ok");
    let tollgate = before(&origin);
    let pairs = streams().take(MANY).map(|stream| [get(stream), reset(stream)].concat());
    expect_stopped(&tollgate, "rapid reset", frames::ENHANCE_YOUR_CALM, pairs);
}

/// The same, with time for each request to begin.
#[test]
fn requests_that_are_reset_once_they_have_begun_are_bounded() {
    let origin = Origin::replying("ok");
    let tollgate = before(&origin);
    let batches = (0..MANY as u32 / 100).map(|batch| {
        let streams = || streams().skip(100 * batch as usize).take(100);
        std::thread::sleep(Duration::from_millis(2));
        streams().flat_map(get).chain(streams().flat_map(reset)).collect()
    });
    expect_stopped(&tollgate, "resets in batches", frames::ENHANCE_YOUR_CALM, batches);
    assert!(origin.hits() < 3000, "{} reached the origin", origin.hits());
}

/// CVE-2025-8671: the client makes us reset its streams.
#[test]
fn resets_that_we_are_made_to_send_are_bounded() {
    let origin = Origin::replying("ok");
    let tollgate = before(&origin);
    let too_wide = |stream| window_update(stream, 0x7fff_ffff);
    let depends_on_itself =
        |stream: u32| frame(frames::PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[0]].concat());
    let faults: [(&str, fn(u32) -> Vec<u8>); 2] =
        [("a window that is too wide", too_wide), ("a stream that depends on itself", depends_on_itself)];
    for (what, fault) in faults {
        let pairs = streams().take(MANY).map(move |stream| [get(stream), fault(stream)].concat());
        expect_stopped(&tollgate, what, frames::ENHANCE_YOUR_CALM, pairs);
    }
}

/// CVE-2024-27316.
#[test]
fn a_head_that_does_not_end_is_bounded() {
    let origin = Origin::replying("ok");
    let tollgate = before(&origin);
    for piece in [&b""[..], b"\x00\x01a\x01b", &[0; 16_000]] {
        let begin = frame(frames::HEADERS, frames::END_STREAM, 1, frames::GET);
        // As much as is still read behind the goodbye.
        let more = std::iter::repeat_n(frame(frames::CONTINUATION, 0, 1, piece), 900_000 / (9 + piece.len()));
        let addr = tollgate.addr();
        let answers = besiege(&tollgate, move || {
            let mut frames = Frames::connect(addr, &[]);
            frames.send_all(std::iter::once(begin).chain(more));
            frames.answers()
        });
        eprintln!("{}: {answers:?}", piece.len());
        assert!(answers.goaway.is_some_and(|code| code != 0), "{}: {answers:?}", piece.len());
    }
}
