//! What the reader makes of whole files: those under `valid` and `conf` are read, those under `invalid` are refused with
//! exactly the text beside them. `BLESS=1` rewrites that text.

use std::fs;
use std::path::{Path, PathBuf};

use tollgate::config::{Config, System};

/// All `.toml` files of a directory, sorted.
fn files(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the directory is part of the repository");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

#[expect(clippy::disallowed_methods, reason = "it is said for one run, not configured")]
fn is_blessing() -> bool {
    std::env::var_os("BLESS").is_some()
}

fn refuses(path: &Path, failures: &mut Vec<String>) {
    let expected_at = path.with_extension("stderr");
    let found = match Config::load(path) {
        Ok(_) => return failures.push(format!("{} is read, and should be refused", path.display())),
        Err(error) => error.to_string(),
    };
    if is_blessing() {
        fs::write(&expected_at, found).expect("a writable file");
        return;
    }
    let expected = fs::read_to_string(&expected_at).unwrap_or_else(|error| format!("{error}\n"));
    if found != expected {
        let name = expected_at.display();
        failures.push(format!("{name} differs\n--- expected\n{expected}\n--- found\n{found}"));
    }
}

#[test]
fn what_is_wrong_is_told_all_at_once_in_its_place() {
    let files = files("tests/config/invalid");
    assert!(files.len() >= 35, "only {} files", files.len());
    let mut failures = Vec::new();
    for path in &files {
        refuses(path, &mut failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn valid_files_and_all_that_are_shipped_are_read() {
    let mut failures = Vec::new();
    for path in ["tests/config/valid", "conf", "conf/examples"].map(files).iter().flatten() {
        if let Err(error) = Config::load(path) {
            failures.push(error.to_string());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What has no default, with a value of its own in `conf/tollgate.toml`.
const REQUIRED: &str = r#"
[listeners.http]
address = "0.0.0.0:8080"

[auth.corporate]
type = "jwt"
issuer = "https://id.example.com"
audience = ["orders-api"]
algorithms = ["RS256", "ES256"]
jwks_url = "https://id.example.com/jwks.json"

[limits.per_address]
rate = "1000/m"
key = ["client.address"]

[limits.busy]
concurrent = 500
key = ["route"]

[limits.plan]
quota = "100000/month"
key = ["client.address"]

[upstreams.orders]
endpoints = ["127.0.0.1:3000", "127.0.0.1:3001", "unix:/run/orders.sock"]
health = { type = "http" }
outlier = {}
breaker = {}

[routes.orders]
auth = "corporate"
upstream = "orders"

[routes.old_site]
hosts = ["www.example.com"]
auth = "none"
redirect = { to = "https://example.com{path}" }

[routes.robots]
path = "/robots.txt"
auth = "none"
respond = {}
"#;

#[test]
fn the_commented_reference_tells_the_defaults() {
    let reference = Config::load(Path::new("conf/tollgate.toml")).expect("what is shipped is valid");
    let (bare, _) = Config::read(REQUIRED, Path::new("bare.toml"), &System).expect("it has all that is required");
    assert_eq!(reference, bare);
}
