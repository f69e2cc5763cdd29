//! Services that answer with the id they were asked for, and remember the id of every POST.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// The largest body a service takes.
const MAX_BODY: u64 = 1 << 20;

/// A service with a thread of its own.
#[derive(Debug)]
pub struct Origin {
    addr: SocketAddr,
    memory: Arc<Memory>,
    /// Dropping it ends the service at once, with all its connections
    life: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What is remembered of POSTs.
#[derive(Debug)]
enum Memory {
    Here(Mutex<Vec<u64>>),
    /// One id a line, written before the answer, so that it survives a kill
    File(File),
}

impl Origin {
    /// Starts one that remembers in memory.
    ///
    /// # Errors
    /// No free port, or no thread.
    pub fn start() -> io::Result<Self> {
        Self::with(Memory::Here(Mutex::default()))
    }

    /// Starts one that remembers in a file, which survives it.
    ///
    /// # Errors
    /// No free port, no thread, or a file that cannot be written.
    pub fn recording(file: &Path) -> io::Result<Self> {
        Self::with(Memory::File(File::options().create(true).append(true).open(file)?))
    }

    fn with(memory: Memory) -> io::Result<Self> {
        let memory = Arc::new(memory);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let addr = listener.local_addr()?;
        let (life, end) = oneshot::channel();
        let thread = thread::Builder::new().name("origin".into()).spawn({
            let memory = Arc::clone(&memory);
            move || serve(&runtime, &listener, &memory, end)
        })?;
        Ok(Self { addr, memory, life: Some(life), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends it at once: connections are closed in the middle of whatever they carry.
    pub fn kill(&mut self) {
        drop(self.life.take());
        if let Some(thread) = self.thread.take() {
            // A panic has been printed; the load sees the consequences.
            drop(thread.join());
        }
    }

    /// The id of each POST that has arrived. Empty where a file remembers.
    pub fn posts(&self) -> Vec<u64> {
        match &*self.memory {
            Memory::Here(ids) => ids.lock().expect("nobody panics while holding it").clone(),
            Memory::File(_) => Vec::new(),
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ids that are there more than once.
pub fn duplicates(ids: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut counts: HashMap<u64, u32> = HashMap::new();
    for id in ids {
        *counts.entry(id).or_default() += 1;
    }
    let mut twice: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 1).map(|(id, _)| id).collect();
    twice.sort_unstable();
    twice
}

fn serve(runtime: &Runtime, listener: &TcpListener, memory: &Arc<Memory>, end: oneshot::Receiver<()>) {
    runtime.block_on(async {
        let accept = async {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let memory = Arc::clone(memory);
                        // How a connection ends is the other end's to judge.
                        tokio::spawn(async move { drop(connection(stream, &memory).await) });
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        tokio::select! {
            _ = end => {}
            () = accept => {}
        }
    });
}

/// `GET /work/ID/DELAY_MS/BYTES`, or POST: waits so long, and answers with the id and so many bytes behind it.
async fn connection(stream: TcpStream, memory: &Memory) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let (mut line, mut body) = (Vec::new(), Vec::new());
    while let Some(request) = head(&mut stream, &mut line).await? {
        body.clear();
        match request.length {
            Some(length) => drop((&mut stream).take(length.min(MAX_BODY)).read_to_end(&mut body).await?),
            None => chunked(&mut stream, &mut line, &mut body).await?,
        }
        if request.is_post {
            memory.remember(request.id)?;
        }
        if !request.delay.is_zero() {
            tokio::time::sleep(request.delay).await;
        }
        let text = request.id.to_string();
        let length = text.len() + request.bytes;
        let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}").into_bytes();
        answer.resize(answer.len() + request.bytes, b'.');
        stream.get_mut().write_all(&answer).await?;
    }
    Ok(())
}

struct Request {
    is_post: bool,
    id: u64,
    delay: Duration,
    bytes: usize,
    /// `None` where it is chunked
    length: Option<u64>,
}

async fn head(stream: &mut BufReader<TcpStream>, line: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let mut request = None;
    loop {
        line.clear();
        if stream.read_until(b'\n', line).await? == 0 {
            return Ok(None);
        }
        let text = std::str::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData)?.trim_end();
        match (&mut request, text) {
            (None, "") => {}
            (None, first) => request = Some(parse(first).ok_or(io::ErrorKind::InvalidData)?),
            (Some(_), "") => return Ok(request),
            (Some(request), field) => {
                let (name, value) = field.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
                if name.eq_ignore_ascii_case("content-length") {
                    request.length = Some(value.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?);
                } else if name.eq_ignore_ascii_case("transfer-encoding") {
                    request.length = None;
                }
            }
        }
    }
}

fn parse(line: &str) -> Option<Request> {
    let (method, rest) = line.split_once(' ')?;
    let path = rest.split(' ').next()?;
    // Other generators ask for the same thing again and again; health checks too.
    let mut parts = path.strip_prefix("/work/").unwrap_or("0").split(['/', '?']);
    let mut number = || parts.next().map_or(Some(0), |part| part.parse::<u64>().ok());
    let (id, delay, bytes) = (number()?, number()?, number()?);
    Some(Request {
        is_post: method == "POST",
        id,
        delay: Duration::from_millis(delay),
        bytes: usize::try_from(bytes.min(MAX_BODY)).ok()?,
        length: Some(0),
    })
}

async fn chunked(stream: &mut BufReader<TcpStream>, line: &mut Vec<u8>, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        line.clear();
        stream.read_until(b'\n', line).await?;
        let size = std::str::from_utf8(line).ok().and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
        let size = size.filter(|size| *size <= MAX_BODY).ok_or(io::ErrorKind::InvalidData)?;
        let read = (&mut *stream).take(size + 2).read_to_end(body).await? as u64;
        if read != size + 2 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if size == 0 {
            return Ok(());
        }
    }
}

impl Memory {
    fn remember(&self, id: u64) -> io::Result<()> {
        match self {
            Self::Here(ids) => ids.lock().expect("nobody panics while holding it").push(id),
            // One write a line: the kernel has it when this returns, whatever becomes of the process.
            Self::File(file) => (&*file).write_all(format!("{id}\n").as_bytes())?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_twice_is_found() {
        assert_eq!(duplicates([1, 2, 3, 2, 4, 4, 4]), vec![2, 4]);
        assert_eq!(duplicates([1, 2, 3]), Vec::<u64>::new());
    }

    #[test]
    fn a_line_says_what_to_do() {
        let request = parse("POST /work/7/20/300 HTTP/1.1").expect("parsed");
        assert_eq!((request.is_post, request.id, request.delay.as_millis(), request.bytes), (true, 7, 20, 300));
        assert_eq!(parse("GET / HTTP/1.1").expect("parsed").id, 0);
        assert!(parse("GET /work/- HTTP/1.1").is_none());
    }
}
