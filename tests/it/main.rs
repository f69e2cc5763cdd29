//! The integration tests: the real binary, real sockets, real signals. One module a topic.

#![expect(
    clippy::disallowed_methods,
    reason = "tests own the tasks that they start, and a file that is not there yet is empty"
)]

mod support;

mod framing; // what has more than one reading is refused before anybody else reads it
mod h2; // the same by HTTP/2, and what only HTTP/2 has

mod faults;
mod forwarding; // what the upstream is told: addresses, hosts, ids, and nothing a client made up
mod retry; // what is sent again, and what never is
mod secrets; // what proves who calls stands in no log
mod streams; // WebSocket, server-sent events, gRPC // upstreams that break, clients that dawdle, resources that run out

mod drain; // leaving without losing anybody
mod life; // from the start to the end: probes, commands, exit codes, signals
mod reload; // everything changes at once, or nothing does
mod upgrade; // handing over: nobody notices, or nothing happens
mod zero_loss; // all of it under load, with the fate of each request

mod admin; // what an operator sees: probes, metrics, the status page, across reloads and upgrades
mod demo; // `tollgate demo`, as a newcomer uses it
