//! `store`, `redis_url` and what belongs to them.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::complaint::Complaint;
use super::leaf::address::host_name;
use super::node::Node;
use super::table::Table;
use super::{file, value};
use crate::config::{OnStoreFailure, RedisAddress, RedisServer, Secret, Store, StoreMode};

/// Longest that a request waits for one decision.
const MAX_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(50);
const DEFAULT_PORT: u16 = 6379;
/// Longest path a Unix socket can have on every system.
const MAX_SOCKET_PATH: usize = 107;
const KEYS: [&str; 6] =
    ["redis_url", "redis_url_file", "redis_ca_file", "redis_mode", "redis_timeout", "on_store_failure"];
const FORM: &str = "this must be \"redis://host:6379\", \"rediss://host:6379\" or \"unix:///run/redis.sock\"";

/// What a URL says.
#[derive(Debug, PartialEq)]
struct Url {
    address: RedisAddress,
    user: Option<String>,
    password: Option<Secret>,
    db: u16,
}

/// `None` is a problem that was told; `Some(None)` is a limit of this gateway alone.
pub(super) fn store(table: &mut Table<'_>) -> Option<Option<Store>> {
    let is_redis = table.or("store", false, |node| node.word(&[("local", false), ("redis", true)], &[]))?;
    if !is_redis {
        let mut is_right = true;
        for key in KEYS {
            if let Some(node) = table.get(key) {
                node.problem_of_key(format!("\"{key}\" belongs to store = \"redis\""));
                is_right = false;
            }
        }
        return is_right.then_some(None);
    }
    if table.has("concurrent") {
        let message = "requests in flight are counted by each gateway alone: a store keeps rates";
        table.get("concurrent")?.problem_of_key(message);
    }
    if table.has("quota") {
        let message = "a quota is counted by each gateway alone: a store keeps rates";
        table.get("quota")?.problem_of_key(message);
    }
    let url = match table.one_of(&["redis_url", "redis_url_file"]) {
        Some(("redis_url", node)) => node.parse(url),
        Some((_, node)) => in_file(&node),
        None => {
            table
                .node
                .problem("\"redis_url\" or \"redis_url_file\" is missing: where the store is, \"redis://host:6379\"");
            None
        }
    };
    let ca = table.optional("redis_ca_file", |node| {
        if url.as_ref().is_some_and(|url| !matches!(url.address, RedisAddress::Tcp { tls: true, .. })) {
            node.problem_of_key("certificates belong to \"rediss://\"");
            return None;
        }
        file::content(node)
    });
    let modes = [("strict", StoreMode::Strict), ("batched", StoreMode::Batched)];
    let mode = table.or("redis_mode", StoreMode::Batched, |node| node.word(&modes, &[]));
    let timeout = table.or("redis_timeout", DEFAULT_TIMEOUT, |node| value::duration(node, MAX_TIMEOUT));
    let failures = [("local", OnStoreFailure::Local), ("allow", OnStoreFailure::Allow), ("deny", OnStoreFailure::Deny)];
    let on_failure = table.or("on_store_failure", OnStoreFailure::Local, |node| node.word(&failures, &[]));
    let Url { address, user, password, db } = url?;
    let server = RedisServer { address, user, password, db, ca: ca?, timeout: timeout? };
    Some(Some(Store { server, mode: mode?, on_failure: on_failure? }))
}

fn in_file(node: &Node<'_>) -> Option<Url> {
    let secret = file::secret(node)?;
    let parsed = std::str::from_utf8(secret.expose()).map_err(|_| Complaint::new("it is not text")).and_then(url);
    parsed.map_err(|complaint| node.problem(format!("the URL in the file: {}", complaint.message))).ok()
}

/// No message holds a part of it: any part may be the password, where the others are misplaced.
fn url(text: &str) -> Result<Url, Complaint> {
    let (scheme, rest) = text.split_once("://").ok_or_else(|| Complaint::new(FORM))?;
    let (tls, is_unix) = match scheme {
        "redis" => (false, false),
        "rediss" => (true, false),
        "unix" => (false, true),
        _ => return Err(Complaint::new(FORM)),
    };
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let (credentials, host) = match authority.rsplit_once('@') {
        Some((credentials, host)) => (Some(credentials), host),
        None => (None, authority),
    };
    let (user, password) = credentials.map_or(Ok((None, None)), self::credentials)?;
    let (address, db) = if is_unix {
        if !host.is_empty() || path.len() < 2 || path.len() > MAX_SOCKET_PATH || path.contains('\0') {
            return Err(Complaint::new(
                "the path of a Unix socket stands after three slashes, \"unix:///run/redis.sock\"",
            ));
        }
        let db = query.map(|query| query.strip_prefix("db=").ok_or_else(|| Complaint::new(FORM))).transpose()?;
        (RedisAddress::Unix(PathBuf::from(path)), db)
    } else {
        if query.is_some() {
            return Err(Complaint::new("there can be nothing after \"?\" here"));
        }
        let (host, port) = server(host)?;
        (RedisAddress::Tcp { host, port, tls }, path.strip_prefix('/').filter(|db| !db.is_empty()))
    };
    let db = db.map_or(Ok(0), |db| number(db, "the database is a number, \"redis://host:6379/0\""))?;
    Ok(Url { address, user, password, db })
}

fn credentials(text: &str) -> Result<(Option<String>, Option<Secret>), Complaint> {
    let (user, password) = text.split_once(':').ok_or_else(|| {
        Complaint::new("a user has a password: \"redis://user:password@host\", or \"redis://:password@host\"")
    })?;
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8();
        text.map(String::from).map_err(|_| Complaint::new("what is percent-encoded here is not UTF-8"))
    };
    let (user, password) = (decoded(user)?, decoded(password)?);
    if password.is_empty() {
        return Err(Complaint::new("the password is empty"));
    }
    Ok(((!user.is_empty()).then_some(user), Some(Secret::new(password.into_bytes()))))
}

fn server(text: &str) -> Result<(String, u16), Complaint> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(|| Complaint::new(FORM))?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| Complaint::new(FORM))?;
            let port = (!port.is_empty()).then(|| port.strip_prefix(':').ok_or_else(|| Complaint::new(FORM)));
            (host.to_owned(), port.transpose()?)
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            (host_name(host).map_err(|complaint| Complaint::new(complaint.message))?, port)
        }
    };
    let port = port.map_or(Ok(DEFAULT_PORT), |port| number(port, "a port is a number from 1 to 65535"))?;
    if port == 0 {
        return Err(Complaint::new("port 0 cannot be connected to"));
    }
    Ok((host, port))
}

fn number(text: &str, otherwise: &str) -> Result<u16, Complaint> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or_else(|| Complaint::new(otherwise))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16, tls: bool) -> RedisAddress {
        RedisAddress::Tcp { host: host.into(), port, tls }
    }

    #[test]
    fn a_url_says_where_the_store_is_and_who_asks() {
        for (text, address, user, password, db) in [
            ("redis://127.0.0.1", tcp("127.0.0.1", 6379, false), None, None, 0),
            ("redis://Cache.internal:7000/", tcp("cache.internal", 7000, false), None, None, 0),
            ("rediss://[::1]:7000/12", tcp("::1", 7000, true), None, None, 12),
            ("redis://:p%40ss@h", tcp("h", 6379, false), None, Some("p@ss"), 0),
            ("redis://me:a@b@h:1", tcp("h", 1, false), Some("me"), Some("a@b"), 0),
            ("unix:///run/redis.sock", RedisAddress::Unix("/run/redis.sock".into()), None, None, 0),
            ("unix://me:pw@/run/r?db=3", RedisAddress::Unix("/run/r".into()), Some("me"), Some("pw"), 3),
        ] {
            let password = password.map(|text| Secret::new(text.as_bytes()));
            let expected = Url { address, user: user.map(str::to_owned), password, db };
            assert_eq!(url(text).expect(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_url_is_told_without_a_part_of_it() {
        for text in [
            "",
            "redis",
            "http://pw0rd",
            "redis://",
            "redis://h:pw0rd",
            "redis://h/pw0rd",
            "redis://h:0",
            "redis://pw0rd@h",
            "redis://me:@h",
            "redis://h?pw0rd",
            "unix://pw0rd",
            "unix:///",
            "redis://[pw0rd]",
            "redis://[::1]pw0rd",
            "redis://me:%ff@h",
            "redis://pw0rd pw0rd",
            "unix:///x?pw0rd",
            "redis://h:+1",
            "redis://h/65536",
        ] {
            let complaint = url(text).expect_err(text);
            assert!(complaint.part.is_none() && !complaint.quotes && !complaint.message.contains("pw0rd"), "{text}");
        }
    }
}
