//! `redis_url`: where a store is, and who asks.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use super::super::complaint::Complaint;
use super::super::leaf::address::host_name;
use crate::config::{RedisAddress, RedisHost, RedisLogin, Secret};

const DEFAULT_PORT: u16 = 6379;
const DEFAULT_SENTINEL_PORT: u16 = 26379;
const MAX_SENTINELS: usize = 16;
/// Longest name of a master.
const MAX_NAME: usize = 128;
/// Longest path a Unix socket can have on every system.
const MAX_SOCKET_PATH: usize = 107;
const FORM: &str = "this must be \"redis://host:6379\", \"rediss://host:6379\", \"unix:///run/redis.sock\" or \
                    \"redis+sentinel://host:26379,host:26379/NAME\"";

/// What a URL says.
#[derive(Debug, PartialEq)]
pub(super) struct Url {
    pub(super) address: RedisAddress,
    pub(super) login: Option<RedisLogin>,
    pub(super) db: u16,
}

/// No message holds a part of it: any part may be the password, where the others are misplaced.
pub(super) fn url(text: &str) -> Result<Url, Complaint> {
    let (scheme, rest) = text.split_once("://").ok_or_else(|| Complaint::new(FORM))?;
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (Some(self::login(login)?), hosts),
        None => (None, authority),
    };
    if scheme == "unix" {
        let db = query.map(|query| query.strip_prefix("db=").ok_or_else(|| Complaint::new(FORM))).transpose()?;
        return Ok(Url { address: unix(hosts, path)?, login, db: database(db)? });
    }
    let (tls, is_sentinel) = match scheme {
        "redis" => (false, false),
        "rediss" => (true, false),
        "redis+sentinel" => (false, true),
        "rediss+sentinel" => (true, true),
        _ => return Err(Complaint::new(FORM)),
    };
    if query.is_some() {
        return Err(Complaint::new("there can be nothing after \"?\" here"));
    }
    let path = path.strip_prefix('/').unwrap_or_default();
    if !is_sentinel {
        let address = RedisAddress::Tcp { host: host(hosts, DEFAULT_PORT)?, tls };
        return Ok(Url { address, login, db: database(Some(path))? });
    }
    let (name, db) = path.split_once('/').map_or((path, None), |(name, db)| (name, Some(db)));
    let address = RedisAddress::Sentinel { sentinels: sentinels(hosts)?, master: master(name)?, tls };
    Ok(Url { address, login, db: database(db)? })
}

fn unix(hosts: &str, path: &str) -> Result<RedisAddress, Complaint> {
    if !hosts.is_empty() || path.len() < 2 || path.len() > MAX_SOCKET_PATH || path.contains('\0') {
        return Err(Complaint::new("the path of a Unix socket stands after three slashes, \"unix:///run/redis.sock\""));
    }
    Ok(RedisAddress::Unix(PathBuf::from(path)))
}

fn sentinels(text: &str) -> Result<Vec<RedisHost>, Complaint> {
    let mut sentinels = Vec::new();
    for text in text.split(',') {
        let sentinel = host(text, DEFAULT_SENTINEL_PORT)?;
        if sentinels.contains(&sentinel) {
            return Err(Complaint::new("a sentinel stands here twice"));
        }
        sentinels.push(sentinel);
    }
    if sentinels.len() > MAX_SENTINELS {
        return Err(Complaint::new(format!("{MAX_SENTINELS} sentinels can be asked at most")));
    }
    Ok(sentinels)
}

/// What Sentinel itself allows.
fn master(text: &str) -> Result<String, Complaint> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(is_name) {
        return Err(Complaint::new(
            "behind the sentinels stands the name by which they know the server, \"redis+sentinel://host:26379/NAME\"",
        ));
    }
    Ok(text.to_owned())
}

fn login(text: &str) -> Result<RedisLogin, Complaint> {
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
    Ok(RedisLogin { user: (!user.is_empty()).then_some(user), password: Secret::new(password.into_bytes()) })
}

fn host(text: &str, default_port: u16) -> Result<RedisHost, Complaint> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']').ok_or_else(|| Complaint::new(FORM))?;
            name.parse::<std::net::Ipv6Addr>().map_err(|_| Complaint::new(FORM))?;
            let port = (!port.is_empty()).then(|| port.strip_prefix(':').ok_or_else(|| Complaint::new(FORM)));
            (name.to_owned(), port.transpose()?)
        }
        None => {
            let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
            (host_name(name).map_err(|complaint| Complaint::new(complaint.message))?, port)
        }
    };
    let port = port.map_or(Ok(default_port), |port| number(port, "a port is a number from 1 to 65535"))?;
    if port == 0 {
        return Err(Complaint::new("port 0 cannot be connected to"));
    }
    Ok(RedisHost { name, port })
}

fn database(text: Option<&str>) -> Result<u16, Complaint> {
    match text {
        None | Some("") => Ok(0),
        Some(text) => number(text, "the database is a number, \"redis://host:6379/0\""),
    }
}

fn number(text: &str, otherwise: &str) -> Result<u16, Complaint> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or_else(|| Complaint::new(otherwise))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &str, port: u16) -> RedisHost {
        RedisHost { name: name.into(), port }
    }

    fn tcp(name: &str, port: u16, tls: bool) -> RedisAddress {
        RedisAddress::Tcp { host: at(name, port), tls }
    }

    fn sentinel(sentinels: &[(&str, u16)], master: &str, tls: bool) -> RedisAddress {
        let sentinels = sentinels.iter().map(|(name, port)| at(name, *port)).collect();
        RedisAddress::Sentinel { sentinels, master: master.into(), tls }
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
            ("redis+sentinel://h/Main_1.a-b", sentinel(&[("h", 26379)], "Main_1.a-b", false), None, None, 0),
            (
                "rediss+sentinel://me:a,b@A:1,[::1],[::1]:2/m/3",
                sentinel(&[("a", 1), ("::1", 26379), ("::1", 2)], "m", true),
                Some("me"),
                Some("a,b"),
                3,
            ),
        ] {
            let login = password
                .map(|text| RedisLogin { user: user.map(str::to_owned), password: Secret::new(text.as_bytes()) });
            assert_eq!(url(text).expect(text), Url { address, login, db }, "{text}");
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
            "redis://a,b",
            "redis+sentinel://pw0rd",
            "redis+sentinel://h/",
            "redis+sentinel:///pw0rd",
            "redis+sentinel://h,/pw0rd",
            "redis+sentinel://h,h:26379/pw0rd",
            "redis+sentinel://h/m?pw0rd",
            "redis+sentinel://h/m/pw0rd",
            "redis+sentinel://h/m/0/pw0rd",
            "redis+sentinel://h/pw%30rd",
            "redis+sentinel://1.1,1.2,1.3,1.4,1.5,1.6,1.7,1.8,1.9/pw0rd",
        ] {
            let complaint = url(text).expect_err(text);
            assert!(complaint.part.is_none() && !complaint.quotes && !complaint.message.contains("pw0rd"), "{text}");
        }
        let many = |count: usize| {
            let hosts: Vec<_> = (0..count).map(|number| format!("h{number}")).collect();
            url(&format!("redis+sentinel://{}/m", hosts.join(",")))
        };
        assert!(many(MAX_SENTINELS).is_ok() && many(MAX_SENTINELS + 1).is_err());
    }
}
