//! A route that answers by itself.

use bytes::Bytes;

use crate::config;
use crate::http::{Reason, Reply};

/// The answer, ready to send.
#[derive(Debug)]
pub struct Respond {
    spec: config::Respond,
    body: Bytes,
}

impl Respond {
    /// Keeps the body in a form that is shared, not copied.
    pub fn build(spec: &config::Respond) -> Self {
        Self { spec: spec.clone(), body: Bytes::from(spec.body.clone()) }
    }

    /// The answer.
    pub fn reply(&self) -> Reply {
        Reply::content(Reason::Responded, self.spec.status, self.spec.content_type.clone(), self.body.clone())
    }
}
