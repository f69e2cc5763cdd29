//! What answers the requests of a route.

use http::{HeaderValue, StatusCode};

use crate::config::read::complaint::Complaint;
use crate::config::read::leaf::template::{self, Scope};
use crate::config::read::leaf::{header, path};
use crate::config::read::node::Node;
use crate::config::read::section::Named;
use crate::config::read::table::Table;
use crate::config::{Action, PathPattern, Redirect, Respond, Rewrite, RoutePath, Segment};

/// Largest body of an answer that is written in the configuration.
const MAX_RESPONSE: usize = 256 * 1024;

pub(super) fn action(table: &mut Table<'_>, upstreams: &Named<'_>, scope: Scope<'_>) -> Option<Action> {
    match table.one_of(&["upstream", "redirect", "respond"]) {
        Some(("upstream", node)) => upstreams.refer(&node).map(Action::Upstream),
        Some(("redirect", node)) => redirect(node.table()?, scope).map(Action::Redirect),
        Some((_, node)) => respond(node.table()?).map(Action::Respond),
        None => {
            if !table.has("split") {
                table.node.problem("what answers is missing: one of \"upstream\", \"redirect\" and \"respond\"");
            }
            None
        }
    }
}

fn redirect(mut table: Table<'_>, scope: Scope<'_>) -> Option<Redirect> {
    let why = "where to go, \"https://example.com{path}\"";
    let to = table.required("to", why, |node| node.parse(|text| template::target(text, scope)));
    let status = table.or("status", StatusCode::PERMANENT_REDIRECT, |node| {
        let number: u16 = node.integer(100..=999)?;
        if !matches!(number, 301 | 302 | 303 | 307 | 308) {
            node.problem("a redirect is 301, 302, 303, 307 or 308");
            return None;
        }
        StatusCode::from_u16(number).ok()
    });
    table.finish(&[]);
    Some(Redirect { to: to?, status: status? })
}

fn respond(mut table: Table<'_>) -> Option<Respond> {
    let status = table.or("status", StatusCode::OK, |node| StatusCode::from_u16(node.integer(200..=599)?).ok());
    let content_type = table.or("content_type", HeaderValue::from_static("text/plain"), |node| node.parse(media_type));
    let body = table.or("body", String::new(), |node| {
        node.parse(|text| match text.len() {
            ..=MAX_RESPONSE => Ok(text.to_owned()),
            _ => Err(Complaint::new("a body written here has 256KiB at most: serve larger ones from an upstream")),
        })
    });
    if let (Some(status), Some(body), Some(node)) = (status, &body, table.get("body"))
        && matches!(status.as_u16(), 204 | 205 | 304)
        && !body.is_empty()
    {
        node.problem(format!("an answer with status {} has no body", status.as_u16()));
    }
    table.finish(&[]);
    Some(Respond { status: status?, content_type: content_type?, body: body? })
}

fn media_type(text: &str) -> Result<HeaderValue, Complaint> {
    let (kind, _) = text.split_once(';').unwrap_or((text, ""));
    let is_type =
        kind.trim_end().split_once('/').is_some_and(|(kind, sub)| header::is_token(kind) && header::is_token(sub));
    if is_type { header::value(text) } else { Err(Complaint::new("this must be a media type: \"text/plain\"")) }
}

/// Only what goes to an upstream has a path there.
pub(super) fn rewrite(
    table: &mut Table<'_>,
    scope: Scope<'_>,
    path: Option<&RoutePath>,
    action: Option<&Action>,
) -> Option<Option<Rewrite>> {
    let Some(node) = table.get("rewrite") else {
        return Some(None);
    };
    if matches!(action, Some(Action::Redirect(_) | Action::Respond(_))) {
        node.problem_of_key("only what goes to an upstream is rewritten");
    }
    let mut table = node.table()?;
    let rewrite = match table.one_of(&["strip_prefix", "replace"]) {
        Some(("strip_prefix", node)) => strip_prefix(&node, path).map(Rewrite::StripPrefix),
        Some((_, node)) => node.parse(|text| template::new_path(text, scope)).map(Rewrite::Replace),
        None => {
            node.problem("this is empty: write \"strip_prefix\" or \"replace\"");
            None
        }
    };
    table.finish(&[]);
    rewrite.map(Some)
}

fn strip_prefix(node: &Node<'_>, path: Option<&RoutePath>) -> Option<String> {
    let prefix = node.parse(path::prefix)?;
    if let Some(RoutePath::Path(pattern)) = path
        && !can_begin(pattern, &prefix)
    {
        node.problem("no path of this route begins with this");
        return None;
    }
    Some(prefix)
}

/// Whether some path that the pattern takes begins with these segments.
fn can_begin(pattern: &PathPattern, prefix: &str) -> bool {
    let prefix: Vec<&str> = prefix.trim_matches('/').split('/').collect();
    let fits = |(segment, text): (&Segment, &&str)| match segment {
        Segment::Literal(literal) => literal == text,
        Segment::Parameter(_) => true,
    };
    (pattern.below || prefix.len() <= pattern.segments.len()) && pattern.segments.iter().zip(&prefix).all(fits)
}
