//! HTTP words of our own: the replies we write and why, and a request as filters see it.

mod reason;
mod reply;
mod request;

pub use reason::Reason;
pub use reply::{Reply, ReplyBody};
pub use request::Request;
