//! `type = "introspection"`.

use std::time::Duration;

use super::{authorities, file, timeout, value};
use crate::config::read::complaint::Complaint;
use crate::config::read::leaf::{address, quantity};
use crate::config::read::table::Table;
use crate::config::{Introspection, Secret};

const MAX_AUDIENCES: usize = 64;
/// What is remembered is counted in seconds.
const SECOND: Duration = Duration::from_secs(1);
/// Whoever is revoked stays known for so long at most.
const MAX_REMEMBER: Duration = Duration::from_secs(60 * 60);

pub(super) fn introspection(table: &mut Table<'_>) -> Option<Introspection> {
    let url = table.required("url", "the introspection endpoint (RFC 7662)", |node| node.parse(address::fetch_url));
    let client_id = table.required("client_id", "who this gateway is there", value::text);
    let client_secret = client_secret(table);
    let issuer = table.optional("issuer", value::text);
    let audience = table.or("audience", Vec::new(), |node| {
        node.some(MAX_AUDIENCES, "leave it out where it does not matter", value::text)
    });
    let timeout = timeout(table);
    let remember = table.or("remember", Some(Duration::from_secs(60)), |node| node.parse(remember));
    let ca = authorities(table, url.as_ref());
    Some(Introspection {
        url: url?,
        client_id: client_id?,
        client_secret: client_secret?,
        issuer: issuer?,
        audience: audience?,
        timeout: timeout?,
        remember: remember?,
        ca: ca?,
    })
}

fn client_secret(table: &mut Table<'_>) -> Option<Secret> {
    match table.one_of(&["client_secret", "client_secret_file"]) {
        Some(("client_secret_file", node)) => file::secret(&node),
        Some((_, node)) => node.parse(|text| match text {
            "" => Err(Complaint::new("the secret is empty")),
            text => Ok(Secret::new(text.as_bytes())),
        }),
        None => {
            table.node.problem("the secret is missing: \"client_secret_file\" or \"client_secret\"");
            None
        }
    }
}

fn remember(text: &str) -> Result<Option<Duration>, Complaint> {
    if text == "none" {
        return Ok(None);
    }
    quantity::duration(text, SECOND..=MAX_REMEMBER).map(Some).map_err(|mut complaint| {
        complaint.message.push_str("; \"none\" asks each time");
        complaint
    })
}
