//! `tollgate key new`

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use toml::Value;

use super::file::KeysFile;
use crate::cli::Failure;
use crate::config::{ApiKeys, Timestamp};
use crate::filter::auth::KeyText;

/// Make a key, print it once, and store its hash
#[derive(Debug, Args)]
pub(super) struct New {
    /// Who will call with it: what the upstream and the log are told
    #[arg(long, value_name = "NAME")]
    owner: String,
    /// What it may be used for; may be given several times
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// When it ends: 90d, 12h, 2027-01-01 or 2027-01-01T12:00:00Z; never, if this is left out
    #[arg(long, value_name = "WHEN", value_parser = expires)]
    expires: Option<Timestamp>,
    /// What it is called in lists and logs; random, if this is left out
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Where its table is added; printed, if this is left out
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl New {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Some(path) = &self.file else {
            let (key, table) = self.make(&ApiKeys::default())?;
            ApiKeys::read(&table, Path::new("new key"))?;
            println!("{}\n\n{table}", key.expose());
            return Ok(());
        };
        let file = KeysFile::open_or_new(path)?;
        let (key, table) = self.make(&file.keys)?;
        let separator = match file.text.as_str() {
            "" => "",
            text if text.ends_with('\n') => "\n",
            _ => "\n\n",
        };
        file.replace(&format!("{}{separator}{table}", file.text))?;
        println!("{}", key.expose());
        eprintln!(
            "added to {}; `tollgate reload` or server.watch makes it known. The key is not shown again.",
            path.display()
        );
        Ok(())
    }

    /// A key that `others` do not have, and its table.
    fn make(&self, others: &ApiKeys) -> Result<(KeyText, String), Failure> {
        let is_taken = |id: &str| others.find(id).is_some();
        let id = match &self.id {
            Some(id) if is_taken(id) => return Err(format!("there is a key {id} already: choose another --id").into()),
            Some(id) => id.clone(),
            None => loop {
                let id = KeyText::random_id()?;
                if !is_taken(&id) {
                    break id;
                }
            },
        };
        let key = KeyText::random(&id)?;
        let quoted = |text: &str| Value::from(text).to_string();
        // An ID that needs quotes is refused by whoever reads this.
        let id =
            if id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) { id } else { quoted(&id) };
        let mut table = format!("[keys.{id}]\nhash = \"{}\"\nowner = {}\n", key.hash(), quoted(&self.owner));
        if !self.scopes.is_empty() {
            let scopes: Vec<_> = self.scopes.iter().map(|scope| quoted(scope)).collect();
            table.push_str(&format!("scopes = [{}]\n", scopes.join(", ")));
        }
        if let Some(expires) = self.expires {
            table.push_str(&format!("expires = {expires}\n"));
        }
        Ok((key, table))
    }
}

fn expires(text: &str) -> Result<Timestamp, String> {
    let now = SystemTime::now();
    let hours = |number: &str, hours: u32| number.parse::<u32>().ok()?.checked_mul(hours).filter(|hours| *hours > 0);
    let from_now = match (text.strip_suffix('d'), text.strip_suffix('h')) {
        (Some(days), _) => hours(days, 24),
        (_, Some(number)) => hours(number, 1),
        _ => None,
    };
    let then = match from_now {
        Some(hours) => now.checked_add(Duration::from_secs(u64::from(hours) * 3600)).map(Timestamp::of),
        None => Timestamp::parse(text),
    };
    // TOML has no years beyond.
    let then = then.filter(|then| then.0 < 253_402_300_800);
    let then = then.ok_or("write a time from now, 90d or 12h, or a date, 2027-01-01")?;
    if then > Timestamp::of(now) { Ok(then) } else { Err("this has passed already".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_in_the_future_or_not_at_all() {
        let now = Timestamp::of(SystemTime::now()).0;
        let ends = expires("90d").expect("a time").0;
        assert!((now + 90 * 86_400..now + 90 * 86_400 + 60).contains(&ends));
        assert_eq!(expires("9999-12-31T23:59:59Z"), Ok(Timestamp(253_402_300_799)));
        for text in ["", "d", "0d", "-1d", "90", "90w", "2001-09-09", "4000000000d", "2027-01-01T00:00:00"] {
            expires(text).expect_err(text);
        }
    }
}
