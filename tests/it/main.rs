//! The integration tests: the real binary, real sockets, real signals. One module a topic.

#![expect(
    clippy::disallowed_methods,
    reason = "tests own the tasks that they start, and a file that is not there yet is empty"
)]

mod support;

mod admin; // what an operator sees: probes, metrics, the status page, across reloads and upgrades
mod demo; // `tollgate demo`, as a newcomer uses it
mod drain; // leaving without losing anybody
mod faults; // what breaks, and what the client sees of it
mod forwarding; // what the origin is told, and what the client is told
mod framing; // where one message ends and the next begins
mod h2; // the same strictness, and what is h2's own
mod life; // from the start to the end: probes, commands, exit codes, signals
mod reload; // everything changes at once, or nothing does
mod retry; // when a request is sent again, and when it must not be
mod streams; // WebSocket, server-sent events, gRPC
mod upgrade; // handing over: nobody notices, or nothing happens
mod zero_loss; // all of it under load, with the fate of each request
