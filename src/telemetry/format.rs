//! From a record to a line. Every line of the JSON format is one object, whatever a client sent.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Version};

use super::Record;
use super::json::{Object, digits};

/// Query parameters whose values are never written, besides those in which the configuration looks for tokens.
const SECRET_PARAMETERS: &[&str] = &[
    "access_token",
    "api_key",
    "apikey",
    "auth",
    "client_secret",
    "code",
    "id_token",
    "jwt",
    "key",
    "password",
    "refresh_token",
    "secret",
    "sig",
    "signature",
    "token",
    "x-amz-security-token",
    "x-amz-signature",
];
/// The one field an operator may ask for that is a URL.
const REFERER_FIELD: &str = "header.referer";

/// Appends `record` as one line of JSON.
pub(super) fn json(line: &mut Vec<u8>, record: &Record) {
    let mut object = Object::begin(line);
    object.field("ts", |out| timestamp(out, record.received));
    object.text("request_id", record.request_id.as_str());
    object.address("client_ip", record.client);
    object.address("peer_ip", record.peer);
    object.text("listener", &record.listener);
    if let Some(tls) = &record.tls {
        object.text("tls_version", tls.version);
        object.text("tls_cipher", tls.cipher);
        object.optional("tls_sni", tls.sni.as_deref());
    }
    if let Some(proxied) = &record.proxied {
        object.number("proxy_protocol", proxied.version.into());
        object.optional("proxy_authority", proxied.authority.as_deref());
        object.optional("proxy_unique_id", proxied.unique_id.as_deref().map(String::from_utf8_lossy).as_deref());
    }
    object.text("method", record.method.as_str());
    object.text("scheme", if record.is_encrypted() { "https" } else { "http" });
    object.text("host", &record.host);
    object.text("path", &record.path);
    if let Some(query) = &record.query {
        object.text("query", &redacted(query, &record.token_parameters));
    }
    object.text("proto", protocol(record.version));
    object.number("status", record.status.as_u16().into());
    object.number("bytes_in", record.bytes_in);
    object.number("bytes_out", record.bytes_out);
    object.milliseconds("duration_ms", record.duration);
    if let Some(first_byte) = record.first_byte {
        object.milliseconds("first_byte_ms", first_byte);
    }
    if !record.queued.is_zero() {
        object.milliseconds("queued_ms", record.queued);
    }
    object.optional("route", record.route.as_deref());
    object.optional("upstream", record.upstream.as_deref());
    object.optional("endpoint", record.endpoint.as_deref());
    object.number("attempts", record.attempts.into());
    object.optional("reason", record.reason);
    object.optional("limit", record.limit.as_deref());
    if !record.shadowed_by.is_empty() {
        object.text("limits_shadowed", &record.shadowed_by.join(","));
    }
    object.optional("auth", record.auth.as_deref());
    object.optional("user_agent", record.user_agent.as_ref().map(text).as_deref());
    object.number("config_generation", record.generation);
    for (name, value) in &record.extra {
        object.named(name, &extra(name, value, &record.token_parameters));
    }
    object.end();
    line.push(b'\n');
}

/// Appends `record` in the combined format of the NCSA servers.
pub(super) fn combined(line: &mut Vec<u8>, record: &Record) {
    let user = record.extra.iter().find(|(name, _)| name == "auth.subject").map_or("-", |(_, subject)| subject);
    let query = record
        .query
        .as_deref()
        .map_or(String::new(), |query| format!("?{}", redacted(query, &record.token_parameters)));
    // Writing to memory does not fail.
    let _ = writeln!(
        line,
        "{} - {} [{}] \"{} {}{} {}\" {} {} \"{}\" \"{}\"",
        record.client,
        escaped(user),
        common_time(record.received),
        record.method,
        escaped(&record.path),
        escaped(&query),
        protocol(record.version),
        record.status.as_u16(),
        record.bytes_out,
        record
            .referer
            .as_ref()
            .map_or_else(|| "-".to_owned(), |referer| escaped(&redacted_url(&text(referer), &record.token_parameters))),
        quoted(record.user_agent.as_ref()),
    );
}

fn quoted(value: Option<&HeaderValue>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| escaped(&text(value)))
}

/// A value without quotes, backslashes and control characters.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            _ if character.is_control() => {
                let _ = write!(text, "\\x{:02x}", u32::from(character));
            }
            _ => text.push(character),
        }
    }
    text
}

fn text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

fn extra<'a>(name: &str, value: &'a str, more: &[String]) -> Cow<'a, str> {
    if name == REFERER_FIELD { redacted_url(value, more) } else { Cow::Borrowed(value) }
}

/// A URL with the secrets in its query masked.
fn redacted_url<'a>(url: &'a str, more: &[String]) -> Cow<'a, str> {
    match url.split_once('?') {
        Some((before, query)) => Cow::Owned(format!("{before}?{}", redacted(query, more))),
        None => Cow::Borrowed(url),
    }
}

/// The query with the values of parameters that carry secrets masked, `more` among them.
fn redacted<'a>(query: &'a str, more: &[String]) -> Cow<'a, str> {
    let is_secret = |pair: &str| {
        // As tokens are looked for: a plus is a space.
        let name = pair.split('=').next().unwrap_or("").replace('+', " ");
        let name = percent_encoding::percent_decode_str(&name).decode_utf8_lossy();
        SECRET_PARAMETERS.iter().any(|secret| name.eq_ignore_ascii_case(secret))
            || more.iter().any(|secret| name.eq_ignore_ascii_case(secret))
    };
    if !query.split('&').any(is_secret) {
        return Cow::Borrowed(query);
    }
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if is_secret(pair) => format!("{name}=***"),
        _ => pair.to_owned(),
    });
    Cow::Owned(pairs.collect::<Vec<_>>().join("&"))
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// RFC 3339, UTC, with microseconds, in quotes.
fn timestamp(out: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let Date { year, month, day, hour, minute, second } = Date::of(since.as_secs());
    for (before, value, count) in [
        (b'"', year, 4),
        (b'-', month, 2),
        (b'-', day, 2),
        (b'T', hour, 2),
        (b':', minute, 2),
        (b':', second, 2),
        (b'.', since.subsec_micros().into(), 6),
    ] {
        out.push(before);
        digits(out, value, count);
    }
    out.extend_from_slice(b"Z\"");
}

/// `10/Oct/2000:13:55:36 +0000`
fn common_time(time: SystemTime) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let Date { year, month, day, hour, minute, second } = Date::of(since.as_secs());
    let month = MONTHS.get(month as usize - 1).copied().unwrap_or("-");
    format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
}

/// A moment in the Gregorian calendar, UTC.
struct Date {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Date {
    /// Days are counted in eras of 400 years that begin on 1 March, so that the leap day ends its year.
    fn of(seconds: u64) -> Self {
        let days = seconds / 86_400 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted_month + 2) / 5 + 1,
            hour: seconds / 3_600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;

    use http::{Method, StatusCode};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::http::RequestId;

    pub(in crate::telemetry) fn record(path: &str) -> Record {
        Record {
            received: UNIX_EPOCH + Duration::from_micros(951_826_496_000_007),
            request_id: RequestId::accept(b"id-1").expect("sane"),
            client: Ipv4Addr::LOCALHOST.into(),
            peer: Ipv4Addr::LOCALHOST.into(),
            listener: "http".into(),
            tls: None,
            proxied: None,
            method: Method::GET,
            host: "h".into(),
            path: path.into(),
            query: None,
            version: Version::HTTP_11,
            status: StatusCode::OK,
            bytes_in: 0,
            bytes_out: 5,
            duration: Duration::from_micros(1500),
            first_byte: None,
            queued: Duration::ZERO,
            route: Some("r".into()),
            upstream: None,
            endpoint: None,
            attempts: 1,
            reason: None,
            limit: None,
            shadowed_by: Vec::new(),
            auth: None,
            user_agent: None,
            referer: None,
            generation: 1,
            extra: Vec::new(),
            token_parameters: [].into(),
        }
    }

    fn line(record: &Record) -> Value {
        let mut line = Vec::new();
        json(&mut line, record);
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        serde_json::from_slice(&line).expect("one object")
    }

    #[test]
    fn a_line_tells_what_happened() {
        let value = line(&record("/a"));
        assert_eq!(value["ts"], "2000-02-29T12:14:56.000007Z");
        assert_eq!(value["duration_ms"], 1.5);
        assert_eq!(value["status"], 200);
        assert!(value.get("reason").is_none());
    }

    #[test]
    fn secrets_in_a_query_are_masked() {
        let mut record = record("/a");
        record.query = Some("a=1&access_token=hunter2&%74oken=x&b".into());
        assert_eq!(line(&record)["query"], "a=1&access_token=***&%74oken=***&b");
    }

    #[test]
    fn where_the_configuration_looks_for_tokens_is_masked_too() {
        let mut record = record("/a");
        record.token_parameters = ["my ticket".to_owned()].into();
        record.query = Some("a=1&my+ticket=hunter2&My%20ticket=hunter2".into());
        record.extra = vec![("header.referer".into(), "https://a.example/?my%20ticket=hunter2&b=2".into())];
        let value = line(&record);
        assert_eq!(value["query"], "a=1&my+ticket=***&My%20ticket=***");
        assert_eq!(value["header.referer"], "https://a.example/?my%20ticket=***&b=2");
        record.referer = Some(HeaderValue::from_static("https://a.example/?token=hunter2"));
        let mut text = Vec::new();
        combined(&mut text, &record);
        let text = String::from_utf8(text).expect("UTF-8");
        assert!(text.contains("\"https://a.example/?token=***\"") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn the_combined_format_is_what_log_tools_expect() {
        let mut record = record("/a");
        record.user_agent = Some(HeaderValue::from_static("curl \"x\""));
        let mut text = Vec::new();
        combined(&mut text, &record);
        assert_eq!(
            String::from_utf8(text).expect("UTF-8"),
            "127.0.0.1 - - [29/Feb/2000:12:14:56 +0000] \"GET /a HTTP/1.1\" 200 5 \"-\" \"curl \\\"x\\\"\"\n"
        );
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_a_line_is_one_object(path in "\\PC*", agent in proptest::collection::vec(32u8..=255, 0..40)) {
            let mut record = record(&path);
            record.user_agent = HeaderValue::from_bytes(&agent).ok();
            prop_assert_eq!(&line(&record)["path"], &Value::String(path));
            let mut text = Vec::new();
            combined(&mut text, &record);
            prop_assert_eq!(text.iter().filter(|&&byte| byte == b'\n').count(), 1);
        }
    }
}
