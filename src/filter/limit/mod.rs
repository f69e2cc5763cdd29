//! How much a caller may.
