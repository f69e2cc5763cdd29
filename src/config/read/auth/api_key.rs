//! `type = "api_key"`, and the file that the keys stand in.
//!
//! Such a file is written by programs too, so it is read more strictly than a configuration: no variables, no includes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Number, Value};
use toml::de::DeValue;

use super::{file, value};
use crate::config::read::Context;
use crate::config::read::complaint::Complaint;
use crate::config::read::node::Node;
use crate::config::read::secret::mask_table;
use crate::config::read::section::root;
use crate::config::read::source::Source;
use crate::config::read::table::Table;
use crate::config::{ApiKey, ApiKeyAuth, ApiKeys, KeyHash, Name, Problem, System};

const MAX_KEYS: usize = 100_000;
const MAX_ID: usize = 64;
const MAX_SCOPES: usize = 64;
/// What an identity says besides what the operator chooses.
const OURS: [&str; 3] = ["sub", "scope", "key_id"];

pub(super) fn api_key(table: &mut Table<'_>) -> Option<ApiKeyAuth> {
    table.required("keys_file", "the keys that are known, \"api-keys.toml\"", |node| {
        let (path, text) = file::text(node, ApiKeys::MAX_FILE)?;
        match api_keys(&text, &path) {
            Ok(keys) => Some(ApiKeyAuth { file: path, keys }),
            Err(problems) => {
                node.ctx.report.add_located(problems);
                None
            }
        }
    })
}

/// Reads the text of a file of keys.
///
/// # Errors
/// All problems, by place.
pub(in crate::config) fn api_keys(text: &str, path: &Path) -> Result<ApiKeys, Vec<Problem>> {
    let ctx = Context { is_verbatim: true, ..Context::new(&System) };
    let source = Source::new(0, path, text);
    let document = source.parse(&ctx.report);
    let keys = document.as_ref().and_then(|document| {
        mask_table(&ctx.report, &source, document.get_ref());
        let mut table = root(&ctx, &source, document);
        let keys = table.or("keys", Vec::new(), |node| keys(&node.table()?));
        table.finish(&[]);
        keys
    });
    match keys {
        Some(keys) if ctx.report.is_empty() => Ok(ApiKeys(keys.into())),
        _ => Err(ctx.report.into_problems(&[&source])),
    }
}

fn keys(table: &Table<'_>) -> Option<Vec<ApiKey>> {
    let mut keys = Vec::new();
    let mut hashes: HashMap<KeyHash, Name> = HashMap::new();
    for (id, node) in table.entries() {
        if keys.len() == MAX_KEYS {
            node.problem_of_key("this is one key too many: a file has 100,000 at most");
            return None;
        }
        let id = node.parse_key(id, key_id);
        let Some((key, hash_node)) = node.table().and_then(|table| key(id?, table)) else { continue };
        if let Some(other) = hashes.insert(key.hash, Arc::clone(&key.id)) {
            hash_node.problem(format!("keys.{other} has this hash too: one of both is a copy by mistake"));
        }
        keys.push(key);
    }
    Some(keys)
}

/// The key, and where its hash stands.
fn key<'a>(id: Name, mut table: Table<'a>) -> Option<(ApiKey, Node<'a>)> {
    let hash = table.required("hash", "\"sha256:…\", as `tollgate key new` writes it", |node| {
        // Perhaps the key itself.
        node.ctx.report.mask(node.source, node.span.clone());
        Some((node.parse(hash)?, node.clone()))
    });
    let owner = table.required("owner", "who calls with this key", value::text);
    let scopes = table.or("scopes", Vec::new(), |node| node.distinct(MAX_SCOPES, scope));
    let expires = table.optional("expires", Node::timestamp);
    let disabled = table.or("disabled", false, Node::boolean);
    let claims = table.or("claims", Map::new(), |node| claims(&node.table()?));
    table.finish(&[]);
    let mut claims = claims?;
    claims.insert("sub".to_owned(), owner?.into());
    claims.insert("scope".to_owned(), scopes?.into());
    claims.insert("key_id".to_owned(), (*id).into());
    let (hash, node) = hash?;
    Some((ApiKey { id, hash, expires: expires?, disabled: disabled?, claims: Arc::new(claims) }, node))
}

/// It is a part of the key's text, of the log and of a header, so it has no characters that mean something there.
fn key_id(text: &str) -> Result<Name, Complaint> {
    let is_id = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if is_id && text.len() <= MAX_ID && text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return Ok(text.into());
    }
    let message = "cannot be the ID of a key: letters, digits, \"_\" and \"-\", a letter or digit first, 64 at most";
    Err(Complaint::about(0..text.len(), message))
}

fn hash(text: &str) -> Result<KeyHash, Complaint> {
    KeyHash::parse(text).ok_or_else(|| {
        Complaint::new(
            "this is not \"sha256:\" and 64 hexadecimal digits. Only that form is read, since it is enough for keys that \
             are random and for nothing else: passwords belong into a users_file",
        )
    })
}

/// `scope-token` of RFC 6749 section 3.3.
fn scope(node: &Node<'_>) -> Option<String> {
    let scope = value::text(node)?;
    if scope.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
        return Some(scope);
    }
    node.problem("a scope is visible ASCII without spaces, quotes and backslashes (RFC 6749 section 3.3)");
    None
}

fn claims(table: &Table<'_>) -> Option<Map<String, Value>> {
    let mut claims = Map::new();
    for (name, node) in table.entries() {
        if OURS.contains(&name) {
            node.problem_of_key("this claim is made of \"owner\", \"scopes\" or the ID: choose another name");
        } else if let Some(claim) = json(node.value) {
            claims.insert(name.to_owned(), claim);
        } else {
            node.problem("this has no form in JSON: infinity, \"not a number\", or a number beyond 64 bits");
        }
    }
    Some(claims)
}

/// Dates and times are texts there.
fn json(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok()?.into(),
        DeValue::Float(number) => Number::from_f64(number.as_str().parse().ok()?)?.into(),
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Datetime(datetime) => datetime.to_string().into(),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect::<Option<Vec<_>>>()?.into(),
        DeValue::Table(entries) => {
            let entries =
                entries.iter().map(|(name, value)| Some((name.get_ref().to_string(), json(value.get_ref())?)));
            Value::Object(entries.collect::<Option<_>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<ApiKeys, Vec<Problem>> {
        api_keys(text, Path::new("api-keys.toml"))
    }

    fn hash_of(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    #[test]
    fn a_key_is_read_with_all_that_is_known_of_its_owner() {
        let text = format!(
            "[keys.acme-1]\nhash = \"{}\"\nowner = \"acme ${{HOME}}\"\nscopes = [\"a\", \"b\"]\n\
             expires = 2001-09-09T01:46:40Z\ndisabled = true\n\
             claims = {{ plan = \"gold\", seats = 0x10, share = 0.5, since = 2020-01-01, deep = [{{ x = true }}] }}\n",
            hash_of('a')
        );
        let keys = read(&text).expect("keys");
        let [key] = keys.all() else { panic!("{keys:?}") };
        assert_eq!((&*key.id, key.hash, key.disabled), ("acme-1", KeyHash([0xaa; 32]), true));
        assert_eq!(key.expires.map(|expires| expires.0), Some(1_000_000_000));
        let claims = json!({
            "sub": "acme ${HOME}", "scope": ["a", "b"], "key_id": "acme-1", "plan": "gold", "seats": 16, "share": 0.5,
            "since": "2020-01-01", "deep": [{ "x": true }],
        });
        assert_eq!(Value::Object(Map::clone(&key.claims)), claims);
    }

    #[test]
    fn a_file_may_be_empty() {
        for text in ["", "# none yet\n", "[keys]\n"] {
            assert_eq!(read(text).expect("no keys").all(), []);
        }
    }

    #[test]
    fn what_stands_where_a_hash_should_is_not_shown() {
        let problems = read("[keys.a]\nhash = \"tg_a_hunter2\" # hunter2\nowner = \"\"\n").expect_err("two problems");
        assert_eq!(problems.len(), 2);
        let text: String = problems.iter().map(ToString::to_string).collect();
        assert!(!text.contains("hunter2") && text.contains("api-keys.toml:2:8"), "{text}");
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_keys_or_problems(text in "(\\[keys\\.[a-z\"-]{0,3}\\]?\n|[a-z]{1,3} = [\"0-9{}\\[a-z:]{0,9}\n|hash = \"sha256:\"|\\PC{0,9}){0,9}") {
            if let Err(problems) = read(&text) {
                prop_assert!(!problems.is_empty());
            }
        }

        #[test]
        fn no_two_keys_of_a_file_have_one_hash(hashes in prop::collection::vec(0_u8..4, 0..6)) {
            let tables = hashes.iter().enumerate().map(|(index, hash)| {
                format!("[keys.k{index}]\nhash = \"{}\"\nowner = \"o\"\n", KeyHash([*hash; 32]))
            });
            let mut distinct = hashes.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(read(&tables.collect::<String>()).is_ok(), distinct.len() == hashes.len());
        }
    }
}
