//! From a file to a configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::read::{self, MAX_FILE, Places};
use super::{ApiKeys, Config, ConfigError, EndpointsFile, Problem, Surroundings, System};

impl Config {
    /// Reads the configuration at `path`, with all files that it includes and names.
    ///
    /// # Errors
    /// Everything that is wrong with it, by place.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with_places(path, &System).map(|(config, _)| config)
    }

    /// [`Self::load`], and where everything stands: to show what is found wrong when objects are built from it.
    ///
    /// # Errors
    /// Everything that is wrong with it, by place.
    pub fn load_with_places(path: &Path, surroundings: &dyn Surroundings) -> Result<(Self, Places), ConfigError> {
        let unreadable = |message: String| ConfigError {
            file: path.to_owned(),
            problems: vec![Problem::new(path.display().to_string(), message)],
        };
        let content =
            surroundings.file(path, MAX_FILE).map_err(|error| unreadable(format!("it cannot be read: {error}")))?;
        let text = String::from_utf8(content)
            .map_err(|error| unreadable(read::not_text(&error.utf8_error(), error.as_bytes())))?;
        Self::read(&text, path, surroundings)
    }

    /// Reads the configuration `text` as if it stood in a file at `path`.
    ///
    /// # Errors
    /// Everything that is wrong with it, by place.
    pub fn read(text: &str, path: &Path, surroundings: &dyn Surroundings) -> Result<(Self, Places), ConfigError> {
        read::read(text, path, surroundings).map_err(|problems| ConfigError { file: path.to_owned(), problems })
    }
}

impl ApiKeys {
    /// Reads the text of a file of API keys.
    ///
    /// # Errors
    /// Everything that is wrong with it, by place.
    pub fn read(text: &str, path: &Path) -> Result<Self, ConfigError> {
        read::api_keys(text, path).map_err(|problems| ConfigError { file: path.to_owned(), problems })
    }
}

impl EndpointsFile {
    /// Most bytes of it.
    pub const MAX_FILE: u64 = MAX_FILE;

    /// Reads the text of a file of endpoints: JSON if its name ends in `.json`, else TOML.
    ///
    /// # Errors
    /// Everything that is wrong with it, by place.
    pub fn read(text: &str, path: &Path) -> Result<Self, ConfigError> {
        read::endpoints_file(text, path).map_err(|problems| ConfigError { file: path.to_owned(), problems })
    }
}

/// Where the process that runs with the configuration at `path` says whether it is ready, to everybody. A configuration
/// that cannot be served still says.
pub fn health_address(path: &Path) -> SocketAddr {
    read::health_address(path, &System)
}

/// Where the process that runs with the configuration at `path` keeps its control socket. A configuration that cannot be
/// served still says.
pub fn runtime_dir(path: &Path) -> PathBuf {
    read::runtime_dir(path, &System)
}
