//! A real OpenID provider, which is nobody's of ours: `oidc-provider` of npm, run by node (`tests/oidc`).

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::client::Request;
use super::node::installed;

/// A provider that serves; it ends with this value.
pub(crate) struct Provider {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    about: Value,
}

impl Provider {
    /// Starts one. `None`, said loudly, on a machine that cannot have it; in CI that is a failure.
    #[track_caller]
    pub(crate) fn start() -> Option<Self> {
        let directory = installed("oidc")?;
        let mut child = Command::new("node")
            .arg("provider.mjs")
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is there");
        let commands = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut provider = Self { child, commands, answers, about: Value::Null };
        provider.about = provider.answer();
        Some(provider)
    }

    pub(crate) fn issuer(&self) -> &str {
        self.text("issuer")
    }

    /// The `aud` of its tokens.
    pub(crate) fn resource(&self) -> &str {
        self.text("resource")
    }

    /// A new access token, as a client gets it with its own credentials (RFC 6749 section 4.4).
    #[track_caller]
    pub(crate) fn token(&self, scope: &str) -> String {
        let addr: SocketAddr = self.issuer().trim_start_matches("http://").parse().expect("an address");
        let credentials = STANDARD.encode(format!("{}:{}", self.text("client_id"), self.text("client_secret")));
        let response = Request::new("POST", "/token")
            .to(addr)
            .header("authorization", &format!("Basic {credentials}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("grant_type=client_credentials&scope={scope}"))
            .send()
            .expect(200);
        response.json()["access_token"].as_str().expect("a token").to_owned()
    }

    /// From now on it signs with a new key, and publishes those before it too.
    #[track_caller]
    pub(crate) fn turn(&mut self) {
        self.tell("turn");
    }

    /// From now on it publishes the newest key alone.
    #[track_caller]
    pub(crate) fn forget(&mut self) {
        self.tell("forget");
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").expect("it listens");
        self.answer();
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("text");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("the provider says {line:?}: {error}"))
    }

    fn text(&self, name: &str) -> &str {
        self.about[name].as_str().expect("text")
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
