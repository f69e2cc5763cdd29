//! What the store is asked: scripts, each of which is one atomic step of the server, by the server's own clock.
//!
//! All numbers stay below 2^53, within which Lua's are exact.

use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value};

use super::terms::{Answer, Standing, Terms};
use crate::config::Period;

/// The algorithm of `rate`. A key holds what is owed (nanoseconds that earn it back) and when that was so
/// (microseconds), and expires when nothing is owed any more: memory is bounded by what is active.
///
/// `ARGV`: nanoseconds that earn one request, those that earn a burst, how many requests are wanted (fewer than none are
/// given back), and how many at least. As many are granted if they can be, or none. Of more at most half of what is
/// there, so that who asks next finds something.
///
/// A clock that was set back earns nothing for as long, once. What is no such value is nothing: it is replaced.
pub(super) const RATE: &str = r"
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

/// The calendar of `quota`. A key holds how much is used and the end of the period in which it is (seconds), and expires
/// then.
///
/// `ARGV`: how many there are in a period, its name, and as above how many are wanted and how many at least; what is
/// given back is so in the period that ends at the fifth alone.
///
/// A clock that was set back goes on with the period that has begun, unless it is none of the next: then it was wrong
/// before, and what was used counts for the period that it is.
pub(super) const QUOTA: &str = r"
local time = redis.call('TIME')
local now, millis = tonumber(time[1]), math.floor(time[2] / 1000)
local count, period, wanted, least, given = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local function day_of_month(day)
  local days = (day + 719468) % 146097
  local leap = math.floor(days / 1460) - math.floor(days / 36524) + math.floor(days / 146096)
  local year = math.floor((days - leap) / 365)
  local day_of_year = days - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * day_of_year + 2) / 153)
  return day_of_year - math.floor((153 * month + 2) / 5)
end
local function finish(at)
  local lengths = {minute = 60, hour = 3600, day = 86400}
  local length = lengths[period]
  if length then return (math.floor(at / length) + 1) * length end
  local day = math.floor(at / 86400)
  if period == 'week' then return (day - (day + 3) % 7 + 7) * 86400 end
  local later = day - day_of_month(day) + 31
  return (later - day_of_month(later)) * 86400
end
local ends, used = finish(now), 0
local kept = redis.pcall('GET', KEYS[1])
if type(kept) == 'string' then
  local taken, till = string.match(kept, '^(%d+) (%d+)$')
  if taken and tonumber(till) >= ends then
    used = tonumber(taken)
    if tonumber(till) == finish(ends) then ends = tonumber(till) end
  end
end
local granted = 0
if wanted < 0 then
  if given == ends then granted = math.max(wanted, -used) end
elseif count - used >= least then
  granted = math.max(least, math.min(wanted, math.floor((count - used) / 2)))
end
local left = (ends - now) * 1000 - millis
if granted ~= 0 then
  used = used + granted
  if used > 0 then
    redis.call('SET', KEYS[1], string.format('%.0f %.0f', used, ends), 'PX', string.format('%.0f', left))
  else
    redis.call('DEL', KEYS[1])
  end
end
return {granted, math.min(used, count), left, ends}
";

/// What is there, or what is proposed; it is kept for so many milliseconds more.
const SEED: &str = r"
local kept = redis.pcall('GET', KEYS[1])
if type(kept) ~= 'string' or #kept ~= #ARGV[1] then kept = ARGV[1] end
redis.call('SET', KEYS[1], kept, 'PX', ARGV[2])
return kept
";

/// No period is longer, and a clock that was set back goes on with the next.
const LONGEST: u64 = 2 * 31 * 24 * 60 * 60 * 1000;

/// What a fleet knows and nobody else.
pub(super) type Seed = [u8; 32];

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

/// All that is asked.
#[derive(Debug)]
pub(super) struct Scripts {
    rate: Script,
    quota: Script,
    seed: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self { rate: Script::new(RATE), quota: Script::new(QUOTA), seed: Script::new(SEED) }
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
        let value = self.count(connection, key, terms, (wanted.into(), least), 0).await?;
        let Some((granted, standing)) = answer(&value, terms) else { return Err(Broken::Nonsense) };
        let granted = u32::try_from(granted).ok().filter(|granted| *granted == 0 || (least..=wanted).contains(granted));
        match granted {
            // Nothing, where it would pass, is no answer either.
            Some(0) if terms.wait(standing, least) == 0 => Err(Broken::Nonsense),
            Some(granted) => Ok(Answer { granted, standing }),
            None => Err(Broken::Nonsense),
        }
    }

    /// Undoes so much of a [`Self::take`], of a quota in the period that `ends` then alone.
    pub(super) async fn give_back(
        &self,
        connection: &mut MultiplexedConnection,
        key: &[u8],
        terms: Terms,
        unspent: u32,
        ends: u64,
    ) -> Result<(), Broken> {
        let value = self.count(connection, key, terms, (-i64::from(unspent), 1), ends).await?;
        answer(&value, terms).map(drop).ok_or(Broken::Nonsense)
    }

    /// The seed of the fleet, which is `proposed` if there is none.
    pub(super) async fn seed(
        &self,
        connection: &mut MultiplexedConnection,
        key: &[u8],
        proposed: &Seed,
        life: Duration,
    ) -> Result<Seed, Broken> {
        let millis = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        let fill = |command: &mut Cmd| {
            command.arg(&proposed[..]).arg(millis);
        };
        let value = self.seed.run(connection, key, fill).await?;
        match value {
            Value::BulkString(seed) => seed.try_into().map_err(|_| Broken::Nonsense),
            _ => Err(Broken::Nonsense),
        }
    }

    async fn count(
        &self,
        connection: &mut MultiplexedConnection,
        key: &[u8],
        terms: Terms,
        (wanted, least): (i64, u32),
        ends: u64,
    ) -> Result<Value, RedisError> {
        match terms {
            Terms::Rate { interval, burst } => {
                let fill = |command: &mut Cmd| {
                    command.arg(interval).arg(burst).arg(wanted).arg(least);
                };
                self.rate.run(connection, key, fill).await
            }
            Terms::Quota { count, period } => {
                let fill = |command: &mut Cmd| {
                    command.arg(count).arg(name(period)).arg(wanted).arg(least).arg(ends);
                };
                self.quota.run(connection, key, fill).await
            }
        }
    }
}

/// A script and its name on a server.
#[derive(Debug)]
struct Script {
    text: &'static str,
    /// Hexadecimal SHA-1: what EVALSHA goes by
    name: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        Self { text, name: digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    /// A server that was restarted does not know the name; the text it does.
    async fn run(
        &self,
        connection: &mut MultiplexedConnection,
        key: &[u8],
        fill: impl Fn(&mut Cmd),
    ) -> Result<Value, RedisError> {
        let by = |verb: &str, script: &str| {
            let mut command = redis::cmd(verb);
            command.arg(script).arg(1).arg(key);
            fill(&mut command);
            command
        };
        match by("EVALSHA", &self.name).query_async(connection).await {
            Err(error) if error.code() == Some("NOSCRIPT") => by("EVAL", self.text).query_async(connection).await,
            answer => answer,
        }
    }
}

/// How a period is called in the script.
pub(super) fn name(period: Period) -> &'static str {
    match period {
        Period::Minute => "minute",
        Period::Hour => "hour",
        Period::Day => "day",
        Period::Week => "week",
        Period::Month => "month",
    }
}

/// How many were granted, and how things stand; nothing, if it cannot be.
pub(super) fn answer(value: &Value, terms: Terms) -> Option<(i64, Standing)> {
    let Value::Array(items) = value else { return None };
    let number = |item: &Value| if let Value::Int(number) = item { u64::try_from(*number).ok() } else { None };
    let (granted, standing) = match (terms, items.as_slice()) {
        (Terms::Rate { .. }, [granted, owed]) => (granted, Standing { owed: number(owed)?, ..Standing::default() }),
        (Terms::Quota { .. }, [granted, owed, left, ends]) => {
            let left = number(left).filter(|left| (1..=LONGEST).contains(left))?;
            (granted, Standing { owed: number(owed)?, left, ends: number(ends)? })
        }
        _ => return None,
    };
    let Value::Int(granted) = granted else { return None };
    (standing.owed <= terms.most()).then_some((*granted, standing))
}
