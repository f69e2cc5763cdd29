//! One of the services behind the gateway. It says who it is and what it was told, and misbehaves on request.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::server::{Answer, Server, json};

/// How slow a request with `?slow` is: beyond what its route allows.
const SLOWNESS: Duration = Duration::from_secs(3);

/// Serves until it is dropped.
#[derive(Debug)]
pub(super) struct Service {
    name: &'static str,
    server: Server,
}

impl Service {
    pub(super) async fn start(name: &'static str) -> io::Result<Self> {
        let server = Server::start(move |request| respond(name, request)).await?;
        Ok(Self { name, server })
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.server.addr()
    }
}

async fn respond(name: &str, request: Request<Incoming>) -> Answer {
    let asked = |what| request.uri().query().is_some_and(|query| query.split('&').any(|part| part == what));
    if asked("slow") {
        tokio::time::sleep(SLOWNESS).await;
    }
    if asked("fail") {
        return json(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "service": name, "error": "you asked for it" }));
    }
    let caller = request.headers().get("x-auth-subject").and_then(|value| value.to_str().ok());
    let path = request.uri().path();
    json(StatusCode::OK, &json!({ "service": name, "path": path, "caller": caller }))
}
