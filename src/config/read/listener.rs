//! `[listeners.NAME]`.

use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderName;

use super::leaf::{address, header, quantity};
use super::node::Node;
use super::section::Named;
use super::table::Table;
use super::{Objects, file, value};
use crate::config::{
    Certificate, CertificateFact, ClientAuth, Limit, Listener, Name, Protocol, ProxyProtocol, Server, Tls,
};

const MAX_ADDRESSES: usize = 64;
const MAX_CERTIFICATES: usize = 1000;
const MAX_HEADERS: usize = 1000;
const HOUR: Duration = Duration::from_secs(60 * 60);
const DEFAULT_HEAD: usize = 32 * 1024;

/// The addresses that are taken, each by one listener or the admin side.
#[derive(Default)]
pub(super) struct Addresses(Vec<(SocketAddr, String)>);

pub(super) fn listener<'a>(
    mut table: Table<'a>,
    server: Option<&Server>,
    limits: &Named<'a>,
    read_limits: &Objects<Limit>,
    identity_headers: &[HeaderName],
    addresses: &mut Addresses,
) -> Option<Listener> {
    let addresses = self::addresses(&mut table, addresses);
    let tls = table.optional("tls", |node| tls(node.table()?, identity_headers));
    let has_tls = table.get("tls").is_some();
    let protocols = table.or("protocols", default_protocols(has_tls), |node| protocols(node, has_tls));
    let proxy_protocol = table.or("proxy_protocol", ProxyProtocol::Off, |node| proxy_protocol(node, server));
    let redirect_to_https = table.or("redirect_to_https", false, |node| {
        let redirect = node.boolean()?;
        if redirect && has_tls {
            node.problem("this listener is https: it would redirect to itself");
            return None;
        }
        Some(redirect)
    });
    let header_timeout = table.or("header_timeout", Duration::from_secs(10), |node| value::duration(node, HOUR));
    let keepalive_timeout = table.or("keepalive_timeout", Duration::from_secs(75), |node| value::duration(node, HOUR));
    let max_headers = table.or("max_headers", 100, |node| node.integer(1..=MAX_HEADERS));
    let max_header_bytes = table.or("max_header_bytes", DEFAULT_HEAD, |node| {
        let bytes = node.parse(|text| quantity::size(text, 1 << 10..=1 << 20))?;
        usize::try_from(bytes).ok()
    });
    let limits = table.or("limits", Vec::new(), |node| self::limits(node, limits, read_limits));
    table.finish(&[]);
    Some(Listener {
        addresses: addresses?,
        protocols: protocols?,
        proxy_protocol: proxy_protocol?,
        redirect_to_https: redirect_to_https?,
        header_timeout: header_timeout?,
        keepalive_timeout: keepalive_timeout?,
        max_headers: max_headers?,
        max_header_bytes: max_header_bytes?,
        limits: limits?,
        tls: tls?,
    })
}

fn addresses(table: &mut Table<'_>, taken: &mut Addresses) -> Option<Vec<SocketAddr>> {
    match table.one_of(&["address", "addresses"]) {
        Some(("address", node)) => taken.take(&node).map(|address| vec![address]),
        Some((_, node)) => {
            let mut addresses = Vec::new();
            let items = node.items(MAX_ADDRESSES)?;
            if items.is_empty() {
                node.problem("this list is empty: a listener has an address");
            }
            for item in items {
                addresses.extend(taken.take(&item));
            }
            Some(addresses)
        }
        None => {
            table.node.problem("\"address\" is missing: where this listens, \"0.0.0.0:8080\"");
            None
        }
    }
}

impl Addresses {
    /// An address that nobody else has.
    pub(super) fn take(&mut self, node: &Node<'_>) -> Option<SocketAddr> {
        let address = node.parse(address::socket)?;
        // Port 0 is a free one, another each time.
        if address.port() != 0
            && let Some((_, other)) = self.0.iter().find(|(taken, _)| *taken == address)
        {
            node.problem(format!("{other} listens at this address already"));
            return None;
        }
        self.0.push((address, node.path.clone()));
        Some(address)
    }
}

fn default_protocols(has_tls: bool) -> Vec<Protocol> {
    if has_tls { vec![Protocol::Http2, Protocol::Http1] } else { vec![Protocol::Http1] }
}

fn protocols(node: &Node<'_>, has_tls: bool) -> Option<Vec<Protocol>> {
    let words = [("http/1.1", Protocol::Http1), ("h2", Protocol::Http2), ("h2c", Protocol::Http2Cleartext)];
    let protocols = node.some(8, "leave it out for the default", |item| {
        let protocol = item.word(&words, &["h3"])?;
        let wrong = match protocol {
            Protocol::Http2 if !has_tls => {
                "h2 needs TLS, which this listener has not: add [listeners.NAME.tls], or write \"http/1.1\" or \"h2c\""
            }
            Protocol::Http2Cleartext if has_tls => "h2c is HTTP/2 without TLS, which this listener has: write \"h2\"",
            _ => return Some(protocol),
        };
        item.problem(wrong);
        None
    })?;
    if protocols.len() > 1 && protocols.contains(&Protocol::Http2Cleartext) {
        node.problem("h2c wants a listener of its own: without TLS nothing says which protocol a client speaks");
        return None;
    }
    Some(protocols)
}

/// Where nobody is trusted, nobody could connect.
fn proxy_protocol(node: &Node<'_>, server: Option<&Server>) -> Option<ProxyProtocol> {
    let read = node.word(&[("off", ProxyProtocol::Off), ("required", ProxyProtocol::Required)], &[])?;
    if read == ProxyProtocol::Required && server.is_some_and(|server| server.trusted_proxies.is_empty()) {
        node.problem("the header is believed of server.trusted_proxies alone, and there are none: name the balancers");
        return None;
    }
    Some(read)
}

/// Here nobody is known yet, so a limit that counts by who calls cannot.
fn limits(node: &Node<'_>, limits: &Named<'_>, read_limits: &Objects<Limit>) -> Option<Vec<Name>> {
    let message = "this limit counts by who calls, which is not known yet where requests arrive: name it in routes";
    value::names(node, limits, |name| match read_limits.get(name) {
        Some(limit) if limit.needs_identity() => Err(message),
        _ => Ok(()),
    })
}

fn tls(mut table: Table<'_>, identity_headers: &[HeaderName]) -> Option<Tls> {
    let versions = [("1.2", rustls::ProtocolVersion::TLSv1_2), ("1.3", rustls::ProtocolVersion::TLSv1_3)];
    let min_version = table.or("min_version", versions[0].1, |node| node.word(&versions, &[]));
    let why = "chains and keys, [{ cert_file = \"site.pem\", key_file = \"site.key\" }]";
    let certificates = table.required("certificates", why, |node| {
        node.some(MAX_CERTIFICATES, "without a certificate there is no TLS", |item| certificate(item.table()?))
    });
    let clients = clients(&mut table, identity_headers);
    table.finish(&[]);
    Some(Tls { min_version: min_version?, certificates: certificates?, clients: clients? })
}

fn clients(table: &mut Table<'_>, identity_headers: &[HeaderName]) -> Option<Option<ClientAuth>> {
    let ca = table.optional("client_ca_file", file::content);
    let is_asked = table.has("client_ca_file");
    let needs_ca = |node: &Node<'_>| {
        if !is_asked {
            node.problem_of_key("no client is asked for a certificate: \"client_ca_file\" says whose are believed");
        }
    };
    let is_required = table.or("client_auth", true, |node| {
        needs_ca(node);
        node.word(&[("required", true), ("optional", false)], &[])
    });
    let headers = table.or("client_cert_headers", Vec::new(), |node| {
        needs_ca(node);
        certificate_headers(&node.table()?, identity_headers)
    });
    let (ca, is_required, headers) = (ca?, is_required?, headers?);
    Some(ca.map(|ca| ClientAuth { ca, is_required, headers }))
}

/// `header = fact`. A header has one meaning, and one that an upstream could take for it has none.
fn certificate_headers(
    table: &Table<'_>,
    identity_headers: &[HeaderName],
) -> Option<Vec<(HeaderName, CertificateFact)>> {
    let mut headers: Vec<(HeaderName, CertificateFact)> = Vec::new();
    let mut complete = true;
    for (name, node) in table.entries() {
        let fact = node.word(&CertificateFact::ALL, &[]);
        let Some((name, fact)) = node.parse_key(name, header::identity).zip(fact) else {
            complete = false;
            continue;
        };
        let others: Vec<_> = headers.iter().map(|(other, _)| other.clone()).collect();
        if header::is_among(&name, &others) || header::is_among(&name, identity_headers) {
            node.problem_of_key("this header is set already, with \"_\" and \"-\" taken as the same");
            complete = false;
        }
        headers.push((name, fact));
    }
    complete.then_some(headers)
}

/// The headers that carry clients' certificates, whichever listener sets them.
pub(super) fn client_cert_headers(listeners: &Objects<Listener>) -> impl Iterator<Item = HeaderName> {
    let clients = listeners.values().filter_map(|listener| listener.tls.as_ref()?.clients.as_ref());
    clients.flat_map(|clients| clients.headers.iter().map(|(name, _)| name.clone()))
}

fn certificate(mut table: Table<'_>) -> Option<Certificate> {
    let cert = table.required("cert_file", "the chain, as PEM", file::content);
    let key = table.required("key_file", "the key of the certificate, as PEM", file::content);
    table.finish(&[]);
    Some(Certificate { cert: cert?, key: key? })
}
