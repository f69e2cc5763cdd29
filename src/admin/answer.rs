//! From a request's head to the whole response. Every answer is made in memory and bounded by the configuration.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::gate::{self, Door, Page, Refusal};
use super::limits::Limits;
use super::report::Report;
use super::{Sources, html, scrape};

const TEXT: &str = "text/plain; charset=utf-8";
/// Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

type Answer = Response<Full<Bytes>>;

/// The answer to one request.
pub(super) fn respond(door: Door, sources: &Sources, head: &Parts) -> Answer {
    let snapshot = sources.live.load_full();
    match gate::admit(door, snapshot.config.admin.token.as_ref(), head) {
        Ok(Page::Healthz) => answer(StatusCode::OK, TEXT, "ok\n"),
        Ok(Page::Readyz) => ready(sources),
        Ok(Page::Metrics) => answer(StatusCode::OK, METRICS, scrape::render(sources, &snapshot)),
        Ok(Page::Limits) => report(&Limits::new(&snapshot)),
        Ok(Page::Report) => report(&Report::new(sources, &snapshot)),
        Ok(Page::Upstreams) => report(&Report::new(sources, &snapshot).upstreams),
        Ok(Page::Status { live }) => status(&Report::new(sources, &snapshot), live),
        Err(refusal) => refuse(refusal),
    }
}

fn ready(sources: &Sources) -> Answer {
    let (phase, meaning) = sources.phase();
    if sources.is_ready() {
        return answer(StatusCode::OK, TEXT, "ready\n");
    }
    answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready, {phase}: {meaning}\n"))
}

fn report(report: &impl Serialize) -> Answer {
    match serde_json::to_vec_pretty(report) {
        Ok(mut json) => {
            json.push(b'\n');
            answer(StatusCode::OK, JSON, json)
        }
        Err(error) => {
            log::error!("the status cannot be written as JSON: {error}");
            answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the status cannot be written as JSON\n")
        }
    }
}

fn status(report: &Report<'_>, live: bool) -> Answer {
    let mut answer = answer(StatusCode::OK, HTML, html::page(report, live));
    // No script, no foreign content, nobody's frame; the one style sheet is known by its digest.
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        STANDARD.encode(digest(&SHA256, html::STYLE.as_bytes()))
    );
    let policy = HeaderValue::from_str(&policy).expect("base64 and fixed text are visible ASCII");
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    answer.headers_mut().insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    answer.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

fn refuse(refusal: Refusal) -> Answer {
    match refusal {
        Refusal::BadRequest => answer(StatusCode::BAD_REQUEST, TEXT, "one Host and a plain path are needed\n"),
        Refusal::Misdirected => answer(
            StatusCode::MISDIRECTED_REQUEST,
            TEXT,
            "this name is not served here: ask by address, or as localhost (a guard against DNS rebinding)\n",
        ),
        Refusal::MethodNotAllowed => with(
            answer(
                StatusCode::METHOD_NOT_ALLOWED,
                TEXT,
                "the admin side only reads: changes go through `tollgate reload` and `tollgate upgrade`\n",
            ),
            ALLOW,
            "GET, HEAD",
        ),
        Refusal::Unauthorized => with(
            answer(StatusCode::UNAUTHORIZED, TEXT, "the token of [admin] is needed, as Authorization: Bearer\n"),
            WWW_AUTHENTICATE,
            "Bearer realm=\"tollgate admin\"",
        ),
        Refusal::NotFound => answer(StatusCode::NOT_FOUND, TEXT, "no such page\n"),
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let answer = with(answer, CONTENT_TYPE, content_type);
    let answer = with(answer, CACHE_CONTROL, "no-store");
    let answer = with(answer, X_CONTENT_TYPE_OPTIONS, "nosniff");
    with(answer, HeaderName::from_static("cross-origin-resource-policy"), "same-origin")
}

fn with(mut answer: Answer, name: HeaderName, value: &'static str) -> Answer {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
    answer
}
