//! `[log]`.

use std::path::PathBuf;

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};

use super::Objects;
use super::complaint::Complaint;
use super::leaf::selector;
use super::node::Node;
use super::suggest::did_you_mean;
use super::table::Table;
use crate::config::{AccessFormat, AccessLog, Auth, Log, LogOutput, Selector, TokenSource};

const MAX_FIELDS: usize = 64;
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

pub(super) fn log(mut table: Table<'_>, auth: &Objects<Auth>) -> Option<Log> {
    let level = table.or("level", "info".to_owned(), |node| node.parse(level));
    let default = AccessLog { format: AccessFormat::Json, output: LogOutput::Stdout, sample: 1.0, fields: Vec::new() };
    let access = table.or("access", default, |node| access(node.table()?, auth));
    table.finish(&[]);
    Some(Log { level: level?, access: access? })
}

fn access(mut table: Table<'_>, auth: &Objects<Auth>) -> Option<AccessLog> {
    let formats = [("json", AccessFormat::Json), ("combined", AccessFormat::Combined), ("off", AccessFormat::Off)];
    let format = table.or("format", AccessFormat::Json, |node| node.word(&formats, &[]));
    let output = table.or("output", LogOutput::Stdout, |node| node.parse(output));
    let sample = table.or("sample", 1.0, Node::share);
    let fields = table.or("fields", Vec::new(), |node| node.distinct(MAX_FIELDS, |item| field(item, auth)));
    table.finish(&[]);
    Some(AccessLog { format: format?, output: output?, sample: sample?, fields: fields? })
}

fn output(text: &str) -> Result<LogOutput, Complaint> {
    match text {
        "stdout" => Ok(LogOutput::Stdout),
        "stderr" => Ok(LogOutput::Stderr),
        text => match text.strip_prefix("file:") {
            Some(path) if path.starts_with('/') && !path.chars().any(char::is_control) => {
                Ok(LogOutput::File(PathBuf::from(path)))
            }
            Some(_) => {
                Err(Complaint::new("the path of a log file starts with \"/\": \"file:/var/log/tollgate/access.log\""))
            }
            None => Err(Complaint::about(0..text.len(), "is none of \"stdout\", \"stderr\" and \"file:/path\"")),
        },
    }
}

/// A log is read by more people than a request: what proves who calls stays out of it.
fn field(node: &Node<'_>, auth: &Objects<Auth>) -> Option<(String, Selector)> {
    let (name, selector) = node.parse(|text| Ok((text.to_owned(), selector::selector(text)?)))?;
    let is_credential = matches!(&selector, Selector::Header(AUTHORIZATION | PROXY_AUTHORIZATION | COOKIE));
    if is_credential || carries_token(&selector, auth) {
        node.problem("this carries credentials: they do not belong into a log");
        return None;
    }
    Some((name, selector))
}

fn carries_token(selector: &Selector, auth: &Objects<Auth>) -> bool {
    let mut sources = auth.values().flat_map(|auth| &auth.sources);
    sources.any(|source| match (source, selector) {
        (TokenSource::Header(source), Selector::Header(name)) => source == name,
        (TokenSource::Cookie(source), Selector::Cookie(name)) => source == name,
        (TokenSource::Query(source), Selector::Query(name)) => source == name,
        _ => false,
    })
}

/// env_logger's syntax: `level`, or a list of `target=level` and `target`; what it would only warn about is refused.
fn level(text: &str) -> Result<String, Complaint> {
    let (filter, _) = text.split_once('/').unwrap_or((text, ""));
    let mut start = 0;
    for directive in filter.split(',') {
        let at = start..start + directive.len();
        start = at.end + 1;
        let (target, level) = match directive.split_once('=') {
            Some((target, level)) => (target, Some(level)),
            None => (directive, None),
        };
        let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
        let choice = LEVELS.join(", ");
        if let Some(level) = level
            && !is_level(level)
        {
            let at = at.end - level.len()..at.end;
            return Err(Complaint::about(
                at,
                format!("is no level; there are {choice}{}", did_you_mean(level, LEVELS)),
            ));
        }
        let is_target = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte))
        };
        if !is_target(target) {
            let message = "is no filter: write a level, or \"module=level\" with commas in between";
            return Err(Complaint::about(at, message));
        }
        // A bare word that is nearly a level would be taken for a module, and silence everything else.
        let hint = did_you_mean(target, LEVELS);
        if level.is_none() && !is_level(target) && !hint.is_empty() {
            return Err(Complaint::about(at, format!("is no level; there are {choice}{hint}")));
        }
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_those_of_env_logger_without_its_surprises() {
        for text in ["info", "WARN", "info,tollgate=debug", "tollgate::proxy=trace,off", "my_crate", "info/text"] {
            assert!(level(text).is_ok(), "{text}");
        }
        for text in ["", "inof", "tollgate=loud", "info,", "=info", "a b", "debgu,tollgate=info"] {
            assert!(level(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_log_file_has_an_absolute_path() {
        assert_eq!(output("file:/a/b.log"), Ok(LogOutput::File("/a/b.log".into())));
        for text in ["file:a.log", "file:", "/a.log", "stdot"] {
            assert!(output(text).is_err(), "{text}");
        }
    }
}
