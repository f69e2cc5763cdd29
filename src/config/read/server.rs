//! `[server]` and `[admin]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::complaint::Complaint;
use super::leaf::{address, quantity};
use super::listener::Addresses;
use super::node::Node;
use super::table::Table;
use super::{Context, file, value};
use crate::config::{Admin, Rate, Server, Surroundings, Variable};

const MAX_THREADS: usize = 1024;
const MAX_CONNECTIONS: usize = 10_000_000;
/// Longer, and the sketch would fill with addresses of an hour ago.
const MAX_WINDOW: Duration = Duration::from_secs(60);
const MAX_NETWORKS: usize = 10_000;
/// Leaves room for the names of sockets in what a socket's path can be, 107 bytes.
const MAX_RUNTIME_DIR: usize = 80;
/// Where systemd and the FHS want it.
const RUNTIME_DIR: &str = "/run/tollgate";
pub(super) const ADMIN_PORT: u16 = 9900;

pub(super) fn server(ctx: &Context<'_>, mut table: Table<'_>) -> Option<Server> {
    let surroundings = ctx.surroundings;
    let threads = table.or("threads", surroundings.cores().clamp(1, MAX_THREADS), |node| node.integer(1..=MAX_THREADS));
    let drain_delay = table.or("drain_delay", Duration::ZERO, |node| value::duration(node, value::DAY));
    let drain_timeout = table.or("drain_timeout", Duration::from_secs(30), |node| value::duration(node, value::DAY));
    let runtime_dir = table.optional("runtime_dir", runtime_dir);
    let trusted_proxies = table
        .or("trusted_proxies", Vec::new(), |node| node.distinct(MAX_NETWORKS, |item| item.parse(address::network)));
    let max_connections =
        table.or("max_connections", default_connections(surroundings), |node| node.integer(1..=MAX_CONNECTIONS));
    let max_connections_per_address =
        table.optional("max_connections_per_address", |node| NonZeroUsize::new(node.integer(1..=MAX_CONNECTIONS)?));
    let max_connection_rate_per_address = table.optional("max_connection_rate_per_address", connection_rate);
    let keep_underscore_headers = table.or("keep_underscore_headers", false, Node::boolean);
    let watch = table.or("watch", false, Node::boolean);
    let zone = table.optional("zone", value::zone);
    table.finish(&[]);
    Some(Server {
        threads: threads?,
        drain_delay: drain_delay?,
        drain_timeout: drain_timeout?,
        runtime_dir: runtime_dir?.unwrap_or_else(|| default_runtime_dir(surroundings)),
        trusted_proxies: trusted_proxies?,
        max_connections: max_connections?,
        max_connections_per_address: max_connections_per_address?,
        max_connection_rate_per_address: max_connection_rate_per_address?,
        keep_underscore_headers: keep_underscore_headers?,
        watch: watch?,
        zone: zone?,
    })
}

fn connection_rate(node: &Node<'_>) -> Option<Rate> {
    let rate = node.parse(quantity::rate)?;
    if rate.per > MAX_WINDOW {
        node.problem("a flood is over or has succeeded within an hour: count by the second or the minute");
        return None;
    }
    Some(rate)
}

fn runtime_dir(node: &Node<'_>) -> Option<PathBuf> {
    node.parse(|text| {
        if !text.starts_with('/') || text.chars().any(char::is_control) {
            return Err(Complaint::new("this must be an absolute path: the next process must find it too"));
        }
        if text.len() > MAX_RUNTIME_DIR {
            return Err(Complaint::new(format!(
                "a path for sockets is {MAX_RUNTIME_DIR} bytes long at most: the system limits theirs"
            )));
        }
        Ok(PathBuf::from(text))
    })
}

pub(super) fn default_runtime_dir(surroundings: &dyn Surroundings) -> PathBuf {
    let set = |name| match surroundings.variable(name) {
        Variable::Set(value) if value.starts_with('/') => Some(value),
        _ => None,
    };
    // systemd gives several directories separated by colons; the first is the first of the unit.
    if let Some(first) = set("RUNTIME_DIRECTORY").as_deref().and_then(|list| list.split(':').next()) {
        return PathBuf::from(first);
    }
    set("XDG_RUNTIME_DIR")
        .map_or_else(|| PathBuf::from(RUNTIME_DIR), |directory| PathBuf::from(directory).join("tollgate"))
}

/// 80 % of the files, two for each connection: the client's and the upstream's.
fn default_connections(surroundings: &dyn Surroundings) -> usize {
    let files = surroundings.file_limit().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    (files / 10 * 8 / 2).clamp(1, MAX_CONNECTIONS)
}

pub(super) fn admin(mut table: Table<'_>, addresses: &mut Addresses) -> Option<Admin> {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT));
    let address = table.or("address", default, |node| addresses.take(node));
    let token = table.optional("token_file", |node| token(node));
    let health_address = table.optional("health_address", |node| addresses.take(node));
    if let (Some(address), Some(None)) = (address, &token)
        && !address.ip().is_loopback()
    {
        let at = table.get("address").unwrap_or_else(|| table.node.clone());
        at.problem("off loopback this needs \"token_file\": anybody who reaches it could read everything");
    }
    table.finish(&[]);
    Some(Admin { address: address?, token: token?, health_address: health_address? })
}

fn token(node: &Node<'_>) -> Option<crate::config::Secret> {
    let token = file::secret(node)?;
    if !token.expose().iter().all(u8::is_ascii_graphic) {
        node.problem(
            "the token in this file must be visible ASCII without spaces, in one line: it is sent in a header",
        );
        return None;
    }
    Some(token)
}
