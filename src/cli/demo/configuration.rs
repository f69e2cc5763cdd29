//! What the demo's gateway is told: a small but whole configuration, to be read and changed by whoever tries it.

use std::net::SocketAddr;
use std::path::Path;

use super::issuer;

/// The access log, in the demo's directory.
pub(super) const ACCESS_LOG: &str = "access.log";

/// Where everybody is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) gateway: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) issuer: SocketAddr,
    pub(super) orders: [SocketAddr; 2],
    pub(super) catalog: SocketAddr,
}

/// The text of the file.
pub(super) fn text(addresses: &Addresses, directory: &Path) -> String {
    let Addresses { gateway, admin, issuer, orders: [first, second], catalog } = addresses;
    let runtime_dir = quoted(&directory.join("run").display().to_string());
    let access_log = quoted(&format!("file:{}", directory.join(ACCESS_LOG).display()));
    let (issued_by, audience) = (issuer::issuer(*issuer), issuer::AUDIENCE);
    format!(
        r#"# Written by `tollgate demo`, and gone when it ends. Change it, then: tollgate reload -c THIS_FILE
version = 1

[server]
threads = 2
runtime_dir = {runtime_dir}
drain_timeout = "2s"

[admin]
address = "{admin}"

[log.access]
output = {access_log}
fields = ["auth.subject"]

[listeners.http]
address = "{gateway}"

# Who calls: tokens of this issuer, verified with the keys it publishes.
[auth.demo]
type = "jwt"
issuer = "{issued_by}"
audience = ["{audience}"]
algorithms = ["ES256"]
jwks_url = "http://{issuer}/jwks.json"
identity_headers = {{ x-auth-subject = "sub" }}

# How much: ten at once, and two more each second, for each caller.
[limits.per_user]
rate = "2/s"
burst = 10
key = ["auth.subject"]

# Where to: three of four requests go to the first.
[upstreams.orders]
endpoints = [{{ address = "{first}", weight = 3 }}, {{ address = "{second}", weight = 1 }}]
health = {{ type = "http", path = "/healthz", interval = "2s" }}

[upstreams.catalog]
endpoints = ["{catalog}"]

[routes.orders]
path = "/orders/*"
auth = "demo"
require = {{ scopes = ["orders.read"] }}
limits = ["per_user"]
upstream = "orders"

[routes.hello]
path = "/hello"
auth = "none"
upstream = "orders"

[routes.catalog]
path = "/catalog/*"
auth = "none"
upstream = "catalog"
timeout = "1s"

[routes.old_catalog]
path = "/shop/*"
auth = "none"
redirect = {{ to = "http://{gateway}/catalog", status = 308 }}

[routes.robots]
path = "/robots.txt"
auth = "none"
respond = {{ status = 200, content_type = "text/plain", body = "User-agent: *\nDisallow: /\n" }}
"#
    )
}

/// A basic string of TOML, in which nothing comes from the environment.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.replace("${", "$${").chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            _ if character.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(character))),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Summary;
    use crate::cli::demo::directory::Directory;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn written(directory: &Path) -> toml::Table {
        let (gateway, admin, issuer, catalog) = (addr(1), addr(2), addr(3), addr(6));
        let addresses = Addresses { gateway, admin, issuer, orders: [addr(4), addr(5)], catalog };
        text(&addresses, directory).parse().expect("TOML")
    }

    #[test]
    fn everybody_is_where_the_configuration_says() {
        let table = written(Path::new("/tmp/demo"));
        assert_eq!(table["listeners"]["http"]["address"].as_str(), Some("127.0.0.1:1"));
        assert_eq!(table["admin"]["address"].as_str(), Some("127.0.0.1:2"));
        assert_eq!(table["auth"]["demo"]["jwks_url"].as_str(), Some("http://127.0.0.1:3/jwks.json"));
        assert_eq!(table["upstreams"]["orders"]["endpoints"][1]["address"].as_str(), Some("127.0.0.1:5"));
        assert_eq!(table["log"]["access"]["output"].as_str(), Some("file:/tmp/demo/access.log"));
    }

    #[test]
    fn it_can_be_served() {
        let directory = Directory::create().expect("created");
        let file = directory.path().join("tollgate.toml");
        let addresses = Addresses {
            gateway: addr(1),
            admin: addr(2),
            issuer: addr(3),
            orders: [addr(4), addr(5)],
            catalog: addr(6),
        };
        std::fs::write(&file, text(&addresses, directory.path())).expect("written");
        let found = crate::app::check(&file).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found, Summary { listeners: 1, routes: 5, upstreams: 2 });
    }

    #[test]
    fn a_strange_directory_is_written_as_it_is() {
        let table = written(Path::new("/tmp/a \"b\"\\c\n${HOME}"));
        let directory = table["server"]["runtime_dir"].as_str();
        assert_eq!(directory, Some("/tmp/a \"b\"\\c\n$${HOME}/run"));
    }
}
