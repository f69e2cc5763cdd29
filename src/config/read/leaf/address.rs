//! Addresses, networks and names of hosts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use http::Uri;
use ipnet::{IpNet, Ipv4Net};

use crate::config::read::complaint::Complaint;
use crate::config::{EndpointAddress, HostPattern};

/// Longest name DNS can carry.
const MAX_NAME: usize = 253;
/// Longest path a Unix socket can have on every system.
const MAX_SOCKET_PATH: usize = 107;

/// An address to listen at; IPv4-mapped IPv6 is IPv4.
pub(crate) fn socket(text: &str) -> Result<SocketAddr, Complaint> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(match addr.ip().to_canonical() {
            // Parsing again would lose the scope of a link-local address.
            ip if ip == addr.ip() => addr,
            ip => SocketAddr::new(ip, addr.port()),
        });
    }
    let form = "this must be an address with its port: \"0.0.0.0:8080\" or \"[::]:8080\"";
    if let Some(port) = text.strip_prefix(':')
        && port.parse::<u16>().is_ok()
    {
        return Err(Complaint::new(format!("{form}; \"[::]:{port}\" listens at every address")));
    }
    Err(Complaint::new(form))
}

/// Where DNS is asked; its port is 53 where none is written.
pub(crate) fn nameserver(text: &str) -> Result<SocketAddr, Complaint> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip.to_canonical(), 53));
    }
    match socket(text) {
        Ok(addr) if addr.port() != 0 => Ok(addr),
        _ => {
            Err(Complaint::new("this must be an address, with a port or for port 53: \"10.0.0.2\", \"127.0.0.1:8600\""))
        }
    }
}

/// A network, or one address.
pub(crate) fn network(text: &str) -> Result<IpNet, Complaint> {
    let form = "this must be a network or an address: \"10.0.0.0/8\", \"2001:db8::/32\" or \"10.0.0.1\"";
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let network: IpNet = text.parse().map_err(|_| Complaint::new(form))?;
    if network.addr() != network.network() {
        let meant = network.trunc();
        return Err(Complaint::about(0..text.len(), format!("has bits after its prefix: write \"{meant}\"")));
    }
    Ok(unmapped(network))
}

/// A network of IPv4-mapped IPv6 addresses is one of IPv4 addresses.
fn unmapped(network: IpNet) -> IpNet {
    if let IpNet::V6(mapped) = network
        && let Some(address) = mapped.addr().to_ipv4_mapped()
        && let Some(prefix) = mapped.prefix_len().checked_sub(96)
        && let Ok(network) = Ipv4Net::new(address, prefix)
    {
        return network.into();
    }
    network
}

/// `10.0.0.11:8080`, `[::1]:8080`, `orders.internal:8080`, `srv:_http._tcp.orders.internal`, `unix:/run/orders.sock`.
pub(crate) fn endpoint(text: &str) -> Result<EndpointAddress, Complaint> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path).map_err(|complaint| complaint.moved("unix:".len()));
    }
    if let Some(name) = text.strip_prefix("srv:") {
        return service(name).map_err(|complaint| complaint.moved("srv:".len()));
    }
    if let Some(scheme) = text.find("://") {
        let message = "an endpoint has no scheme: write \"host:port\", and [upstreams.NAME.tls] for TLS";
        return Err(Complaint::at(0..scheme + 3, message));
    }
    if let Ok(addr) = text.parse::<SocketAddr>() {
        if addr.port() == 0 {
            return Err(Complaint::new("port 0 cannot be connected to"));
        }
        return Ok(EndpointAddress::Socket(addr));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(Complaint::new("the port is missing: \"10.0.0.11:8080\" or \"[::1]:8080\""));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(Complaint::new("the port is missing: write \"host:port\", or \"unix:/path\" for a Unix socket"));
    };
    let port = port_number(port).map_err(|complaint| complaint.moved(host.len() + 1))?;
    match host_name(host)? {
        name if name.parse::<Ipv4Addr>().is_ok() => Err(Complaint::new("this is not an address")),
        host => Ok(EndpointAddress::Name { host, port }),
    }
}

/// A name whose first two labels are those of a service and of TCP (RFC 2782).
fn service(name: &str) -> Result<EndpointAddress, Complaint> {
    let name = host_name(name)?;
    let mut labels = name.split('.');
    let is_service = labels.next().is_some_and(|label| label.starts_with('_') && label.len() > 1);
    if !is_service || labels.next() != Some("_tcp") || labels.next().is_none() {
        let message = "the name of a service begins with it and with \"_tcp\": \"srv:_http._tcp.orders.internal\"";
        return Err(Complaint::new(message));
    }
    Ok(EndpointAddress::Service { name })
}

fn unix(path: &str) -> Result<EndpointAddress, Complaint> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Complaint::new("the path of a Unix socket starts with \"/\": \"unix:/run/orders.sock\""));
    }
    if path.len() > MAX_SOCKET_PATH {
        return Err(Complaint::new(format!("the path of a Unix socket has {MAX_SOCKET_PATH} bytes at most")));
    }
    Ok(EndpointAddress::Unix(PathBuf::from(path)))
}

fn port_number(text: &str) -> Result<u16, Complaint> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| is_number && *port > 0);
    port.ok_or_else(|| Complaint::about(0..text.len(), "is no port: a port is a number from 1 to 65535"))
}

/// A name or an IPv4 address, in lower case and without a trailing dot. No other spelling of an address is one.
pub(crate) fn host_name(text: &str) -> Result<String, Complaint> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if !text.is_ascii() {
        let message = "this must be ASCII: write an international name in its \"xn--\" form";
        return Err(Complaint::new(message));
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if name.len() > MAX_NAME || !name.split('.').all(is_label) {
        return Err(Complaint::new("this is not the name of a host"));
    }
    let last = name.rsplit('.').next().unwrap_or("");
    if last.bytes().all(|byte| byte.is_ascii_digit()) && name.parse::<Ipv4Addr>().is_err() {
        return Err(Complaint::new("this is neither the name of a host nor an address"));
    }
    Ok(name.to_ascii_lowercase())
}

/// `api.example.com` or `*.example.com`; an IPv6 address in brackets.
pub(crate) fn host_pattern(text: &str) -> Result<HostPattern, Complaint> {
    if text == "*" {
        return Err(Complaint::new("to take every host, leave \"hosts\" out"));
    }
    if let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inside.parse().map_err(|_| Complaint::new("this is not an address"))?;
        return Ok(HostPattern::Exact(address.to_string()));
    }
    if let Some(scheme) = text.find("://") {
        return Err(Complaint::at(0..scheme + 3, "a host has no scheme: write the name alone"));
    }
    if let Some(at) = text.find([':', '/']) {
        return Err(Complaint::at(at..text.len(), "a host is matched without port and path: write the name alone"));
    }
    if let Some(parent) = text.strip_prefix("*.") {
        let parent = host_name(parent)?;
        if parent.parse::<Ipv4Addr>().is_ok() {
            return Err(Complaint::new("an address has no names below it"));
        }
        return Ok(HostPattern::Wildcard(parent));
    }
    if let Some(star) = text.find('*') {
        let message = "\"*\" stands for whole labels at the beginning: \"*.example.com\"";
        return Err(Complaint::at(star..star + 1, message));
    }
    host_name(text).map(HostPattern::Exact)
}

/// `name` or `name:port`, as it is sent in a Host header.
pub(crate) fn authority(text: &str) -> Result<String, Complaint> {
    if let Some(scheme) = text.find("://") {
        return Err(Complaint::at(0..scheme + 3, "a host has no scheme: write the name alone"));
    }
    let (name, port) = match text.rfind(':') {
        Some(colon) if !text.ends_with(']') => (&text[..colon], Some(&text[colon + 1..])),
        _ => (text, None),
    };
    if let Some(port) = port {
        port_number(port).map_err(|complaint| complaint.moved(name.len() + 1))?;
    }
    match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => drop(inside.parse::<Ipv6Addr>().map_err(|_| Complaint::new("this is not an address"))?),
        None => drop(host_name(name)?),
    }
    Ok(text.to_owned())
}

/// A URL that keys are fetched from, or secrets are told to: https, or http to a loopback address.
pub(crate) fn fetch_url(text: &str) -> Result<Uri, Complaint> {
    let uri = outbound(text, "write https:// (or http:// for a loopback address)")?;
    if uri.scheme_str() == Some("http") && !uri.host().is_some_and(is_loopback) {
        let message = "what comes without TLS can be anybody's: write https:// (http:// only for a loopback address)";
        return Err(Complaint::at(0.."http".len(), message));
    }
    Ok(uri)
}

/// A URL of a service that decides, inside the operator's network as a rule: https or http.
pub(crate) fn service_url(text: &str) -> Result<Uri, Complaint> {
    outbound(text, "write https:// or http://")
}

fn outbound(text: &str, cure: &str) -> Result<Uri, Complaint> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(Complaint::new(format!("this is not a URL: {cure}")));
    };
    if scheme != "https" && scheme != "http" {
        return Err(Complaint::about(0..scheme.len(), format!("is not a scheme this can fetch: {cure}")));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    if authority.contains('@') {
        return Err(Complaint::new("a URL with user and password in it is not fetched"));
    }
    if let Some(fragment) = text.find('#') {
        return Err(Complaint::at(fragment..text.len(), "a fragment is never sent: leave it out"));
    }
    let uri: Uri = text.parse().map_err(|_| Complaint::new("this is not a URL"))?;
    match uri.host() {
        Some(host) if !host.is_empty() => Ok(uri),
        _ => Err(Complaint::new("this URL has no host")),
    }
}

/// An address that clients are told: https, of visible ASCII without quotes, so that it fits into a challenge.
pub(crate) fn public_url(text: &str) -> Result<String, Complaint> {
    let uri: Option<Uri> = text.parse().ok();
    let is_public = uri.is_some_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some());
    if is_public && text.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'\\' | b'#')) {
        return Ok(text.to_owned());
    }
    Err(Complaint::new("this is not an https address without a fragment, https://api.example.com/..."))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert_eq!(socket("[::ffff:10.0.0.1]:80"), Ok(([10, 0, 0, 1], 80).into()));
        assert_eq!(network("::ffff:10.0.0.0/104").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(network("::ffff:10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
        assert_eq!(network("2001:db8::/32").unwrap().to_string(), "2001:db8::/32");
    }

    #[test]
    fn a_network_with_bits_after_its_prefix_is_refused_with_the_one_that_was_meant() {
        let complaint = network("10.1.2.3/8").unwrap_err();
        assert_eq!(complaint.message, "has bits after its prefix: write \"10.0.0.0/8\"");
    }

    #[test]
    fn endpoints_are_addresses_names_or_sockets() {
        for text in [
            "10.0.0.11:8080",
            "[::1]:8080",
            "orders.internal:8080",
            "srv:_http._tcp.orders.internal",
            "unix:/run/orders.sock",
        ] {
            assert_eq!(endpoint(text).map(|address| address.to_string()).as_deref(), Ok(text));
        }
        let name = EndpointAddress::Name { host: "orders".into(), port: 80 };
        assert_eq!(endpoint("Orders.:80"), Ok(name));
        for text in [
            "",
            "orders",
            "10.0.0.1",
            "::1",
            "orders:0",
            "orders:x",
            "orders:+1",
            "orders:99999",
            "http://orders:80",
            "unix:run",
            "unix:",
            "10.0.0.1:0",
            "10.0.0:80",
            "a b:80",
            "user@orders:80",
            "10.0.0.1.:80",
            "\u{e4}:80",
            "srv:",
            "srv:orders.internal",
            "srv:_http._udp.orders.internal",
            "srv:_._tcp.orders",
            "srv:_http._tcp",
            "srv:_http._tcp.orders:80",
        ] {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_are_exact_or_below_a_name() {
        assert_eq!(host_pattern("API.example.com."), Ok(HostPattern::Exact("api.example.com".into())));
        assert_eq!(host_pattern("*.Example.com"), Ok(HostPattern::Wildcard("example.com".into())));
        assert_eq!(host_pattern("[::1]"), Ok(HostPattern::Exact("::1".into())));
        assert_eq!(host_pattern("127.0.0.1"), Ok(HostPattern::Exact("127.0.0.1".into())));
        for text in
            ["", "*", "*.", "a.*", "*a.example", "*.*.a", "a:80", "a/b", "https://a", "a..b", "*.10.0.0.1", "1.2"]
        {
            assert!(host_pattern(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_are_fetched_over_tls_or_from_loopback() {
        for text in ["https://id.example/jwks", "http://127.0.0.1:8080/k", "http://[::1]/k", "http://localhost/k"] {
            assert!(fetch_url(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "id.example",
            "htps://id.example",
            "http://id.example",
            "https://",
            "https:///x",
            "https://u:p@id.example",
            "https://id.example/#a",
            "http://127.0.0.1.id.example/",
            "https://a b/",
        ] {
            assert!(fetch_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_service_may_be_reached_without_tls_anywhere_but_never_with_a_password_in_its_url() {
        for text in ["http://decider.internal:9001/verify", "https://id.example/verify?rd=x", "http://[::1]"] {
            assert!(service_url(text).is_ok(), "{text}");
        }
        for text in ["", "decider:9001", "ftp://decider/", "http://", "http:///x", "http://u:p@decider/", "http://a/#b"]
        {
            assert!(service_url(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-c0-9.:/*@#\\[\\]\u{e4}-]{0,24}") {
            let _ = (socket(&text), network(&text), endpoint(&text), host_pattern(&text), authority(&text), fetch_url(&text));
        }
    }
}
