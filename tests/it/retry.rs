//! When a request is sent again, and when it must not be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::support::h2::{H2Client, H2Origin};
use super::support::{Origin, Request, Tollgate};

/// Takes the first `failures` requests and resets their connections; answers those after them with their body.
fn resetting(failures: usize) -> Origin {
    let count = AtomicUsize::new(0);
    Origin::scripted(move |request, connection| {
        if count.fetch_add(1, Ordering::SeqCst) < failures {
            connection.reset();
        } else {
            connection.reply(200, &[], &request.body);
        }
    })
}

#[test]
fn an_origin_that_is_gone_costs_no_request() {
    let mut origins = [Origin::replying("ok"), Origin::replying("ok"), Origin::replying("ok")];
    let tollgate = Tollgate::before(&origins.each_ref().map(Origin::addr), "");
    for _ in 0..6 {
        tollgate.get("/").send().expect(200);
    }
    origins[1].kill();
    for round in 0..30 {
        let request = if round % 2 == 0 { tollgate.get("/") } else { tollgate.post("/", "body") };
        request.send().expect(200);
    }
    assert!(tollgate.metric("tollgate_retries_total{upstream=\"app\",reason=\"connect_failure\"}") >= Some(1.0));
}

#[test]
fn a_reset_before_the_answer_is_retried_for_an_idempotent_method() {
    let origin = resetting(1);
    let tollgate = Tollgate::before(&[origin.addr()], "");
    let response = tollgate.request("PUT", "/").body("whole").send().expect(200);
    assert_eq!(response.text(), "whole");
    let bodies: Vec<_> = origin.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies, [b"whole", b"whole"]);
    let line = tollgate.logged(&response);
    assert_eq!((line["attempts"].as_u64(), line["bytes_in"].as_u64()), (Some(2), Some(5)));
    tollgate.wait_for_metric("tollgate_retries_total{upstream=\"app\",reason=\"reset\"}", 1.0);
}

#[test]
fn a_reset_post_is_never_sent_again() {
    let origin = resetting(1);
    let tollgate = Tollgate::before(&[origin.addr()], "retry = { max_retries = 5 }");
    let response = tollgate.post("/", "pay 100").send().expect(502);
    assert_eq!(response.json()["reason"], "upstream_reset");
    assert_eq!(origin.hits(), 1);
    assert_eq!(tollgate.logged(&response)["attempts"], 1);
}

#[test]
fn retries_end_at_their_maximum() {
    let origin = resetting(100);
    let tollgate = Tollgate::before(&[origin.addr()], "retry = { max_retries = 3 }");
    tollgate.get("/").send().expect(502);
    assert_eq!(origin.hits(), 4);
    let origin = resetting(100);
    let tollgate = Tollgate::before(&[origin.addr()], "retry = { max_retries = 0 }");
    tollgate.get("/").send().expect(502);
    assert_eq!(origin.hits(), 1);
}

#[test]
fn a_body_that_is_no_longer_there_is_not_sent_in_half() {
    let origin = resetting(1);
    let tollgate = Tollgate::before(&[origin.addr()], "");
    let response = tollgate.request("PUT", "/").body(vec![b'x'; 300_000]).send().expect(502);
    assert_eq!(response.json()["reason"], "upstream_reset");
    assert_eq!(origin.hits(), 1);
}

#[test]
fn nothing_is_retried_once_the_answer_has_begun() {
    let origin = Origin::scripted(|_, connection| {
        let _ = connection.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
        connection.reset();
    });
    let tollgate = Tollgate::before(&[origin.addr()], "retry = { max_retries = 5 }");
    assert!(tollgate.get("/").try_send().is_err());
    assert_eq!(origin.hits(), 1);
}

#[test]
fn what_the_origin_answers_is_passed_on_even_if_it_is_an_error() {
    let origin = Origin::scripted(|_, connection| connection.reply(503, &[], "busy"));
    let tollgate = Tollgate::before(&[origin.addr()], "");
    assert_eq!(tollgate.get("/").send().expect(503).text(), "busy");
    assert_eq!(origin.hits(), 1);
}

/// Counts, and answers everything with 503 and a body that says who it was.
fn busy(name: &'static str) -> Origin {
    Origin::scripted(move |_, connection| connection.reply(503, &[("retry-after", "7")], name))
}

#[test]
fn a_listed_status_is_retried_elsewhere_before_the_client_sees_it() {
    let (bad, good) = (busy("bad"), Origin::echoing_bodies());
    let tollgate = Tollgate::before(&[bad.addr(), good.addr()], "retry = { on = [\"503\"] }");
    for _ in 0..10 {
        assert_eq!(tollgate.request("PUT", "/").body("whole").send().expect(200).text(), "whole");
    }
    let bads = bad.hits();
    // A retry takes its turn too, so that either of them may come first each time.
    assert!((5..=10).contains(&bads) && good.hits() == 10, "{bads}");
    assert!(bad.requests().iter().all(|request| request.body == b"whole"));
    tollgate.wait_for_metric("tollgate_retries_total{upstream=\"app\",reason=\"status\"}", bads as f64);
    tollgate.wait_for_metric("tollgate_upstream_requests_total{upstream=\"app\",result=\"server_error\"}", bads as f64);
}

#[test]
fn the_last_answer_reaches_the_client_as_the_origin_gave_it() {
    let origins = [busy("one"), busy("two"), busy("three")];
    let tollgate =
        Tollgate::before(&origins.each_ref().map(Origin::addr), "retry = { on = [\"5xx\"], max_retries = 10 }");
    let response = tollgate.get("/").send().expect(503);
    assert!(["one", "two", "three"].contains(&response.text().as_str()), "{}", response.text());
    assert_eq!((response.header("retry-after"), response.header("proxy-status")), (Some("7"), None));
    assert_eq!(origins.each_ref().map(Origin::hits), [1, 1, 1], "each endpoint once");
    let line = tollgate.logged(&response);
    assert_eq!((&line["attempts"], &line["reason"]), (&3.into(), &serde_json::Value::Null), "{line}");
}

#[test]
fn a_status_is_passed_on_where_a_retry_could_do_harm_or_has_no_body_to_send() {
    let origins = [busy(""), busy("")];
    let tollgate =
        Tollgate::before(&origins.each_ref().map(Origin::addr), "retry = { on = [\"503\"], max_retries = 5 }");
    let hits = || origins.iter().map(Origin::hits).sum::<usize>();
    tollgate.post("/", "pay 100").send().expect(503);
    assert_eq!(hits(), 1, "not idempotent");
    tollgate.request("PUT", "/").body(vec![b'x'; 300_000]).send().expect(503);
    assert_eq!(hits(), 2, "no longer there");
    let alone = busy("");
    let tollgate = Tollgate::before(&[alone.addr()], "retry = { on = [\"503\"], max_retries = 5 }");
    tollgate.get("/").send().expect(503);
    assert_eq!(alone.hits(), 1, "nobody else to ask");
}

#[test]
fn a_status_of_an_h2_upstream_is_retried_too() {
    let answering = |status: u16| {
        H2Origin::scripted(None, move |_, mut respond| {
            Box::pin(async move {
                let response = http::Response::builder().status(status).body(()).expect("a status");
                respond.send_response(response, true)?;
                Ok(())
            })
        })
    };
    let (bad, good) = (answering(502), answering(204));
    let tollgate = Tollgate::before(&[bad.addr(), good.addr()], "protocol = \"h2c\"\nretry = { on = [\"502\"] }");
    for _ in 0..10 {
        tollgate.get("/").send().expect(204);
    }
    assert!(bad.hits() >= 5 && good.hits() == 10);
}

#[test]
fn retries_wait_no_longer_than_the_request_may_take() {
    let origins = [busy("one"), busy("two")];
    let retry = "retry = { on = [\"503\"], backoff = \"1s\" }";
    let tollgate = Tollgate::before(&origins.each_ref().map(Origin::addr), retry);
    tollgate.replace("upstream = \"app\"", "upstream = \"app\"\ntimeout = \"400ms\"");
    tollgate.reload().succeeded();
    let response = tollgate.get("/").send().expect(503);
    assert_eq!(tollgate.logged(&response)["attempts"], 1);
}

#[test]
fn a_storm_of_retries_ends_at_the_budget() {
    const REQUESTS: usize = 200;
    let origins = [busy(""), resetting(usize::MAX), busy("")];
    let retry = "retry = { on = [\"reset\", \"503\"], max_retries = 10, backoff = \"1ms\", budget = \"20%\" }";
    let tollgate = Tollgate::before(&origins.each_ref().map(Origin::addr), retry);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..REQUESTS / 8).for_each(|_| drop(tollgate.get("/").send())));
        }
    });
    let hits: usize = origins.iter().map(Origin::hits).sum();
    // Thirty in ten seconds are free; a window that ended in between would bring thirty more.
    assert!((REQUESTS + 30..=REQUESTS + REQUESTS / 5 + 60).contains(&hits), "{hits}");
    assert!(tollgate.metric("tollgate_retries_over_budget_total{upstream=\"app\"}") > Some(0.0));
    // The budget is the upstream's, not the configuration's.
    tollgate.edit(|text| text.push_str("\n# another line\n"));
    tollgate.reload().succeeded();
    let before = tollgate.metric("tollgate_retries_total").unwrap_or_default();
    (0..3).for_each(|_| drop(tollgate.get("/").send()));
    assert!(tollgate.metric("tollgate_retries_total").unwrap_or_default() - before < 4.0);
}

#[test]
fn a_timeout_is_retried_elsewhere_if_it_is_listed() {
    let (silent, good) = (Origin::hanging(), Origin::echoing_bodies());
    let upstream = "timeouts = { first_byte = \"300ms\", idle = \"300ms\" }\nretry = { on = [\"timeout\"] }";
    let tollgate = Tollgate::before(&[silent.addr(), good.addr()], upstream);
    for _ in 0..4 {
        assert_eq!(tollgate.request("PUT", "/").body("whole").send().expect(200).text(), "whole");
    }
    let retries = silent.hits();
    assert!((2..=4).contains(&retries), "{retries}");
    let mut statuses: Vec<_> = (0..2).map(|_| tollgate.post("/", "pay 100").send().status()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 504]);
    tollgate.wait_for_metric("tollgate_retries_total{upstream=\"app\",reason=\"timeout\"}", retries as f64);
}

#[test]
fn a_connection_that_the_origin_has_closed_meanwhile_costs_no_get() {
    let origin = Origin::scripted(|_, connection| {
        connection.reply(200, &[], "ok");
        connection.close();
    });
    let tollgate = Tollgate::before(&[origin.addr()], "");
    for _ in 0..50 {
        tollgate.get("/").send().expect(200);
    }
}

/// A frame that no h2 peer may send, right after the settings: a connection error at the other end (#979).
fn breaking_h2() -> Origin {
    Origin::raw(|connection| {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let headers_on_stream_0 = [0, 0, 1, 1, 4, 0, 0, 0, 0, 0x88];
        let mut preface = [0; 24];
        let _ = std::io::Read::read_exact(&mut connection.stream().reader, &mut preface);
        let _ = connection.send(settings);
        // Until a request's HEADERS have come.
        loop {
            let mut head = [0; 9];
            if std::io::Read::read_exact(&mut connection.stream().reader, &mut head).is_err() {
                return;
            }
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            let mut payload = vec![0; length];
            let _ = std::io::Read::read_exact(&mut connection.stream().reader, &mut payload);
            if head[3] == 1 {
                break;
            }
        }
        let _ = connection.send(headers_on_stream_0);
        connection.hang();
    })
}

#[test]
fn a_post_that_broke_an_h2_upstream_is_never_sent_again() {
    let origin = breaking_h2();
    let tollgate = Tollgate::before(&[origin.addr()], "protocol = \"h2c\"\nretry = { max_retries = 5 }");
    let response = tollgate.post("/", "pay 100").send().expect(502);
    assert_eq!(tollgate.logged(&response)["attempts"], 1);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_stream_that_an_h2_upstream_refuses_is_retried_for_every_method() {
    let count = Arc::new(AtomicUsize::new(0));
    let origin = H2Origin::scripted(None, move |mut request, mut respond| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        Box::pin(async move {
            if first {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                return Ok(());
            }
            let mut body = Vec::new();
            while let Some(bytes) = request.body_mut().data().await.transpose()? {
                body.extend_from_slice(&bytes);
            }
            let mut sender = respond.send_response(http::Response::new(()), false)?;
            super::support::h2::send_all(&mut sender, body.into(), true).await
        })
    });
    let tollgate = Tollgate::before(&[origin.addr()], "protocol = \"h2c\"");
    let response = tollgate.post("/", "pay 100").send().expect(200);
    assert_eq!(response.text(), "pay 100");
    assert_eq!(origin.hits(), 2);
    tollgate.wait_for_metric("tollgate_retries_total{upstream=\"app\",reason=\"refused_stream\"}", 1.0);
}

#[test]
fn an_h2_origin_answers_an_http_1_client() {
    let origin = H2Origin::echoing();
    let tollgate = Tollgate::before(&[origin.addr()], "protocol = \"h2c\"");
    assert_eq!(tollgate.post("/", "body").send().expect(200).text(), "body");
    assert_eq!(tollgate.get("/").send().expect(200).text(), "");
    assert_eq!(H2Client::cleartext(origin.addr()).send(&Request::new("POST", "/").body("x")).text(), "x");
}
