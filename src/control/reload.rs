//! Reading the configuration again: everything that is new is built first, and then replaces the old at once, or
//! nothing does.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Status, tasks};
use crate::config::{Config, Places, Reading, Recorder, System};
use crate::snapshot::{Live, Snapshot, Tools};
use crate::tls::TicketKeys;

/// Replaces the snapshot.
#[derive(Clone, Debug)]
pub struct Reloader {
    file: Arc<PathBuf>,
    live: Arc<Live>,
    tools: Tools,
    status: Arc<Status>,
    /// The last one, also if nothing came of it
    reading: watch::Sender<Arc<Reading>>,
}

/// What has become of the files.
enum News {
    /// They hold what they held
    Nothing,
    /// They say what serves
    Same,
    /// They say this
    Next(Box<Snapshot>),
}

impl Reloader {
    /// Reads from `file`; what serves has been built from `reading`.
    pub fn new(file: PathBuf, reading: Reading, live: Arc<Live>, tools: Tools, status: Arc<Status>) -> Self {
        Self { file: Arc::new(file), live, tools, status, reading: watch::Sender::new(Arc::new(reading)) }
    }

    /// What serves.
    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// What sessions are resumed with.
    pub(super) fn ticket_keys(&self) -> &TicketKeys {
        &self.tools.tls.ticket_keys
    }

    /// What was read last: the files to follow.
    pub(super) fn readings(&self) -> watch::Receiver<Arc<Reading>> {
        self.reading.subscribe()
    }

    /// Builds what is on disk now and serves it.
    ///
    /// # Errors
    /// Why nothing has changed, for a person.
    pub async fn reload(self) -> Result<String, String> {
        let built = self.apart(|this, old| this.build(this.load()?, old)).await;
        let result = match built {
            Ok(next) => Ok(self.serve(next).await),
            Err(why) => Err(why),
        };
        self.report(&result);
        result
    }

    /// The same where nobody has asked for it and files may have changed. If what they say serves already, nothing is
    /// counted or told.
    pub(super) async fn catch_up(self) -> Option<Result<String, String>> {
        let result = match self.apart(Self::news).await {
            Ok(News::Next(next)) => Ok(self.serve(*next).await),
            // What was broken is mended: that is worth telling.
            Ok(News::Same) if self.has_failed() => {
                let generation = self.live.load_full().generation;
                Ok(format!("configuration {generation} serves on, {} says the same again", self.file.display()))
            }
            Ok(News::Same | News::Nothing) => return None,
            Err(why) => Err(why),
        };
        self.report(&result);
        Some(result)
    }

    /// Files are read and expressions compiled: not on a thread that others wait for.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self, &Snapshot) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let (old, this) = (self.live.load_full(), self.clone());
        let done = tokio::task::spawn_blocking(move || work(&this, &old)).await;
        done.map_err(|error| format!("building the configuration failed: {error}"))?
    }

    fn news(&self, old: &Snapshot) -> Result<News, String> {
        let reading = Arc::clone(&self.reading.borrow());
        // What was refused once would be refused again, and told again.
        if reading.again(&System) == *reading {
            log::debug!("no file of the configuration has changed");
            return Ok(News::Nothing);
        }
        let loaded = self.load()?;
        if loaded.0 == old.config {
            log::debug!("files of the configuration have changed, and it says the same");
            return Ok(News::Same);
        }
        self.build(loaded, old).map(|next| News::Next(Box::new(next)))
    }

    fn load(&self) -> Result<(Config, Places), String> {
        let recorder = Recorder::new(&System);
        let loaded = Config::load_with_places(&self.file, &recorder);
        self.reading.send_replace(Arc::new(recorder.into_reading()));
        loaded.map_err(|error| error.to_string())
    }

    fn build(&self, (config, places): (Config, Places), old: &Snapshot) -> Result<Snapshot, String> {
        let fixed = needs_upgrade(&old.config, &config);
        if !fixed.is_empty() {
            let keys = fixed.into_iter().collect::<Vec<_>>().join(", ");
            return Err(format!("{keys} cannot change while the process runs: this needs `tollgate upgrade`"));
        }
        Snapshot::build(config, Some(old), &self.tools).map_err(|problems| places.locate(problems).to_string())
    }

    fn has_failed(&self) -> bool {
        self.status.last_reload().is_some_and(|last| last.error.is_some())
    }

    fn report(&self, result: &Result<String, String>) {
        self.tools.metrics.reloaded(result.is_ok());
        self.status.reloaded(result.as_ref().map(drop).map_err(Clone::clone));
        match result {
            Ok(text) => log::info!("{text}"),
            Err(why) => log::error!("the configuration was not reloaded, nothing has changed: {why}"),
        }
    }

    async fn serve(&self, next: Snapshot) -> String {
        let next = Arc::new(next);
        tasks::follow(&next, Some(&self.live.load_full())).await;
        let generation = next.generation;
        self.live.replace(next);
        format!("configuration {generation} serves, read from {}", self.file.display())
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
