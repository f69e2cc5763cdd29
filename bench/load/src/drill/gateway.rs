//! A gateway with three origins behind it, all processes of their own, so that any of them can be killed for real.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tollgate_load::Tls;

use super::Failure;
use crate::machine;

/// The name in the certificate.
const NAME: &str = "gateway.test";
/// How long a process may take to start or end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a gateway that was told to leave waits for its last requests.
const DRAIN: &str = "30s";

/// An origin in a process of its own.
pub(super) struct Service {
    child: Child,
    pub(super) addr: SocketAddr,
    record: PathBuf,
}

/// The gateway under load.
pub(super) struct Gateway {
    directory: TempDir,
    binary: PathBuf,
    child: Child,
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    admin: SocketAddr,
    pub(super) tls: Tls,
}

impl Service {
    pub(super) fn start(directory: &Path, name: &str) -> Result<Self, Failure> {
        let record = directory.join(format!("{name}.posts"));
        let mut child = Command::new(std::env::current_exe()?)
            .args(["origin".as_ref(), "--record".as_ref(), record.as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        Ok(Self { child, addr: line.trim().parse()?, record })
    }

    /// As the kernel's own killer would.
    pub(super) fn kill(&mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The id of each POST it has seen.
    pub(super) fn posts(&self) -> Result<Vec<u64>, Failure> {
        let text = fs::read_to_string(&self.record)?;
        // A kill may cut the last line.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| Ok(line.trim_end().parse()?)).collect()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.kill();
    }
}

impl Gateway {
    /// `server` stands in the section of that name.
    pub(super) fn start(binary: &Path, services: &[Service], server: &str) -> Result<Self, Failure> {
        let directory = tempfile::Builder::new().prefix("tollgate-drill-").tempdir()?;
        let path = directory.path();
        let [http, https, admin] = machine::free_addresses()?;
        let certified = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        fs::write(path.join("gateway.pem"), certified.cert.pem())?;
        fs::write(path.join("gateway.key"), certified.signing_key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(certified.cert.der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let endpoints: Vec<_> = services.iter().map(|service| format!("\"{}\"", service.addr)).collect();
        let text = format!(
            r#"version = 1

[server]
runtime_dir = "{directory}/run"
drain_timeout = "{DRAIN}"
{server}

[admin]
address = "{admin}"

[log.access]
output = "file:{directory}/access.log"

[listeners.http]
address = "{http}"

[listeners.https]
address = "{https}"
[listeners.https.tls]
certificates = [{{ cert_file = "gateway.pem", key_file = "gateway.key" }}]

[upstreams.work]
endpoints = [{endpoints}]

[routes.work]
auth = "none"
upstream = "work"
"#,
            directory = path.display(),
            endpoints = endpoints.join(", "),
        );
        fs::write(path.join("tollgate.toml"), text)?;
        let own = path.join("tollgate");
        fs::copy(binary, &own).map_err(|error| format!("{}: {error}", binary.display()))?;
        let log = File::create(path.join("gateway.log"))?;
        let child = Command::new(&own)
            .args(["run".as_ref(), "-c".as_ref(), path.join("tollgate.toml").as_os_str()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let tls = Tls { server: NAME.to_owned(), config: Arc::new(config) };
        let gateway = Self { binary: binary.canonicalize()?, directory, child, http, https, admin, tls };
        wait("the gateway to be ready", || {
            gateway.ask("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
        })
        .map_err(|error| format!("{error}\n{}", gateway.log()))?;
        Ok(gateway)
    }

    /// TLS for one protocol.
    pub(super) fn tls(&self, protocol: &str) -> Tls {
        let mut tls = self.tls.clone();
        Arc::make_mut(&mut tls.config).alpn_protocols = vec![protocol.as_bytes().to_vec()];
        tls
    }

    /// Runs a verb: whether it was done, and what it said.
    pub(super) fn command(&self, verb: &str) -> Result<(bool, String), Failure> {
        let config = self.config();
        let output = Command::new(&self.binary).args([verb.as_ref(), "-c".as_ref(), config.as_os_str()]).output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&text).trim_end().to_owned()))
    }

    /// The process that serves now, by its own word.
    pub(super) fn status(&self) -> Result<String, Failure> {
        Ok(self.command("status")?.1)
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("tollgate.toml")
    }

    /// Changes the configuration, at once.
    pub(super) fn configure(&self, change: impl FnOnce(&str) -> String) -> Result<(), Failure> {
        let text = change(&fs::read_to_string(self.config())?);
        let new = self.directory.path().join("tollgate.toml.new");
        fs::write(&new, text)?;
        Ok(fs::rename(new, self.config())?)
    }

    /// Puts another program where the gateway was started from, or the real one back.
    pub(super) fn install(&self, script: Option<&str>) -> Result<(), Failure> {
        let new = self.directory.path().join("tollgate.new");
        match script {
            Some(script) => fs::write(&new, script)?,
            None => drop(fs::copy(&self.binary, &new)?),
        }
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
        Ok(fs::rename(new, self.directory.path().join("tollgate"))?)
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("gateway.log")).unwrap_or_default()
    }

    fn ask(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Processes of the gateway, those that drain included.
    pub(super) fn pids(&self) -> Vec<u32> {
        let config = self.config();
        let is_ours = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == config.as_os_str().as_encoded_bytes())
        };
        let processes = fs::read_dir("/proc").into_iter().flatten();
        let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(is_ours).collect()
    }

    /// Waits until no process drains any more.
    pub(super) fn settled(&self) -> Result<(), Failure> {
        wait("predecessors to leave", || self.pids().len() == 1)
    }

    /// Tells it to leave; the error is that it does not.
    pub(super) fn stop(&mut self) -> Result<(), Failure> {
        self.signal(rustix::process::Signal::TERM);
        wait("the gateway to leave", || {
            // The first process is our child, and would stay behind as a zombie.
            let _ = self.child.try_wait();
            self.pids().is_empty()
        })
    }

    fn signal(&self, signal: rustix::process::Signal) {
        for pid in self.pids().into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // It may have ended in the meantime.
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.signal(rustix::process::Signal::KILL);
        // It may have been waited for.
        let _ = self.child.wait();
    }
}

/// Waits for a condition, with a deadline.
fn wait(what: &str, mut condition: impl FnMut() -> bool) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > deadline {
            return Err(format!("waited {PATIENCE:?} in vain for {what}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
