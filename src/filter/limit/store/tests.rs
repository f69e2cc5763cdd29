//! The scripts beside the tables that stand in for them: the same times, the same decisions.

use std::num::{NonZeroU32, NonZeroUsize};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, Value};
use tokio::net::UnixStream;
use tokio::runtime::Builder;

use super::script::{QUOTA, RATE, answer, name};
use super::terms::{Standing, Terms};
use crate::config::{self, Period};
use crate::filter::limit::key::Key;
use crate::filter::limit::quota::Quota;
use crate::filter::limit::rate::{Decision, Rate, seconds};

const KEY: &str = "tollgate:test";

/// A server of the test's own.
struct Server {
    child: std::process::Child,
    directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--unixsocket"]).arg(directory.path().join("socket"));
        match command.current_dir(directory.path()).stdin(Stdio::null()).stdout(Stdio::null()).spawn() {
            Ok(child) => Some(Self { child, directory }),
            Err(error) => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "where everything has to be there is said by who runs it"
                )]
                let must = std::env::var_os("CI").is_some();
                assert!(!must, "redis-server does not start: {error}");
                eprintln!("SKIPPED: redis-server is not installed");
                None
            }
        }
    }

    async fn connect(&self) -> MultiplexedConnection {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok(stream) = UnixStream::connect(self.directory.path().join("socket")).await {
                let info = RedisConnectionInfo::default();
                // A machine may be busy with other tests.
                let config = AsyncConnectionConfig::new().set_response_timeout(None);
                let greeted = MultiplexedConnection::new_with_config(&info, stream, config).await;
                let (connection, driver) = greeted.expect("a server");
                #[expect(clippy::disallowed_methods, reason = "tests own the tasks that they start")]
                tokio::spawn(driver);
                return connection;
            }
            assert!(Instant::now() < deadline, "redis-server does not listen");
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Real time expires nothing.
const FOREVER: &str = "
local real = redis
local redis = {pcall = real.pcall, call = function(verb, key, value)
  if value then return real.call(verb, key, value) end
  return real.call(verb, key)
end}
";

/// A script with a clock of ours.
async fn at(
    connection: &mut MultiplexedConnection,
    terms: Terms,
    (wanted, least, ends): (i64, u32, u64),
    micros: u64,
) -> (i64, Standing) {
    let (script, clock) = match terms {
        Terms::Rate { .. } => (RATE, "{ARGV[5], ARGV[6]}"),
        Terms::Quota { .. } => (QUOTA, "{ARGV[6], ARGV[7]}"),
    };
    let text = script.replace("redis.call('TIME')", clock);
    assert_ne!(text, script, "there is a clock to replace");
    let text = format!("{FOREVER}{text}");
    let mut command = redis::cmd("EVAL");
    command.arg(text).arg(1).arg(KEY);
    match terms {
        Terms::Rate { interval, burst } => command.arg(interval).arg(burst).arg(wanted).arg(least),
        Terms::Quota { count, period } => command.arg(count).arg(name(period)).arg(wanted).arg(least).arg(ends),
    };
    command.arg(micros / 1_000_000).arg(micros % 1_000_000);
    let value: Value = command.query_async(connection).await.expect("an answer");
    answer(&value, terms).expect("what an answer is")
}

/// Long after 1970, as a real one.
const NOW: u64 = 1_800_000_000_000_000;

async fn forget(connection: &mut MultiplexedConnection) {
    redis::cmd("DEL").arg(KEY).query_async::<Value>(connection).await.expect("forgotten");
}

/// The runtime of a test, and a connection on it.
fn connected(server: &Server) -> (tokio::runtime::Runtime, MultiplexedConnection) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let connection = runtime.block_on(server.connect());
    (runtime, connection)
}

#[test]
fn the_script_decides_as_the_local_table_does() {
    let Some(server) = Server::start() else { return };
    let (runtime, connection) = connected(&server);
    let steps = proptest::collection::vec((0u64..3_000_000, 1u32..8), 1..40);
    let mut runner = TestRunner::new(Config::with_cases(64));
    runner
        .run(&(1u32..5, 10u32..100, steps), |(count, burst, steps)| {
            let (mut connection, nonzero) = (connection.clone(), |value| NonZeroU32::new(value).expect("not zero"));
            let rate = config::Rate { count: nonzero(count), per: Duration::from_secs(10) };
            let table = Rate::new(rate, nonzero(burst), NonZeroUsize::MIN);
            let (interval, full) = table.terms();
            let terms = Terms::Rate { interval, burst: full };
            let (start, mut now) = (Instant::now(), 0);
            runtime.block_on(async {
                forget(&mut connection).await;
                for (step, cost) in steps {
                    now += step;
                    let instant = start + Duration::from_micros(now);
                    let local = table.take(Key::of(1), nonzero(cost), instant);
                    let (granted, standing) = at(&mut connection, terms, (cost.into(), cost, 0), NOW + now).await;
                    match local {
                        Decision::Allow { remaining, reset, .. } => {
                            let of_fleet = (granted, terms.remaining(standing.owed), seconds(terms.reset(standing)));
                            prop_assert_eq!(of_fleet, (i64::from(cost), remaining, reset), "at {}", now);
                        }
                        Decision::Refuse { seconds: wait } => {
                            prop_assert_eq!((granted, seconds(terms.wait(standing, cost))), (0, wait), "at {}", now);
                        }
                        Decision::Full => prop_assert!(false, "one key has room"),
                    }
                }
                Ok(())
            })
        })
        .expect("the same");
}

#[test]
fn of_several_half_is_granted_and_what_comes_back_can_be_taken_again() {
    let Some(server) = Server::start() else { return };
    let (runtime, mut connection) = connected(&server);
    let hour = 3_600_000_000_000;
    let terms = Terms::Rate { interval: hour, burst: 100 * hour };
    runtime.block_on(async {
        let ask = async |connection: &mut MultiplexedConnection, wanted, least| {
            let (granted, standing) = at(connection, terms, (wanted, least, 0), NOW).await;
            (granted, standing.owed)
        };
        let take = async |connection: &mut MultiplexedConnection, wanted| ask(connection, wanted, 1).await;
        assert_eq!(take(&mut connection, 80).await, (50, 50 * hour));
        assert_eq!(take(&mut connection, 10).await, (10, 60 * hour));
        assert_eq!(take(&mut connection, -5).await, (-5, 55 * hour));
        assert_eq!(take(&mut connection, -500).await, (-55, 0), "never more than is owed");
        for _ in 0..100 {
            assert_eq!(take(&mut connection, 1).await.0, 1);
        }
        assert_eq!(take(&mut connection, 1).await, (0, 100 * hour));
        assert_eq!(take(&mut connection, -10).await, (-10, 90 * hour));
        assert_eq!(ask(&mut connection, 20, 11).await, (0, 90 * hour), "all that it costs, or nothing");
        assert_eq!(ask(&mut connection, 20, 7).await, (7, 97 * hour), "more than half, if it must be");
        // Another's value, or one of another type, is replaced.
        for command in ["SET", "LPUSH"] {
            forget(&mut connection).await;
            let mut plant = redis::cmd(command);
            plant.arg(KEY).arg("9999999999999999999 x");
            plant.query_async::<Value>(&mut connection).await.expect("planted");
            assert_eq!(take(&mut connection, 1).await, (1, hour));
        }
    });
}

#[test]
fn the_script_of_quotas_decides_as_the_local_table_does() {
    const PERIODS: [(Period, u64); 5] = [
        (Period::Minute, 60),
        (Period::Hour, 3600),
        (Period::Day, 86_400),
        (Period::Week, 604_800),
        (Period::Month, 28 * 86_400),
    ];
    let Some(server) = Server::start() else { return };
    let (runtime, connection) = connected(&server);
    // Back by less than a period at a time, as tables allow.
    let steps = proptest::collection::vec((any::<bool>(), 0u64..100, 1u32..5), 1..30);
    let mut runner = TestRunner::new(Config::with_cases(128));
    runner
        .run(&(0usize..5, 1u32..12, 1_500_000_000u64..3_000_000_000, steps), |(which, count, start, steps)| {
            let (period, length) = PERIODS[which];
            let (mut connection, nonzero) = (connection.clone(), |value| NonZeroU32::new(value).expect("not zero"));
            let table = Quota::new(nonzero(count), period, NonZeroUsize::MIN);
            let terms = Terms::Quota { count, period };
            let (mut now, mut latest) = (start, start);
            runtime.block_on(async {
                forget(&mut connection).await;
                for (is_back, percent, cost) in steps {
                    now = if is_back {
                        (now - length * percent / 100).max(latest - length / 2)
                    } else {
                        now + length * percent / 60
                    };
                    latest = latest.max(now);
                    // The first of a period passes, so that both know that it has begun.
                    let cost = cost.min(count);
                    let local = table.take(Key::of(1), nonzero(cost), UNIX_EPOCH + Duration::from_secs(now));
                    let wanted = (cost.into(), cost, 0);
                    let (granted, standing) = at(&mut connection, terms, wanted, now * 1_000_000).await;
                    match local {
                        Decision::Allow { remaining, reset, .. } => {
                            let of_fleet = (granted, terms.remaining(standing.owed), seconds(terms.reset(standing)));
                            prop_assert_eq!(of_fleet, (cost.into(), remaining, reset), "at {}", now);
                        }
                        Decision::Refuse { seconds: wait } => {
                            prop_assert_eq!((granted, standing.left), (0, wait * 1000), "at {}", now);
                        }
                        Decision::Full => prop_assert!(false, "one key has room"),
                    }
                }
                Ok(())
            })
        })
        .expect("the same");
}

#[test]
fn a_quota_is_given_back_in_its_period_alone_and_a_smaller_one_is_used_up() {
    let Some(server) = Server::start() else { return };
    let (runtime, mut connection) = connected(&server);
    let terms = |count| Terms::Quota { count, period: Period::Hour };
    runtime.block_on(async {
        let mut ask = async |count, wanted, least, ends, seconds: u64| {
            let asked = (wanted, least, ends);
            let (granted, standing) = at(&mut connection, terms(count), asked, NOW + seconds * 1_000_000).await;
            (granted, standing.owed, standing.ends)
        };
        let end = NOW / 1_000_000 + 3600;
        assert_eq!(ask(100, 80, 1, 0, 0).await, (50, 50, end), "of several half");
        assert_eq!(ask(100, -10, 1, end, 0).await, (-10, 40, end));
        assert_eq!(ask(100, -10, 1, end - 3600, 0).await, (0, 40, end), "of another period");
        assert_eq!(ask(20, 1, 1, 0, 0).await, (0, 20, end));
        assert_eq!(ask(200, 1, 1, 0, 0).await, (1, 41, end), "what was used is used");
        assert_eq!(ask(200, 1, 1, 0, 3600).await, (1, 1, end + 3600));
        assert_eq!(ask(200, -41, 1, end, 3600).await, (0, 1, end + 3600));
        assert_eq!(ask(200, -41, 1, end + 3600, 3600).await, (-1, 0, end + 3600), "never more than is used");
    });
}
