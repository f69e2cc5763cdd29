//! Parsers of the small values: from text to a value that cannot be wrong, or to what is wrong with the text.

pub(super) mod address;
pub(super) mod header;
pub(super) mod password;
pub(super) mod path;
pub(super) mod quantity;
pub(super) mod selector;
pub(super) mod template;
