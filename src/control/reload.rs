//! Reading the configuration again: everything that is new is built first, and then replaces the old at once, or
//! nothing does.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Status, tasks};
use crate::config::Config;
use crate::snapshot::{Live, Snapshot, Tools};
use crate::tls::TicketKeys;

/// Replaces the snapshot.
#[derive(Clone, Debug)]
pub struct Reloader {
    file: Arc<PathBuf>,
    live: Arc<Live>,
    tools: Tools,
    status: Arc<Status>,
}

impl Reloader {
    /// Reads from `file`.
    pub fn new(file: PathBuf, live: Arc<Live>, tools: Tools, status: Arc<Status>) -> Self {
        Self { file: Arc::new(file), live, tools, status }
    }

    /// What serves.
    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// What sessions are resumed with.
    pub(super) fn ticket_keys(&self) -> &TicketKeys {
        &self.tools.tls.ticket_keys
    }

    /// Builds what is on disk now and serves it.
    ///
    /// # Errors
    /// Why nothing has changed, for a person.
    pub async fn reload(self) -> Result<String, String> {
        let result = self.replace().await;
        self.tools.metrics.reloaded(result.is_ok());
        self.status.reloaded(result.as_ref().map(drop).map_err(Clone::clone));
        match &result {
            Ok(text) => log::info!("{text}"),
            Err(why) => log::error!("the configuration was not reloaded, nothing has changed: {why}"),
        }
        result
    }

    async fn replace(&self) -> Result<String, String> {
        let (old, this) = (self.live.load_full(), self.clone());
        // Files are read and expressions compiled: not on a thread that others wait for.
        let next = tokio::task::spawn_blocking({
            let old = Arc::clone(&old);
            move || this.build(&old)
        });
        let next = Arc::new(next.await.map_err(|error| format!("building the configuration failed: {error}"))??);
        tasks::follow(&next, Some(&old)).await;
        let generation = next.generation;
        self.live.replace(next);
        Ok(format!("configuration {generation} serves, read from {}", self.file.display()))
    }

    fn build(&self, old: &Snapshot) -> Result<Snapshot, String> {
        let (config, places) = Config::load_with_places(&self.file).map_err(|error| error.to_string())?;
        let fixed = needs_upgrade(&old.config, &config);
        if !fixed.is_empty() {
            let keys = fixed.into_iter().collect::<Vec<_>>().join(", ");
            return Err(format!("{keys} cannot change while the process runs: this needs `tollgate upgrade`"));
        }
        Snapshot::build(config, Some(old), &self.tools).map_err(|problems| places.locate(problems).to_string())
    }
}

/// The keys in which two configurations differ that a running process cannot follow.
fn needs_upgrade(old: &Config, new: &Config) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut compare = |key: &str, same: bool| {
        if !same {
            keys.insert(key.to_owned());
        }
    };
    compare("server.threads", old.server.threads == new.server.threads);
    compare("server.runtime_dir", old.server.runtime_dir == new.server.runtime_dir);
    compare("server.max_connections", old.server.max_connections == new.server.max_connections);
    compare("admin.address", old.admin.address == new.admin.address);
    compare("admin.health_address", old.admin.health_address == new.admin.health_address);
    compare("log.level", old.log.level == new.log.level);
    let (access, after) = (&old.log.access, &new.log.access);
    compare("log.access.format", access.format == after.format);
    compare("log.access.output", access.output == after.output);
    compare("log.access.sample", access.sample.to_bits() == after.sample.to_bits());
    for name in old.listeners.keys().chain(new.listeners.keys()) {
        let addresses = |config: &Config| -> Option<BTreeSet<SocketAddr>> {
            Some(config.listeners.get(name)?.addresses.iter().copied().collect())
        };
        compare(&format!("listeners.{name}.address"), addresses(old) == addresses(new));
    }
    keys
}
