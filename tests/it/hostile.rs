//! Clients that mean harm: what they can make us do and hold, and that others are served meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::support::frames::{self, Answers, Frames, frame, get, reset, streams, window_update};
use super::support::h2::H2Client;
use super::support::{Client, Origin, Raw, Tollgate, open_to, process, wait};

/// What a flood may make the gateway hold. Its allocator keeps some of what it has returned.
const HELD: u64 = 24 * 1024 * 1024;
/// Frames in a flood, if nobody stops it. Small enough to be read to its end, so that the goodbye is not lost in a reset.
const MANY: usize = 30_000;
/// What requests may hold whose clients take nothing: 400 by h2, 200 by HTTP/1.
const STALLED: u64 = 64 * 1024 * 1024;

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

/// However few are under way at a time.
#[test]
fn resets_are_bounded_where_each_request_is_over_before_the_next() {
    let origin = Origin::hanging();
    let tollgate = before(&origin);
    let mut frames = Frames::connect(tollgate.addr(), &[]);
    let mut all = streams();
    let flooded = || tollgate.metric("tollgate_refused_total{reason=\"flood\"}").is_some();
    for round in 1.. {
        assert!(round <= 50, "5,000 requests were reset");
        let batch: Vec<_> = all.by_ref().take(100).collect();
        frames.send(batch.iter().copied().flat_map(get).collect::<Vec<_>>()).expect("sent");
        wait::until("the requests to arrive", || origin.hits() == round * 100);
        frames.send(batch.iter().copied().flat_map(reset).collect::<Vec<_>>()).expect("sent");
        wait::until("the requests to be over", || {
            flooded() || tollgate.metric("tollgate_http_requests_in_flight") == Some(0.0)
        });
        if flooded() {
            break;
        }
    }
    assert_eq!(frames.answers().goaway, Some(frames::ENHANCE_YOUR_CALM));
}

/// CVE-2025-8671: the client makes us reset its streams.
#[test]
fn resets_that_we_are_made_to_send_are_bounded() {
    let origin = Origin::replying("ok");
    let tollgate = before(&origin);
    let too_wide = |stream| window_update(stream, 0x7fff_ffff);
    let depends_on_itself =
        |stream: u32| frame(frames::PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[0]].concat());
    let pairs =
        |fault: fn(u32) -> Vec<u8>| streams().take(MANY).map(move |stream| [get(stream), fault(stream)].concat());
    let calm = frames::ENHANCE_YOUR_CALM;
    expect_stopped(&tollgate, "windows that are too wide", calm, pairs(too_wide));
    expect_stopped(&tollgate, "streams that depend on themselves", calm, pairs(depends_on_itself));
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
        assert!(answers.goaway.is_some_and(|code| code != 0), "{}: {answers:?}", piece.len());
    }
}

#[test]
fn a_head_that_unpacks_to_more_than_was_sent_is_bounded() {
    let origin = Origin::replying("secret");
    let tollgate = before(&origin);
    // A field of 4,000 bytes in the dynamic table, and one byte for each time it is repeated (RFC 7541 section 6.1).
    let field = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'x'; 4000]].concat();
    let bomb = [frames::GET, &field, &[0xbe; 12_000]].concat();
    let bombs = streams().take(50).map(move |stream| {
        let head = frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, stream, &bomb);
        assert!(head.len() < 16_384, "one frame");
        head
    });
    let addr = tollgate.addr();
    let answers = besiege(&tollgate, move || {
        let mut frames = Frames::connect(addr, &[]);
        frames.send_all(bombs);
        frames.finish()
    });
    assert!(answers.goaway.is_some_and(|code| code != 0), "{answers:?}");
    assert!(origin.requests().iter().all(|request| request.header("a").is_none()));
}

#[test]
fn windows_that_make_no_sense_end_what_they_belong_to() {
    let origin = Origin::hanging();
    let tollgate = before(&origin);
    let told = |bytes: Vec<u8>| {
        let mut frames = Frames::connect(tollgate.addr(), &[]);
        frames.send(bytes).expect("sent");
        frames.answers()
    };
    assert_eq!(told(window_update(0, 0)).goaway, Some(frames::PROTOCOL_ERROR));
    assert_eq!(told(window_update(0, 0x7fff_ffff)).goaway, Some(frames::FLOW_CONTROL_ERROR));
    let initial = frame(frames::SETTINGS, 0, 0, &[&[0, 4][..], &[0xff; 4]].concat());
    assert_eq!(told(initial).goaway, Some(frames::PROTOCOL_ERROR));
    let mut frames = Frames::connect(tollgate.addr(), &[]);
    frames.send([get(1), window_update(1, 0x7fff_ffff)].concat()).expect("sent");
    wait::until("the request to be over", || {
        tollgate.metric("tollgate_http_requests_total{code=\"499\"}") == Some(1.0)
    });
    let answers = frames.finish();
    assert_eq!(answers.resets.get(&frames::FLOW_CONTROL_ERROR), Some(&1), "{answers:?}");
}

#[test]
fn streams_over_the_limit_are_refused_and_the_others_go_on() {
    let (origin, gate) = Origin::gated("ok");
    let tollgate = before(&origin);
    let mut frames = Frames::connect(tollgate.addr(), &[]);
    assert!(frames.send_all(streams().take(200).map(get)));
    wait::until("as many as may be", || origin.hits() == 128);
    gate.open();
    wait::until("all to be answered", || tollgate.metric("tollgate_http_requests_total{code=\"200\"}") == Some(128.0));
    let answers = frames.finish();
    assert_eq!(answers.resets.get(&frames::REFUSED_STREAM), Some(&72), "{answers:?}");
    assert_eq!(answers.frames.get(&frames::HEADERS), Some(&128), "{answers:?}");
    assert_eq!(origin.hits(), 128);
}

/// What waits for a client that does not read must not grow with what it sends, and it is not waited for.
#[test]
fn who_floods_and_does_not_listen_is_left() {
    let origin = Origin::replying("ok");
    let tollgate = before(&origin);
    let connections = "tollgate_connections{listener=\"h2c\"}";
    let mut honest = H2Client::cleartext(tollgate.addr());
    honest.get("/").expect(200);
    let before = process::resident(tollgate.pid());
    let mut deaf: Vec<_> = (0..20).map(|_| Frames::deaf(tollgate.addr(), &[])).collect();
    for frames in &mut deaf {
        frames.send_all(std::iter::repeat_n(frame(frames::PING, 0, 0, &[7; 8]), MANY));
    }
    wait_for_floods(&tollgate, deaf.len());
    tollgate.wait_for_metric(connections, 1.0);
    honest.get("/").expect(200);
    assert!(process::resident(tollgate.pid()) < before + HELD);
}

/// Pingora would read ahead of each client by ten pieces of 64 KiB.
#[test]
fn streams_whose_window_stays_closed_hold_little_and_are_left() {
    let origin = Origin::replying(&"x".repeat(1 << 20));
    let text = open_to(&[origin.addr()]).replace("auth = \"none\"", "auth = \"none\"\ntimeout = \"5s\"");
    let tollgate = Tollgate::with(&format!("[listeners.h2c]\nprotocols = [\"h2c\"]\n{text}"));
    H2Client::cleartext(tollgate.addr()).get("/").expect(200);
    let idle = process::resident(tollgate.pid());
    let mut clients: Vec<_> = (0..4).map(|_| Frames::deaf(tollgate.addr(), &[frames::SMALL_WINDOW])).collect();
    for (n, client) in (1..).zip(&mut clients) {
        assert!(client.send_all(streams().take(100).map(get)));
        // One after the other: the origin's queue is short.
        wait::until("the origin to be asked", || origin.hits() == n * 100 + 1);
    }
    // Beside them others are served as ever.
    let honest = H2Client::cleartext(tollgate.addr()).get("/").expect(200);
    assert_eq!(honest.body.len(), 1 << 20);
    let mut most = 0;
    wait::until("the streams to be left", || {
        most = most.max(process::resident(tollgate.pid()).saturating_sub(idle));
        tollgate.metric("tollgate_http_requests_in_flight") == Some(0.0)
    });
    assert!(most < STALLED, "{} KiB", most / 1024);
    H2Client::cleartext(tollgate.addr()).get("/").expect(200);
}

/// Who has closed the window before it asks is answered into nothing: it waits where it costs less than a request does.
#[test]
fn of_streams_that_begin_with_a_closed_window_few_are_served_at_a_time() {
    let origin = Origin::replying(&"x".repeat(2000));
    let tollgate = before(&origin);
    let mut honest = H2Client::cleartext(tollgate.addr());
    honest.get("/").expect(200);
    let idle = process::resident(tollgate.pid());
    let mut clients: Vec<_> = (0..20).map(|_| Frames::deaf(tollgate.addr(), &[frames::NO_WINDOW])).collect();
    for client in &mut clients {
        assert!(client.send_all(streams().take(100).map(get)));
    }
    // Who is served has little patience to hope for, and the next has its turn.
    wait::until("more than may be under way at once to be served", || origin.hits() > 400);
    // One that has closed its window for a while, and is answered before any of them.
    let mut pausing = Frames::connect(tollgate.addr(), &[frames::NO_WINDOW]);
    pausing.send(get(1)).expect("sent");
    pausing.send(frames::settings(&[frames::WINDOW])).expect("sent");
    // It asks for nothing more, so that the connection ends with the answer.
    pausing.send(frame(frames::GOAWAY, 0, 0, &[0; 8])).expect("sent");
    assert_eq!(pausing.answers().frames.get(&frames::DATA), Some(&1));
    let left = |reason: &str| {
        tollgate.metric(&format!("tollgate_refused_total{{listener=\"h2c\",reason=\"{reason}\"}}")).unwrap_or(0.0)
    };
    drop(clients.split_off(10));
    wait::until("those who have left to be left", || left("client_aborted") > 100.0);
    let mut most = 0;
    wait::until("those whose turn does not come to be left", || {
        honest.get("/").expect(200);
        most = most.max(process::resident(tollgate.pid()).saturating_sub(idle));
        let in_flight = tollgate.metric("tollgate_http_requests_in_flight").expect("there is one");
        assert!(in_flight <= 256.0, "{in_flight}");
        left("client_timeout") > 400.0
    });
    assert!(most < STALLED, "{} KiB", most / 1024);
    H2Client::cleartext(tollgate.addr()).get("/").expect(200);
}

/// Event streams go on for hours: once their clients take them, they hold no turn that another needs.
#[test]
fn a_turn_is_another_s_when_its_client_opens_the_window_or_leaves() {
    const TURNS: usize = 256;
    let asked = AtomicUsize::new(0);
    let origin = Origin::scripted(move |_, connection| {
        if asked.fetch_add(1, Ordering::Relaxed) < TURNS {
            connection.begin_chunked(200, &[]);
            connection.hang();
        }
        connection.reply(200, &[], "ok");
    });
    let text = open_to(&[origin.addr()]);
    let tollgate = Tollgate::with(&format!("[server]\nthreads = 1\n[listeners.h2c]\nprotocols = [\"h2c\"]\n{text}"));
    let mut holding: Vec<_> = (0..3).map(|_| Frames::deaf(tollgate.addr(), &[frames::NO_WINDOW])).collect();
    for client in &mut holding {
        assert!(client.send_all(streams().take(100).map(get)));
    }
    wait::until("all turns to be taken", || origin.hits() == TURNS);
    // One resets a stream that waits, and leaves; the origin never hears of it.
    let mut leaving = Frames::connect(tollgate.addr(), &[frames::NO_WINDOW]);
    leaving.send(get(1)).expect("sent");
    leaving.send(reset(1)).expect("sent");
    tollgate.wait_for_metric("tollgate_refused_total{listener=\"h2c\",reason=\"client_aborted\"}", 1.0);
    // Of one that waits in vain it can be sent again.
    let mut waiting = Frames::connect(tollgate.addr(), &[frames::NO_WINDOW]);
    waiting.send(get(1)).expect("sent");
    waiting.send(frame(frames::GOAWAY, 0, 0, &[0; 8])).expect("sent");
    assert_eq!(waiting.answers().resets, [(frames::REFUSED_STREAM, 1)].into());
    assert_eq!(origin.hits(), TURNS);
    for client in &mut holding {
        client.send(frames::settings(&[frames::WINDOW])).expect("sent");
    }
    // It opens its stream alone.
    let mut next = Frames::connect(tollgate.addr(), &[frames::NO_WINDOW]);
    for piece in [get(1), window_update(1, 1000), frame(frames::GOAWAY, 0, 0, &[0; 8])] {
        next.send(piece).expect("sent");
    }
    assert_eq!(next.answers().frames.get(&frames::DATA), Some(&1));
}

/// The same by HTTP/1. What the kernel takes for a client is not ours to hold.
#[test]
fn connections_that_take_nothing_hold_little_and_are_left() {
    let origin = Origin::scripted(|request, connection| {
        connection.begin_chunked(200, &[]);
        let chunk = format!("{:x}\r\n{}\r\n", 100_000, "x".repeat(100_000));
        let endless = request.target == "/endless";
        while connection.send(&chunk).is_ok() && endless {}
        let _ = connection.send("0\r\n\r\n");
    });
    let endless = "[routes.endless]\nauth = \"none\"\nupstream = \"main\"\npath = \"/endless\"\ntimeout = \"5s\"\n";
    let tollgate = Tollgate::with(&format!("{}{endless}", open_to(&[origin.addr()])));
    let mut honest = Client::connect(tollgate.addr());
    honest.get("/").expect(200);
    let idle = process::resident(tollgate.pid());
    let mut connections = Vec::new();
    for n in 1..=200 {
        let mut raw = Raw::connect(tollgate.addr());
        raw.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n");
        connections.push(raw);
        if n % 50 == 0 {
            wait::until("the origin to be asked", || origin.hits() == n + 1);
        }
    }
    // Beside them others are served as ever.
    assert_eq!(honest.get("/").expect(200).body.len(), 100_000);
    let mut most = 0;
    wait::until("the connections to be left", || {
        most = most.max(process::resident(tollgate.pid()).saturating_sub(idle));
        tollgate.metric("tollgate_http_requests_in_flight") == Some(0.0)
    });
    assert!(most < STALLED, "{} KiB", most / 1024);
}

/// The same by HTTP/1: one that takes nothing is cut at the end of the exchange, however much there is for it.
#[test]
fn who_takes_nothing_of_a_large_response_is_cut() {
    let origin = Origin::replying(&"x".repeat(50_000_000));
    let text = open_to(&[origin.addr()]).replace("auth = \"none\"", "auth = \"none\"\ntimeout = \"1s\"");
    let tollgate = Tollgate::with(&text);
    let mut raw = Raw::connect(tollgate.addr());
    raw.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    let line = tollgate.logged_where("its line", |line| line["path"] == "/large");
    assert_eq!(line["reason"], "request_timeout", "{line}");
    tollgate.wait_for_metric("tollgate_connections{listener=\"http\"}", 0.0);
    assert!(raw.rest().is_err(), "a reset, not what could be taken for the whole");
}

/// An event stream ends when its client has taken none of it for `stream_idle`; one that takes it stays.
#[test]
fn who_takes_nothing_of_a_stream_is_cut_and_who_does_is_not() {
    let origin = Origin::scripted(|_, connection| {
        connection.begin_chunked(200, &[("content-type", "text/event-stream")]);
        let event = format!("{:x}\r\n{}\r\n", 100_000, "x".repeat(100_000));
        while connection.send(&event).is_ok() {}
        connection.close();
    });
    let text = open_to(&[origin.addr()]).replace("auth = \"none\"", "auth = \"none\"\nstream_idle = \"700ms\"");
    let tollgate = Tollgate::with(&text);
    let [mut slow, mut silent] = ["/slow", "/silent"].map(|path| {
        let mut raw = Raw::connect(tollgate.addr());
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n"));
        raw
    });
    let logged = || tollgate.access_log().into_iter().find(|line| line["path"] == "/silent");
    let line = wait::some("the silent one to be cut", || {
        slow.read_exactly(3_000_000);
        logged()
    });
    assert!(["stream_idle", "client_timeout"].contains(&line["reason"].as_str().unwrap_or("")), "{line}");
    assert!(silent.rest().is_err(), "a reset, not an end");
    slow.read_exactly(20_000_000);
    assert!(tollgate.access_log().iter().all(|line| line["path"] != "/slow"));
}

/// One byte at a time is not silence, but it does not make a request's time longer.
#[test]
fn a_body_that_drips_is_cut_in_time_and_a_head_too() {
    let origin = Origin::echoing_bodies();
    let text = open_to(&[origin.addr()]).replace("auth = \"none\"", "auth = \"none\"\ntimeout = \"1s\"");
    let tollgate = Tollgate::with(&format!("[listeners.http]\nheader_timeout = \"1s\"\nmax_headers = 1000\n{text}"));
    let begins = [
        ("head", "GET / HTTP/1.1\r\nHost: a\r\nX: "),
        ("lines", "GET / HTTP/1.1\r\nHost: a\r\n"),
        ("body", "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"),
        ("chunks", "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ];
    let reasons = begins.map(|(what, begin)| {
        let mut raw = Raw::connect(tollgate.addr());
        raw.send(begin);
        let drip = match what {
            "lines" => "a: b\r\n",
            "chunks" => "1\r\nx\r\n",
            _ => "x",
        };
        wait::until(what, || {
            drop(raw.try_send(drip));
            !raw.is_quiet()
        });
        raw.response().expect(408).json()["reason"].clone()
    });
    assert_eq!(reasons, ["header_timeout", "header_timeout", "client_timeout", "client_timeout"]);
    let mut honest = Raw::connect(tollgate.addr());
    for piece in ["POST / HTTP/1.1\r\nHost: a\r\n", "Content-Length: 2\r\n", "\r\n", "o"] {
        std::thread::park_timeout(Duration::from_millis(150));
        honest.send(piece);
    }
    assert_eq!(honest.send("k").response().expect(200).text(), "ok");
}
