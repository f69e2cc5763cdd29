//! How we know who calls.
