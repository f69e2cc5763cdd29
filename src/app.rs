//! Wiring: from a configuration file to a process that serves. The only place where rooms meet.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use rustls::crypto::CryptoProvider;
use tokio::sync::Semaphore;

use crate::admin::{Admin, Sources};
use crate::config::{Config, ConfigError, Name, Places, Reading, Recorder, System};
use crate::control::{self, Drain, Estate, Launcher, Life, Parts, Predecessor, Reloader, Signals, Status};
use crate::listen::{Crowd, Listeners, Listening, Threads};
use crate::proxy::{Connector, Proxy};
use crate::snapshot::{Live, Snapshot, Tools};
use crate::socket::{self, Activated, Sockets, listen_unix};
use crate::telemetry::{AccessLog, Metrics, start_log};
use crate::tls::{TicketKey, TicketKeys, TlsTools};

/// The name of the control socket among those that are passed on.
const CONTROL: &str = "control";
/// Idle connections to upstreams that each worker keeps.
const POOL_PER_THREAD: usize = 512;
/// Pingora's own bound on tries; a request stops long before, when its upstream's retry policy says so.
const MAX_TRIES: usize = 100;

/// Why the process does not serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Anything else, and what to do about it
    #[error("{0}")]
    Other(String),
}

/// What a check of a configuration finds when it finds nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Listeners
    pub listeners: usize,
    /// Routes
    pub routes: usize,
    /// Upstreams
    pub upstreams: usize,
}

/// Builds everything that serving needs, and drops it.
///
/// # Errors
/// What is wrong with the configuration.
pub fn check(file: &Path) -> Result<Summary, ConfigError> {
    let (config, places) = Config::load_with_places(file, &System)?;
    let snapshot = Snapshot::build(config, None, &tools(Vec::new())).map_err(|problems| places.locate(problems))?;
    Ok(Summary {
        listeners: snapshot.config.listeners.len(),
        routes: snapshot.config.routes.len(),
        upstreams: snapshot.upstreams.len(),
    })
}

/// Serves until told to leave. With `take_over`, the process that runs with the same runtime directory is succeeded.
///
/// # Errors
/// Why it cannot serve. A predecessor has been told and serves on.
pub fn run(file: &Path, take_over: bool) -> Result<(), StartError> {
    // Before anything is opened here: a number that was promised and not kept would be that of something of our own.
    let activated = socket::activated();
    let signals = Signals::install().map_err(|error| other(format!("signal handlers cannot be installed: {error}")))?;
    let started_by = Predecessor::that_started_us().map_err(StartError::Other)?;
    raise_file_limit();
    let recorder = Recorder::new(&System);
    let loaded = Config::load_with_places(file, &recorder);
    let reading = recorder.into_reading();
    let inherited = match (started_by, &loaded) {
        (None, Ok((config, _))) if take_over => {
            Some(Predecessor::that_runs(&config.server.runtime_dir).map_err(StartError::Other)?)
        }
        (started_by, _) => started_by,
    };
    let (predecessor, estate) = inherited.unzip();
    let estate = match (estate, &loaded) {
        (None, Ok((config, _))) => {
            Estate { sockets: named(activated.map_err(StartError::Other)?, config)?, ..Estate::default() }
        }
        (estate, _) => estate.unwrap_or_default(),
    };
    let started = loaded
        .map_err(StartError::from)
        .and_then(|loaded| start(loaded, (file, reading), signals, predecessor.clone(), estate));
    let Started { server, life, workers, access_log, failure } = started.inspect_err(|error| {
        if let Some(predecessor) = &predecessor {
            predecessor.abort(&error.to_string());
        }
    })?;
    server.run(RunArgs { shutdown_signal: Box::new(life) });
    workers.end();
    access_log.finish();
    match failure.get() {
        Some(why) => Err(other(why.clone())),
        None => Ok(()),
    }
}

/// What the service manager has bound for the listeners. Nothing it passes is silently left out: connections to a socket
/// that nobody serves would wait for ever.
fn named(activated: Vec<Activated>, config: &Config) -> Result<Sockets, StartError> {
    let mut sockets = Sockets::default();
    for Activated { name, address, socket } in activated {
        let Some(listener) = config.listeners.get(name.as_str()) else {
            return Err(other(format!(
                "the service manager passes a socket \"{name}\" ({address}), and there is no [listeners.{name}]: \
                 FileDescriptorName= of the socket unit has to be the name of a listener"
            )));
        };
        if !listener.addresses.contains(&address) {
            return Err(other(format!(
                "the service manager passes a socket \"{name}\" that listens at {address}, which is no address of \
                 [listeners.{name}]: ListenStream= has to say the same"
            )));
        }
        if !sockets.insert(&address.to_string(), socket) {
            return Err(other(format!(
                "the service manager passes two sockets that listen at {address}: one is enough"
            )));
        }
    }
    Ok(sockets)
}

/// What is wired and has not begun to run.
struct Started {
    server: Server,
    life: Life,
    workers: Threads,
    access_log: AccessLog,
    failure: Arc<OnceLock<String>>,
}

/// Binds, builds and wires everything; nothing runs yet.
fn start(
    (config, places): (Config, Places),
    (file, reading): (&Path, Reading),
    signals: Signals,
    predecessor: Option<Predecessor>,
    Estate { mut sockets, ticket_keys }: Estate,
) -> Result<Started, StartError> {
    start_log(&config.log.level).map_err(|error| other(format!("the log cannot be started: {error}")))?;
    let tools = tools(ticket_keys);
    let mut snapshot = Snapshot::build(config, None, &tools).map_err(|problems| places.locate(problems))?;
    snapshot.generation += predecessor.as_ref().map_or(0, Predecessor::generation);
    let config = snapshot.config.clone();
    let launcher =
        Launcher::of_this_process(file).map_err(|error| other(format!("this program cannot be found: {error}")))?;
    let access_log = AccessLog::start(&config.log.access)
        .map_err(|error| other(format!("log.access.output cannot be written: {error}")))?;

    let all: Vec<_> = addresses(&config).collect();
    sockets.retain(|name| name == CONTROL || all.iter().any(|address| address.to_string() == Sockets::address(name)));
    let cannot = |key: &str, address: SocketAddr, error| other(format!("{key}: cannot listen at {address}: {error}"));
    let mut bind =
        |key: &str, address: SocketAddr| sockets.tcp(address, &all).map_err(|error| cannot(key, address, error));
    let admin_socket = bind("admin.address", config.admin.address)?;
    let health_socket = config.admin.health_address.map(|address| bind("admin.health_address", address)).transpose()?;
    let mut listening: Vec<(Name, Vec<TcpListener>)> = Vec::new();
    for (name, listener) in &config.listeners {
        for address in &listener.addresses {
            let shares = sockets.shared(*address, &all, config.server.threads);
            let shares = shares.map_err(|error| cannot(&format!("listeners.{name}.address"), *address, error))?;
            listening.push((name.clone(), shares));
        }
    }
    let control_socket = control_socket(&config, &mut sockets)?;

    let live = Arc::new(Live::new(snapshot));
    let (drain, status) = (Drain::new(), Arc::new(Status::new()));
    let conf = server_conf();
    let mut server = Server::new_with_opt_and_conf(None, conf);
    let proxy = {
        let (live, drain, access_log) = (Arc::clone(&live), drain.clone(), access_log.clone());
        let (conf, threads) = (Arc::clone(&server.configuration), config.server.threads);
        move || {
            let proxy = Proxy { live: Arc::clone(&live), drain: drain.clone(), access_log: access_log.clone() };
            Connector::of_one(threads, &conf).proxy(&conf, proxy)
        }
    };
    let capacity = Arc::new(Semaphore::new(config.server.max_connections));
    let crowd = Arc::new(Crowd::new());
    let listening = listening.into_iter().map(|(name, sockets)| {
        let listening = Listening {
            metrics: tools.metrics.listener(&name),
            name,
            live: Arc::clone(&live),
            drain: drain.clone(),
            capacity: Arc::clone(&capacity),
            crowd: Arc::clone(&crowd),
        };
        (sockets, Arc::new(listening))
    });
    let (listeners, workers) = Listeners::new(proxy, listening.collect(), config.server.threads);
    let accepting = listeners.accepting();
    server.add_service(listeners);
    let sources = Sources {
        succeeds: predecessor.is_some(),
        live: Arc::clone(&live),
        drain: drain.clone(),
        status: Arc::clone(&status),
        metrics: Arc::clone(&tools.metrics),
        access_log: access_log.clone(),
    };
    server.add_service(Admin::new(sources, admin_socket, health_socket));
    let failure = Arc::new(OnceLock::new());
    let life = Life::new(Parts {
        reloader: Reloader::new(file.to_path_buf(), reading, live, tools.clone(), Arc::clone(&status)),
        drain,
        status,
        metrics: tools.metrics,
        access_log: access_log.clone(),
        sockets,
        control_socket,
        signals,
        launcher,
        predecessor,
        accepting,
        failure: Arc::clone(&failure),
    });
    Ok(Started { server, life, workers, access_log, failure })
}

fn other(text: String) -> StartError {
    StartError::Other(text)
}

/// One provider of cryptography for the whole process, Pingora's connections included.
fn tools(ticket_keys: Vec<TicketKey>) -> Tools {
    let tls = TlsTools::new(TicketKeys::inherited(ticket_keys));
    // A second call in one process finds the first one's provider, which is the same.
    drop(CryptoProvider::clone(&tls.provider).install_default());
    Tools { metrics: Arc::new(Metrics::new()), tls }
}

/// Every address of the configuration.
fn addresses(config: &Config) -> impl Iterator<Item = SocketAddr> + '_ {
    let listeners = config.listeners.values().flat_map(|listener| listener.addresses.iter().copied());
    listeners.chain(std::iter::once(config.admin.address)).chain(config.admin.health_address)
}

/// Where commands arrive: passed on by a predecessor, or made in the runtime directory.
fn control_socket(config: &Config, sockets: &mut Sockets) -> Result<std::os::fd::OwnedFd, StartError> {
    let directory: &PathBuf = &config.server.runtime_dir;
    let file = control::control_socket(directory);
    let told = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => other(format!(
            "another process serves with this runtime_dir ({}): `tollgate upgrade` or `tollgate run --upgrade` hands over",
            directory.display()
        )),
        _ => other(format!("server.runtime_dir: {} cannot be made: {error}", file.display())),
    };
    if let Some(socket) = sockets.find(CONTROL).map_err(told)? {
        return Ok(socket);
    }
    private_directory(directory)
        .map_err(|error| other(format!("server.runtime_dir: {} cannot be made: {error}", directory.display())))?;
    let socket = listen_unix(&file).map_err(told)?;
    sockets.insert(CONTROL, socket.try_clone().map_err(told)?);
    Ok(socket)
}

fn private_directory(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // One that exists is the operator's, or the service manager's. But whoever may write in it could put a socket of his
    // own in the place of ours.
    let found = std::fs::metadata(directory)?;
    let is_ours = found.uid() == 0 || found.uid() == rustix::process::geteuid().as_raw();
    if !is_ours || found.mode() & 0o022 != 0 {
        return Err(std::io::Error::other("it exists, and others may write in it: use a directory of your own"));
    }
    Ok(())
}

/// Of the whole process, and of each worker's proxy: one thread is all that each service and each pool is for.
fn server_conf() -> ServerConf {
    ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: POOL_PER_THREAD,
        max_retries: MAX_TRIES,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    }
}

/// The limit that a service manager or a shell has set low for programs that select(2) is lifted to what is allowed.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Refused, the process serves with what it has.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}
