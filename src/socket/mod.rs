//! Listening sockets: bound once, by name, and passed on to a successor without ever being closed in between.

mod channel;
mod table;

pub use channel::Channel;
pub use table::{Sockets, listen_unix};
