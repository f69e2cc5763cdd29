//! The integration tests: the real binary, real sockets, real signals. One module a topic.

mod support;

mod faults;
mod forwarding;
mod framing;
mod h2;
mod retry;
mod streams;
