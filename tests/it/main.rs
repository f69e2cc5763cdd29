//! Tests that drive the real binary over sockets.
