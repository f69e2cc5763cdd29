//! `store`, `redis_url` and what belongs to them.

mod url;

use std::time::Duration;

use self::url::Url;
use super::complaint::Complaint;
use super::node::Node;
use super::table::Table;
use super::{file, value};
use crate::config::{OnStoreFailure, RedisAddress, RedisLogin, RedisServer, Secret, Store, StoreMode};

/// Longest that a request waits for one decision.
const MAX_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(50);
const SENTINELS: [&str; 3] = ["redis_sentinel_user", "redis_sentinel_password", "redis_sentinel_password_file"];
const CERTIFICATES: [&str; 3] = ["redis_ca_file", "redis_client_cert_file", "redis_client_key_file"];
const KEYS: [&str; 11] = [
    "redis_url",
    "redis_url_file",
    "redis_sentinel_user",
    "redis_sentinel_password",
    "redis_sentinel_password_file",
    "redis_ca_file",
    "redis_client_cert_file",
    "redis_client_key_file",
    "redis_mode",
    "redis_timeout",
    "on_store_failure",
];

/// `None` is a problem that was told; `Some(None)` is a limit of this gateway alone.
pub(super) fn store(table: &mut Table<'_>) -> Option<Option<Store>> {
    let is_redis = table.or("store", false, |node| node.word(&[("local", false), ("redis", true)], &[]))?;
    if !is_redis {
        misplaced(table, &KEYS, |key| format!("\"{key}\" belongs to store = \"redis\""));
        return Some(None);
    }
    misplaced(table, &["concurrent"], |_| {
        "requests in flight are counted by each gateway alone: a store keeps rates and quotas".into()
    });
    let server = server(table);
    let modes = [("strict", StoreMode::Strict), ("batched", StoreMode::Batched)];
    let mode = table.or("redis_mode", StoreMode::Batched, |node| node.word(&modes, &[]));
    let failures = [("local", OnStoreFailure::Local), ("allow", OnStoreFailure::Allow), ("deny", OnStoreFailure::Deny)];
    let on_failure = table.or("on_store_failure", OnStoreFailure::Local, |node| node.word(&failures, &[]));
    Some(Some(Store { server: server?, mode: mode?, on_failure: on_failure? }))
}

fn server(table: &mut Table<'_>) -> Option<RedisServer> {
    let url = match table.one_of(&["redis_url", "redis_url_file"]) {
        Some(("redis_url", node)) => node.parse(url::url),
        Some((_, node)) => in_file(&node),
        None => {
            table
                .node
                .problem("\"redis_url\" or \"redis_url_file\" is missing: where the store is, \"redis://host:6379\"");
            None
        }
    };
    if let Some(Url { address, .. }) = &url {
        if !address.uses_tls() {
            misplaced(table, &CERTIFICATES, |_| "certificates belong to \"rediss://\"".into());
        }
        if !matches!(address, RedisAddress::Sentinel { .. }) {
            misplaced(table, &SENTINELS, |key| format!("\"{key}\" belongs to \"redis+sentinel://\""));
        }
    }
    let [ca, cert, key] = CERTIFICATES;
    let ca = table.optional(ca, file::content);
    let client = file::certificate(table, [cert, key]);
    let sentinel_login = sentinel_login(table);
    let timeout = table.or("redis_timeout", DEFAULT_TIMEOUT, |node| value::duration(node, MAX_TIMEOUT));
    let Url { address, login, db } = url?;
    Some(RedisServer {
        address,
        login,
        sentinel_login: sentinel_login?,
        db,
        ca: ca?,
        client: client?,
        timeout: timeout?,
    })
}

/// Keys that say nothing here.
fn misplaced(table: &mut Table<'_>, keys: &[&'static str], why: impl Fn(&str) -> String) {
    for key in keys {
        if let Some(node) = table.get(key) {
            node.problem_of_key(why(key));
        }
    }
}

/// Who asks sentinels, who do not know the users of their servers.
fn sentinel_login(table: &mut Table<'_>) -> Option<Option<RedisLogin>> {
    let [user, password, password_file] = SENTINELS;
    let password = match table.one_of(&[password, password_file]) {
        None => None,
        Some((key, node)) if key == password_file => Some(file::secret(&node)?),
        Some((_, node)) => Some(node.parse(|text| match text {
            "" => Err(Complaint::new("the password is empty")),
            text => Ok(Secret::new(text.as_bytes())),
        })?),
    };
    let user = table.optional(user, value::text)?;
    match (user, password) {
        (Some(_), None) => {
            let alone = table.get(SENTINELS[0])?;
            alone.problem_of_key(
                "a user has a password: \"redis_sentinel_password\", or \"redis_sentinel_password_file\"",
            );
            None
        }
        (user, password) => Some(password.map(|password| RedisLogin { user, password })),
    }
}

fn in_file(node: &Node<'_>) -> Option<Url> {
    let secret = file::secret(node)?;
    let parsed = std::str::from_utf8(secret.expose()).map_err(|_| Complaint::new("it is not text")).and_then(url::url);
    parsed.map_err(|complaint| node.problem(format!("the URL in the file: {}", complaint.message))).ok()
}
