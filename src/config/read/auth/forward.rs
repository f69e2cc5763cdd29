//! `type = "forward"`.

use http::HeaderName;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, HOST, LOCATION, SET_COOKIE, WWW_AUTHENTICATE,
};

use super::{authorities, timeout, value};
use crate::config::ForwardAuth;
use crate::config::read::complaint::Complaint;
use crate::config::read::leaf::{address, header};
use crate::config::read::node::Node;
use crate::config::read::table::Table;

const MAX_HEADERS: usize = 64;
const MAX_CLAIMS: usize = 64;

pub(super) fn forward(table: &mut Table<'_>) -> Option<ForwardAuth> {
    let url = table.required("url", "the service that decides, \"http://127.0.0.1:9001/verify\"", |node| {
        node.parse(address::service_url)
    });
    let shown = vec![AUTHORIZATION, COOKIE];
    let request_headers =
        table.or("request_headers", shown, |node| node.distinct(MAX_HEADERS, |item| item.parse(request_header)));
    let told = vec![WWW_AUTHENTICATE, LOCATION, SET_COOKIE, CONTENT_TYPE, CACHE_CONTROL];
    let response_headers =
        table.or("response_headers", told, |node| node.distinct(MAX_HEADERS, |item| item.parse(header::changeable)));
    let claims = table.or("claims", Vec::new(), claims);
    let timeout = timeout(table);
    let ca = authorities(table, url.as_ref());
    Some(ForwardAuth {
        url: url?,
        request_headers: request_headers?,
        response_headers: response_headers?,
        claims: claims?,
        timeout: timeout?,
        ca: ca?,
    })
}

/// A header of the client that cannot be taken for one that the gateway vouches for.
fn request_header(text: &str) -> Result<HeaderName, Complaint> {
    let name = header::changeable(text)?;
    let folded = header::folded(&name);
    let is_ours = folded.starts_with("x-forwarded-") || ["forwarded", "x-real-ip", "x-request-id"].contains(&&*folded);
    if is_ours || name == HOST || name == ACCEPT_ENCODING {
        return Err(Complaint::about(0..text.len(), "is told to the service by the gateway, not by the client"));
    }
    Ok(name)
}

/// `claim = header`.
fn claims(node: &Node<'_>) -> Option<Vec<(String, HeaderName)>> {
    let mut claims = Vec::new();
    let mut complete = true;
    for (name, node) in node.table()?.entries() {
        match node.parse_key(name, value::plain_text).zip(node.parse(header::name)) {
            Some(claim) => claims.push(claim),
            None => complete = false,
        }
    }
    if claims.len() > MAX_CLAIMS {
        node.problem(format!("at most {MAX_CLAIMS} claims are possible here"));
        return None;
    }
    complete.then_some(claims)
}
