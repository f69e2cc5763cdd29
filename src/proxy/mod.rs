//! The data plane: Pingora's phases, in the order it calls them.
