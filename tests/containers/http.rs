//! An MCP client over HTTP, as small as it can be: one connection for each request, answers as events or as JSON.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A client with a session of the protocol.
#[derive(Debug, Clone)]
pub struct HttpClient {
    port: u16,
    token: String,
    session: String,
}

impl HttpClient {
    /// Greets the server on this port, once it answers.
    pub fn connect(port: u16, token: &str) -> Option<Self> {
        let mut client = Self { port, token: token.to_owned(), session: String::new() };
        let params = json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "containers", "version": "1" },
        });
        let (head, _) = client.post("initialize", &params)?;
        let header = head.lines().find_map(|line| line.strip_prefix("mcp-session-id: "))?;
        client.session = format!("mcp-session-id: {header}\r\nmcp-protocol-version: 2025-11-25\r\n");
        Some(client)
    }

    /// Calls a tool and gives its result.
    ///
    /// # Panics
    /// When the server gives none.
    pub fn tool(&self, name: &str, arguments: &Value) -> Value {
        let params = json!({ "name": name, "arguments": arguments });
        let (head, answer) = self.post("tools/call", &params).expect("an answer");
        assert!(answer["result"].is_object(), "{head}\n{answer}");
        answer["result"].clone()
    }

    fn post(&self, method: &str, params: &Value) -> Option<(String, Value)> {
        // One client's calls may run side by side, each under an id of its own.
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(120))).ok()?;
        let Self { port, token, session } = self;
        let head = format!(
            "POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {token}\r\n{session}\
             content-type: application/json\r\naccept: application/json, text/event-stream\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let messages = body.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
        let mut parsed = messages.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let value = parsed.rfind(|message| message["id"] == id)?;
        Some((head.to_owned(), value))
    }
}

/// The text of a tool's result.
pub fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_default()
}
