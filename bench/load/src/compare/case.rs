//! What is compared: the cases, and who takes part in each.

use clap::ValueEnum;
use serde::Serialize;

use super::contender::{Contender, Peer, Setup};
use super::token::Algorithm;

/// A workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Case {
    /// Small GETs on kept connections; nobody writes an access log
    Kept,
    /// Small GETs on kept connections; everybody writes a JSON line for each to a file
    Logged,
    /// Small GETs on kept connections, with a limit by client address that nobody reaches and without
    Limited,
    /// A new connection for each small GET
    Fresh,
    /// Tokens of 1,000 users signed with RS256, a limit for each user, JSON access log, metrics
    JwtRs256,
    /// Tokens of 1,000 users signed with ES256, and the rest as with RS256
    JwtEs256,
    /// Tokens of 1,000 users signed with HS256, and the rest as with RS256
    JwtHs256,
    /// Tollgate with every kind of policy on each request, and with none
    Policies,
    /// Full handshakes of TLS 1.3 (X25519, ECDSA P-256)
    TlsFull,
    /// Handshakes of TLS 1.3 that resume a session by ticket
    TlsResumed,
    /// Small GETs on kept connections with TLS
    TlsKept,
    /// HTTP/2 with TLS: four connections, a hundred streams in flight on each
    H2,
    /// Bodies of 100 KiB
    #[value(name = "body-100k")]
    #[serde(rename = "body-100k")]
    Body100k,
    /// Bodies of 1 MiB
    #[value(name = "body-1m")]
    #[serde(rename = "body-1m")]
    Body1m,
    /// Echoes over WebSockets
    Websocket,
    /// Memory of idle connections that have had one request
    IdlePlain,
    /// Memory of idle connections with TLS that have had one request
    IdleTls,
    /// Small GETs spread over 10, 1,000 and 10,000 routes
    Routes,
    /// One worker and two
    Workers,
    /// Instructions in user mode for each small GET, counted by valgrind
    Instructions,
}

/// How a case is put under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// wrk, for one path
    Wrk {
        path: &'static str,
        fresh: bool,
    },
    /// wrk, for requests of a list in turn
    List,
    /// h2load
    Streams,
    Handshakes {
        resumed: bool,
    },
    Echoes,
    Idle,
    Callgrind,
}

impl Case {
    /// All, in the order of reports.
    pub(super) fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// As it is named on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// In one line.
    pub(super) fn title(self) -> String {
        let help = self.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
        help.unwrap_or_default()
    }

    pub(super) fn load(self) -> Load {
        match self {
            Self::Kept | Self::Logged | Self::Limited | Self::TlsKept | Self::Workers => {
                Load::Wrk { path: "/small", fresh: false }
            }
            Self::Fresh => Load::Wrk { path: "/small", fresh: true },
            Self::Body100k => Load::Wrk { path: "/100k", fresh: false },
            Self::Body1m => Load::Wrk { path: "/1m", fresh: false },
            Self::JwtRs256 | Self::JwtEs256 | Self::JwtHs256 | Self::Policies | Self::Routes => Load::List,
            Self::TlsFull => Load::Handshakes { resumed: false },
            Self::TlsResumed => Load::Handshakes { resumed: true },
            Self::H2 => Load::Streams,
            Self::Websocket => Load::Echoes,
            Self::IdlePlain | Self::IdleTls => Load::Idle,
            Self::Instructions => Load::Callgrind,
        }
    }

    /// What a cost is counted in.
    pub(super) fn unit(self) -> &'static str {
        match self.load() {
            Load::Wrk { .. } | Load::List | Load::Streams => "µs CPU/request",
            Load::Handshakes { .. } => "µs CPU/handshake",
            Load::Echoes => "µs CPU/echo",
            Load::Idle => "KiB/connection",
            Load::Callgrind => "instructions/request",
        }
    }

    /// What ratios are to: the first of these that takes part.
    pub(super) fn references(self) -> &'static [&'static str] {
        match self {
            Self::Limited | Self::Policies => &["tollgate, none"],
            Self::Routes => &["tollgate, 10 routes"],
            Self::Workers => &["nginx, 1 worker"],
            _ => &["nginx", "haproxy"],
        }
    }

    pub(super) fn contenders(self) -> Vec<Contender> {
        let plain = Setup::default();
        let tls = Setup { tls: true, ..plain };
        let all = |setup| {
            [Peer::Tollgate, Peer::Floor, Peer::Nginx, Peer::Haproxy].map(|peer| Contender::new(peer, setup)).to_vec()
        };
        let jwt = |algorithm| {
            let setup = Setup { log: true, token: Some(algorithm), ..plain };
            [Peer::Tollgate, Peer::Haproxy].map(|peer| Contender::new(peer, setup)).to_vec()
        };
        let everything = Setup { log: true, token: Some(Algorithm::Rs256), policies: true, ..plain };
        match self {
            Self::Kept | Self::Fresh | Self::Body100k | Self::Body1m | Self::IdlePlain => all(plain),
            Self::Logged => [Peer::Tollgate, Peer::Nginx, Peer::Haproxy]
                .map(|peer| Contender::new(peer, Setup { log: true, ..plain }))
                .to_vec(),
            Self::Limited => [
                (Peer::Tollgate, ["tollgate, none", "tollgate, a limit"]),
                (Peer::Nginx, ["nginx, none", "nginx, a limit"]),
                (Peer::Haproxy, ["haproxy, none", "haproxy, a limit"]),
            ]
            .into_iter()
            .flat_map(|(peer, [none, one])| {
                [(none, false), (one, true)].map(|(name, limit)| Contender::named(name, peer, Setup { limit, ..plain }))
            })
            .collect(),
            Self::JwtRs256 => jwt(Algorithm::Rs256),
            Self::JwtEs256 => jwt(Algorithm::Es256),
            Self::JwtHs256 => jwt(Algorithm::Hs256),
            Self::Policies => vec![
                Contender::named("tollgate, all policies", Peer::Tollgate, everything),
                Contender::named("tollgate, none", Peer::Tollgate, plain),
            ],
            Self::TlsFull | Self::TlsResumed | Self::TlsKept | Self::H2 | Self::IdleTls => all(tls),
            Self::Websocket => all(Setup { upgrade: true, ..plain }),
            Self::Routes => {
                [(10, "tollgate, 10 routes"), (1000, "tollgate, 1000 routes"), (10_000, "tollgate, 10000 routes")]
                    .map(|(routes, name)| Contender::named(name, Peer::Tollgate, Setup { routes, ..plain }))
                    .to_vec()
            }
            Self::Workers => [
                (Peer::Tollgate, ["tollgate, 1 worker", "tollgate, 2 workers"]),
                (Peer::Nginx, ["nginx, 1 worker", "nginx, 2 workers"]),
                (Peer::Haproxy, ["haproxy, 1 worker", "haproxy, 2 workers"]),
            ]
            .into_iter()
            .flat_map(|(peer, [one, two])| {
                [(one, 1), (two, 2)].map(|(name, workers)| Contender::named(name, peer, Setup { workers, ..plain }))
            })
            .collect(),
            Self::Instructions => {
                let mut contenders = all(plain);
                contenders.insert(1, Contender::named("tollgate, all policies", Peer::Tollgate, everything));
                contenders
            }
        }
    }

    /// Who does not take part, and why.
    pub(super) fn absent(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Logged => &[("floor", "it does nothing, and so writes no log")],
            Self::Limited => &[("floor", "it does nothing, and so limits nobody")],
            Self::JwtRs256 | Self::JwtEs256 | Self::JwtHs256 => &[
                ("nginx", "it reads tokens in its commercial edition only"),
                ("floor", "it does nothing, and so reads no tokens"),
            ],
            Self::Policies | Self::Routes => &[("nginx and haproxy", "this is Tollgate against itself")],
            Self::Workers => &[("floor", "what a worker of Pingora costs is the gateway's to avoid, not to match")],
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_has_a_name_a_title_and_somebody_to_compare() {
        for case in Case::all() {
            assert!(!case.name().is_empty() && !case.title().is_empty(), "{case:?}");
            let names: Vec<_> = case.contenders().into_iter().map(|contender| contender.name).collect();
            assert!(names.len() > 1, "{case:?}");
            assert!(names.iter().any(|name| case.references().contains(&name.as_str())), "{case:?}: {names:?}");
            let json = serde_json::to_value(case).expect("plain data");
            assert_eq!(json.as_str(), Some(case.name().as_str()), "one name everywhere");
        }
    }

    #[test]
    fn names_in_a_case_are_different() {
        for case in Case::all() {
            let mut names: Vec<_> = case.contenders().into_iter().map(|contender| contender.name).collect();
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count, "{case:?}");
        }
    }
}
