//! A way to a server on which things go wrong: one request in five is refused as by a busy service, connections break
//! before or after the server did its work, bodies end early.
//!
//! It speaks as much HTTP as S3 clients do: a request has a Content-Length or no body, an answer has a Content-Length, is
//! chunked, or has no body. Each request gets a connection of its own to the server.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Which faults there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faults {
    /// One request in five is answered 503, one in eleven breaks before the server sees it, one in thirteen after it was
    /// done, and of one answer in seven with a body the second half is missing.
    some: bool,
    /// No request is ever answered.
    dead: bool,
}

impl Faults {
    /// None: it only looks.
    pub const NONE: Self = Self { some: false, dead: false };
    /// All of them.
    pub const ALL: Self = Self { some: true, dead: false };
    /// Nobody answers.
    pub const DEAD: Self = Self { some: false, dead: true };
}

/// What requests met so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Met {
    pub refused: u64,
    pub dropped: u64,
    pub answers_lost: u64,
    pub cut: u64,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    answers_lost: AtomicU64,
    cut: AtomicU64,
    heads: Mutex<Vec<String>>,
}

/// The proxy; it ends with its runtime.
pub struct Proxy {
    /// Where it listens.
    pub endpoint: String,
    counts: Arc<Counts>,
}

impl Proxy {
    /// Begins to listen.
    pub async fn new(server: &str, faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let server = server.strip_prefix("http://").expect("no TLS in tests").to_owned();
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, counts) = (server.clone(), Arc::clone(&shared));
                // A connection that breaks is what this is for.
                tokio::spawn(async move { serve(client, &server, faults, &counts).await });
            }
        });
        Self { endpoint, counts }
    }

    /// The heads of all requests so far, in small letters.
    pub fn requests(&self) -> Vec<String> {
        self.counts.heads.lock().expect("nobody panics here").clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.counts.heads.lock().expect("nobody panics here").clear();
    }

    /// What requests met so far.
    pub fn met(&self) -> Met {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { refused, dropped, answers_lost, cut, .. } = &*self.counts;
        Met { refused: read(refused), dropped: read(dropped), answers_lost: read(answers_lost), cut: read(cut) }
    }
}

/// A head of HTTP with the bytes that belong to it.
struct Message {
    head: Vec<u8>,
    body: Vec<u8>,
}

/// Requests of one connection, until it ends or breaks.
async fn serve(client: TcpStream, server: &str, faults: Faults, counts: &Counts) -> io::Result<()> {
    let mut client = BufReader::new(client);
    loop {
        let Some(request) = read_message(&mut client, false).await? else { return Ok(()) };
        let n = counts.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let head = String::from_utf8_lossy(&request.head).to_lowercase();
        counts.heads.lock().expect("nobody panics here").push(head);
        let met = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
        if faults.dead {
            return Ok(());
        }
        if faults.some && n.is_multiple_of(5) {
            met(&counts.refused);
            let body = "<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>";
            let answer =
                format!("HTTP/1.1 503 Slow Down\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            client.write_all(answer.as_bytes()).await?;
            return client.shutdown().await;
        }
        if faults.some && n.is_multiple_of(11) {
            met(&counts.dropped);
            return Ok(());
        }
        let is_head = request.head.starts_with(b"HEAD ");
        let mut upstream = BufReader::new(TcpStream::connect(server).await?);
        upstream.write_all(&request.head).await?;
        upstream.write_all(&request.body).await?;
        let answer = loop {
            let Some(answer) = read_message(&mut upstream, is_head).await? else { return Ok(()) };
            // The client asked nothing of the kind; hyper would not mind, but it is not the answer.
            if !answer.head.starts_with(b"HTTP/1.1 100") {
                break answer;
            }
        };
        if faults.some && n.is_multiple_of(13) {
            met(&counts.answers_lost);
            return Ok(());
        }
        client.write_all(&answer.head).await?;
        if faults.some && n.is_multiple_of(7) && answer.body.len() > 1 {
            met(&counts.cut);
            client.write_all(&answer.body[..answer.body.len() / 2]).await?;
            return client.shutdown().await;
        }
        client.write_all(&answer.body).await?;
    }
}

/// One request or answer; `None` if the other side ended before it.
async fn read_message(from: &mut BufReader<TcpStream>, no_body: bool) -> io::Result<Option<Message>> {
    let mut head = Vec::new();
    loop {
        let before = head.len();
        if from.read_until(b'\n', &mut head).await? == 0 {
            return Ok(None);
        }
        if &head[before..] == b"\r\n" {
            break;
        }
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let mut body = Vec::new();
    let status_without_body = text.starts_with("http/1.1 1") || text.starts_with("http/1.1 204");
    if no_body || status_without_body {
    } else if header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        // To the last chunk, of length 0, and the empty line behind it.
        loop {
            let before = body.len();
            from.read_until(b'\n', &mut body).await?;
            let line = String::from_utf8_lossy(&body[before..]).trim().to_owned();
            let length = usize::from_str_radix(line.split(';').next().unwrap_or(""), 16).unwrap_or(0);
            let before = body.len();
            body.resize(before + length + 2, 0);
            from.read_exact(&mut body[before..]).await?;
            if length == 0 {
                break;
            }
        }
    } else if let Some(length) = header("content-length").and_then(|value| value.parse().ok()) {
        body.resize(length, 0);
        from.read_exact(&mut body).await?;
    }
    Ok(Some(Message { head, body }))
}
