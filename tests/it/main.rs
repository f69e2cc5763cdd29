//! The integration tests: the real binary, real sockets, real signals. One module a topic.

mod admin; // what an operator sees: probes, metrics, the status page, across reloads and upgrades
mod demo; // `tollgate demo`, as a newcomer uses it
mod support;
