//! Connections to upstreams that are used again: which are, for how long, and which never.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{Client, Origin, Raw, Tollgate, wait};

const ROUTE: &str = "[routes.all]\nauth = \"none\"\nupstream = \"main\"\n";

fn to(origin: &Origin, more: &str) -> String {
    format!("[upstreams.main]\nendpoints = [\"{}\"]\n{more}\n{ROUTE}", origin.addr())
}

/// Answers everything and counts the connections that have ended.
fn counting_ends() -> (Origin, Arc<AtomicUsize>) {
    let ended = Arc::new(AtomicUsize::new(0));
    let origin = Origin::raw({
        let ended = Arc::clone(&ended);
        move |connection| {
            while let Ok(Some(_)) = connection.request() {
                connection.reply(200, &[], "served");
            }
            ended.fetch_add(1, Ordering::SeqCst);
        }
    });
    (origin, ended)
}

#[test]
fn one_connection_carries_one_request_after_the_other() {
    let origin = Origin::scripted(|request, connection| match request.target.as_str() {
        "/chunked" => {
            connection.begin_chunked(200, &[]);
            connection.chunk("in pieces");
            connection.last_chunk();
        }
        "/none" => connection.reply(204, &[], ""),
        _ => connection.reply(200, &[], &request.body),
    });
    let tollgate = Tollgate::with(&to(&origin, ""));
    let mut client = Client::connect(tollgate.addr());
    for _ in 0..10 {
        client.get("/").expect(200);
        assert_eq!(client.get("/chunked").expect(200).text(), "in pieces");
        assert_eq!(client.send(&tollgate.post("/", "x")).expect(200).text(), "x");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn upstreams_with_the_same_endpoint_share_no_connections() {
    let origin = Origin::replying("");
    let tollgate = Tollgate::with(&format!(
        "{}[upstreams.other]\nendpoints = [\"{}\"]\n\
         [routes.other]\npath = \"/other\"\nauth = \"none\"\nupstream = \"other\"\n",
        to(&origin, ""),
        origin.addr()
    ));
    let mut client = Client::connect(tollgate.addr());
    for _ in 0..10 {
        client.get("/").expect(200);
        client.get("/other").expect(200);
    }
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_connection_rests_no_longer_than_it_may() {
    let (origin, ended) = counting_ends();
    let tollgate = Tollgate::with(&to(&origin, "[upstreams.main.timeouts]\nkeepalive = \"1s\""));
    let mut client = Client::connect(tollgate.addr());
    for count in 1..=2 {
        client.get("/").expect(200);
        wait::until("its end", || ended.load(Ordering::SeqCst) == count);
    }
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_connection_that_the_upstream_closed_meanwhile_is_not_tried() {
    let closed = Arc::new(AtomicUsize::new(0));
    let origin = Origin::raw({
        let closed = Arc::clone(&closed);
        move |connection| {
            if let Ok(Some(_)) = connection.request() {
                connection.reply(200, &[], "served");
            }
            let _ = connection.stream().socket().shutdown(std::net::Shutdown::Both);
            closed.fetch_add(1, Ordering::SeqCst);
        }
    });
    let tollgate = Tollgate::with(&to(&origin, ""));
    let mut client = Client::connect(tollgate.addr());
    for count in 1..=10 {
        // A POST: had it been tried on a connection that is gone, it could not be sent again.
        client.send(&tollgate.post("/", "pay")).expect(200);
        wait::until("its end", || closed.load(Ordering::SeqCst) == count);
    }
    assert_eq!(origin.hits(), 10);
}

#[test]
fn what_an_upstream_says_unasked_answers_nobody() {
    let said = Arc::new(AtomicUsize::new(0));
    let origin = Origin::scripted({
        let said = Arc::clone(&said);
        move |request, connection| {
            connection.reply(200, &[], &request.target);
            let _ = connection.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil");
            said.fetch_add(1, Ordering::SeqCst);
        }
    });
    let tollgate = Tollgate::with(&to(&origin, ""));
    let mut client = Client::connect(tollgate.addr());
    for count in 1..=50 {
        let target = format!("/{count}");
        assert_eq!(client.get(&target).expect(200).text(), target);
        // What comes once the next request is on its way would be its answer, whoever had asked.
        wait::until("the rest of it", || said.load(Ordering::SeqCst) == count);
    }
}

#[test]
fn a_response_that_broke_off_leaves_nothing_behind() {
    let origin = Origin::scripted(|request, connection| {
        if request.target == "/half" {
            let _ = connection.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it");
            connection.close();
        } else {
            connection.reply(200, &[], &request.target);
        }
    });
    let tollgate = Tollgate::with(&to(&origin, ""));
    for count in 0..20 {
        let target = format!("/{count}");
        tollgate.get("/half").try_send().expect_err("half an answer is none");
        assert_eq!(tollgate.get(&target).send().expect(200).text(), target);
    }
}

#[test]
fn an_upstream_that_says_it_will_close_is_taken_at_its_word() {
    let origin = Origin::scripted(|request, connection| {
        connection.reply(200, &[("Connection", "close")], &request.target);
    });
    let tollgate = Tollgate::with(&to(&origin, ""));
    let mut client = Client::connect(tollgate.addr());
    for _ in 0..5 {
        client.get("/").expect(200);
    }
    assert_eq!(origin.connections(), 5);
}

#[test]
fn a_request_that_was_answered_early_leaves_its_rest_to_nobody() {
    let origin = Origin::raw(|connection| {
        while let Ok(Some(request)) = connection.head() {
            connection.reply(200, &[], &request.target);
        }
    });
    let tollgate = Tollgate::with(&to(&origin, ""));
    for count in 0..10 {
        let mut early = Raw::connect(tollgate.addr());
        early.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nGET /half HTTP/1.1\r\n");
        assert_eq!(early.response().expect(200).text(), "/early");
        let target = format!("/{count}");
        assert_eq!(tollgate.get(&target).send().expect(200).text(), target);
    }
}
