//! The status page: one sheet that needs no script, no other file and no explanation.

mod sheet;

use std::time::{Duration, UNIX_EPOCH};

use self::sheet::{Cell, Sheet, Text};
use super::report::{
    AuthReport, CertificateReport, Endpoint, LimitReport, ListenerReport, Reload, Report, RouteReport, UpstreamReport,
};

/// The page's own style sheet; the policy sent with the page names it by its digest.
pub(super) const STYLE: &str = include_str!("style.css");
/// Seconds after which `/?live` loads itself again.
const REFRESH: u32 = 2;
/// A certificate that ends within so many seconds is shown as a warning.
const CERTIFICATE_WARNING: u64 = 14 * 24 * 3600;

const UPSTREAMS: [&str; 7] = ["Upstream", "Endpoint", "State", "#In flight", "#Weight", "#Answered", "#Failed"];
const ROUTES: [&str; 6] = ["Route", "Takes", "Listeners", "Auth", "Limits", "Answered by"];
const LIMITS: [&str; 7] = ["Limit", "Allows", "Per", "#Allowed", "#Refused", "#Shadowed", "#Keys"];
const AUTH: [&str; 7] = ["Auth", "Type", "Issuer", "Keys from", "#Keys", "#Accepted", "#Refused"];
const LISTENERS: [&str; 4] = ["Listener", "Addresses", "Protocols", "Certificates"];

/// The whole page. `live` makes it load itself again.
pub(super) fn page(report: &Report<'_>, live: bool) -> String {
    let mut sheet = Sheet::default();
    head(&mut sheet, report, live);
    reload(&mut sheet, report.last_reload.as_ref());
    sheet.table("Upstreams", &UPSTREAMS, &report.upstreams, upstream);
    sheet.table("Routes", &ROUTES, &report.routes, |it| vec![route(it)]);
    sheet.table("Limits", &LIMITS, &report.limits, |it| vec![limit(it)]);
    sheet.table("Auth", &AUTH, &report.auth, |it| vec![auth(it)]);
    let now = report.started_at + report.uptime_seconds;
    sheet.table("Listeners", &LISTENERS, &report.listeners, |it| vec![listener(it, now)]);
    sheet.finish()
}

fn head(sheet: &mut Sheet, report: &Report<'_>, live: bool) {
    let (refresh, other) = if live {
        (format!("<meta http-equiv=\"refresh\" content=\"{REFRESH}\">"), "<a href=\"/\">hold still</a>")
    } else {
        (String::new(), "<a href=\"/?live\">live</a>")
    };
    sheet.add(format_args!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">{refresh}\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Tollgate: {phase}</title>\
         <style>{STYLE}</style></head>\n<body><header><h1>Tollgate</h1><small>{version}</small>\
         <span class=\"{class}\">{phase}</span><nav>{other}<a href=\"/api/status\">JSON</a>\
         <a href=\"/metrics\">metrics</a></nav></header>\n",
        version = Text(report.version),
        phase = Text(report.phase),
        class = if report.ready { "good" } else { "wary" },
    ));
    sheet.add(format_args!(
        "<dl><div><dt>Configuration</dt><dd>generation {}</dd></div><div><dt>Up for</dt><dd>{}</dd></div>\
         <div><dt>Connections</dt><dd>{}</dd></div><div><dt>Log lines lost</dt><dd>{}</dd></div></dl>\n",
        report.config_generation,
        Text(span(report.uptime_seconds)),
        report.connections,
        report.access_log_dropped,
    ));
}

fn reload(sheet: &mut Sheet, reload: Option<&Reload>) {
    let Some(reload) = reload else { return };
    let at = moment(reload.at);
    match &reload.error {
        None => sheet.add(format_args!("<p class=\"soft\">Last reload: {}</p>\n", Text(at))),
        Some(error) => sheet.add(format_args!(
            "<aside><span class=\"bad\">The last reload changed nothing</span> <small>{}</small>\
             <pre>{}</pre></aside>\n",
            Text(at),
            Text(error)
        )),
    }
}

/// One row an endpoint; what is counted for the whole upstream stands in the first.
fn upstream<'a>(upstream: &'a UpstreamReport<'_>) -> Vec<[Cell<'a>; 7]> {
    let tls = if upstream.tls { " over TLS" } else { "" };
    let name = Cell::text(format!("{} ({}, {}{tls})", upstream.name, upstream.balance, upstream.protocol));
    let count = |result| upstream.requests.get(result).copied().unwrap_or(0);
    let (all, answered, abandoned) = (upstream.requests.values().sum::<u64>(), count("answered"), count("abandoned"));
    let failed = all.saturating_sub(answered).saturating_sub(abandoned);
    let (answered, failed) = (Cell::Number(answered), Cell::Number(failed));
    let Some((first, others)) = upstream.endpoints.split_first() else {
        let none = Cell::Bad("no address known");
        return vec![[name, Cell::Empty, none, Cell::Empty, Cell::Empty, answered, failed]];
    };
    let cells = |endpoint: &'a Endpoint| {
        let address = Cell::code(&endpoint.address);
        let (in_flight, weight) = (endpoint.requests_in_flight.into(), endpoint.weight.into());
        (address, state(endpoint, upstream.health_checked), Cell::Number(in_flight), Cell::Number(weight))
    };
    let (address, state, in_flight, weight) = cells(first);
    let mut rows = vec![[name, address, state, in_flight, weight, answered, failed]];
    rows.extend(others.iter().map(|other| {
        let (address, state, in_flight, weight) = cells(other);
        [Cell::Empty, address, state, in_flight, weight, Cell::Empty, Cell::Empty]
    }));
    rows
}

fn state(endpoint: &Endpoint, is_checked: bool) -> Cell<'static> {
    match (endpoint.healthy, endpoint.suspect, is_checked) {
        (false, ..) => Cell::Bad("unhealthy"),
        _ if endpoint.drained => Cell::Wary("drained".into()),
        (true, ..) if endpoint.ejected_until.is_some() => Cell::Bad("ejected"),
        (true, true, _) => Cell::Wary("avoided for a moment".into()),
        (true, false, true) => Cell::Good("healthy"),
        (true, false, false) => Cell::text("not checked"),
    }
}

fn route<'a>(route: &'a RouteReport<'_>) -> [Cell<'a>; 6] {
    let hosts = if route.hosts.is_empty() { "any host".to_owned() } else { route.hosts.join(", ") };
    let takes = format!("{} {hosts} {}", route.methods.join(" "), route.path);
    let shadow = if route.auth_mode == "shadow" { ", shadow: everybody passes" } else { "" };
    let scopes = if route.scopes.is_empty() { String::new() } else { format!(" with {}", route.scopes.join(" ")) };
    [
        Cell::text(route.name),
        Cell::code(takes.trim_start().to_owned()),
        Cell::text(if route.listeners.is_empty() { "all".to_owned() } else { route.listeners.join(", ") }),
        match route.auth.join(" or ") {
            nobody if nobody.is_empty() => Cell::text("open"),
            names => Cell::text(format!("{names}{scopes}{shadow}")),
        },
        Cell::text(route.limits.join(", ")),
        Cell::text(&route.action),
    ]
}

fn limit<'a>(limit: &'a LimitReport<'_>) -> [Cell<'a>; 7] {
    [
        Cell::text(if limit.mode == "shadow" { format!("{} (shadow)", limit.name) } else { limit.name.to_owned() }),
        Cell::text(&limit.allowance),
        Cell::code(limit.key.join(", ")),
        Cell::Number(limit.allowed),
        Cell::Number(limit.refused),
        Cell::Number(limit.shadowed),
        Cell::Number(limit.keys),
    ]
}

fn auth<'a>(auth: &'a AuthReport<'_>) -> [Cell<'a>; 7] {
    let accepted = auth.decisions.get("accepted").copied().unwrap_or(0);
    // What shadow mode let through was not refused.
    let refused = auth.decisions.iter().filter(|(result, _)| **result != "accepted" && !result.starts_with("shadow_"));
    [
        Cell::text(auth.name),
        Cell::text(auth.kind),
        Cell::text(auth.issuer.unwrap_or_default()),
        match auth.keys_age_seconds {
            Some(age) => Cell::text(format!("{}, fetched {} ago", auth.keys_from, span(age))),
            None => Cell::text(auth.keys_from),
        },
        match auth.keys {
            None => Cell::text(""),
            Some(0) => Cell::Bad("none"),
            Some(keys) => Cell::Number(keys as u64),
        },
        Cell::Number(accepted),
        Cell::Number(refused.map(|(_, count)| count).sum()),
    ]
}

fn listener<'a>(listener: &'a ListenerReport<'_>, now: u64) -> [Cell<'a>; 4] {
    let certificates = listener.certificates.iter().map(certificate).collect::<Vec<_>>().join("; ");
    let ends_soon = listener.certificates.iter().any(|certificate| certificate.not_after < now + CERTIFICATE_WARNING);
    [
        Cell::text(listener.name),
        Cell::code(listener.addresses.join(", ")),
        Cell::text(listener.protocols.join(", ")),
        match certificates {
            none if none.is_empty() => Cell::text("no TLS"),
            some if ends_soon => Cell::Wary(some.into()),
            some => Cell::text(some),
        },
    ]
}

fn certificate(certificate: &CertificateReport<'_>) -> String {
    format!("{} until {}", certificate.names.join(", "), moment(certificate.not_after))
}

/// Seconds since 1970 as a date of HTTP: anybody can read it, and it says that it is GMT.
fn moment(seconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_MOMENT)))
}

/// The end of the year 9999, beyond which HTTP has no dates.
const LAST_MOMENT: u64 = 253_402_300_799;

/// The two largest units are enough.
fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_the_two_largest_units() {
        let spans = [0, 59, 60, 3_599, 3_600, 86_399, 86_400, 10 * 86_400 + 7_200].map(span);
        let expected = ["0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "23 h 59 min", "1 d 0 h", "10 d 2 h"];
        assert_eq!(spans, expected);
    }

    #[test]
    fn a_certificate_without_an_end_is_shown_and_not_fatal() {
        assert_eq!(moment(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn an_endpoint_that_is_unhealthy_and_suspect_is_unhealthy() {
        let endpoint = |healthy, suspect| Endpoint {
            address: "10.0.0.1:80".into(),
            weight: 1,
            weight_now: 1.0,
            priority: 0,
            zone: None,
            ewma_seconds: None,
            healthy,
            drained: false,
            suspect,
            unhealthy_because: None,
            ejected_until: None,
            ejections: 0,
            requests_in_flight: 0,
        };
        assert!(matches!(state(&endpoint(false, true), true), Cell::Bad("unhealthy")));
        assert!(matches!(state(&endpoint(true, true), true), Cell::Wary(_)));
        assert!(matches!(state(&endpoint(true, false), true), Cell::Good("healthy")));
    }
}
