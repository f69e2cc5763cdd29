//! Listening sockets: bound once, by name, and passed on to a successor without ever being closed in between.

mod activation;
mod channel;
mod table;

pub use activation::{Activated, LISTEN_PID, activated};
pub use channel::Channel;
pub use table::{Sockets, listen_unix};
