//! Sentinels: who tells where a server is now that may be another one tomorrow.
//!
//! They are asked in turn, and each connection begins with asking: a server that has gone, or that only reads since it
//! is a replica now, ends the connection to it. Where they point is believed no further than that: the server there is
//! asked whether it is the one that writes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::{RedisResult, Value};
use rustls::pki_types::ServerName;
use tokio::time::timeout;

use super::connect::{Opened, Way, told};
use super::script::Broken;
use crate::config::RedisHost;

/// For one to answer, connected to and greeted: one that hangs must leave time for the others.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Sentinels(AtomicUsize);

impl Sentinels {
    /// Asks one after the other, until one knows. Each try begins with the next, so that one which is wrong, or which
    /// takes all the time there is, is not asked first again.
    pub(super) async fn find(&self, way: &Way, sentinels: &[RedisHost], master: &str) -> Result<RedisHost, String> {
        let first = self.0.fetch_add(1, Ordering::Relaxed);
        let mut whys = Vec::new();
        for turn in 0..sentinels.len() {
            let sentinel = &sentinels[first.wrapping_add(turn) % sentinels.len()];
            match timeout(TIMEOUT, ask(way, sentinel, master)).await {
                Ok(Ok(host)) => return Ok(host),
                Ok(Err(why)) => whys.push(format!("{sentinel}: {why}")),
                Err(_) => whys.push(format!("{sentinel}: no answer within {TIMEOUT:?}")),
            }
        }
        Err(format!("no sentinel knows where it is: {}", whys.join("; ")))
    }
}

async fn ask(way: &Way, sentinel: &RedisHost, master: &str) -> Result<RedisHost, String> {
    let mut opened = way.greeted(sentinel, way.server().sentinel_login.as_ref(), 0).await?;
    match question(&mut opened, redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master)).await? {
        Value::Nil => Err("it knows nobody of this name".to_owned()),
        value => host(&value).ok_or_else(|| told(&Broken::Nonsense)),
    }
}

/// Whether the server there is one that writes: it may have become a replica, and a replica may be told to write.
pub(super) async fn serves(opened: &mut Opened) -> Result<(), String> {
    match question(opened, &redis::cmd("ROLE")).await? {
        Value::Array(items) => match items.first().and_then(text) {
            Some("master") => Ok(()),
            Some(_) => Err("it is a replica".to_owned()),
            None => Err(told(&Broken::Nonsense)),
        },
        _ => Err(told(&Broken::Nonsense)),
    }
}

async fn question(opened: &mut Opened, command: &redis::Cmd) -> Result<Value, String> {
    let mut connection = opened.connection.clone();
    let ask = async {
        let answer: RedisResult<Value> = command.query_async(&mut connection).await;
        answer.map_err(|error| told(&Broken::Server(error)))
    };
    opened.ask(ask).await
}

/// A name or an address, and a port.
fn host(value: &Value) -> Option<RedisHost> {
    let Value::Array(items) = value else { return None };
    let [name, port] = items.as_slice() else { return None };
    let (name, port) = (text(name)?, text(port)?);
    ServerName::try_from(name).ok()?;
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| is_number && *port > 0)?;
    Some(RedisHost { name: name.to_owned(), port })
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(items: &[&str]) -> Value {
        Value::Array(items.iter().map(|item| Value::BulkString(item.as_bytes().to_vec())).collect())
    }

    #[test]
    fn a_sentinel_says_a_host_and_a_port_or_is_not_believed() {
        for (items, expected) in [
            (&["10.0.0.7", "6379"][..], Some("10.0.0.7:6379")),
            (&["::1", "65535"], Some("[::1]:65535")),
            (&["redis-1.internal", "1"], Some("redis-1.internal:1")),
            (&["10.0.0.7"], None),
            (&["10.0.0.7", "6379", "6379"], None),
            (&["10.0.0.7", "0"], None),
            (&["10.0.0.7", "65536"], None),
            (&["10.0.0.7", "+1"], None),
            (&["10.0.0.7", ""], None),
            (&["", "6379"], None),
            (&["a b", "6379"], None),
            (&["a\r\nFLUSHALL", "6379"], None),
            (&["/run/redis.sock", "1"], None),
        ] {
            assert_eq!(host(&answer(items)).map(|host| host.to_string()).as_deref(), expected, "{items:?}");
        }
        for value in [Value::Nil, Value::Okay, Value::Int(1), Value::Array(vec![Value::Int(1), Value::Int(2)])] {
            assert_eq!(host(&value), None, "{value:?}");
        }
    }
}
