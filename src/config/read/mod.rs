//! From TOML text to a [`Config`], with everything that is wrong told at once.
//!
//! The document is walked by hand, key by key: a reader that stopped at the first mistake would make an operator run it
//! once for each. One file here for each section of the language; `leaf` has the small values, and `node`, `table` and
//! `report` the walking and telling.

mod auth;
mod balance;
mod complaint;
mod defaults;
mod endpoints_file;
mod file;
mod fitness;
mod include;
mod interpolate;
mod leaf;
mod limit;
mod listener;
mod log;
mod node;
mod page;
mod places;
mod queue;
mod report;
mod route;
mod runtime_dir;
mod secret;
mod section;
mod server;
mod source;
mod store;
mod suggest;
mod table;
mod upstream;
mod value;

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use self::report::Report;
use self::section::Sections;
use self::source::Source;
use super::{Config, Name, Problem, Surroundings};

pub(super) use self::auth::api_keys;
pub(super) use self::endpoints_file::read as endpoints_file;
pub(super) use self::file::{MAX_FILE, not_text};
pub use self::places::Places;
pub(super) use self::runtime_dir::{health_address, runtime_dir};

/// What every part of the reading needs.
struct Context<'a> {
    surroundings: &'a dyn Surroundings,
    report: Report,
    /// Stands in for a section that is not there
    nothing: DeValue<'static>,
    /// Text is taken as it stands: `${NAME}` is no variable
    is_verbatim: bool,
}

impl<'a> Context<'a> {
    fn new(surroundings: &'a dyn Surroundings) -> Self {
        let nothing = DeValue::Table(DeTable::new());
        Self { surroundings, report: Report::default(), nothing, is_verbatim: false }
    }
}

/// Reads everything.
///
/// # Errors
/// All problems, by file and place.
pub(super) fn read(text: &str, path: &Path, surroundings: &dyn Surroundings) -> Result<(Config, Places), Vec<Problem>> {
    let ctx = Context::new(surroundings);
    let main = Source::new(0, path, text);
    let root = main.parse(&ctx.report);
    let included = root.as_ref().map(|root| include::sources(&ctx, &main, root)).unwrap_or_default();
    let sources: Vec<&Source> = std::iter::once(&main).chain(&included).collect();
    let roots: Vec<_> = included.iter().map(|source| (source, source.parse(&ctx.report))).collect();
    let mut documents = Vec::new();
    for (source, root) in std::iter::once((&main, &root)).chain(roots.iter().map(|(source, root)| (*source, root))) {
        if let Some(root) = root {
            documents.push((source, root));
        }
    }
    // What is missing may stand in a file that could not be read.
    let is_complete = ctx.report.is_empty();
    let config = root.as_ref().and_then(|_| {
        let sections = Sections::collect(&ctx, &main, &documents, is_complete);
        config(&ctx, sections)
    });
    for (source, root) in &documents {
        secret::mask_table(&ctx.report, source, root.get_ref());
    }
    match config {
        Some(config) if ctx.report.is_empty() => Ok((config, Places::new(ctx.report.into_pages(&sources), &documents))),
        _ => Err(ctx.report.into_problems(&sources)),
    }
}

/// Section by section: what others refer to comes first.
fn config<'a>(ctx: &'a Context<'a>, sections: Sections<'a>) -> Option<Config> {
    let Sections { server, admin, log, defaults, listeners, auth, limits, upstreams, routes } = sections;
    let mut addresses = listener::Addresses::default();
    let server = server::server(ctx, server);
    let admin = server::admin(admin, &mut addresses);
    let read_limits = limits.read(limit::limit);
    let read_auth = auth.read(auth::auth);
    let log = log::log(log, &read_auth);
    let read_upstreams = upstreams.read(|table| upstream::upstream(table, server.as_ref()));
    let mut identity_headers = auth::all_identity_headers(&read_auth);
    let read_listeners = listeners.read(|table| {
        listener::listener(table, server.as_ref(), &limits, &read_limits, &identity_headers, &mut addresses)
    });
    identity_headers.extend(listener::client_cert_headers(&read_listeners));
    let known = route::Known {
        listeners: &listeners,
        auth: &auth,
        limits: &limits,
        upstreams: &upstreams,
        read_limits: &read_limits,
        identity_headers,
    };
    let defaults = defaults::defaults(defaults, &known);
    let routes = routes.read(|table| route::route(table, &known, &defaults));
    if listeners.is_empty() && listeners.is_complete {
        ctx.report.add_placeless("listeners", "there is none: a gateway listens somewhere, [listeners.http]");
    }
    Some(Config {
        server: server?,
        admin: admin?,
        log: log?,
        listeners: read_listeners,
        auth: read_auth,
        limits: read_limits,
        upstreams: read_upstreams,
        routes,
    })
}

/// What has been read of a section, by name.
type Objects<T> = BTreeMap<Name, T>;

#[cfg(test)]
mod tests;
