//! The integration tests: the real binary, real sockets, real signals. One module a topic.

mod admin; // what an operator sees: probes, metrics, the status page, across reloads and upgrades
mod demo; // `tollgate demo`, as a newcomer uses it
mod support;

mod auth; // who calls: judged here, told to the origin, and nobody else gets there
mod drain; // leaving without losing anybody
mod life; // from the start to the end: probes, commands, exit codes, signals
mod limit; // how much: exact, and paid for only by what passed
mod reload; // everything changes at once, or nothing does
mod routing; // which route takes a request, and what becomes of it
mod telemetry; // what is left of a request: its numbers, and its one line
mod tls; // who is shown which certificate, and whose is believed
mod upgrade; // handing over: nobody notices, or nothing happens
mod upstream; // where requests go, and who is fit to take them
mod zero_loss; // all of it under load, with the fate of each request
