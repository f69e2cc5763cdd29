//! An issuer on the web: pages that say what they are told to, at their own pace, with or without TLS.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::certs::Identity;
use super::jwt::{Key, key_set};
use super::origin::{Connection, Origin, Request};

/// Where a document about an issuer stands.
pub(crate) const DOCUMENT: &str = "/.well-known/openid-configuration";
/// Where the keys stand, unless a test says otherwise.
pub(crate) const KEYS: &str = "/keys";

/// What is answered.
#[derive(Clone)]
pub(crate) enum Page {
    Reply {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    /// A good head, and a byte a second after it
    Trickle,
    /// A good head, and so many bytes after it
    Flood(usize),
}

impl Page {
    pub(crate) fn json(body: impl Into<String>) -> Self {
        Self::reply(200, "application/json", body.into())
    }

    pub(crate) fn reply(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::Reply { status, headers: vec![("content-type", content_type.to_owned())], body: body.into() }
    }

    #[must_use]
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        let Self::Reply { headers, .. } = &mut self else { panic!("only a reply has headers") };
        headers.push((name, value.to_owned()));
        self
    }
}

/// Serves pages; what has none is 404.
pub(crate) struct Issuer {
    origin: Origin,
    scheme: &'static str,
    pages: Arc<Mutex<BTreeMap<String, Page>>>,
}

impl Issuer {
    pub(crate) fn over_http() -> Self {
        let pages = Arc::default();
        let origin = Origin::scripted(script(Arc::clone(&pages)));
        Self { origin, scheme: "http", pages }
    }

    pub(crate) fn over_tls(identity: &Identity) -> Self {
        let pages = Arc::default();
        let origin = Origin::scripted_tls(identity.serving(&["http/1.1"]), script(Arc::clone(&pages)));
        Self { origin, scheme: "https", pages }
    }

    /// The `iss` of its tokens.
    pub(crate) fn name(&self) -> String {
        format!("{}://{}", self.scheme, self.origin.addr())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.name())
    }

    pub(crate) fn put(&self, path: &str, page: Page) {
        locked(&self.pages).insert(path.to_owned(), page);
    }

    /// From now on, these keys and no others, and a document that says where.
    pub(crate) fn publish(&self, keys: &[&Key]) {
        self.put(KEYS, Page::json(key_set(keys)));
        self.put(DOCUMENT, Page::json(self.document(KEYS)));
    }

    /// What a document about it says of its keys.
    pub(crate) fn document(&self, keys_at: &str) -> String {
        json!({ "issuer": self.name(), "jwks_uri": self.url(keys_at) }).to_string()
    }

    /// How often a page was asked for.
    pub(crate) fn hits(&self, path: &str) -> usize {
        self.origin.requests().iter().filter(|request| request.target == path).count()
    }

    /// How often anything was.
    pub(crate) fn all_hits(&self) -> usize {
        self.origin.hits()
    }
}

fn script(pages: Arc<Mutex<BTreeMap<String, Page>>>) -> impl Fn(&Request, &mut Connection) + Send + Sync {
    move |request, connection| {
        let page = locked(&pages).get(&request.target).cloned();
        match page {
            None => connection.reply(404, &[], "no such page"),
            Some(Page::Reply { status, headers, body }) => {
                let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                connection.reply(status, &headers, body);
            }
            Some(Page::Trickle) => {
                slowly(connection);
                connection.close();
            }
            Some(Page::Flood(bytes)) => {
                connection.begin_chunked(200, &[("content-type", "application/json")]);
                // The other end may well have had enough before.
                for _ in 0..bytes / CHUNK {
                    if sent(connection, CHUNK).is_err() {
                        break;
                    }
                }
                connection.close();
            }
        }
    }
}

const CHUNK: usize = 64 * 1024;

fn sent(connection: &mut Connection, bytes: usize) -> std::io::Result<()> {
    let stream = connection.stream();
    write!(stream, "{bytes:x}\r\n")?;
    stream.write_all(&vec![b' '; bytes])?;
    stream.write_all(b"\r\n")?;
    stream.flush()
}

fn slowly(connection: &mut Connection) {
    connection.begin_chunked(200, &[("content-type", "application/json")]);
    while sent(connection, 1).is_ok() {
        // What it is about is a server this slow; nothing waits for it but the gateway.
        thread::sleep(Duration::from_secs(1));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}
