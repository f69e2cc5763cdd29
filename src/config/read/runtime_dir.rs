//! Where the running process is to be asked: read even from a file that cannot be served, since that is when one asks.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::file::MAX_FILE;
use super::include;
use super::interpolate::interpolate;
use super::server::{ADMIN_PORT, default_runtime_dir};
use crate::config::Surroundings;

/// `server.runtime_dir` of the file at `path` or of one that it includes, or the default.
pub(in crate::config) fn runtime_dir(path: &Path, surroundings: &dyn Surroundings) -> PathBuf {
    let written = found(path, "server", "runtime_dir", surroundings);
    written.map_or_else(|| default_runtime_dir(surroundings), PathBuf::from)
}

/// Where `/readyz` is asked: `admin.health_address`, else `admin.address`, or the default.
pub(in crate::config) fn health_address(path: &Path, surroundings: &dyn Surroundings) -> SocketAddr {
    let written = |key| found(path, "admin", key, surroundings)?.parse().ok();
    written("health_address").or_else(|| written("address")).unwrap_or((Ipv4Addr::LOCALHOST, ADMIN_PORT).into())
}

fn found(path: &Path, table: &str, key: &str, surroundings: &dyn Surroundings) -> Option<String> {
    let main = text(path, surroundings).unwrap_or_default();
    // The parser goes on behind a mistake with what it can still make out.
    let (root, _) = DeTable::parse_recoverable(&main);
    let root = root.get_ref();
    let included = || {
        let patterns = root.get("include").and_then(|include| include.get_ref().as_array()).into_iter().flatten();
        let patterns = patterns.filter_map(|pattern| filled(pattern.get_ref(), surroundings));
        patterns
            .flat_map(|pattern| surroundings.matching(&include::from(path, &pattern)).into_iter().flatten())
            .filter_map(|file| text(&file, surroundings))
            .find_map(|text| written(DeTable::parse_recoverable(&text).0.get_ref(), table, key, surroundings))
    };
    written(root, table, key, surroundings).or_else(included)
}

fn text(path: &Path, surroundings: &dyn Surroundings) -> Option<String> {
    String::from_utf8(surroundings.file(path, MAX_FILE).ok()?).ok()
}

fn written(root: &DeTable<'_>, table: &str, key: &str, surroundings: &dyn Surroundings) -> Option<String> {
    let table = root.get(table)?.get_ref().as_table()?;
    filled(table.get(key)?.get_ref(), surroundings)
}

fn filled(value: &DeValue<'_>, surroundings: &dyn Surroundings) -> Option<String> {
    let text = interpolate(value.as_str()?, |name| surroundings.variable(name)).ok()?;
    Some(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::System;

    fn of(text: &str) -> PathBuf {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tollgate.toml");
        std::fs::write(&path, text).expect("written");
        std::fs::write(directory.path().join("more.toml"), "[server]\nruntime_dir = \"/run/more\"\n").expect("written");
        runtime_dir(&path, &System)
    }

    #[test]
    fn it_is_read_from_a_file_that_is_wrong_elsewhere() {
        let written = PathBuf::from("/run/here");
        assert_eq!(of("[server]\nruntime_dir = \"/run/here\"\nthreds = 1\n[routes.a]\npath = 7\n"), written);
        assert_eq!(of("[server]\nruntime_dir = \"/run/here\"\n[routes.a\npath = \n"), written);
        assert_eq!(of("[server]\nruntime_dir = \"${NOWHERE_TO_BE_FOUND:-/run/here}\"\n"), written);
    }

    #[test]
    fn readiness_is_asked_where_it_is_told_without_a_token() {
        let of = |text: &str| {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("tollgate.toml");
            std::fs::write(&path, text).expect("written");
            health_address(&path, &System).to_string()
        };
        assert_eq!(of("[admin]\naddress = \"127.0.0.1:1\"\nhealth_address = \"0.0.0.0:2\"\n"), "0.0.0.0:2");
        assert_eq!(of("[admin]\naddress = \"127.0.0.1:1\"\n[routes.a\n"), "127.0.0.1:1");
        assert_eq!(of(""), "127.0.0.1:9900");
    }

    #[test]
    fn it_is_found_in_an_included_file() {
        assert_eq!(of("include = [\"m*.toml\"]\n"), PathBuf::from("/run/more"));
    }

    #[test]
    fn the_default_serves_where_nothing_is_written() {
        assert_eq!(of("[server]\nthreads = 1\n"), default_runtime_dir(&System));
        assert_eq!(runtime_dir(Path::new("/nowhere/tollgate.toml"), &System), default_runtime_dir(&System));
    }
}
