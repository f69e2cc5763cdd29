//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong, named by its place in the configuration.
///
/// Rooms that build objects from a configuration return problems with a path relative to their own table;
/// callers put the table's name in front with [`Problem::under`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path of the key, such as `routes.payments.upstream`
    pub path: String,
    /// What is wrong and what to write instead, as one sentence or two
    pub message: String,
    /// Where it stands, once a reader of the file has found it
    pub location: Option<Box<Location>>,
}

impl Problem {
    /// A problem with the key at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), location: None }
    }

    /// The same problem, seen from one table further out.
    #[must_use]
    pub fn under(mut self, table: &str) -> Self {
        self.path = if self.path.is_empty() { table.to_owned() } else { format!("{table}.{}", self.path) };
        self
    }
}

/// A place in a file of the configuration, with the line to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file, as the operator named it
    pub file: PathBuf,
    /// Line, counted from 1
    pub line: usize,
    /// Column, counted in characters from 1
    pub column: usize,
    /// The line's text, with secrets masked
    pub text: String,
    /// Characters of `text` in front of what is underlined; not `column - 1` where something before it is masked or cut
    pub indent: usize,
    /// How many characters to underline; at least 1
    pub width: usize,
}

/// Everything that is wrong with a configuration, at once.
#[derive(Debug)]
pub struct ConfigError {
    /// The file that was asked for
    pub file: PathBuf,
    /// Ordered by place; never empty
    pub problems: Vec<Problem>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        writeln!(f, "{count} problem{} in {}", if count == 1 { "" } else { "s" }, self.file.display())?;
        for problem in &self.problems {
            writeln!(f)?;
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(at) = &self.location else {
            return writeln!(f, "  {}\n     {}", self.path, self.message);
        };
        let number = at.line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(f, "  {}:{}:{}  {}", at.file.display(), at.line, at.column, self.path)?;
        writeln!(f, "     {number} | {}", at.text)?;
        let indent = " ".repeat(at.indent);
        writeln!(f, "     {margin} | {indent}{} {}", "^".repeat(at.width.max(1)), self.message)
    }
}
