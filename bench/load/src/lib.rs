//! Load, and what became of it.
//!
//! General load generators report errors as a sum at best, and send a request again without a word. This one gives each
//! request an id, believes an answer only if it is whole and carries that id, and names what failed. It sends nothing
//! again unless HTTP says that nobody has looked at it, and counts that. Its [`Origin`]s remember the id of every POST, so
//! that one that arrived twice is found.

mod h1;
mod h2;
mod lane;
mod load;
mod origin;
mod tally;
mod wire;

pub use lane::{Lane, Pace, Protocol};
pub use load::Load;
pub use origin::{Origin, duplicates};
pub use tally::{Failure, LaneReport, Report};
pub use wire::Tls;
