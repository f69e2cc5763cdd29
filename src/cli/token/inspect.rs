//! `tollgate token inspect`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use futures_util::future::{join_all, select};
use serde_json::{Map, Value};

use crate::cli::{ConfigFile, Failure};
use crate::config::{AuthChoice, AuthKind, Config, Mode, Name};
use crate::filter::Identity;
use crate::filter::auth::{Authenticator, RouteAuth};

/// Longest input that is read: no token is longer.
const MAX_INPUT: u64 = 64 * 1024;
/// Claims that are moments (RFC 7519 section 4.1).
const MOMENTS: [&str; 4] = ["exp", "nbf", "iat", "auth_time"];

/// Say what a token says, which auth and routes of a configuration would take it, and why the others would not
#[derive(Debug, Args)]
pub struct Inspect {
    /// The token; without it, or with "-", it is read from standard input and stays out of the shell's history
    token: Option<String>,
    #[command(flatten)]
    file: ConfigFile,
    /// Fetch the keys that stand behind a URL
    #[arg(long)]
    online: bool,
}

impl Inspect {
    pub(super) fn run(self) -> Result<(), Failure> {
        let token = token(self.token)?;
        let now = SystemTime::now();
        print!("{}", said(&token, now));
        let file = &self.file.config;
        if !file.exists() {
            println!("\nno {} here: name a configuration with -c to learn who would take it", file.display());
            return Ok(());
        }
        let config = Config::load(file)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        print!("{}", runtime.block_on(judged(&config, file, &token, self.online, now))?);
        Ok(())
    }
}

fn token(given: Option<String>) -> Result<String, Failure> {
    let text = match given {
        Some(token) if token != "-" => token,
        _ => {
            if io::stdin().is_terminal() {
                eprintln!("paste the token, then a newline and Ctrl-D:");
            }
            let mut text = String::new();
            io::stdin().take(MAX_INPUT).read_to_string(&mut text)?;
            text
        }
    };
    // As people copy it.
    let text = text.trim();
    let token = match text.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("bearer ") => text[7..].trim_start(),
        _ => text,
    };
    if token.is_empty() { Err("there is no token".into()) } else { Ok(token.to_owned()) }
}

/// What stands in it, believed or not.
fn said(token: &str, now: SystemTime) -> String {
    let mut text = String::new();
    let mut segments = token.split('.');
    for part in ["header", "claims"] {
        let object = segments.next().and_then(object);
        match object {
            Some(object) => {
                let pretty = serde_json::to_string_pretty(&object).unwrap_or_else(|_| "{}".to_owned());
                // Writing to a string does not fail.
                let _ = writeln!(text, "{part} {pretty}");
                for name in MOMENTS {
                    if let Some(moment) = object.get(name).and_then(Value::as_u64) {
                        let _ = writeln!(text, "  {name} is {}", when(moment, now));
                    }
                }
            }
            None => {
                let _ = writeln!(text, "{part}: not base64url of a JSON object");
            }
        }
    }
    let more = segments.count();
    if more != 1 {
        let _ = writeln!(text, "it has {} parts, and a signed token has three", more + 2);
    }
    text
}

fn object(segment: &str) -> Option<Map<String, Value>> {
    let bytes = URL_SAFE_NO_PAD.decode(segment).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// A moment, and how far it is.
fn when(seconds: u64, now: SystemTime) -> String {
    /// The end of the year 9999, beyond which HTTP has no dates.
    const LAST: u64 = 253_402_300_799;
    let moment = UNIX_EPOCH + Duration::from_secs(seconds.min(LAST));
    let date = httpdate::fmt_http_date(moment);
    match moment.duration_since(now) {
        Ok(ahead) => format!("{date}, in {}", span(ahead)),
        Err(error) => format!("{date}, {} ago", span(error.duration())),
    }
}

fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// What a configuration makes of it.
async fn judged(config: &Config, file: &Path, token: &str, online: bool, now: SystemTime) -> Result<String, Failure> {
    let mut text = format!("\nby {}\n", file.display());
    let mut authenticators = BTreeMap::new();
    for (name, spec) in &config.auth {
        let built =
            Authenticator::build(name, spec).map_err(|problem| problem.under(name).under("auth").to_string())?;
        authenticators.insert(name.clone(), Arc::new(built));
    }
    if online {
        let tasks = join_all(authenticators.values().flat_map(|authenticator| authenticator.tasks()));
        let settled = join_all(authenticators.values().map(|authenticator| authenticator.settled()));
        select(Box::pin(tasks), Box::pin(settled)).await;
    }
    let mut known = BTreeMap::new();
    for (name, authenticator) in &authenticators {
        let verdict = authenticator.inspect(token, now).await;
        let told = match &verdict {
            None => format!("does not judge tokens ({})", config.auth[name].kind.name()),
            Some(Ok(identity)) => format!("takes it, for {}", identity.subject().unwrap_or("somebody without a name")),
            Some(Err(why)) if *why == "the keys are not here" => match &config.auth[name].kind {
                AuthKind::Jwt(_) if !online => format!("{why}: --online fetches them"),
                _ => format!("{why}, and could not be fetched"),
            },
            Some(Err(why)) => format!("refuses it: {why}"),
        };
        let _ = writeln!(text, "  auth {name}: {told}");
        if let Some(Ok(identity)) = verdict {
            known.insert(name.clone(), identity);
        }
    }
    for (name, route) in &config.routes {
        let told = match RouteAuth::build(&route.auth, route.auth_mode, &authenticators) {
            Err(problem) => return Err(problem.under(name).under("routes").to_string().into()),
            Ok(None) => "open to everybody".to_owned(),
            Ok(Some(auth)) => would(&auth, &route.auth, route.auth_mode, &known),
        };
        let _ = writeln!(text, "  route {name}: {told}");
    }
    Ok(text)
}

/// What a route would do with its bearer.
fn would(auth: &RouteAuth, choice: &AuthChoice, mode: Mode, known: &BTreeMap<Name, Identity>) -> String {
    let AuthChoice::AnyOf { names, .. } = choice else { return "open to everybody".to_owned() };
    let shadow = if mode == Mode::Shadow { ", but lets everybody through (auth_mode = \"shadow\")" } else { "" };
    let mut missing = Vec::new();
    for (name, identity) in names.iter().filter_map(|name| Some((name, known.get(name)?))) {
        let lacks = auth.missing(identity);
        if lacks.is_empty() {
            return format!("lets in, known by {name}");
        }
        missing.push(lacks.join(" and "));
    }
    match missing.first() {
        None => format!("refuses (401): none of its auth takes it ({}){shadow}", names.join(", ")),
        Some(missing) => format!("refuses (403): {missing} is missing{shadow}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_by_their_distance() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(when(1_000_060, now), "Mon, 12 Jan 1970 13:47:40 GMT, in 60 s");
        assert!(when(1_000_000 - 7_300, now).ends_with(", 2 h ago"));
        assert!(when(u64::MAX, now).contains("9999"));
    }

    #[test]
    fn whatever_comes_is_told_as_far_as_it_can_be_read() {
        for token in ["", ".", "..", "a.b.c", "e30.e30.x", "\u{e4}.\u{e4}", "e30"] {
            said(token, SystemTime::now());
        }
        assert!(said("e30.bm8.x", SystemTime::now()).contains("claims: not base64url of a JSON object"));
        assert!(said("e30.e30", SystemTime::now()).contains("it has 2 parts"));
    }
}
