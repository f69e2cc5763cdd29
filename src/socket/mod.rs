//! The table of listening sockets by name: bind, inherit, pass on.
