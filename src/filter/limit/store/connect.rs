//! The way to a store: TCP, TLS or a Unix socket, and what is said first. With sentinels, wherever they say.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};

use futures_util::future::{Either, select};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::measured::Measured;
use super::script::Broken;
use super::sentinel::{Sentinels, serves};
use super::tls::Tls;
use crate::config::{Problem, RedisAddress, RedisHost, RedisLogin, RedisServer};

/// Questions that wait to be written; more wait in their requests.
const QUEUE: usize = 1024;
/// Characters of a server's words in the log.
const MAX_TEXT: usize = 200;

pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the client needs of a connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How to get there.
pub(super) struct Way {
    server: RedisServer,
    /// For `rediss://` alone
    tls: Option<Tls>,
    sentinels: Sentinels,
}

/// A connection on which all has been said that is said first.
pub(super) struct Opened {
    pub(super) connection: MultiplexedConnection,
    /// To be polled while anything is asked
    pub(super) driver: Driver,
    /// Where it leads to, for the log
    pub(super) at: String,
}

impl Way {
    /// # Errors
    /// A file that is not what it should be, or a host that no certificate can be for.
    pub(super) fn build(server: &RedisServer) -> Result<Self, Problem> {
        let tls = if server.address.uses_tls() {
            let hosts = match &server.address {
                RedisAddress::Tcp { host, .. } => std::slice::from_ref(host),
                RedisAddress::Sentinel { sentinels, .. } => sentinels,
                RedisAddress::Unix(_) => &[],
            };
            for host in hosts {
                ServerName::try_from(host.name.as_str())
                    .map_err(|_| Problem::new("redis_url", "no certificate can be for this host"))?;
            }
            Some(Tls::build(server)?)
        } else {
            None
        };
        Ok(Self { server: server.clone(), tls, sentinels: Sentinels::default() })
    }

    pub(super) fn server(&self) -> &RedisServer {
        &self.server
    }

    /// Why not is told in words for the log.
    pub(super) async fn open(&self) -> Result<Opened, String> {
        let RedisServer { address, login, db, .. } = &self.server;
        let stream = match address {
            RedisAddress::Unix(path) => UnixStream::connect(path).await.map(|stream| Box::new(stream) as _),
            RedisAddress::Tcp { host, .. } => self.reach(host).await,
            RedisAddress::Sentinel { sentinels, master, .. } => {
                let host = self.sentinels.find(self, sentinels, master).await?;
                let from = |why| format!("{host}, where sentinels say it is: {why}");
                let mut opened = self.greeted(&host, login.as_ref(), *db).await.map_err(from)?;
                serves(&mut opened).await.map_err(from)?;
                opened.at = format!("{host} ({address})");
                return Ok(opened);
            }
        };
        greet(stream.map_err(unreached)?, login.as_ref(), *db, address).await
    }

    /// A host that has been greeted.
    pub(super) async fn greeted(
        &self,
        host: &RedisHost,
        login: Option<&RedisLogin>,
        db: u16,
    ) -> Result<Opened, String> {
        greet(self.reach(host).await.map_err(unreached)?, login, db, host).await
    }

    async fn reach(&self, host: &RedisHost) -> io::Result<Box<dyn Stream>> {
        let tcp = TcpStream::connect((host.name.as_str(), host.port)).await?;
        // A decision is one small segment that somebody waits for.
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let name = ServerName::try_from(host.name.clone()).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, tcp).await?))
    }
}

impl Opened {
    /// Asks, while the connection is driven.
    pub(super) async fn ask<T>(&mut self, ask: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        match select(self.driver.as_mut(), pin!(ask)).await {
            Either::Left(_) => Err("it closed the connection".to_owned()),
            Either::Right((answer, _)) => answer,
        }
    }
}

/// Who asks, and for which database.
async fn greet(
    stream: Box<dyn Stream>,
    login: Option<&RedisLogin>,
    db: u16,
    at: &impl fmt::Display,
) -> Result<Opened, String> {
    // The library's name is of no use to the server, and an ACL may not allow to say it.
    let mut info = RedisConnectionInfo::default().set_db(i64::from(db)).set_skip_set_lib_name();
    if let Some(RedisLogin { user, password }) = login {
        if let Some(user) = user {
            info = info.set_username(user);
        }
        // It was made from text.
        info = info.set_password(String::from_utf8_lossy(password.expose()));
    }
    // Each question has a deadline of its own.
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(QUEUE);
    let greeted = MultiplexedConnection::new_with_config(&info, Measured::new(stream), config).await;
    let (connection, driver) = greeted.map_err(|error| told(&Broken::Server(error)))?;
    Ok(Opened { connection, driver: Box::pin(driver), at: at.to_string() })
}

#[expect(clippy::needless_pass_by_value, reason = "an error that is mapped")]
fn unreached(error: io::Error) -> String {
    printable(&error.to_string())
}

pub(super) fn told(broken: &Broken) -> String {
    match broken {
        Broken::Server(error) => printable(&error.to_string()),
        Broken::Nonsense => "it answered what was not asked".to_owned(),
    }
}

/// What a server says is anybody's text.
fn printable(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}
