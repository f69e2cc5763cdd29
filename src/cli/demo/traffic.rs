//! What goes through the gateway, as its access log tells it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::screen::{Screen, Tone};
use super::service::Service;

/// Bytes of the log read at a time; what is more waits for the next time.
const CHUNK: u64 = 1 << 20;
/// Lines shown at a time: a load test is counted, not scrolled by.
const SHOWN: usize = 20;

/// The log, as far as it was read.
#[derive(Debug)]
pub(super) struct Traffic {
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line whose end was not written yet
    partial: Vec<u8>,
    services: BTreeMap<String, &'static str>,
    tally: Tally,
}

/// One request, as the access log has it.
#[derive(Debug, Deserialize)]
struct Line {
    ts: String,
    method: String,
    path: String,
    status: u16,
    duration_ms: f64,
    endpoint: Option<String>,
    reason: Option<String>,
    #[serde(rename = "auth.subject")]
    subject: Option<String>,
}

/// How many went how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    all: u64,
    /// By the first digit of the status, from 1 to 5
    classes: [u64; 5],
    /// Of those with 4xx: the gateway's own, for which no service was asked
    refused: u64,
}

impl Traffic {
    pub(super) fn new<'a>(path: &Path, services: impl IntoIterator<Item = &'a Service>) -> Self {
        let services = services.into_iter().map(|service| (service.addr().to_string(), service.name()));
        Self {
            path: path.to_owned(),
            file: None,
            partial: Vec::new(),
            services: services.collect(),
            tally: Tally::default(),
        }
    }

    /// Reads what is new, counts it, and shows it on `screen` if there is one to show it on. Says how much it was.
    pub(super) fn read(&mut self, mut screen: Option<&mut Screen>) -> io::Result<u64> {
        let before = self.tally.all;
        let lines = self.lines()?;
        for (index, line) in lines.iter().enumerate() {
            self.tally.count(line);
            if let Some(screen) = screen.as_deref_mut().filter(|_| index < SHOWN) {
                screen.say(&self.shown(line, screen))?;
            }
        }
        if let (Some(screen), Some(more @ 1..)) = (screen, lines.len().checked_sub(SHOWN)) {
            screen.say(&screen.paint(Tone::Faint, &format!("          and {more} more")))?;
        }
        Ok(self.tally.all - before)
    }

    /// Everything since the start.
    pub(super) fn summary(&self) -> String {
        let Tally { all, classes: [_, good, turned, wrong, failed], refused } = self.tally;
        format!("{all} in all: {good} 2xx, {turned} 3xx, {wrong} 4xx ({refused} refused here), {failed} 5xx")
    }

    fn lines(&mut self) -> io::Result<Vec<Line>> {
        if self.file.is_none() {
            self.file = match File::open(&self.path) {
                Ok(file) => Some(file),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
        }
        if let Some(file) = &self.file {
            file.take(CHUNK).read_to_end(&mut self.partial)?;
        }
        let end = self.partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let whole: Vec<u8> = self.partial.drain(..end).collect();
        // A line that does not read is no request.
        Ok(whole.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    fn shown(&self, line: &Line, screen: &Screen) -> String {
        let tone = match line.status {
            ..=299 => Tone::Good,
            300..=399 => Tone::Turn,
            400..=499 => Tone::Wary,
            _ => Tone::Bad,
        };
        let time = line.ts.split(['T', '.']).nth(1).unwrap_or("");
        let from = match (&line.endpoint, &line.reason) {
            (_, Some(reason)) => reason.as_str(),
            (Some(endpoint), None) => self.services.get(endpoint).copied().unwrap_or(endpoint),
            (None, None) => "",
        };
        let subject = line.subject.as_deref().unwrap_or("-");
        format!(
            "{}  {}  {:<6} {:<24} {subject:<8} {from:<20} {}",
            screen.paint(Tone::Faint, &printable(time)),
            screen.paint(tone, &line.status.to_string()),
            printable(&line.method),
            printable(&line.path),
            screen.paint(Tone::Faint, &format!("{:.1} ms", line.duration_ms)),
            subject = printable(subject),
            from = printable(from),
        )
    }
}

impl Tally {
    fn count(&mut self, line: &Line) {
        self.all += 1;
        if let Some(class) = self.classes.get_mut(usize::from(line.status / 100).wrapping_sub(1)) {
            *class += 1;
        }
        // 499 is a client that has left: nobody was refused.
        if (400..=498).contains(&line.status) && line.reason.is_some() {
            self.refused += 1;
        }
    }
}

/// What a client has sent must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::cli::demo::directory::Directory;

    fn line(path: &str, status: u16, reason: Option<&str>) -> String {
        let reason = reason.map_or(String::new(), |reason| format!(r#","reason":"{reason}""#));
        format!(
            r#"{{"ts":"2026-01-02T03:04:05.000006Z","method":"GET","path":"{path}","status":{status},"duration_ms":1.25,"auth.subject":"alice"{reason}}}"#
        )
    }

    fn traffic(path: &Path) -> Traffic {
        Traffic::new(path, [])
    }

    #[test]
    fn every_request_is_counted_once_however_its_line_is_written() {
        let directory = Directory::create().expect("created");
        let path = directory.path().join("access.log");
        let mut traffic = traffic(&path);
        assert_eq!(traffic.read(None).expect("read"), 0, "the log is not there yet");
        let mut file = File::create(&path).expect("created");
        let text = format!("{}\nnot a line\n{}\n", line("/a", 200, None), line("/b", 429, Some("rate_limited")));
        let (first, second) = text.split_at(30);
        file.write_all(first.as_bytes()).expect("written");
        assert_eq!(traffic.read(None).expect("read"), 0, "half a line is none");
        file.write_all(second.as_bytes()).expect("written");
        assert_eq!(traffic.read(None).expect("read"), 2);
        assert_eq!(traffic.read(None).expect("read"), 0);
        assert_eq!(traffic.tally, Tally { all: 2, classes: [0, 1, 0, 1, 0], refused: 1 });
        assert_eq!(traffic.summary(), "2 in all: 1 2xx, 0 3xx, 1 4xx (1 refused here), 0 5xx");
    }

    #[test]
    fn only_what_the_gateway_would_not_pass_on_is_a_refusal() {
        let mut tally = Tally::default();
        for (status, reason) in [
            (200, Some("responded")),
            (308, Some("redirected")),
            (404, None),
            (403, Some("client_denied")),
            (499, Some("client_aborted")),
            (504, Some("upstream_timeout")),
        ] {
            tally.count(&serde_json::from_str(&line("/", status, reason)).expect("a line"));
        }
        assert_eq!(tally, Tally { all: 6, classes: [0, 1, 1, 3, 1], refused: 1 });
    }

    #[test]
    fn a_path_cannot_steer_the_terminal() {
        let traffic = traffic(Path::new("access.log"));
        let line = serde_json::from_str(&line("/\\u001b[2J\\u009b", 200, None)).expect("a line");
        let shown = traffic.shown(&line, &Screen::new());
        assert!(shown.contains("/\u{fffd}[2J\u{fffd}"), "{shown:?}");
    }
}
