//! What an operator can see: metrics, the access log, and the program's own log.

mod access_log;
mod format;
mod handshakes;
mod json;
mod log;
mod metrics;
mod record;
mod route;
mod scrape;

pub use access_log::AccessLog;
pub use handshakes::HandshakeFailure;
pub use log::start_log;
pub use metrics::{ListenerMetrics, Metrics, OpenConnection, Refusals};
pub use record::{Record, TlsRecord};
pub use route::{InFlight, RouteMetrics};
pub use scrape::Scrape;
