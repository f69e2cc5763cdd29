//! `tollgate key list`

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use serde_json::Value;

use super::file::KeysFile;
use crate::cli::Failure;
use crate::config::{ApiKey, Timestamp};

/// List the keys of a file
#[derive(Debug, Args)]
pub(super) struct List {
    /// The file that `keys_file` names
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl List {
    pub(super) fn run(self) -> Result<(), Failure> {
        let file = KeysFile::read(&self.file)?;
        let now = Timestamp::of(SystemTime::now());
        let rows: Vec<_> = file.keys.all().iter().map(|key| row(key, now)).collect();
        let heads = ["ID", "OWNER", "SCOPES", "EXPIRES", "STATE"].map(str::to_owned);
        let mut widths = [0; 5];
        for row in rows.iter().chain([&heads]) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in std::iter::once(&heads).chain(&rows) {
            let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            println!("{}", cells.join("  ").trim_end());
        }
        Ok(())
    }
}

fn row(key: &ApiKey, now: Timestamp) -> [String; 5] {
    let owner = key.claims.get("sub").and_then(Value::as_str).unwrap_or("-");
    let scopes = key.claims.get("scope").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let scopes: Vec<_> = scopes.iter().filter_map(Value::as_str).collect();
    let expires = key.expires.map_or("never".to_owned(), |expires| expires.to_string());
    let state = match key.expires {
        _ if key.disabled => "disabled",
        Some(expires) if expires <= now => "expired",
        _ => "active",
    };
    let scopes = if scopes.is_empty() { "-".to_owned() } else { scopes.join(" ") };
    [key.id.to_string(), owner.to_owned(), scopes, expires, state.to_owned()]
}
