//! `[upstreams.NAME]`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::Method;
use rustls::pki_types::ServerName;

use super::complaint::Complaint;
use super::leaf::{address, header, path};
use super::node::Node;
use super::table::Table;
use super::{balance, endpoints_file, file, fitness, queue, value};
use crate::config::{
    Endpoint, EndpointAddress, Health, HealthKind, Host, ProxyHeader, Retry, RetryOn, Server, Timeouts, Upstream,
    UpstreamProtocol, UpstreamTls,
};

const MAX_ENDPOINTS: usize = 1000;
const MAX_NAMESERVERS: usize = 8;
const MAX_WEIGHT: u32 = 1000;
const MAX_PRIORITY: u8 = 15;
const MAX_REQUESTS: u32 = 1_000_000;
const MAX_RETRIES: u32 = 10;
const MAX_BACKOFF: Duration = Duration::from_secs(1);
const MAX_METHODS: usize = 32;
const MAX_IN_A_ROW: u32 = 100;
const MAX_RANGES: usize = 32;
const HOUR: Duration = Duration::from_secs(60 * 60);

pub(super) fn upstream(mut table: Table<'_>, server: Option<&Server>) -> Option<Upstream> {
    let endpoints_file = table.optional("endpoints_file", endpoints_file::endpoints_file);
    let endpoints = if table.has("endpoints_file") {
        table.or("endpoints", Vec::new(), endpoints)
    } else {
        table.required("endpoints", "where requests go, [\"10.0.0.11:8080\"]", endpoints)
    };
    let nameservers = table.or("nameservers", Vec::new(), nameservers);
    let balance = balance::balance(&mut table);
    let sticky = table.optional("sticky", |node| balance::sticky(node.table()?));
    let slow_start = table.optional("slow_start", |node| value::duration(node, HOUR));
    let protocol = protocol(&mut table);
    let host = table.or("host", Host::Preserve, host);
    let proxy_protocol = table.or("proxy_protocol", None, |node| {
        node.word(&[("off", None), ("v1", Some(ProxyHeader::V1)), ("v2", Some(ProxyHeader::V2))], &[])
    });
    let max_requests_per_endpoint =
        table.optional("max_requests_per_endpoint", |node| NonZeroU32::new(node.integer(1..=MAX_REQUESTS)?));
    let is_unbounded = !table.has("max_requests_per_endpoint");
    let without = is_unbounded.then_some("without \"max_requests_per_endpoint\" there is nothing to wait for");
    let queue = queue::queue(&mut table, without);
    let from_file = table.has("endpoints_file");
    let tls = table.optional("tls", |node| tls(node.table()?, endpoints.as_deref(), from_file));
    let timeouts = table.or("timeouts", Timeouts::default(), |node| timeouts(node.table()?, protocol));
    let health = table.optional("health", |node| health(node.table()?));
    let retry = table.or("retry", Retry::default(), |node| retry(node.table()?));
    let outlier = table.optional("outlier", |node| fitness::outlier(node.table()?));
    let breaker = table.optional("breaker", |node| fitness::breaker(node.table()?));
    let when_all_down = fitness::when_all_down(&mut table);
    table.finish(&[]);
    Some(Upstream {
        endpoints: endpoints?,
        endpoints_file: endpoints_file?,
        nameservers: nameservers?,
        balance: balance?,
        sticky: sticky?,
        slow_start: slow_start?,
        zone: server.and_then(|server| server.zone.clone()),
        protocol: protocol?,
        host: host?,
        proxy_protocol: proxy_protocol?,
        max_requests_per_endpoint: max_requests_per_endpoint?,
        queue: queue?,
        tls: tls?,
        timeouts: timeouts?,
        health: health?,
        retry: retry?,
        outlier: outlier?,
        breaker: breaker?,
        when_all_down: when_all_down?,
    })
}

fn nameservers(node: &Node<'_>) -> Option<Vec<SocketAddr>> {
    let items = node.items(MAX_NAMESERVERS)?;
    if items.is_empty() {
        node.problem("this list is empty: leave it out to ask the system's nameservers");
    }
    items.into_iter().map(|item| item.parse(address::nameserver)).collect()
}

/// No address twice: its weight says how much it takes.
pub(super) fn endpoints(node: &Node<'_>) -> Option<Vec<Endpoint>> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let items = node.items(MAX_ENDPOINTS)?;
    if items.is_empty() {
        node.problem("this list is empty: an upstream has an endpoint");
    }
    for item in items {
        let Some(endpoint) = endpoint(&item) else {
            continue;
        };
        if endpoints.iter().any(|other| other.address == endpoint.address) {
            item.problem("this endpoint is in the list already: give one of them a weight instead");
        }
        endpoints.push(endpoint);
    }
    Some(endpoints)
}

fn endpoint(node: &Node<'_>) -> Option<Endpoint> {
    let Some(mut table) = node.inline_table() else {
        return node.parse(address::endpoint).map(|address| Endpoint { address, weight: 1, priority: 0, zone: None });
    };
    let address = table.required("address", "where the endpoint is", |node| node.parse(address::endpoint));
    let weight = table.or("weight", 1, |node| node.integer(1..=MAX_WEIGHT));
    let priority = table.or("priority", 0, |node| node.integer(0..=MAX_PRIORITY));
    let zone = table.optional("zone", value::zone);
    table.finish(&[]);
    Some(Endpoint { address: address?, weight: weight?, priority: priority?, zone: zone? })
}

fn protocol(table: &mut Table<'_>) -> Option<UpstreamProtocol> {
    let has_tls = table.has("tls");
    let words = [
        ("http/1.1", UpstreamProtocol::Http1),
        ("h2", UpstreamProtocol::Http2),
        ("h2c", UpstreamProtocol::Http2Cleartext),
    ];
    table.or("protocol", UpstreamProtocol::Http1, |node| {
        match (node.word(&words, &["h3"])?, has_tls) {
            (UpstreamProtocol::Http2, false) => {
                node.problem("h2 needs TLS: add [upstreams.NAME.tls], or write \"h2c\"")
            }
            (UpstreamProtocol::Http2Cleartext, true) => {
                node.problem("h2c is h2 without TLS: with \"tls\" write \"h2\"")
            }
            (protocol, _) => return Some(protocol),
        }
        None
    })
}

fn host(node: &Node<'_>) -> Option<Host> {
    node.parse(|text| match text {
        "preserve" => Ok(Host::Preserve),
        text => header::value(&address::authority(text)?).map(Host::Fixed),
    })
}

fn tls(mut table: Table<'_>, endpoints: Option<&[Endpoint]>, from_file: bool) -> Option<UpstreamTls> {
    let server_name = match table.get("server_name") {
        Some(node) => node.parse(server_name),
        None => implied_name(&table, endpoints?, from_file),
    };
    let ca = table.optional("ca_file", file::content);
    let client = file::certificate(&mut table, ["client_cert_file", "client_key_file"]);
    table.finish(&[]);
    Some(UpstreamTls { server_name: server_name?, ca: ca?, client: client? })
}

/// A name or an address that a certificate can be for.
fn server_name(text: &str) -> Result<String, Complaint> {
    let name = address::host_name(text).or_else(|complaint| match text.parse::<std::net::IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => Err(complaint),
    })?;
    match ServerName::try_from(name.as_str()) {
        Ok(_) => Ok(name),
        Err(_) => Err(Complaint::new("this is not a name or an address that a certificate can be for")),
    }
}

/// The name that all endpoints have, if they have one.
fn implied_name(table: &Table<'_>, endpoints: &[Endpoint], from_file: bool) -> Option<String> {
    let mut names = endpoints.iter().map(|endpoint| match &endpoint.address {
        EndpointAddress::Name { host, .. } => Some(host.as_str()),
        EndpointAddress::Socket(_) | EndpointAddress::Service { .. } | EndpointAddress::Unix(_) => None,
    });
    // A file may hold others tomorrow.
    let first = if from_file { None } else { names.next()? };
    let message = match first {
        Some(name) if names.all(|other| other == Some(name)) => match server_name(name) {
            Ok(name) => return Some(name),
            Err(complaint) => {
                format!("\"server_name\" is missing, and the endpoint's cannot be it: {}", complaint.message)
            }
        },
        _ => "\"server_name\" is missing: the name that the certificates have, which these endpoints do not tell"
            .to_owned(),
    };
    table.node.problem(message);
    None
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            per_try: None,
            first_byte: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            keepalive: Duration::from_secs(50),
        }
    }
}

fn timeouts(mut table: Table<'_>, protocol: Option<UpstreamProtocol>) -> Option<Timeouts> {
    let default = Timeouts::default();
    let connect = table.or("connect", default.connect, |node| value::duration(node, HOUR));
    let per_try = table.optional("per_try", |node| {
        if protocol.is_some_and(|protocol| protocol != UpstreamProtocol::Http1) {
            node.problem_of_key("\"per_try\" is possible with protocol \"http/1.1\" alone: shorten \"first_byte\"");
        }
        value::duration(node, value::DAY)
    });
    let first_byte = table.or("first_byte", default.first_byte, |node| value::duration(node, value::DAY));
    let idle = table.or("idle", default.idle, |node| value::duration(node, value::DAY));
    let keepalive = table.or("keepalive", default.keepalive, |node| value::duration(node, value::DAY));
    table.finish(&[]);
    Some(Timeouts { connect: connect?, per_try: per_try?, first_byte: first_byte?, idle: idle?, keepalive: keepalive? })
}

#[derive(Clone, Copy)]
enum Asked {
    Http,
    Tcp,
    Grpc,
}

fn health(mut table: Table<'_>) -> Option<Health> {
    let kinds = [("http", Asked::Http), ("tcp", Asked::Tcp), ("grpc", Asked::Grpc)];
    let kind = table
        .required("type", "how endpoints are checked, \"http\", \"tcp\" or \"grpc\"", |node| node.word(&kinds, &[]));
    // Where the type is wrong, none of the others shall look so too.
    let kind = match kind {
        Some(Asked::Http) | None => http_check(&mut table),
        Some(Asked::Tcp) => Some(HealthKind::Tcp),
        Some(Asked::Grpc) => grpc_check(&mut table),
    }
    .filter(|_| kind.is_some());
    let port = table.optional("port", |node| node.integer(1..=u16::MAX));
    let interval = table.or("interval", Duration::from_secs(5), |node| value::duration(node, HOUR));
    let unhealthy_interval = table.optional("unhealthy_interval", |node| value::duration(node, HOUR));
    let timeout = table.or("timeout", Duration::from_secs(1), |node| value::duration(node, HOUR));
    let healthy_after = table.or("healthy_after", 2, |node| node.integer(1..=MAX_IN_A_ROW));
    let unhealthy_after = table.or("unhealthy_after", 3, |node| node.integer(1..=MAX_IN_A_ROW));
    table.finish(&[]);
    Some(Health {
        kind: kind?,
        port: port?,
        interval: interval?,
        unhealthy_interval: unhealthy_interval?.unwrap_or(interval?),
        timeout: timeout?,
        healthy_after: NonZeroU32::new(healthy_after?)?,
        unhealthy_after: NonZeroU32::new(unhealthy_after?)?,
    })
}

fn http_check(table: &mut Table<'_>) -> Option<HealthKind> {
    let path = table.or("path", "/".to_owned(), |node| node.parse(request_path));
    let host = table.optional("host", |node| node.parse(address::authority));
    let expect_status = table
        .or("expect_status", vec![200..=299], |node| node.some(MAX_RANGES, "leave it out for 200 to 299", statuses));
    let expect_body = table.optional("expect_body", value::text);
    Some(HealthKind::Http { path: path?, host: host?, expect_status: expect_status?, expect_body: expect_body? })
}

fn grpc_check(table: &mut Table<'_>) -> Option<HealthKind> {
    let service = table.or("service", String::new(), value::text);
    let host = table.optional("host", |node| node.parse(address::authority));
    Some(HealthKind::Grpc { service: service?, host: host? })
}

/// A path with perhaps a query, as it is sent.
fn request_path(text: &str) -> Result<String, Complaint> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    path::plain(path)?;
    if let Some(wrong) = query.find(|character: char| !matches!(character, '!'..='~') || character == '#') {
        return Err(Complaint::at(path.len() + 1 + wrong..text.len(), "this cannot stand in a query: escape it"));
    }
    match text.parse::<http::uri::PathAndQuery>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(Complaint::new("this is not a path that can be asked for")),
    }
}

/// `"200-299"`, `"204"`.
fn statuses(node: &Node<'_>) -> Option<RangeInclusive<u16>> {
    node.parse(|text| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| match text.parse() {
            Ok(status @ 200..=599) if text.len() == 3 => Some(status),
            _ => None,
        };
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Ok(first..=last),
            _ => {
                Err(Complaint::new("this must be a status or a range of them from 200 to 599: \"204\" or \"200-299\""))
            }
        }
    })
}

impl Default for Retry {
    /// The methods are the idempotent ones (RFC 9110 section 9.2.2).
    fn default() -> Self {
        let methods = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE];
        Self {
            max_retries: 1,
            on: vec![RetryOn::ConnectFailure, RetryOn::Reset],
            methods: methods.into(),
            budget: Some(20),
            backoff: Duration::from_millis(25),
        }
    }
}

fn retry(mut table: Table<'_>) -> Option<Retry> {
    let default = Retry::default();
    let max_retries = table.or("max_retries", default.max_retries, |node| node.integer(0..=MAX_RETRIES));
    let on = table.or("on", default.on, |node| node.some(16, "max_retries = 0 turns retries off", retry_on));
    let methods = table.or("methods", default.methods, |node| {
        node.some(MAX_METHODS, "leave it out for the idempotent ones", |item| item.parse(header::method))
    });
    let budget = table.or("budget", default.budget, |node| value::percent_or_none(node, 0..=100));
    let backoff = table.or("backoff", default.backoff, |node| value::duration(node, MAX_BACKOFF));
    table.finish(&[]);
    Some(Retry { max_retries: max_retries?, on: on?, methods: methods?, budget: budget?, backoff: backoff? })
}

/// A word, or a status of those that say that something is wrong.
fn retry_on(node: &Node<'_>) -> Option<RetryOn> {
    let words = [
        ("connect_failure", RetryOn::ConnectFailure),
        ("reset", RetryOn::Reset),
        ("timeout", RetryOn::Timeout),
        ("5xx", RetryOn::Status(500, 599)),
    ];
    match node.text()?.as_str().parse::<u32>() {
        Ok(_) => node.parse(error_status),
        Err(_) => node.word(&words, &[]),
    }
}

fn error_status(text: &str) -> Result<RetryOn, Complaint> {
    match text.parse() {
        Ok(status @ 400..=599) if text.len() == 3 => Ok(RetryOn::Status(status, status)),
        _ => Err(Complaint::new("this must be a status from 400 to 599")),
    }
}
