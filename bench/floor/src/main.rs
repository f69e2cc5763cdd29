//! `tollgate-floor`: a proxy on Pingora that does nothing but pass requests on. What it costs is the least that any
//! gateway on the same runtime costs.
//!
//! Pingora's own listener and its own settings, but for three things the gateway has as well: mimalloc, no modules, and
//! a peer that was built before the first request.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use async_trait::async_trait;
use clap::Parser;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::modules::http::HttpModules;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Idle connections to the origin that are kept, for each thread.
const POOL: usize = 512;

/// A proxy on Pingora that does nothing but pass requests on
#[derive(Debug, Parser)]
struct Arguments {
    /// Where requests go
    #[arg(long)]
    origin: SocketAddr,
    /// Where they come from
    #[arg(long)]
    listen: SocketAddr,
    /// With TLS: its certificate, a PEM file
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// And its key
    #[arg(long, requires = "certificate")]
    key: Option<PathBuf>,
    /// Workers
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

struct Floor {
    peer: HttpPeer,
}

#[async_trait]
impl ProxyHttp for Floor {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }
}

fn main() -> ExitCode {
    match start(&Arguments::parse()) {
        Ok(server) => server.run_forever(),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> Result<Server> {
    // It fails where one is installed already, and then there is one.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let conf = ServerConf {
        threads: arguments.threads,
        upstream_keepalive_pool_size: POOL,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let peer = HttpPeer::new(arguments.origin, false, String::new());
    let mut service = http_proxy_service(&server.configuration, Floor { peer });
    let listen = arguments.listen.to_string();
    match (&arguments.certificate, &arguments.key) {
        (Some(certificate), Some(key)) => {
            let mut tls = TlsSettings::intermediate(text(certificate)?, text(key)?)?;
            tls.enable_h2();
            service.add_tls_with_settings(&listen, None, tls);
        }
        _ => service.add_tcp(&listen),
    }
    server.add_service(service);
    Ok(server)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::explain(ErrorType::InternalError, "a path that is no UTF-8"))
}
