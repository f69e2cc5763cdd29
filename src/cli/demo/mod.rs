//! `tollgate demo`: three services, an issuer, and a gateway in front of them, on this machine alone.
//!
//! The gateway is this binary, run as a process of its own with `tollgate run` and a configuration file: what is tried
//! here is what is deployed. Everything else lives in this process, and nothing of it outlives the demo.

mod configuration;
mod directory;
mod gateway;
mod guide;
mod issuer;
mod screen;
mod server;
mod service;
mod traffic;

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, SystemTime};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval, sleep};

use self::configuration::Addresses;
use self::directory::Directory;
use self::gateway::Gateway;
use self::issuer::Issuer;
use self::screen::Screen;
use self::service::Service;
use self::traffic::Traffic;
use super::Failure;

/// Where the gateway listens unless told otherwise.
const PORT: u16 = 8080;
/// Where its admin side does, if it can.
const ADMIN_PORT: u16 = 9900;
/// How often the access log is read.
const TICK: Duration = Duration::from_millis(100);
/// How often the line at the bottom of a terminal changes.
const SUMMARY_ON_TERMINAL: Duration = Duration::from_secs(1);
/// How often the same is written elsewhere, if anything went through.
const SUMMARY_ELSEWHERE: Duration = Duration::from_secs(10);

/// Try everything at once: services, an issuer, and a gateway in front of them
#[derive(Debug, Args)]
pub struct Demo {
    /// Where the gateway listens on 127.0.0.1; 0 is any free port [default: 8080, or a free one if that is taken]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// End by itself after so many seconds
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Print addresses and tokens alone, as assignments that a shell can evaluate
    #[arg(short, long)]
    quiet: bool,
}

impl Demo {
    pub(super) fn run(self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        match runtime.block_on(self.show()) {
            // Whoever read us has seen enough, as in `tollgate demo | head`.
            Err(failure) if is_broken_pipe(&failure) => Ok(()),
            result => result,
        }
    }

    async fn show(self) -> Result<(), Failure> {
        let told_to_end = told_to_end()?;
        tokio::pin!(told_to_end);
        let (mut screen, issuer) = (Screen::new(), Issuer::start().await?);
        let (orders_a, orders_b) = (Service::start("orders-a").await?, Service::start("orders-b").await?);
        let catalog = Service::start("catalog").await?;
        let (gateway, admin) = self.free_addresses()?;
        let (orders, issued_at) = ([orders_a.addr(), orders_b.addr()], issuer.addr());
        let addresses = Addresses { gateway, admin, issuer: issued_at, orders, catalog: catalog.addr() };
        let directory = Directory::create()?;
        let file = directory.path().join("tollgate.toml");
        std::fs::write(&file, configuration::text(&addresses, directory.path()))?;
        let mut gateway = tokio::select! {
            gateway = Gateway::start(&file, directory.path(), admin) => gateway?,
            () = &mut told_to_end => return Ok(()),
        };
        let tokens = guide::Tokens::issue(&issuer, SystemTime::now())?;
        if self.quiet {
            screen.say(&guide::assignments(&addresses, &tokens))?;
        } else {
            screen.say(&guide::text(&addresses, &tokens, &file)?)?;
        }
        let log = directory.path().join(configuration::ACCESS_LOG);
        let mut traffic = Traffic::new(&log, [&orders_a, &orders_b, &catalog]);
        let result = tokio::select! {
            () = told_to_end => Ok(()),
            () = self.time_is_over() => Ok(()),
            failure = gateway.ended() => Err(failure),
            Err(error) = watch(&mut traffic, &mut screen), if !self.quiet => Err(error.into()),
        };
        gateway.stop().await;
        if !self.quiet {
            // What was written last.
            traffic.read(None)?;
            screen.say(&traffic.summary())?;
        }
        result
    }

    /// Where the gateway and its admin side will listen. Both are held until both are found.
    fn free_addresses(&self) -> Result<(SocketAddr, SocketAddr), Failure> {
        let gateway = match self.port {
            Some(port) => bind(port).map_err(|error| format!("cannot listen at 127.0.0.1:{port}: {error}"))?,
            None => bind(PORT).or_else(|error| {
                eprintln!("port {PORT} is not to be had ({error}): the gateway listens at another");
                bind(0)
            })?,
        };
        // With any port for the gateway, several demos may run at once.
        let admin = if self.port == Some(0) { bind(0)? } else { bind(ADMIN_PORT).or_else(|_| bind(0))? };
        Ok((gateway.local_addr()?, admin.local_addr()?))
    }

    async fn time_is_over(&self) {
        match self.seconds {
            Some(seconds) => sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    }
}

fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

/// Resolves at Ctrl-C, when told to end, and when the terminal is closed. Signals are caught from the call on, so that
/// none of them ends the process before it has cleaned up.
fn told_to_end() -> io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Shows what goes through; ends only if it cannot be shown.
async fn watch(traffic: &mut Traffic, screen: &mut Screen) -> io::Result<()> {
    let span = if screen.is_terminal() { SUMMARY_ON_TERMINAL } else { SUMMARY_ELSEWHERE };
    let (mut ticks, mut recent, mut since) = (interval(TICK), 0, Instant::now());
    loop {
        ticks.tick().await;
        recent += traffic.read(Some(screen))?;
        if since.elapsed() < span {
            continue;
        }
        let summary = format!("{:.0} requests/s, {}", recent as f64 / since.elapsed().as_secs_f64(), traffic.summary());
        if screen.is_terminal() {
            screen.bottom(&summary)?;
        } else if recent > 0 {
            screen.say(&summary)?;
        }
        (recent, since) = (0, Instant::now());
    }
}

fn is_broken_pipe(failure: &Failure) -> bool {
    failure.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
