//! Certificates: load them, pick one by SNI.
