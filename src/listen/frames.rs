//! The frames of HTTP/2 in bytes that pass: the head of each, and the window that streams begin with.
//!
//! Nothing else is decoded. The nine bytes in front of each frame (RFC 9113 section 4.1) tell enough, but for one setting.

/// The client's first bytes, which are no frame (RFC 9113 section 3.4).
pub(super) const PREFACE: usize = 24;
/// The head of a frame.
const HEAD: usize = 9;
const SETTINGS: u8 = 0x4;
/// One setting in the payload of such a frame (RFC 9113 section 6.5.1).
const ENTRY: usize = 6;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
/// What it is unless it is said (RFC 9113 section 6.5.2).
const DEFAULT_WINDOW: u32 = 65_535;

/// The head of a frame, as far as it is of interest here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) len: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
}

/// Finds them in bytes that come in pieces.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes until the next head
    skip: usize,
    /// The part of a head that was seen
    head: [u8; HEAD],
    seen: usize,
    /// Whether those bytes are settings, and the part of one that was seen
    settings: bool,
    entry: [u8; ENTRY],
    entered: usize,
    window: u32,
}

impl Frames {
    /// The first begins behind so many bytes.
    pub(super) fn behind(skip: usize) -> Self {
        Self { skip, head: [0; HEAD], seen: 0, settings: false, entry: [0; ENTRY], entered: 0, window: DEFAULT_WINDOW }
    }

    /// Bytes that a stream towards the sender of these frames may carry before he grants it more, as he has said last.
    pub(super) fn window(&self) -> u32 {
        self.window
    }

    pub(super) fn advance(&mut self, mut bytes: &[u8], mut found: impl FnMut(Frame)) {
        loop {
            let (payload, rest) = bytes.split_at(self.skip.min(bytes.len()));
            self.skip -= payload.len();
            if self.settings {
                self.enter(payload);
            }
            bytes = rest;
            if bytes.is_empty() {
                return;
            }
            let (new, rest) = bytes.split_at((HEAD - self.seen).min(bytes.len()));
            self.head[self.seen..self.seen + new.len()].copy_from_slice(new);
            self.seen += new.len();
            bytes = rest;
            if self.seen < HEAD {
                return;
            }
            self.seen = 0;
            let [a, b, c, kind, flags, ..] = self.head;
            let len = u32::from_be_bytes([0, a, b, c]);
            self.skip = len as usize;
            (self.settings, self.entered) = (kind == SETTINGS, 0);
            found(Frame { len, kind, flags });
        }
    }

    fn enter(&mut self, payload: &[u8]) {
        for byte in payload {
            self.entry[self.entered] = *byte;
            self.entered += 1;
            if self.entered == ENTRY {
                self.entered = 0;
                let [a, b, value @ ..] = self.entry;
                if u16::from_be_bytes([a, b]) == INITIAL_WINDOW_SIZE {
                    self.window = u32::from_be_bytes(value);
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    pub(in crate::listen) fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload.len()).expect("24 bits").to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn setting(name: u16, value: u32) -> [u8; ENTRY] {
        let ([a, b], [c, d, e, f]) = (name.to_be_bytes(), value.to_be_bytes());
        [a, b, c, d, e, f]
    }

    proptest! {
        #[test]
        fn frames_and_windows_are_found_however_their_bytes_are_cut(
            frames in vec((any::<u8>(), any::<u8>(), 0_usize..300), 0..20),
            settings in vec((0_u16..6, any::<u32>()), 0..8),
            cuts in vec(1_usize..40, 1..20),
        ) {
            // Settings of none of these say anything: 0xffff is no setting.
            let others = frames.iter().flat_map(|(kind, flags, len)| frame(*kind, *flags, &vec![0xff; *len]));
            let entries: Vec<u8> = settings.iter().flat_map(|(name, value)| setting(*name, *value)).collect();
            let mut rest: Vec<u8> = vec![0; PREFACE].into_iter().chain(frame(SETTINGS, 0, &entries)).chain(others).collect();
            let (mut finder, mut found) = (Frames::behind(PREFACE), Vec::new());
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let behind = rest.split_off((*cuts.next().expect("endless")).min(rest.len()));
                finder.advance(&rest, |frame| found.push((frame.kind, frame.flags, frame.len as usize)));
                rest = behind;
            }
            prop_assert_eq!(found.remove(0), (SETTINGS, 0, entries.len()));
            prop_assert_eq!(found, frames);
            let window = settings.iter().rfind(|(name, _)| *name == INITIAL_WINDOW_SIZE).map(|(_, value)| *value);
            prop_assert_eq!(finder.window(), window.unwrap_or(DEFAULT_WINDOW));
        }
    }
}
