//! `tollgate key revoke`

use std::ops::Range;
use std::path::PathBuf;

use clap::Args;
use toml::de::{DeTable, DeValue};

use super::file::KeysFile;
use crate::cli::Failure;

/// Disable a key of a file
#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// The file that `keys_file` names
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Which key; `tollgate key list` tells
    #[arg(value_name = "ID")]
    id: String,
}

impl Revoke {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (shown, id) = (self.file.display(), &self.id);
        let file = KeysFile::open(&self.file)?;
        let key = file.keys.find(id).ok_or_else(|| format!("{shown} has no key {id}"))?;
        if key.disabled {
            println!("{id} is disabled already");
            return Ok(());
        }
        let text = disabled(&file.text, id).filter(|text| file.differs_in(text, id));
        let text = text.ok_or_else(|| {
            format!("{shown} is written in a way that this cannot change: add `disabled = true` to {id} by hand")
        })?;
        file.replace(&text)?;
        println!("{id} is disabled in {shown}; `tollgate reload` or server.watch makes it known");
        Ok(())
    }
}

/// The text with `disabled = true` in the table of a key. Where it stands there depends on how the table is written;
/// whether the result says what it should is for the caller to see.
fn disabled(text: &str, id: &str) -> Option<String> {
    let (at, insert) = place(text, id)?;
    Some(format!("{}{insert}{}", text.get(..at.start)?, text.get(at.end..)?))
}

/// What is replaced, and by what.
fn place(text: &str, id: &str) -> Option<(Range<usize>, &'static str)> {
    let root = DeTable::parse(text).ok()?;
    let DeValue::Table(keys) = root.get_ref().get("keys")?.get_ref() else { return None };
    let value = keys.get(id)?;
    let DeValue::Table(table) = value.get_ref() else { return None };
    if let Some(written) = table.get("disabled") {
        return Some((written.span(), "true"));
    }
    let (hash, _) = table.get_key_value("hash")?;
    let start = hash.span().start;
    let insert = if text.get(value.span())?.starts_with('{') { "disabled = true, " } else { "disabled = true\n" };
    Some((start..start, insert))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_changed_however_it_is_written() {
        for (text, expected) in [
            ("# a\n[keys.a] # b\nhash = \"x\" # c\n", "# a\n[keys.a] # b\ndisabled = true\nhash = \"x\" # c\n"),
            ("[keys.a]\ndisabled=false\nhash = \"x\"", "[keys.a]\ndisabled=true\nhash = \"x\""),
            ("[keys]\na = { hash = \"x\" }\n", "[keys]\na = { disabled = true, hash = \"x\" }\n"),
            (
                "[keys.b]\nhash = \"y\"\n[keys.a]\nhash = \"x\"\n",
                "[keys.b]\nhash = \"y\"\n[keys.a]\ndisabled = true\nhash = \"x\"\n",
            ),
        ] {
            assert_eq!(disabled(text, "a").as_deref(), Some(expected));
        }
        assert_eq!(disabled("[keys.b]\nhash = \"y\"\n", "a"), None);
    }
}
