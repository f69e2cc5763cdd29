//! What a parser of a small value has against it.

use std::ops::Range;

/// Longest piece of the file that a message repeats, in characters.
const MAX_QUOTED: usize = 60;

/// A problem with a text or with a part of it. Its message must not hold the text: that may come from the environment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// Which bytes of the text; `None` is all of it
    pub(super) part: Option<Range<usize>>,
    /// The message goes on after the quoted part
    pub(super) quotes: bool,
    pub(super) message: String,
}

impl Complaint {
    /// All of it is wrong.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { part: None, quotes: false, message: message.into() }
    }

    /// A part is wrong; the message is what there is to say of it: `is not a scheme`.
    pub(super) fn about(part: Range<usize>, message: impl Into<String>) -> Self {
        Self { part: Some(part), quotes: true, message: message.into() }
    }

    /// A part is wrong; the message is a sentence of its own.
    pub(super) fn at(part: Range<usize>, message: impl Into<String>) -> Self {
        Self { part: Some(part), quotes: false, message: message.into() }
    }

    /// The same complaint about a text that begins `offset` bytes further on.
    pub(super) fn moved(mut self, offset: usize) -> Self {
        self.part = self.part.map(|part| part.start + offset..part.end + offset);
        self
    }
}

/// A piece of the file as it may stand in a message.
pub(super) fn quote(text: &str) -> String {
    let printable = |character: char| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character };
    let mut quoted: String = text.chars().take(MAX_QUOTED).map(printable).collect();
    if text.chars().nth(MAX_QUOTED).is_some() {
        quoted.push('…');
    }
    format!("\"{quoted}\"")
}
