//! What the demo prints: lines that stay, and on a terminal one line at the bottom that changes.

use std::io::{self, IsTerminal, Stdout, Write};

/// Standard output.
#[derive(Debug)]
pub(super) struct Screen {
    out: Stdout,
    is_terminal: bool,
    has_colours: bool,
    has_bottom_line: bool,
}

/// What a text is about, to choose its colour by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Turn,
    Wary,
    Bad,
    Faint,
}

/// Goes to the beginning of the line and clears it.
const CLEAR: &str = "\r\x1b[2K";

impl Screen {
    pub(super) fn new() -> Self {
        let is_terminal = io::stdout().is_terminal();
        // https://no-color.org
        #[expect(clippy::disallowed_methods, reason = "how a terminal looks is no configuration of the gateway's")]
        let has_colours = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { out: io::stdout(), is_terminal, has_colours, has_bottom_line: false }
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Text that stays.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        self.finish()?;
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// The line at the bottom.
    pub(super) fn bottom(&mut self, text: &str) -> io::Result<()> {
        if self.is_terminal {
            write!(self.out, "{CLEAR}{text}")?;
            self.has_bottom_line = true;
            self.out.flush()?;
        }
        Ok(())
    }

    /// Removes the line at the bottom.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.has_bottom_line) {
            write!(self.out, "{CLEAR}")?;
        }
        self.out.flush()
    }

    pub(super) fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.has_colours {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Turn => "36",
            Tone::Wary => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}
