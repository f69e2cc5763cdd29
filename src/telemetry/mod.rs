//! What an operator can see: metrics and the access log.
