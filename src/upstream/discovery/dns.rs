//! Asking DNS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::SRV;
use parking_lot::Mutex;

use super::{Answer, Found, Target};

/// How long one nameserver is waited for before it, or the next, is asked again.
const PATIENCE: Duration = Duration::from_secs(2);
/// Hosts taken from one answer.
const MAX_HOSTS: usize = 64;

/// Whom the names of one upstream are asked of.
#[derive(Debug)]
pub(in crate::upstream) struct Resolver {
    /// Empty: those of `/etc/resolv.conf`, with `/etc/hosts` in front
    nameservers: Vec<SocketAddr>,
    /// Made when it is first needed, and anew after a failure: the system's nameservers may be others by now
    made: Mutex<Option<Arc<TokioResolver>>>,
}

impl Resolver {
    pub(in crate::upstream) fn new(nameservers: &[SocketAddr]) -> Arc<Self> {
        Arc::new(Self { nameservers: nameservers.to_vec(), made: Mutex::default() })
    }

    /// One lookup.
    ///
    /// # Errors
    /// No answer, or one without an address.
    pub(in crate::upstream) async fn resolve(self: Arc<Self>, target: Target) -> io::Result<Answer> {
        let resolver = self.resolver()?;
        let answer = match target {
            Target::Host { host, port } => addresses(&resolver, &host, port).await,
            Target::Service { name } => service(&resolver, &name).await,
        };
        if answer.is_err() {
            *self.made.lock() = None;
        }
        answer
    }

    fn resolver(&self) -> io::Result<Arc<TokioResolver>> {
        let mut made = self.made.lock();
        if let Some(resolver) = &*made {
            return Ok(Arc::clone(resolver));
        }
        let mut builder = if self.nameservers.is_empty() {
            TokioResolver::builder_tokio().map_err(io::Error::other)?
        } else {
            let servers = self.nameservers.iter().map(|addr| server(*addr)).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            builder.options_mut().use_hosts_file = ResolveHosts::Never;
            builder
        };
        options(builder.options_mut());
        let resolver = Arc::new(builder.build().map_err(io::Error::other)?);
        *made = Some(Arc::clone(&resolver));
        Ok(resolver)
    }
}

fn options(options: &mut ResolverOpts) {
    // Each name is asked for when its TTL is over: nothing would be found in a cache but old failures.
    options.cache_size = 0;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = PATIENCE;
    options.attempts = 2;
}

fn server(addr: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = addr.port();
        connection
    });
    NameServerConfig::new(addr.ip(), true, connections.into())
}

async fn addresses(resolver: &TokioResolver, host: &str, port: u16) -> io::Result<Answer> {
    let lookup = resolver.lookup_ip(host).await.map_err(io::Error::other)?;
    let authority: Arc<str> = format!("{host}:{port}").into();
    let found =
        lookup.iter().map(|ip| Found { addr: SocketAddr::new(ip, port), weight: 1, authority: Arc::clone(&authority) });
    Ok(Answer { found: found.collect(), ttl: left(lookup.valid_until()) })
}

/// The hosts of the best priority that have an address, by their weights.
async fn service(resolver: &TokioResolver, name: &str) -> io::Result<Answer> {
    let lookup = resolver.srv_lookup(name).await.map_err(io::Error::other)?;
    let mut services: Vec<&SRV> = lookup.answers().iter().filter_map(|record| as_service(&record.data)).collect();
    services.sort_by_key(|service| service.priority);
    services.truncate(MAX_HOSTS);
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the answer holds no service");
    for group in services.chunk_by(|one, other| one.priority == other.priority) {
        let hosts = group.iter().map(|service| async {
            let host = service.target.to_utf8();
            let host = host.trim_end_matches('.');
            // RFC 2782: a target of "." says that there is no such service.
            let mut answer = if host.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the answer says that there is no such service"));
            } else {
                addresses(resolver, host, service.port).await?
            };
            // "A very small chance" for those of weight 0 (RFC 2782): a hundredth of the smallest.
            let weight = if service.weight == 0 { 1 } else { u32::from(service.weight) * 100 };
            answer.found.iter_mut().for_each(|found| found.weight = weight);
            Ok(answer)
        });
        let mut all = Answer { found: Vec::new(), ttl: left(lookup.valid_until()) };
        for host in join_all(hosts).await {
            match host {
                Ok(host) => {
                    all.ttl = all.ttl.min(host.ttl);
                    all.found.extend(host.found);
                }
                Err(error) => failure = error,
            }
        }
        if !all.found.is_empty() {
            return Ok(all);
        }
    }
    Err(failure)
}

fn as_service(data: &RData) -> Option<&SRV> {
    match data {
        RData::SRV(service) => Some(service),
        _ => None,
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}
