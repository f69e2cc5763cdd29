//! The integration tests: the real binary, real sockets, real signals. One module a topic.

mod support;

mod drain; // leaving without losing anybody
mod life; // from the start to the end: probes, commands, exit codes, signals
mod reload; // everything changes at once, or nothing does
mod upgrade; // handing over: nobody notices, or nothing happens
mod zero_loss; // all of it under load, with the fate of each request
