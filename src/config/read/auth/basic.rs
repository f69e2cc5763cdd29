//! `type = "basic"`, and the file that users and the hashes of their passwords stand in: that of Apache's `htpasswd`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::{file, value};
use crate::config::read::complaint::Complaint;
use crate::config::read::leaf::{password, quantity};
use crate::config::read::report::Report;
use crate::config::read::source::Source;
use crate::config::read::table::{Table, join};
use crate::config::{BasicAuth, BasicUser, Name, PasswordHash, Problem};

/// Most bytes of a file of users.
const MAX_USERS_FILE: u64 = 4 * 1024 * 1024;
const MAX_USERS: usize = 10_000;
/// Bytes of a user's name.
const MAX_NAME: usize = 256;
const REALM: &str = "tollgate";
const REMEMBER: Duration = Duration::from_secs(10 * 60);

type Users = BTreeMap<Name, PasswordHash>;

pub(super) fn basic(table: &mut Table<'_>) -> Option<BasicAuth> {
    let users = table.required("users_file", "the users that are known, one line each as htpasswd writes it", |node| {
        let (path, text) = file::text(node, MAX_USERS_FILE)?;
        match users(&text, &path) {
            Ok(users) => Some((path, users)),
            Err(problems) => {
                node.ctx.report.add_located(problems);
                None
            }
        }
    });
    let realm = table.or("realm", REALM.to_owned(), |node| node.parse(realm));
    let remember = table.or("remember", Some(REMEMBER), |node| node.parse(remember));
    let (file, users) = users?;
    let users = users.into_iter().map(|(name, hash)| BasicUser { name, hash }).collect();
    Some(BasicAuth { file, users, realm: realm?, remember: remember? })
}

/// It stands in a challenge, in quotes.
fn realm(text: &str) -> Result<String, Complaint> {
    if !text.is_ascii() || text.contains(['"', '\\']) {
        return Err(Complaint::new("a realm is visible ASCII without quotes and backslashes (RFC 9110 section 11.5)"));
    }
    value::plain_text(text)
}

fn remember(text: &str) -> Result<Option<Duration>, Complaint> {
    if text == "none" {
        return Ok(None);
    }
    quantity::duration(text, Duration::from_secs(1)..=value::DAY).map(Some).map_err(|mut complaint| {
        complaint.message.push_str("; \"none\" verifies the password at each request");
        complaint
    })
}

/// Reads the text of a file of users.
///
/// # Errors
/// All problems, by place.
fn users(text: &str, path: &Path) -> Result<Users, Vec<Problem>> {
    let report = Report::default();
    let source = Source::new(0, path, text);
    let mut users = Users::new();
    let mut start = 0;
    for line in source.text.split_inclusive('\n') {
        let at = start;
        start += line.len();
        let line = line.trim_end_matches(['\n', '\r']);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        // Without a colon all of it may be a password.
        let Some((name, hash)) = line.split_once(':') else {
            report.mask(&source, at..at + line.len());
            report.add(&source, at..at + line.len(), "users", "a line is a user, \":\" and a hash");
            continue;
        };
        let hash_at = at + name.len() + 1..at + line.len();
        report.mask(&source, hash_at.clone());
        let path = join("users", name);
        if let Err(message) = check_name(name) {
            report.add(&source, at..hash_at.start, &path, message);
        } else if users.contains_key(name) {
            report.add(&source, at..hash_at.start, &path, "this user has a line already");
        }
        match password::hash(hash) {
            Ok(hash) => drop(users.insert(name.into(), hash)),
            Err(message) => report.add(&source, hash_at, &path, message),
        }
    }
    if users.len() > MAX_USERS {
        report.add_placeless("users", "there are too many: a file has 10,000 at most");
    }
    if report.is_empty() { Ok(users) } else { Err(report.into_problems(&[&source])) }
}

/// What a client can send as one (RFC 7617 section 2), and nobody mistakes for another.
fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("the user's name is missing");
    }
    if name.len() > MAX_NAME || name.trim() != name || name.chars().any(char::is_control) {
        return Err("a user's name has no control characters, no spaces around it, and 256 bytes at most");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BCRYPT: &str = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

    fn read(text: &str) -> Result<Users, Vec<Problem>> {
        users(text, Path::new("users"))
    }

    #[test]
    fn users_comments_and_blank_lines_are_read() {
        let users =
            read(&format!("# people\r\n\r\nalice:{BCRYPT}\r\n  \nb\u{f6}b@example.com:{BCRYPT}")).expect("users");
        let names: Vec<_> = users.keys().map(|name| &**name).collect();
        assert_eq!(names, ["alice", "b\u{f6}b@example.com"]);
        assert_eq!(read("").expect("nobody").len(), 0);
    }

    #[test]
    fn each_line_that_is_wrong_is_told_and_no_hash_or_password_shown() {
        let text = format!(
            "alice:{BCRYPT}\nalice:{BCRYPT}\nhunter2\n:{BCRYPT}\n bob:{BCRYPT}\ncarol:hunter2\ndave:realm:hunter2 # hunter2"
        );
        let problems = read(&text).expect_err("problems");
        let lines: Vec<_> = problems.iter().filter_map(|problem| Some(problem.location.as_ref()?.line)).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6, 7]);
        let text: String = problems.iter().map(ToString::to_string).collect();
        assert!(!text.contains("hunter2") && !text.contains("CCCC"), "{text}");
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_users_or_problems(text in "(\\PC{0,5}:?|\\$2y\\$|\\$argon2id\\$|:|#|\r?\n|a:\\$2y\\$05\\$[./A-z]{53}\n){0,20}") {
            if let Err(problems) = read(&text) {
                prop_assert!(!problems.is_empty());
            }
        }
    }
}
