//! The floors of the house, checked: a room imports from lower floors only.
//!
//! The sources are read as tokens, so neither comments nor strings count and no import can hide in a group. What is
//! checked stands in `FLOORS`, `NEIGHBOURS` and the rules below them; `ARCHITECTURE.md` says why.

use std::fmt::Write as _;
use std::fs;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::str::Chars;

/// Each room and its floor.
const FLOORS: &[(&str, u8)] = &[
    ("config", 0),
    ("http", 1),
    ("socket", 1),
    ("telemetry", 1),
    ("filter", 2),
    ("router", 2),
    ("tls", 2),
    ("upstream", 2),
    ("snapshot", 3),
    ("control", 4),
    ("admin", 5),
    ("listen", 5),
    ("proxy", 5),
    ("app", 6),
    ("cli", 6),
];
/// Rooms of one floor that may know each other: what may be used, and by whom. All others are strangers.
const NEIGHBOURS: &[(&str, &[&str])] = &[("http", &["socket", "telemetry"]), ("app", &["cli"])];
/// The lowest floor that may name Pingora's `Session` and `Server`; below, everything is testable without a socket.
const PINGORA_FLOOR: u8 = 4;
/// Types through which a `static` would be state.
const MUTABLE: &[&str] = &["ArcSwap", "Cell", "LazyCell", "Lazy", "Mutex", "OnceCell", "OnceLock", "RefCell", "RwLock"];
/// A longer file is two files.
const MAX_LINES: usize = 600;

#[test]
fn rooms_use_lower_floors_only() {
    let mut report = String::new();
    // Fixtures of tests (a key that takes long to make) are no state of the product.
    let is_product = |file: &Source| !file.path.parent().is_some_and(|directory| directory.ends_with("tests"));
    for file in sources("src").into_iter().filter(is_product) {
        for violation in violations(&file.room, file.modules, &file.text) {
            writeln!(report, "{}: {violation}", file.path.display()).expect("writing to memory");
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<_> = ["src", "tests"]
        .into_iter()
        .flat_map(sources)
        .filter(|file| file.text.lines().count() > MAX_LINES)
        .map(|file| file.path)
        .collect();
    assert!(long.is_empty(), "more than {MAX_LINES} lines: {long:?}");
}

#[test]
fn every_room_has_a_floor() {
    let unknown: Vec<_> = sources("src")
        .into_iter()
        .filter(|file| !file.room.is_empty() && floor(&file.room).is_none())
        .map(|file| file.path)
        .collect();
    assert!(unknown.is_empty(), "no floor in tests/architecture.rs: {unknown:?}");
}

/// What is wrong with the text of a file in `room`, whose path below `src` makes `modules` names.
fn violations(room: &str, modules: usize, text: &str) -> Vec<String> {
    let tokens = lex(text);
    let mut found = Vec::new();
    let own = floor(room).unwrap_or(u8::MAX);
    for name in rooms_named(&tokens, modules) {
        if let Some(other) = floor(&name)
            && !may_use(room, own, &name, other)
        {
            found.push(format!("`{room}` (floor {own}) must not use `{name}` (floor {other})"));
        }
    }
    if own < PINGORA_FLOOR {
        found.extend(pingora_types(&tokens).into_iter().map(|name| {
            format!("`{room}` (floor {own}) must not name Pingora's `{name}`: only floors from {PINGORA_FLOOR} may")
        }));
    }
    // The allocator stands in `main.rs`.
    if !room.is_empty() {
        found.extend(states(&tokens).into_iter().map(|name| format!("`static {name}` is state without an owner")));
    }
    found
}

fn may_use(room: &str, own: u8, name: &str, other: u8) -> bool {
    room.is_empty()
        || room == name
        || other < own
        || NEIGHBOURS.iter().any(|(used, by)| *used == name && by.contains(&room))
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// Rooms that are named from the crate's root: `crate::x`, `crate::{x, y::z}`, and as many `super` as lead there.
fn rooms_named(tokens: &[Token], modules: usize) -> Vec<String> {
    let mut names = Vec::new();
    // Inline modules deepen the path that `super` climbs: the depth of braces each of them was opened at.
    let (mut inline, mut braces): (Vec<usize>, usize) = (Vec::new(), 0);
    let mut index = 0;
    while index < tokens.len() {
        let rest = &tokens[index..];
        match &tokens[index] {
            Token::Mark('{') => {
                braces += 1;
                if let [.., Token::Word(module), Token::Word(_)] = &tokens[..index]
                    && module == "mod"
                {
                    inline.push(braces);
                }
            }
            Token::Mark('}') => {
                inline.pop_if(|depth| *depth == braces);
                braces = braces.saturating_sub(1);
            }
            Token::Word(word) if word == "crate" => names.extend(heads(&rest[1..])),
            Token::Word(word) if word == "super" => {
                let mut supers = 1;
                while matches!(&rest[2 * supers - 1..], [Token::Path, Token::Word(next), ..] if next == "super") {
                    supers += 1;
                }
                if supers >= modules + inline.len() {
                    names.extend(heads(&rest[2 * supers - 1..]));
                }
                index += 2 * supers - 2;
            }
            _ => {}
        }
        index += 1;
    }
    names
}

/// The first names after a `::`, of every branch where there is a group.
fn heads(tokens: &[Token]) -> Vec<String> {
    match tokens {
        [Token::Path, Token::Word(name), ..] => vec![name.clone()],
        [Token::Path, Token::Mark('{'), group @ ..] => {
            let (mut depth, mut first, mut names) = (0_usize, true, Vec::new());
            for token in group {
                match token {
                    Token::Mark('{') => depth += 1,
                    Token::Mark('}') if depth == 0 => break,
                    Token::Mark('}') => depth -= 1,
                    Token::Mark(',') if depth == 0 => first = true,
                    Token::Word(name) if first => {
                        names.push(name.clone());
                        first = false;
                    }
                    _ => {}
                }
            }
            names
        }
        _ => Vec::new(),
    }
}

/// `Session`, `Server`, or everything, from a crate of Pingora's.
fn pingora_types(tokens: &[Token]) -> Vec<String> {
    let mut names = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let Token::Word(root) = token else { continue };
        if !root.starts_with("pingora") || tokens.get(index + 1) != Some(&Token::Path) {
            continue;
        }
        let mut depth = 0_usize;
        for token in &tokens[index + 1..] {
            match token {
                Token::Mark('{') => depth += 1,
                Token::Mark('}') if depth > 0 => depth -= 1,
                Token::Mark(',') if depth > 0 => {}
                Token::Path => {}
                Token::Mark('*') => names.push("*".to_owned()),
                Token::Word(name) if name == "Session" || name == "Server" => names.push(name.clone()),
                Token::Word(_) => {}
                Token::Mark(_) => break,
            }
        }
    }
    names
}

/// Names of `static` items that are more than constants.
fn states(tokens: &[Token]) -> Vec<String> {
    let mut names = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if *token != Token::Word("static".to_owned()) {
            continue;
        }
        let (mutable, name) = match &tokens[index + 1..] {
            [Token::Word(word), Token::Word(name), ..] if word == "mut" => (true, name),
            [Token::Word(name), Token::Mark(':'), ..] => (false, name),
            _ => continue,
        };
        let changes = |token: &Token| matches!(token, Token::Word(word) if MUTABLE.contains(&word.as_str()) || word.starts_with("Atomic"));
        let kind = tokens[index..].iter().take_while(|token| !matches!(token, Token::Mark('=' | ';')));
        if mutable || kind.into_iter().any(changes) {
            names.push(name.clone());
        }
    }
    names
}

/// What matters of Rust's grammar here.
#[derive(Debug, PartialEq)]
enum Token {
    /// An identifier or keyword
    Word(String),
    /// `::`
    Path,
    /// Any other character that is not space
    Mark(char),
}

/// Words and marks, without comments, strings, characters and lifetimes.
fn lex(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '/' if chars.peek() == Some(&'/') => while chars.next_if(|c| *c != '\n').is_some() {},
            '/' if chars.peek() == Some(&'*') => skip_block_comment(&mut chars),
            '"' => skip_string(&mut chars),
            '\'' => skip_quote(&mut chars),
            ':' if chars.next_if_eq(&':').is_some() => tokens.push(Token::Path),
            c if c.is_alphabetic() || c == '_' => {
                let mut word = String::from(c);
                while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    word.push(c);
                }
                let raw = matches!(word.as_str(), "r" | "br" | "cr");
                if raw && matches!(chars.peek(), Some('"' | '#')) {
                    skip_raw(&mut chars, &mut tokens);
                } else {
                    tokens.push(Token::Word(word));
                }
            }
            c if c.is_whitespace() => {}
            c => tokens.push(Token::Mark(c)),
        }
    }
    tokens
}

fn skip_block_comment(chars: &mut Peekable<Chars<'_>>) {
    chars.next();
    let mut depth = 1;
    while depth > 0 {
        match chars.next() {
            Some('/') if chars.next_if_eq(&'*').is_some() => depth += 1,
            Some('*') if chars.next_if_eq(&'/').is_some() => depth -= 1,
            Some(_) => {}
            None => return,
        }
    }
}

fn skip_string(chars: &mut Peekable<Chars<'_>>) {
    while let Some(char) = chars.next() {
        match char {
            '\\' => drop(chars.next()),
            '"' => return,
            _ => {}
        }
    }
}

/// A character, or a lifetime, which has no closing quote.
fn skip_quote(chars: &mut Peekable<Chars<'_>>) {
    match chars.next() {
        Some('\\') => {
            chars.next();
            while chars.next().is_some_and(|c| c != '\'') {}
        }
        Some(_) if chars.next_if_eq(&'\'').is_some() => {}
        _ => while chars.next_if(|c| c.is_alphanumeric() || *c == '_').is_some() {},
    }
}

/// `r"…"`, `r#"…"#`; or `r#name`, which is a word.
fn skip_raw(chars: &mut Peekable<Chars<'_>>, tokens: &mut Vec<Token>) {
    let mut hashes = 0;
    while chars.next_if_eq(&'#').is_some() {
        hashes += 1;
    }
    if chars.next_if_eq(&'"').is_none() {
        let mut word = String::new();
        while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
            word.push(c);
        }
        tokens.push(Token::Word(word));
        return;
    }
    while let Some(char) = chars.next() {
        if char == '"' && (0..hashes).all(|_| chars.next_if_eq(&'#').is_some()) {
            return;
        }
    }
}

/// A file and its place.
struct Source {
    path: PathBuf,
    /// The first name below `src`; empty for `lib.rs` and `main.rs`
    room: String,
    /// How many modules its path makes
    modules: usize,
    text: String,
}

fn sources(directory: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory that can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source that can be read");
                let mut modules: Vec<_> = path.strip_prefix(&root).expect("below it").iter().collect();
                let file = Path::new(modules.pop().expect("a name")).file_stem().expect("a name");
                if !["mod", "lib", "main"].iter().any(|front| file == *front) {
                    modules.push(file);
                }
                let room = modules.first().map(|room| room.to_string_lossy().into_owned()).unwrap_or_default();
                let modules = modules.len();
                found.push(Source { path, room, modules, text });
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {}", root.display());
    found
}

mod the_checker {
    use super::violations;

    #[test]
    fn lets_rooms_use_what_is_below_and_themselves() {
        let text = "use crate::{config::{self, Name}, http::Reply}; use crate::filter::auth::Auth; use super::limit;";
        assert_eq!(violations("filter", 2, text), Vec::<String>::new());
        assert_eq!(violations("telemetry", 2, "use crate::http::Reason;"), Vec::<String>::new());
        assert_eq!(violations("cli", 2, "fn f() { crate::app::run() }"), Vec::<String>::new());
        assert_eq!(violations("", 0, "use crate::proxy;"), Vec::<String>::new());
    }

    #[test]
    fn finds_doors_that_open_upward_or_sideways() {
        for text in [
            "use crate::proxy::Proxy;",
            "use crate::{config::Name, proxy::Proxy};",
            "use crate::{config::{Name, Config}, control};",
            "fn f() { let x = crate::snapshot::Live::new(); }",
            "pub(in crate::upstream) fn f() {}",
            "use crate::router::Router;",
            "use super::super::tls::ServerTls;",
            "mod tests { use super::super::super::listen::Listeners; }",
            "macro_rules! m { () => { $crate::app::run() } }",
        ] {
            assert_eq!(violations("filter", 2, text).len(), 1, "{text}");
        }
        assert_eq!(violations("http", 2, "use crate::telemetry::Metrics;").len(), 1);
        assert_eq!(violations("app", 1, "use crate::cli::Command;").len(), 1);
        assert_eq!(violations("app", 1, "use super::cli::Command;").len(), 1);
    }

    #[test]
    fn does_not_take_text_for_imports() {
        let text = r##"
            // crate::proxy
            /* crate::proxy /* nested */ crate::proxy */
            /// [`crate::proxy::Proxy`]
            const A: &str = "crate::proxy \" crate::proxy";
            const B: &str = r#"crate::proxy " crate::proxy"#;
            const C: char = '"'; const D: char = '\''; const E: &'static str = "crate::proxy";
            mod tests { use super::super::proxy; }
        "##;
        assert_eq!(violations("filter", 2, text), Vec::<String>::new());
    }

    #[test]
    fn keeps_pingoras_sockets_upstairs() {
        for text in [
            "use pingora_proxy::Session;",
            "use pingora::{server::Server, Result};",
            "use pingora_core::prelude::*;",
            "fn f(session: &mut pingora_proxy::Session) {}",
        ] {
            assert_eq!(violations("filter", 2, text).len(), 1, "{text}");
            assert_eq!(violations("proxy", 2, text), Vec::<String>::new(), "{text}");
        }
        let text = "use pingora_http::RequestHeader; use rustls::server::Session; struct Server;";
        assert_eq!(violations("filter", 2, text), Vec::<String>::new());
    }

    #[test]
    fn finds_state_without_an_owner() {
        for text in [
            "static COUNT: AtomicU64 = AtomicU64::new(0);",
            "static mut COUNT: u64 = 0;",
            "static CACHE: std::sync::LazyLock<Mutex<u8>> = LazyLock::new(Mutex::default);",
            "thread_local! { static DEPTH: Cell<u8> = const { Cell::new(0) }; }",
        ] {
            assert_eq!(violations("http", 2, text).len(), 1, "{text}");
        }
        let text = "static NAMES: &[&'static str] = &[]; fn f(x: &'static str) -> impl Fn() + 'static {}";
        assert_eq!(violations("http", 2, text), Vec::<String>::new());
    }
}
