//! HTTP words of our own: the replies we write and why, a request as filters see it, and the strict forms of what
//! clients send.

pub mod fetch;
pub mod grpc;

mod client;
mod client_certificate;
mod connection;
mod deadline;
mod host;
mod line;
mod path;
mod pool;
mod reason;
mod reply;
mod request;
mod request_id;
mod trust;
mod window;

pub use client::{Client, TrustedProxies, network, unmapped};
pub use client_certificate::{CertificateTexts, ClientCertificate};
pub use connection::{Connection, Ends, Proxied, TlsFacts, address_value};
pub use deadline::Deadline;
pub use host::{BadHost, Host};
pub use line::{Line, Missed};
pub use path::{BadPath, Canonical, canonical};
pub use pool::{Pool, Question};
pub use reason::Reason;
pub use reply::{Reply, ReplyBody};
pub use request::{Request, text};
pub use request_id::RequestId;
pub use window::Window;
