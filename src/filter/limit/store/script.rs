//! What the store is asked: one script, which is one atomic step of the server.
//!
//! It is the algorithm of `rate`, by the server's own clock. A key holds what is owed (nanoseconds that earn it back)
//! and when that was so (microseconds), and expires when nothing is owed any more: memory is bounded by what is active.
//! All numbers stay below 2^53, within which Lua's are exact.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};

/// `ARGV`: nanoseconds that earn one request, those that earn a burst, how many requests are wanted (fewer than none are
/// given back), and how many at least. As many are granted if they can be, or none. Of more at most half of what is
/// there, so that who asks next finds something.
///
/// A clock that was set back earns nothing for as long, once. What is no such value is nothing: it is replaced.
pub(super) const SCRIPT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst, wanted, least = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local owed = 0
local kept = redis.pcall('GET', KEYS[1])
if type(kept) == 'string' then
  local debt, at = string.match(kept, '^(%d+) (%d+)$')
  if debt then
    owed = math.min(tonumber(debt), burst)
    owed = math.max(0, owed - math.max(0, now - tonumber(at)) * 1000)
  end
end
local granted
if wanted < 0 then
  granted = math.max(wanted, -math.ceil(owed / interval))
else
  local left = math.floor((burst - owed) / interval)
  granted = left < least and 0 or math.max(least, math.min(wanted, math.floor(left / 2)))
end
if granted ~= 0 then
  owed = math.max(0, owed + granted * interval)
  if owed > 0 then
    redis.call('SET', KEYS[1], string.format('%.0f %.0f', owed, now), 'PX', string.format('%.0f', math.ceil(owed / 1000000)))
  else
    redis.call('DEL', KEYS[1])
  end
end
return {granted, owed}
";

/// A rate, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// That earn one request
    pub(super) interval: u64,
    /// That earn a whole burst
    pub(super) burst: u64,
}

/// The answer: how many were granted, and what is owed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) granted: u32,
    pub(super) owed: u64,
}

impl Terms {
    /// How many would pass now.
    pub(super) fn remaining(self, owed: u64) -> u32 {
        u32::try_from(self.burst.saturating_sub(owed) / self.interval).unwrap_or(u32::MAX)
    }

    /// Nanoseconds until so many would pass.
    pub(super) fn wait(self, owed: u64, cost: u32) -> u64 {
        let price = self.interval.saturating_mul(u64::from(cost));
        owed.saturating_add(price).saturating_sub(self.burst)
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Broken {
    /// The connection, or what the server said
    Server(RedisError),
    /// It is no answer to this
    Nonsense,
}

impl From<RedisError> for Broken {
    fn from(error: RedisError) -> Self {
        Self::Server(error)
    }
}

/// The script and its name on a server.
#[derive(Debug)]
pub(super) struct Script {
    text: &'static str,
    /// Hexadecimal SHA-1: what EVALSHA goes by
    name: String,
}

impl Script {
    pub(super) fn new() -> Self {
        let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, SCRIPT.as_bytes());
        Self { text: SCRIPT, name: digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    /// Takes up to `wanted` requests, `least` at least or none.
    pub(super) async fn take(
        &self,
        connection: &mut MultiplexedConnection,
        key: &[u8],
        terms: Terms,
        wanted: u32,
        least: u32,
    ) -> Result<Answer, Broken> {
        let value = self.run(connection, key, terms, i64::from(wanted), least).await?;
        let Some((granted, owed)) = pair(&value) else { return Err(Broken::Nonsense) };
        let granted = u32::try_from(granted).ok().filter(|granted| *granted == 0 || (least..=wanted).contains(granted));
        let owed = u64::try_from(owed).ok().filter(|owed| *owed <= terms.burst);
        match (granted, owed) {
            // Nothing, where it would pass, is no answer either.
            (Some(0), Some(owed)) if terms.wait(owed, least) == 0 => Err(Broken::Nonsense),
            (Some(granted), Some(owed)) => Ok(Answer { granted, owed }),
            _ => Err(Broken::Nonsense),
        }
    }

    /// Undoes so much of a [`Self::take`].
    pub(super) async fn give_back(
        &self,
        connection: &mut MultiplexedConnection,
        key: &[u8],
        terms: Terms,
        unspent: u32,
    ) -> Result<(), Broken> {
        let value = self.run(connection, key, terms, -i64::from(unspent), 1).await?;
        pair(&value).map(drop).ok_or(Broken::Nonsense)
    }

    /// A server that was restarted does not know the name; the text it does.
    async fn run(
        &self,
        connection: &mut MultiplexedConnection,
        key: &[u8],
        terms: Terms,
        wanted: i64,
        least: u32,
    ) -> Result<Value, RedisError> {
        let by = |verb: &str, script: &str| {
            let mut command = redis::cmd(verb);
            command.arg(script).arg(1).arg(key).arg(terms.interval).arg(terms.burst).arg(wanted).arg(least);
            command
        };
        match by("EVALSHA", &self.name).query_async(connection).await {
            Err(error) if error.code() == Some("NOSCRIPT") => by("EVAL", self.text).query_async(connection).await,
            answer => answer,
        }
    }
}

pub(super) fn pair(value: &Value) -> Option<(i64, i64)> {
    match value {
        Value::Array(items) => match items.as_slice() {
            [Value::Int(first), Value::Int(second)] => Some((*first, *second)),
            _ => None,
        },
        _ => None,
    }
}
