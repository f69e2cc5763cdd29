//! The control plane's own listener: status, health and metrics.
