//! For tables whose keys are hashes: hashing them again would only cost time.

use std::hash::{BuildHasherDefault, Hasher};

/// Takes the one `u64` that a key hashes as for the hash.
pub(super) type Prehashed = BuildHasherDefault<AsItIs>;

/// The hasher of [`Prehashed`].
#[derive(Debug, Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys of these tables hash as u64");
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
