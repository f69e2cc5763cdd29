//! Health checks: what is asked, and which answer is a good one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicUsize, Ordering};

use super::support::h2::{H2Origin, send_all};
use super::support::{Origin, Tollgate, wait};

fn before(addr: std::net::SocketAddr, upstream: &str) -> Tollgate {
    Tollgate::with(&format!(
        "[upstreams.app]\nendpoints = [\"{addr}\"]\n{upstream}\n[routes.all]\nauth = \"none\"\nupstream = \"app\"\n"
    ))
}

const HEALTHY: &str = "tollgate_endpoint_healthy{upstream=\"app\"}";

#[test]
fn a_body_has_to_hold_what_is_expected() {
    let fine = Arc::new(AtomicU16::new(1));
    let origin = Origin::scripted({
        let fine = Arc::clone(&fine);
        move |_, connection| {
            let state = if fine.load(Ordering::SeqCst) == 1 { "green" } else { "red" };
            connection.reply(200, &[], format!("{}{{\"status\":\"{state}\"}}", " ".repeat(5000)));
        }
    });
    let health = "health = { type = \"http\", expect_body = '\"status\":\"green\"', interval = \"50ms\" }";
    let tollgate = before(origin.addr(), health);
    wait::until("a few checks", || origin.hits() > 5);
    assert_eq!(tollgate.metric(HEALTHY), Some(1.0));
    fine.store(0, Ordering::SeqCst);
    tollgate.wait_for_metric(HEALTHY, 0.0);
    let log = tollgate.stderr();
    assert!(
        log.contains("is unhealthy: the check was answered with a body that does not hold what is expected"),
        "{log}"
    );
    fine.store(1, Ordering::SeqCst);
    tollgate.wait_for_metric(HEALTHY, 1.0);
}

#[test]
fn a_connection_is_enough_where_nothing_else_is_asked_for() {
    let mut origin = Origin::hanging();
    let tollgate = before(origin.addr(), "health = { type = \"tcp\", interval = \"50ms\" }");
    wait::until("a few checks", || origin.connections() > 5);
    assert_eq!((tollgate.metric(HEALTHY), origin.hits()), (Some(1.0), 0));
    origin.kill();
    tollgate.wait_for_metric(HEALTHY, 0.0);
    origin.start_again();
    tollgate.wait_for_metric(HEALTHY, 1.0);
}

#[test]
fn a_grpc_server_says_whether_it_serves() {
    let state = Arc::new(AtomicU8::new(1));
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let origin = H2Origin::scripted(None, {
        let (state, asked) = (Arc::clone(&state), Arc::clone(&asked));
        move |mut request, mut respond| {
            let state = state.load(Ordering::SeqCst);
            let asked = Arc::clone(&asked);
            Box::pin(async move {
                let mut body = Vec::new();
                while let Some(bytes) = request.body_mut().data().await.transpose()? {
                    body.extend_from_slice(&bytes);
                }
                *asked.lock().expect("one user") = [request.uri().path().as_bytes(), b" ", &body].concat();
                let response = http::Response::builder().header("content-type", "application/grpc");
                if state == 0 {
                    let response = response.header("grpc-status", "12").body(()).expect("a response");
                    respond.send_response(response, true)?;
                    return Ok(());
                }
                let mut sender = respond.send_response(response.body(()).expect("a response"), false)?;
                send_all(&mut sender, vec![0, 0, 0, 0, 2, 8, state].into(), false).await?;
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                sender.send_trailers(trailers)
            })
        }
    });
    let health = "protocol = \"h2c\"\nhealth = { type = \"grpc\", service = \"shop.Orders\", interval = \"50ms\" }";
    let tollgate = before(origin.addr(), health);
    wait::until("a few checks", || origin.hits() > 5);
    assert_eq!(tollgate.metric(HEALTHY), Some(1.0));
    let question = asked.lock().expect("one user").clone();
    assert_eq!(question, b"/grpc.health.v1.Health/Check \0\0\0\0\x0d\x0a\x0bshop.Orders");
    for (now, why) in [(2, "NOT_SERVING"), (0, "grpc-status 12")] {
        state.store(now, Ordering::SeqCst);
        tollgate.wait_for_metric(HEALTHY, 0.0);
        wait::until("the reason", || tollgate.stderr().contains(&format!("the check was answered with {why}")));
        state.store(1, Ordering::SeqCst);
        tollgate.wait_for_metric(HEALTHY, 1.0);
    }
}

#[test]
fn an_unhealthy_endpoint_has_an_interval_of_its_own() {
    let checks = Arc::new(AtomicUsize::new(0));
    let origin = Origin::scripted({
        let checks = Arc::clone(&checks);
        move |_, connection| {
            let ill = checks.fetch_add(1, Ordering::SeqCst) == 0;
            connection.reply(if ill { 500 } else { 200 }, &[], "");
        }
    });
    // Once healthy it is not asked again within the test; until then often.
    let health = "health = { type = \"http\", interval = \"1h\", unhealthy_interval = \"50ms\", unhealthy_after = 1, \
                  healthy_after = 4 }";
    let tollgate = before(origin.addr(), health);
    wait::until("it to be found well", || checks.load(Ordering::SeqCst) >= 5 && tollgate.metric(HEALTHY) == Some(1.0));
    wait::never("another check", || checks.load(Ordering::SeqCst) > 5);
}
