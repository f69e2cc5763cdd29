//! The script beside the table that stands in for it: the same times, the same decisions.

use std::num::{NonZeroU32, NonZeroUsize};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, Value};
use tokio::net::UnixStream;
use tokio::runtime::Builder;

use super::script::{SCRIPT, Terms, pair};
use crate::config;
use crate::filter::limit::key::Key;
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
                let config = AsyncConnectionConfig::new();
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

/// The script with a clock of ours.
async fn at(
    connection: &mut MultiplexedConnection,
    terms: Terms,
    (wanted, least): (i64, u32),
    micros: u64,
) -> (i64, u64) {
    let text = SCRIPT.replace("redis.call('TIME')", "{ARGV[5], ARGV[6]}");
    assert_ne!(text, SCRIPT, "there is a clock to replace");
    // Long after 1970, as a real one.
    let micros = micros + 1_800_000_000_000_000;
    let mut command = redis::cmd("EVAL");
    command.arg(text).arg(1).arg(KEY).arg(terms.interval).arg(terms.burst).arg(wanted).arg(least);
    command.arg(micros / 1_000_000).arg(micros % 1_000_000);
    let value: Value = command.query_async(connection).await.expect("an answer");
    let (granted, owed) = pair(&value).expect("two numbers");
    (granted, u64::try_from(owed).expect("not negative"))
}

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
    // Real time must not expire a key of a case: each takes far less than its budget, which is a second or more.
    let steps = proptest::collection::vec((0u64..3_000_000, 1u32..8), 1..40);
    let mut runner = TestRunner::new(Config::with_cases(64));
    runner
        .run(&(1u32..5, 10u32..100, steps), |(count, burst, steps)| {
            let (mut connection, nonzero) = (connection.clone(), |value| NonZeroU32::new(value).expect("not zero"));
            let rate = config::Rate { count: nonzero(count), per: Duration::from_secs(10) };
            let table = Rate::new(rate, nonzero(burst), NonZeroUsize::MIN);
            let (interval, full) = table.terms();
            let terms = Terms { interval, burst: full };
            let (start, mut now) = (Instant::now(), 0);
            runtime.block_on(async {
                forget(&mut connection).await;
                for (step, cost) in steps {
                    now += step;
                    let instant = start + Duration::from_micros(now);
                    let local = table.take(Key::of(1), nonzero(cost), instant);
                    let (granted, owed) = at(&mut connection, terms, (i64::from(cost), cost), now).await;
                    match local {
                        Decision::Allow { remaining, reset, .. } => {
                            let of_fleet = (granted, terms.remaining(owed), seconds(owed));
                            prop_assert_eq!(of_fleet, (i64::from(cost), remaining, reset), "at {}", now);
                        }
                        Decision::Refuse { seconds: wait } => {
                            prop_assert_eq!((granted, seconds(terms.wait(owed, cost))), (0, wait), "at {}", now);
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
    let terms = Terms { interval: hour, burst: 100 * hour };
    runtime.block_on(async {
        let take = async |connection: &mut MultiplexedConnection, wanted| at(connection, terms, (wanted, 1), 0).await;
        assert_eq!(take(&mut connection, 80).await, (50, 50 * hour));
        assert_eq!(take(&mut connection, 10).await, (10, 60 * hour));
        assert_eq!(take(&mut connection, -5).await, (-5, 55 * hour));
        assert_eq!(take(&mut connection, -500).await, (-55, 0), "never more than is owed");
        for _ in 0..100 {
            assert_eq!(take(&mut connection, 1).await.0, 1);
        }
        assert_eq!(take(&mut connection, 1).await, (0, 100 * hour));
        assert_eq!(take(&mut connection, -10).await, (-10, 90 * hour));
        assert_eq!(at(&mut connection, terms, (20, 11), 0).await, (0, 90 * hour), "all that it costs, or nothing");
        assert_eq!(at(&mut connection, terms, (20, 7), 0).await, (7, 97 * hour), "more than half, if it must be");
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
