//! What is said over the control socket and between two processes that hand over.

use serde::{Deserialize, Serialize};

use crate::snapshot::Snapshot;
use crate::tls::{TicketKey, TicketKeys};

/// Of the messages here. A process that meets another number refuses, and says so.
pub(super) const VERSION: u32 = 1;

/// What one may ask a running process for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Read the configuration again
    Reload,
    /// Start a successor from the binary on disk and hand over to it
    Upgrade,
    /// Say who you are
    Status,
    /// Say what you hold of everything that has a bound
    Limits,
    /// Hand over to whoever asks, on this channel (`run --upgrade`)
    TakeOver,
    /// Say where requests go: each endpoint, and how it is
    Upstreams,
    /// Send nothing new to an endpoint
    Drain(EndpointName),
    /// Send requests to it again
    Undrain(EndpointName),
}

/// One endpoint of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointName {
    /// The upstream's name
    pub upstream: String,
    /// Its address, as logs and metrics show it
    pub endpoint: String,
}

/// The first message on the control socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) version: u32,
    pub(super) verb: Verb,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done
    Done,
    /// Nothing was changed; the text says why
    Refused,
    /// This process leaves: its successor is to be asked
    AskSuccessor,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// How it ended
    pub outcome: Outcome,
    /// For a person
    pub text: String,
}

impl Answer {
    pub(super) fn new(result: Result<String, String>) -> Self {
        match result {
            Ok(text) => Self { outcome: Outcome::Done, text },
            Err(text) => Self { outcome: Outcome::Refused, text },
        }
    }

    pub(super) fn ask_successor() -> Self {
        Self { outcome: Outcome::AskSuccessor, text: "this process is leaving".to_owned() }
    }
}

/// What the process that leaves says first; the sockets follow.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Offer {
    pub(super) version: u32,
    /// Which generation of the configuration the successor's first one follows
    pub(super) generation: u64,
    /// Which `auth` has keys: a successor that has none for one of them would turn its callers away
    pub(super) auth_with_keys: Vec<String>,
    /// What opens the session tickets of clients; older processes have none to give
    #[serde(default)]
    pub(super) ticket_keys: Vec<TicketKey>,
    /// Where an operator wants nothing new to go
    #[serde(default)]
    pub(super) drained: Vec<EndpointName>,
}

impl Offer {
    pub(super) fn of(snapshot: &Snapshot, ticket_keys: &TicketKeys) -> Self {
        let auth_with_keys = snapshot.auth_with_keys().iter().map(|name| name.to_string()).collect();
        Self {
            version: VERSION,
            generation: snapshot.generation,
            auth_with_keys,
            ticket_keys: ticket_keys.export(),
            drained: super::upstreams::drained(snapshot),
        }
    }
}

/// What the successor says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// Every listener can serve: stop accepting
    Ready,
    /// It will not be: serve on
    Abort(String),
    /// Log files have been moved away
    Reopen,
    /// It ends as it was told to, and not by a defect; older processes do not say it, and do not know it
    Leaving,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_without_ticket_keys_is_that_of_an_older_process() {
        let said = r#"{"version":1,"generation":7,"auth_with_keys":["corporate"]}"#;
        let offer: Offer = serde_json::from_str(said).expect("read");
        assert_eq!((offer.generation, offer.ticket_keys.len(), offer.drained.len()), (7, 0, 0));
    }

    #[test]
    fn what_an_older_process_does_not_know_it_does_not_mind() {
        #[derive(Deserialize)]
        struct Older {
            version: u32,
            generation: u64,
            auth_with_keys: Vec<String>,
        }
        let ticket_keys = TicketKeys::new().export();
        let offer = Offer {
            version: VERSION,
            generation: 7,
            auth_with_keys: vec!["a".to_owned()],
            ticket_keys,
            drained: Vec::new(),
        };
        let said = serde_json::to_string(&offer).expect("written");
        let older: Older = serde_json::from_str(&said).expect("read");
        assert_eq!((older.version, older.generation, older.auth_with_keys.len()), (1, 7, 1));
    }

    #[test]
    fn keys_survive_the_way_and_are_shown_to_nobody() {
        let ticket_keys = TicketKeys::new().export();
        let offer =
            Offer { version: VERSION, generation: 1, auth_with_keys: Vec::new(), ticket_keys, drained: Vec::new() };
        let said = serde_json::to_string(&offer).expect("written");
        let received: Offer = serde_json::from_str(&said).expect("read");
        assert_eq!(received.ticket_keys, offer.ticket_keys);
        let shown = format!("{offer:?}");
        assert!(shown.contains("TicketKey(***)") && !shown.contains("secret"), "{shown}");
    }
}
