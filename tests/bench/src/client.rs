//! A client of Streamable HTTP and HTTP+SSE with as little in between as possible, so that it is never what is measured:
//! one connection, one request at a time, written in one piece.

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The revision that every server here speaks.
const REVISION: &str = "2025-11-25";
/// The largest answer that is taken, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Where a server is, and what it wants to see.
#[derive(Debug, Clone)]
pub struct Server {
    address: String,
    path: String,
    authorization: String,
}

impl Server {
    /// The server at a URL such as `http://127.0.0.1:8080/mcp`, with a token if it wants one.
    ///
    /// # Errors
    /// It is no such URL.
    pub fn new(url: &str, token: Option<&str>) -> anyhow::Result<Self> {
        let rest = url.strip_prefix("http://").context("not http://")?;
        let (address, path) = rest.split_once('/').context("no path")?;
        let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        Ok(Self { address: address.to_owned(), path: format!("/{path}"), authorization })
    }
}

/// One client with its connection and, once it is greeted, its session.
#[derive(Debug)]
pub struct Client {
    server: Server,
    stream: TcpStream,
    session: String,
    /// What has come and was not looked at yet.
    pending: Vec<u8>,
    request: Vec<u8>,
    last_id: u64,
}

struct Head {
    status: u16,
    length: Option<usize>,
    chunked: bool,
    session: Option<String>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn connect(server: &Server) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(&server.address).await?;
        stream.set_nodelay(true)?;
        let (session, pending, request) = Default::default();
        Ok(Self { server: server.clone(), stream, session, pending, request, last_id: 0 })
    }

    /// Connects and begins a session.
    ///
    /// # Errors
    /// The server does not answer as it must.
    pub async fn greeted(server: &Server) -> anyhow::Result<Self> {
        let mut client = Self::connect(server).await?;
        let head = client.post(&hello()).await?;
        client.body(&head).await?;
        let session = head.session.context("no session")?;
        client.session = format!("mcp-session-id: {session}\r\n");
        let head = client.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
        client.body(&head).await?;
        Ok(client)
    }

    /// Calls `echo`, and looks whether the answer is one.
    ///
    /// # Errors
    /// It is none.
    pub async fn echo(&mut self) -> anyhow::Result<()> {
        self.last_id += 1;
        let message = format!("hello-{}", self.last_id);
        let params = json!({"name": "echo", "arguments": {"message": message}});
        let call = json!({"jsonrpc": "2.0", "id": self.last_id, "method": "tools/call", "params": params});
        let head = self.post(&call).await?;
        let body = self.body(&head).await?;
        let has = |text: &str| body.windows(text.len()).any(|part| part == text.as_bytes());
        if head.status != 200 || !has(&message) || has("\"isError\":true") {
            bail!("a call was answered with {}: {:.300}", head.status, String::from_utf8_lossy(&body));
        }
        Ok(())
    }

    /// Opens the stream of the session, and leaves it alone from then on.
    ///
    /// # Errors
    /// There is none.
    pub async fn listen(&mut self) -> anyhow::Result<()> {
        let head = self.get().await?;
        if head.status != 200 {
            bail!("the stream was answered with {}", head.status);
        }
        Ok(())
    }

    /// Opens a stream of HTTP+SSE, and greets the server on another connection.
    ///
    /// # Errors
    /// The server does not answer as it must.
    pub async fn listen_sse(server: &Server) -> anyhow::Result<Self> {
        let mut client = Self::connect(server).await?;
        client.listen().await?;
        let mut said = Vec::new();
        let endpoint = loop {
            said.append(&mut client.pending);
            let text = String::from_utf8_lossy(&said);
            if let Some((line, _)) = text.split_once("data: ").and_then(|(_, rest)| rest.split_once('\n')) {
                break line.trim().to_owned();
            }
            client.more().await?;
        };
        let path = endpoint.find("/messages").map_or(endpoint.as_str(), |at| &endpoint[at..]);
        let messages = Server { path: path.to_owned(), ..server.clone() };
        let mut other = Self::connect(&messages).await?;
        let head = other.post(&hello()).await?;
        other.body(&head).await?;
        if head.status != 202 {
            bail!("a message was answered with {}", head.status);
        }
        Ok(client)
    }

    async fn get(&mut self) -> anyhow::Result<Head> {
        let Server { address, path, authorization } = &self.server;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\nmcp-protocol-version: {REVISION}\r\n\
             {authorization}{}\r\n",
            self.session
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.head().await
    }

    async fn post(&mut self, message: &Value) -> anyhow::Result<Head> {
        use std::io::Write as _;
        let Server { address, path, authorization } = &self.server;
        let (body, session) = (message.to_string(), &self.session);
        self.request.clear();
        write!(
            self.request,
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\nmcp-protocol-version: {REVISION}\r\n\
             {authorization}{session}content-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        self.stream.write_all(&self.request).await?;
        self.head().await
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        if self.pending.len() > ANSWER_BYTES_MAX {
            bail!("an answer is too long");
        }
        if self.stream.read_buf(&mut self.pending).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }

    /// The bytes up to and with the next of these.
    async fn until(&mut self, end: &[u8]) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.pending.windows(end.len()).position(|part| part == end) {
                return Ok(self.pending.drain(..at + end.len()).collect());
            }
            self.more().await?;
        }
    }

    async fn take(&mut self, bytes: usize, into: &mut Vec<u8>) -> anyhow::Result<()> {
        while self.pending.len() < bytes {
            self.more().await?;
        }
        into.extend(self.pending.drain(..bytes));
        Ok(())
    }

    async fn head(&mut self) -> anyhow::Result<Head> {
        let text = String::from_utf8(self.until(b"\r\n\r\n").await?)?;
        let mut lines = text.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?.parse()?;
        let mut head = Head { status, length: None, chunked: false, session: None };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = Some(value.trim().parse()?),
                "transfer-encoding" => head.chunked = value.contains("chunked"),
                "mcp-session-id" => head.session = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        Ok(head)
    }

    async fn body(&mut self, head: &Head) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        if !head.chunked {
            self.take(head.length.unwrap_or(0), &mut body).await?;
            return Ok(body);
        }
        loop {
            let line = self.until(b"\r\n").await?;
            let size = usize::from_str_radix(std::str::from_utf8(&line)?.trim(), 16)?;
            if size > ANSWER_BYTES_MAX {
                bail!("an answer is too long");
            }
            self.take(size, &mut body).await?;
            self.until(b"\r\n").await?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

fn hello() -> Value {
    let client = json!({"name": "bench", "version": "1"});
    let params = json!({"protocolVersion": REVISION, "capabilities": {}, "clientInfo": client});
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
}
