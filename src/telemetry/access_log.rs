//! One line a request, written by a thread of its own: a slow or full disk costs lines, never a request.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Record, format};
use crate::config::{self, AccessFormat, LogOutput};

/// Records that wait to be written; more are dropped and counted.
const QUEUE: usize = 16 * 1024;
/// What they may weigh together: a client chooses how long its target is.
const QUEUE_BYTES: usize = 64 << 20;
/// Bytes that are gathered before they are written.
const BATCH: usize = 64 * 1024;
/// How long a line waits for company. Woken for each line, the writer would cost every request a switch of threads: more
/// than rendering the line.
const COMPANY: Duration = Duration::from_millis(10);
/// How often a writer without lines looks whether its file is to be reopened.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long the last lines may take when the process ends.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The way to the writer. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
    sample: f64,
    sequence: AtomicU64,
    writer: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    dropped: AtomicU64,
    queued: AtomicUsize,
    reopen: AtomicBool,
    finished: AtomicBool,
}

enum Message {
    Line(Box<Record>),
    Finish,
}

impl AccessLog {
    /// Opens the output and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread started.
    pub fn start(spec: &config::AccessLog) -> io::Result<Self> {
        if spec.format == AccessFormat::Off {
            return Ok(Self(None));
        }
        let output = Output::open(&spec.output)?;
        let (sender, receiver) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let writer =
            Writer { output, render: renderer(spec.format), shared: Arc::clone(&shared), batch: Vec::new(), lines: 0 };
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || writer.run(&receiver))?;
        Ok(Self(Some(Arc::new(Inner {
            sender,
            shared,
            sample: spec.sample,
            sequence: AtomicU64::new(0),
            writer: parking_lot::Mutex::new(Some(thread)),
        }))))
    }

    /// Whether a record would be written: sampling keeps a share of what went well, and everything else.
    pub fn wants(&self, success: bool) -> bool {
        let Some(inner) = &self.0 else {
            return false;
        };
        if !success || inner.sample >= 1.0 {
            return true;
        }
        // Evenly spread: the integer part of `n * sample` grows on exactly that share of the requests.
        let count = inner.sequence.fetch_add(1, Ordering::Relaxed) as f64;
        (count * inner.sample).floor() < ((count + 1.0) * inner.sample).floor()
    }

    /// Hands a record over. Never waits.
    pub fn log(&self, record: Box<Record>) {
        let Some(inner) = &self.0 else {
            return;
        };
        let (shared, weight) = (&inner.shared, record.weight());
        let fits = shared.queued.fetch_add(weight, Ordering::Relaxed) + weight <= QUEUE_BYTES;
        if !fits || inner.sender.try_send(Message::Line(record)).is_err() {
            shared.queued.fetch_sub(weight, Ordering::Relaxed);
            shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that were not written since the process started.
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.shared.dropped.load(Ordering::Relaxed))
    }

    /// What the lines that wait weigh, and may weigh; nothing where no lines are written.
    pub fn queue(&self) -> Option<(usize, usize)> {
        self.0.as_ref().map(|inner| (inner.shared.queued.load(Ordering::Relaxed), QUEUE_BYTES))
    }

    /// Opens the file anew, after it has been moved away (SIGUSR1).
    pub fn reopen(&self) {
        if let Some(inner) = &self.0 {
            inner.shared.reopen.store(true, Ordering::Release);
        }
    }

    /// Writes what is queued, within a bound of time. For the end of the process.
    pub fn finish(&self) {
        let Some(inner) = &self.0 else {
            return;
        };
        let deadline = Instant::now() + LAST_LINES;
        let mut message = Message::Finish;
        while let Err(TrySendError::Full(again)) = inner.sender.try_send(message) {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
            message = again;
        }
        while !inner.shared.finished.load(Ordering::Acquire) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        if inner.shared.finished.load(Ordering::Acquire)
            && let Some(thread) = inner.writer.lock().take()
        {
            // A panic of the writer has been reported by the panic hook.
            drop(thread.join());
        }
    }
}

type Render = fn(&mut Vec<u8>, &Record);

fn renderer(format: AccessFormat) -> Render {
    match format {
        AccessFormat::Combined => format::combined,
        AccessFormat::Json | AccessFormat::Off => format::json,
    }
}

/// Where lines go.
#[derive(Debug)]
enum Output {
    Stdout,
    Stderr,
    File { path: std::path::PathBuf, file: File },
}

impl Output {
    fn open(spec: &LogOutput) -> io::Result<Self> {
        Ok(match spec {
            LogOutput::Stdout => Self::Stdout,
            LogOutput::Stderr => Self::Stderr,
            LogOutput::File(path) => Self::File { file: append(path)?, path: path.clone() },
        })
    }

    fn reopen(&mut self) {
        if let Self::File { path, file } = self {
            match append(path) {
                Ok(new) => *file = new,
                Err(error) => log::error!("the access log {} cannot be reopened: {error}", path.display()),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().lock().write_all(bytes),
            Self::Stderr => io::stderr().lock().write_all(bytes),
            Self::File { file, .. } => file.write_all(bytes),
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// The thread that writes.
struct Writer {
    output: Output,
    render: Render,
    shared: Arc<Shared>,
    batch: Vec<u8>,
    lines: u64,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Message>) {
        let mut is_last = false;
        while !is_last {
            match receiver.recv_timeout(PATIENCE) {
                Ok(Message::Line(record)) => {
                    self.add(&record);
                    std::thread::sleep(COMPANY);
                    is_last = self.gather(receiver);
                }
                Ok(Message::Finish) | Err(RecvTimeoutError::Disconnected) => is_last = true,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.write();
        }
        self.shared.finished.store(true, Ordering::Release);
    }

    /// Takes what is there already, and writes each batch of it but the last. True if the end was there too.
    fn gather(&mut self, receiver: &Receiver<Message>) -> bool {
        loop {
            match receiver.try_recv() {
                Ok(Message::Line(record)) => self.add(&record),
                Ok(Message::Finish) => return true,
                // Nothing there, or nobody any more, which the next wait sees.
                Err(_) => return false,
            }
            if self.batch.len() >= BATCH {
                self.write();
            }
        }
    }

    fn add(&mut self, record: &Record) {
        (self.render)(&mut self.batch, record);
        self.shared.queued.fetch_sub(record.weight(), Ordering::Relaxed);
        self.lines += 1;
    }

    /// A failure costs these lines; the next ones are tried again, so a disk that has room again is used again.
    fn write(&mut self) {
        if self.shared.reopen.swap(false, Ordering::AcqRel) {
            self.output.reopen();
        }
        if self.batch.is_empty() {
            return;
        }
        if let Err(error) = self.output.write(&self.batch) {
            let before = self.shared.dropped.fetch_add(self.lines, Ordering::Relaxed);
            // Said at powers of two: a full disk must not fill the other log.
            if before.next_power_of_two() != (before + self.lines).next_power_of_two() {
                log::error!("the access log cannot be written: {error}");
            }
        }
        self.batch.clear();
        self.lines = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::tests::record;
    use super::*;

    fn spec(output: LogOutput, sample: f64) -> config::AccessLog {
        config::AccessLog { format: AccessFormat::Json, output, sample, fields: Vec::new() }
    }

    #[test]
    fn lines_are_written_and_the_file_is_reopened() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("access.log");
        let log = AccessLog::start(&spec(LogOutput::File(path.clone()), 1.0)).expect("started");
        let line = |path: &str| log.log(Box::new(record(path)));
        line("/before");
        let until = Instant::now() + Duration::from_secs(5);
        while !std::fs::read_to_string(&path).expect("read").contains("/before") {
            assert!(Instant::now() < until, "written in time");
            std::thread::yield_now();
        }
        std::fs::rename(&path, directory.path().join("access.log.1")).expect("moved");
        log.reopen();
        while !path.exists() {
            assert!(Instant::now() < until, "reopened in time");
            std::thread::yield_now();
        }
        line("/after");
        log.finish();
        let (old, new) = (directory.path().join("access.log.1"), path);
        assert_eq!(std::fs::read_to_string(old).expect("read").matches("\"path\":\"/before\"").count(), 1);
        assert_eq!(std::fs::read_to_string(new).expect("read").matches("\"path\":\"/after\"").count(), 1);
        assert_eq!(log.dropped(), 0);
    }

    /// The end, gathered together with the last line, was once taken for no end: the process stayed for ever.
    #[test]
    fn the_end_right_behind_a_line_is_the_end() {
        let (sender, ended) = sync_channel(0);
        std::thread::spawn(move || {
            for _ in 0..200 {
                let log = AccessLog::start(&spec(LogOutput::File("/dev/null".into()), 1.0)).expect("started");
                log.log(Box::new(record("/last")));
                log.finish();
            }
            sender.send(()).expect("somebody waits");
        });
        ended.recv_timeout(Duration::from_secs(30)).expect("every log has ended");
    }

    #[test]
    fn a_full_disk_is_survived_and_counted() {
        let log = AccessLog::start(&spec(LogOutput::File("/dev/full".into()), 1.0)).expect("started");
        for _ in 0..3 {
            log.log(Box::new(record("/a")));
        }
        log.finish();
        assert_eq!(log.dropped(), 3);
    }

    /// A reader that stands still, and clients with targets as long as may be: 16,384 of them once took half a gigabyte.
    #[test]
    fn lines_that_wait_are_bounded_in_memory() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo is part of every system");
        assert!(made.success());
        // Opened for reading as well, or opening it for writing would wait for a reader.
        let _reader = OpenOptions::new().read(true).write(true).open(&path).expect("opened");
        let log = AccessLog::start(&spec(LogOutput::File(path), 1.0)).expect("started");
        for _ in 0..QUEUE {
            log.log(Box::new(record(&"x".repeat(32 * 1024))));
        }
        let queued = log.0.as_ref().expect("on").shared.queued.load(Ordering::Relaxed);
        assert!(queued > QUEUE_BYTES / 2 && queued <= QUEUE_BYTES, "{queued}");
        assert!(log.dropped() > 10_000);
    }

    #[test]
    fn sampling_keeps_its_share_and_every_failure() {
        let log = AccessLog::start(&spec(LogOutput::File("/dev/null".into()), 0.25)).expect("started");
        assert_eq!((0..1000).filter(|_| log.wants(true)).count(), 250);
        assert!((0..10).all(|_| log.wants(false)));
    }
}
