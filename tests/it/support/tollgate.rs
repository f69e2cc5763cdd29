//! The gateway under test: the real binary with a real configuration file, from its start to its last request.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::client::Request;
use super::message::Response;
use super::ports;
use super::process::{self, Output, Signal};
use super::wait;

/// What `drain_timeout` is unless a test says otherwise.
const DRAIN_TIMEOUT: &str = "10s";

/// A gateway that serves. When it goes out of scope it is told to leave, and has to do so well.
pub(crate) struct Tollgate {
    /// Holds the configuration, the logs and the runtime directory
    directory: TempDir,
    /// Holds the binary, on the file system that it was built on
    programs: TempDir,
    child: Child,
    addresses: BTreeMap<String, SocketAddr>,
    admin: SocketAddr,
    /// How processes have ended that this one knows of: code, or minus the signal
    endings: BTreeMap<u32, i32>,
}

/// A gateway that is about to start.
pub(crate) struct Prepared {
    directory: TempDir,
    text: String,
    environment: Vec<(String, String)>,
}

impl Tollgate {
    /// Starts one. `text` is what the test is about; the version, addresses on free ports, the runtime directory and
    /// an access log are added where it does not name them. A listener `http` is added if there is none.
    #[track_caller]
    pub(crate) fn with(text: &str) -> Self {
        Self::prepared(text).start()
    }

    /// One in front of the upstream `app`, with these endpoints and what else is said of it.
    pub(crate) fn before(endpoints: &[SocketAddr], upstream: &str) -> Self {
        let endpoints: Vec<_> = endpoints.iter().map(|addr| format!("\"{addr}\"")).collect();
        Self::with(&format!(
            r#"
                [upstreams.app]
                endpoints = [{}]
                {upstream}
                [routes.all]
                auth = "none"
                upstream = "app"
            "#,
            endpoints.join(", ")
        ))
    }

    /// The same in two steps, for what has to be there first.
    pub(crate) fn prepared(text: &str) -> Prepared {
        let directory = tempfile::Builder::new().prefix("tollgate-").tempdir().expect("a directory");
        Prepared { directory, text: text.to_owned(), environment: Vec::new() }
    }

    /// The address of the only listener.
    #[track_caller]
    pub(crate) fn addr(&self) -> SocketAddr {
        assert_eq!(self.addresses.len(), 1, "more than one listener: {:?}", self.addresses);
        *self.addresses.values().next().expect("one")
    }

    /// The address of a listener.
    #[track_caller]
    pub(crate) fn addr_of(&self, listener: &str) -> SocketAddr {
        self.addresses[listener]
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr())
    }

    pub(crate) fn get(&self, path: &str) -> Request {
        self.request("GET", path)
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Request {
        self.request("POST", path).body(body)
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> Request {
        Request::new(method, path).to(self.addr())
    }

    /// Asks the admin side.
    #[track_caller]
    pub(crate) fn admin(&self, path: &str) -> Response {
        Request::get(path).to(self.admin).send()
    }

    pub(crate) fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// What `/readyz` answers; `None` when nobody does.
    pub(crate) fn readiness(&self) -> Option<u16> {
        Request::get("/readyz").to(self.admin).try_send().ok().map(|response| response.status())
    }

    /// A metric: `name`, or `name{label="value",…}`. The sum of all series that have these labels, among others.
    #[track_caller]
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let (name, labels) = labels(series);
        let text = self.admin("/metrics").expect(200).text();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(other, _)| {
                let (other, all) = self::labels(other);
                other == name && labels.iter().all(|label| all.contains(label))
            })
            .map(|(_, value)| value.parse::<f64>().expect("a number"))
            .reduce(|sum, value| sum + value)
    }

    /// Waits for a metric to have a value; counters that nobody has counted yet are 0.
    #[track_caller]
    pub(crate) fn wait_for_metric(&self, series: &str, value: f64) {
        let mut last = 0.0;
        let reached = wait::within(wait::PATIENCE, || {
            last = self.metric(series).unwrap_or_default();
            ((last - value).abs() < 1e-9).then_some(())
        });
        assert!(reached.is_some(), "{series} is {last}, not {value}");
    }

    /// The lines of the access log so far.
    pub(crate) fn access_log(&self) -> Vec<Value> {
        let text = so_far(&self.access_log_file());
        // The last one may be half written.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// Waits for the line of a request.
    #[track_caller]
    pub(crate) fn logged(&self, response: &Response) -> Value {
        let id = response.request_id();
        self.logged_where(&format!("a log line of request {id}"), |line| line["request_id"] == id)
    }

    /// Waits for the first line that `is_meant`.
    #[track_caller]
    pub(crate) fn logged_where(&self, what: &str, is_meant: impl Fn(&Value) -> bool) -> Value {
        wait::some(what, || self.access_log().into_iter().find(&is_meant))
    }

    pub(crate) fn access_log_file(&self) -> PathBuf {
        self.path("access.log")
    }

    /// What all processes have written to standard error.
    pub(crate) fn stderr(&self) -> String {
        so_far(&self.path("stderr.log"))
    }

    /// A file beside the configuration.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.path("tollgate.toml")
    }

    /// Changes the configuration file, at once, as a careful tool would.
    pub(crate) fn edit(&self, change: impl FnOnce(&mut String)) {
        let mut text = fs::read_to_string(self.config_file()).expect("read");
        let before = text.clone();
        change(&mut text);
        assert_ne!(text, before, "an edit that changes nothing");
        replace(&self.config_file(), &text);
    }

    /// Replaces a piece of the configuration file that is there exactly once.
    #[track_caller]
    pub(crate) fn replace(&self, old: &str, new: &str) {
        self.edit(|text| {
            assert_eq!(text.matches(old).count(), 1, "{old:?} in\n{text}");
            *text = text.replace(old, new);
        });
    }

    /// `tollgate VERB -c FILE`
    #[track_caller]
    pub(crate) fn command(&self, verb: &str) -> Output {
        process::tollgate([verb.as_ref(), "-c".as_ref(), self.config_file().as_os_str()])
    }

    #[track_caller]
    pub(crate) fn check(&self) -> Output {
        self.command("check")
    }

    #[track_caller]
    pub(crate) fn reload(&self) -> Output {
        self.command("reload")
    }

    #[track_caller]
    pub(crate) fn upgrade(&self) -> Output {
        self.command("upgrade")
    }

    /// Puts another program where the binary was started from, for the next upgrade.
    pub(crate) fn install(&self, script: &str) {
        replace(&self.program(), script);
        fs::set_permissions(self.program(), fs::Permissions::from_mode(0o755)).expect("made executable");
    }

    /// Puts the real binary back.
    pub(crate) fn reinstall(&self) {
        fs::remove_file(self.program()).expect("removed");
        link(&self.program());
    }

    /// Where the binary was started from.
    pub(crate) fn program(&self) -> PathBuf {
        self.programs.path().join("tollgate")
    }

    /// Every process that serves or drains, oldest first.
    pub(crate) fn pids(&self) -> Vec<u32> {
        process::serving(&self.config_file())
    }

    /// The process that serves, also after an upgrade.
    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        *self.pids().last().expect("a process that serves")
    }

    /// Sends a signal to the process that serves.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Whether a process is gone.
    pub(crate) fn is_gone(&self, pid: u32) -> bool {
        !self.pids().contains(&pid)
    }

    /// Waits for a process to end: its exit code, or minus the signal that ended it.
    #[track_caller]
    pub(crate) fn ended(&mut self, pid: u32) -> i32 {
        wait::some(&format!("process {pid} to end"), || self.ending(pid))
    }

    fn ending(&mut self, pid: u32) -> Option<i32> {
        if let Some(ending) = self.endings.get(&pid) {
            return Some(*ending);
        }
        let ending = if pid == self.child.id() {
            use std::os::unix::process::ExitStatusExt;
            let status = self.child.try_wait().expect("our own child")?;
            status.code().or_else(|| status.signal().map(|signal| -signal)).expect("one of both")
        } else {
            process::reap(pid)?
        };
        self.endings.insert(pid, ending);
        Some(ending)
    }

    /// Tells every process to leave and waits until all have, as they should. How long that took.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> Duration {
        let begin = Instant::now();
        let pids = self.pids();
        for pid in &pids {
            process::signal(*pid, Signal::TERM);
        }
        for pid in pids {
            let ending = self.ended(pid);
            assert_eq!(ending, 0, "process {pid} ended with {ending} after SIGTERM\n{}", self.stderr());
        }
        begin.elapsed()
    }

    fn kill(&self) {
        for pid in self.pids() {
            process::signal(pid, Signal::KILL);
        }
    }
}

impl Drop for Tollgate {
    fn drop(&mut self) {
        if thread::panicking() {
            self.kill();
            let stderr = self.stderr();
            let last: Vec<_> = stderr.lines().rev().take(60).collect();
            eprintln!("--- the gateway's last words");
            last.into_iter().rev().for_each(|line| eprintln!("{line}"));
            return;
        }
        self.stop();
        let stderr = self.stderr();
        assert!(!stderr.contains("panicked at"), "the gateway panicked:\n{stderr}");
    }
}

impl Prepared {
    /// A file beside the configuration, which can be named relative to it.
    #[must_use]
    pub(crate) fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.directory.path().join(name), content).expect("written");
        self
    }

    #[must_use]
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Where the configuration will be.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    #[track_caller]
    pub(crate) fn start(self) -> Tollgate {
        self.try_start().unwrap_or_else(|output| panic!("the gateway does not start: {output:?}"))
    }

    /// How it ended instead of serving; fails if it serves.
    #[track_caller]
    pub(crate) fn fails_to_start(self) -> Output {
        self.try_start().err().expect("a gateway that does not start")
    }

    /// Starts it and waits until it serves; the error is how it ended instead.
    #[track_caller]
    pub(crate) fn try_start(self) -> Result<Tollgate, Output> {
        process::adopt_orphans();
        let completed = complete(&self.text, self.directory.path());
        let file = self.directory.path().join("tollgate.toml");
        fs::write(&file, &completed.text).expect("written");
        let programs = tempfile::Builder::new().prefix("bin-").tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        let programs = programs.expect("a directory");
        let program = programs.path().join("tollgate");
        link(&program);
        let log = |name: &str| Stdio::from(File::create(self.directory.path().join(name)).expect("a file"));
        let child = Command::new(&program)
            .args(["run".as_ref(), "-c".as_ref(), file.as_os_str()])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log("stdout.log"))
            .stderr(log("stderr.log"))
            .spawn()
            .expect("the binary that was built");
        let mut tollgate = Tollgate {
            directory: self.directory,
            programs,
            child,
            addresses: completed.addresses,
            admin: completed.admin,
            endings: BTreeMap::new(),
        };
        let pid = tollgate.child.id();
        let ended = wait::some("the gateway to be ready", || match tollgate.ending(pid) {
            Some(code) => Some(Some(code)),
            None => (tollgate.readiness() == Some(200) && process::listens(pid, tollgate.admin)).then_some(None),
        });
        let Some(code) = ended else { return Ok(tollgate) };
        let read = |name: &str| so_far(&tollgate.path(name));
        Err(Output { code: Some(code), stdout: read("stdout.log"), stderr: read("stderr.log") })
    }
}

/// What most tests begin with: a route for everybody to these endpoints.
pub(crate) fn open_to(endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|addr| format!("\"{addr}\"")).collect();
    format!(
        "[upstreams.main]\nendpoints = [{}]\n[routes.main]\nauth = \"none\"\nupstream = \"main\"\n",
        endpoints.join(", ")
    )
}

/// A configuration that can be served, and where.
struct Completed {
    text: String,
    addresses: BTreeMap<String, SocketAddr>,
    admin: SocketAddr,
}

/// Adds what `text` leaves out. What it says stays as it stands.
fn complete(text: &str, directory: &Path) -> Completed {
    let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut text = text.to_owned();
    let has = |path: &[&str]| {
        let (last, tables) = path.split_last().expect("a key");
        let mut table = Some(&table);
        for name in tables {
            table = table.and_then(|table| table.get(*name)).and_then(toml::Value::as_table);
        }
        table.and_then(|table| table.get(*last)).and_then(toml::Value::as_str).map(str::to_owned)
    };
    let mut addresses = BTreeMap::new();
    let listeners = table.get("listeners").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    if listeners.is_empty() {
        let addr = ports::claim();
        add(&mut text, "listeners.http", &format!("address = \"{addr}\""));
        addresses.insert("http".to_owned(), addr);
    }
    for (name, listener) in &listeners {
        let addr = match listener.get("address").and_then(toml::Value::as_str) {
            Some(written) => written.parse().expect("an address"),
            None if listener.get("addresses").is_some() => continue,
            None => {
                let addr = ports::claim();
                add(&mut text, &format!("listeners.{name}"), &format!("address = \"{addr}\""));
                addr
            }
        };
        addresses.insert(name.clone(), addr);
    }
    let admin = match has(&["admin", "address"]) {
        Some(written) => written.parse().expect("an address"),
        None => {
            let addr = ports::claim();
            add(&mut text, "admin", &format!("address = \"{addr}\""));
            addr
        }
    };
    if has(&["server", "runtime_dir"]).is_none() {
        add(&mut text, "server", &format!("runtime_dir = \"{}\"", directory.join("run").display()));
    }
    if has(&["server", "drain_timeout"]).is_none() {
        add(&mut text, "server", &format!("drain_timeout = \"{DRAIN_TIMEOUT}\""));
    }
    if has(&["log", "access", "output"]).is_none() {
        add(&mut text, "log.access", &format!("output = \"file:{}\"", directory.join("access.log").display()));
    }
    if !table.contains_key("version") {
        text.insert_str(0, "version = 1\n");
    }
    Completed { text, addresses, admin }
}

/// Adds a line to a table, which is appended if its header is not there.
fn add(text: &mut String, table: &str, line: &str) {
    let header = format!("[{table}]");
    let mut end = 0;
    for there in text.split_inclusive('\n') {
        end += there.len();
        if there.trim() == header {
            text.insert_str(end, &format!("{}{line}\n", if there.ends_with('\n') { "" } else { "\n" }));
            return;
        }
    }
    text.push_str(&format!("\n{header}\n{line}\n"));
}

/// The binary under a name of its own, so that a test can put another in its place.
fn link(program: &Path) {
    fs::hard_link(process::BINARY, program).or_else(|_| fs::copy(process::BINARY, program).map(drop)).expect("a copy");
}

/// A log as far as it is written; one that nobody has opened yet is empty.
fn so_far(file: &Path) -> String {
    match fs::read(file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => panic!("{}: {error}", file.display()),
    }
}

fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(&new, file).expect("renamed");
}

/// A series' name and its labels.
fn labels(series: &str) -> (&str, Vec<&str>) {
    match series.strip_suffix('}').and_then(|series| series.split_once('{')) {
        None => (series, Vec::new()),
        // Label values are names from the configuration: no commas in them.
        Some((name, labels)) => (name, labels.split(',').filter(|label| !label.is_empty()).collect()),
    }
}
