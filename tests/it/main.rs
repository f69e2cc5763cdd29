//! The integration tests: the real binary, real sockets, real signals. One module a topic.

mod support;
