//! A store that is wherever sentinels say: found, lost and found again without a hand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use crate::support::certs::Ca;
use crate::support::redis::{Redis, port_line};
use crate::support::{Tollgate, ports, wait};

/// What the servers ask for, and what their sentinels do.
const PASSWORD: &str = "hunter2";
const SENTINEL_PASSWORD: &str = "s3ntry";

/// A limit of three an hour for each key, exact.
fn text(url: &str, more: &str) -> String {
    format!(
        "[limits.fleet]\nrate = \"1/h\"\nburst = 3\nkey = [\"header.x-key\"]\nstore = \"redis\"\n\
         redis_url = \"{url}\"\nredis_mode = \"strict\"\nredis_timeout = \"5s\"\n{more}\n\
         [routes.main]\nauth = \"none\"\nlimits = [\"fleet\"]\nrespond = {{ body = \"here\" }}\n"
    )
}

fn up(tollgate: &Tollgate, value: f64) {
    tollgate.wait_for_metric("tollgate_limit_store_up{limit=\"fleet\"}", value);
}

fn statuses(tollgate: &Tollgate, key: &str, count: usize) -> Vec<u16> {
    (0..count).map(|_| tollgate.get("/").header("x-key", key).send().status()).collect()
}

fn list(addrs: &[SocketAddr]) -> String {
    addrs.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
}

/// A master, its replica and three sentinels, all of which know one another.
struct Watched {
    addrs: [SocketAddr; 2],
    servers: [Redis; 2],
    sentinel_addrs: [SocketAddr; 3],
    sentinels: [Redis; 3],
}

impl Watched {
    fn start() -> Option<Self> {
        let addrs = [(); 2].map(|()| ports::claim());
        let config = |addr: SocketAddr| {
            format!(
                "{}\nrequirepass {PASSWORD}\nmasterauth {PASSWORD}\nrepl-diskless-sync-delay 0\n\
                 user gate on >{PASSWORD} ~tollgate:* +eval +evalsha +get +set +del +time +select +role",
                port_line(addr, false)
            )
        };
        let master = Redis::start(&config(addrs[0]))?;
        let replica = Redis::start(&format!("{}\nreplicaof 127.0.0.1 {}", config(addrs[1]), addrs[0].port()))?;
        let told = || replica.ask(&format!("AUTH {PASSWORD}\r\nINFO replication"));
        wait::until("the replica to follow", || told().contains("master_link_status:up"));
        let sentinel_addrs = [(); 3].map(|()| ports::claim());
        let start = |addr: SocketAddr| {
            Redis::start_sentinel(&format!(
                "{}\nrequirepass {SENTINEL_PASSWORD}\nsentinel sentinel-pass {SENTINEL_PASSWORD}\n\
                 sentinel monitor limits 127.0.0.1 {} 2\nsentinel auth-pass limits {PASSWORD}\n\
                 sentinel down-after-milliseconds limits 600000\nsentinel failover-timeout limits 10000",
                port_line(addr, false),
                addrs[0].port()
            ))
        };
        let [a, b, c] = sentinel_addrs.map(start);
        let watched = Self { addrs, servers: [master, replica], sentinel_addrs, sentinels: [a?, b?, c?] };
        for sentinel in &watched.sentinels {
            let told = || ask(sentinel, "SENTINEL MASTER limits");
            wait::until("a sentinel to know the others", || {
                let told = told();
                told.contains("num-slaves\r\n$1\r\n1\r\n") && told.contains("num-other-sentinels\r\n$1\r\n2\r\n")
            });
        }
        Some(watched)
    }

    fn url(&self) -> String {
        format!("redis+sentinel://gate:{PASSWORD}@{}/limits/0", list(&self.sentinel_addrs))
    }
}

fn ask(sentinel: &Redis, command: &str) -> String {
    sentinel.ask(&format!("AUTH {SENTINEL_PASSWORD}\r\n{command}"))
}

const WITH_PASSWORD: &str = "redis_sentinel_password = \"s3ntry\"\non_store_failure = \"allow\"";

#[test]
fn a_master_that_dies_is_followed_to_its_replica_with_all_that_was_taken() {
    let Some(mut watched) = Watched::start() else { return };
    let gateways = [(); 2].map(|()| Tollgate::with(&text(&watched.url(), WITH_PASSWORD)));
    gateways.iter().for_each(|gateway| up(gateway, 1.0));
    assert_eq!((statuses(&gateways[0], "a", 2), statuses(&gateways[1], "a", 2)), (vec![200, 200], vec![200, 429]));
    let size = |redis: &Redis| redis.ask(&format!("AUTH {PASSWORD}\r\nDBSIZE"));
    wait::until("all of it at the replica", || size(&watched.servers[0]) == size(&watched.servers[1]));
    watched.servers[0].kill();
    for gateway in &gateways {
        up(gateway, 0.0);
        assert_eq!(statuses(gateway, "a", 5), [200; 5], "on_store_failure decides");
    }
    for sentinel in &watched.sentinels {
        assert!(ask(sentinel, "SENTINEL SET limits down-after-milliseconds 300").ends_with("+OK\r\n"));
    }
    for gateway in &gateways {
        up(gateway, 1.0);
        assert_eq!((statuses(gateway, "a", 1), statuses(gateway, "b", 1)), (vec![429], vec![200]));
        let log = gateway.stderr();
        for addr in watched.addrs {
            assert!(log.contains(&format!("the store at {addr} (limits of ")), "{addr}: {log}");
        }
        let told = log + &gateway.admin("/api/status").text() + &gateway.admin("/metrics").text();
        assert!(!told.contains(PASSWORD) && !told.contains(SENTINEL_PASSWORD), "{told}");
    }
}

#[test]
fn a_failover_by_an_operators_hand_is_followed_too() {
    let Some(watched) = Watched::start() else { return };
    let tollgate = Tollgate::with(&text(&watched.url(), WITH_PASSWORD));
    up(&tollgate, 1.0);
    assert!(ask(&watched.sentinels[0], "SENTINEL FAILOVER limits").ends_with("+OK\r\n"));
    let there = format!("the store at {} (limits of ", watched.addrs[1]);
    wait::until("the other to be found", || tollgate.stderr().contains(&there));
    up(&tollgate, 1.0);
    assert_eq!(statuses(&tollgate, "c", 4), [200, 200, 200, 429]);
}

/// A sentinel that says the same to every question.
fn scripted(answer: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            thread::spawn(move || {
                let mut question = [0; 1024];
                while stream.read(&mut question).is_ok_and(|read| read > 0) {
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

/// What a sentinel answers that knows it.
fn points_to(addr: SocketAddr) -> String {
    let port = addr.port().to_string();
    format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len())
}

#[test]
fn sentinels_are_asked_in_turn_until_one_knows() {
    let addr = ports::claim();
    let Some(_redis) = Redis::start(&port_line(addr, false)) else { return };
    let (gone, silent) = (ports::claim(), scripted(String::new()));
    let (ignorant, knowing) = (scripted("*-1\r\n".into()), scripted(points_to(addr)));
    let url = format!("redis+sentinel://{}/limits", list(&[gone, silent, ignorant, knowing]));
    let tollgate = Tollgate::with(&text(&url, ""));
    up(&tollgate, 1.0);
    assert_eq!(statuses(&tollgate, "", 4), [200, 200, 200, 429]);
}

#[test]
fn a_sentinel_that_lies_or_talks_nonsense_is_not_believed() {
    let (master, writable) = (ports::claim(), ports::claim());
    let Some(_master) = Redis::start(&port_line(master, false)) else { return };
    let config = format!("{}\nreplicaof 127.0.0.1 {}\nreplica-read-only no", port_line(writable, false), master.port());
    let Some(_replica) = Redis::start(&config) else { return };
    for (answer, told) in [
        (points_to(writable), "it is a replica"),
        ("*-1\r\n".to_owned(), "it knows nobody of this name"),
        ("+OK\r\n".to_owned(), "it answered what was not asked"),
        ("*2\r\n$1\r\n/\r\n$1\r\n1\r\n".to_owned(), "it answered what was not asked"),
        ("*2\r\n$9\r\n127.0.0.1\r\n$6\r\n-12345\r\n".to_owned(), "it answered what was not asked"),
        ("-NOAUTH \u{1b}[31m no\r\n".to_owned(), "NOAUTH"),
        ("*1000000000\r\n".to_owned(), "no answer within"),
        ("x".repeat(1 << 20), ""),
    ] {
        let tollgate = Tollgate::with(&text(&format!("redis+sentinel://{}/limits", scripted(answer)), ""));
        wait::until("the reason in the log", || {
            let log = tollgate.stderr();
            log.contains("does not answer") && log.contains(told)
        });
        up(&tollgate, 0.0);
        assert_eq!(statuses(&tollgate, "", 4), [200, 200, 200, 429], "this gateway alone");
        assert!(!tollgate.stderr().contains('\u{1b}'));
    }
}

#[test]
fn sentinels_and_their_server_are_verified_and_shown_a_certificate() {
    let (ca, other) = (Ca::new("fleet"), Ca::new("other"));
    let directory = tempfile::tempdir().expect("a directory");
    let (cert, key) = ca.peer(&["127.0.0.1"]).write(directory.path(), "redis");
    let tls = |addr| {
        format!(
            "{}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\ntls-auth-clients yes\ntls-replication yes",
            port_line(addr, true),
            cert.display(),
            key.display(),
            ca.write(directory.path(), "ca.pem").display()
        )
    };
    let (addr, sentinel_addr) = (ports::claim(), ports::claim());
    let Some(_redis) = Redis::start(&tls(addr)) else { return };
    let monitor = format!("{}\nsentinel monitor limits 127.0.0.1 {} 1", tls(sentinel_addr), addr.port());
    let Some(_sentinel) = Redis::start_sentinel(&monitor) else { return };
    let more =
        "redis_ca_file = \"ca.pem\"\nredis_client_cert_file = \"gate.pem\"\nredis_client_key_file = \"gate.key\"";
    let text = text(&format!("rediss+sentinel://{sentinel_addr}/limits"), more);
    for (trusted, signer, answers) in [(&ca, &ca, 1.0), (&ca, &other, 0.0), (&other, &ca, 0.0)] {
        let identity = signer.client("gate");
        let prepared = Tollgate::prepared(&text).file("ca.pem", trusted.pem());
        let tollgate = prepared.file("gate.pem", &identity.cert).file("gate.key", &identity.key).start();
        up(&tollgate, answers);
    }
}
