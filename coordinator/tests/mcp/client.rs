//! A client that writes raw lines over an in-memory pipe, and the server at the other end of it.

use std::sync::Arc;
use std::time::Duration;

use codegen_audit::Audit;
use codegen_types::Principal;
use coordinator::admission::Admission;
use coordinator::approvals::Approvals;
use coordinator::caller::Caller;
use coordinator::identity::Scopes;
use coordinator::mcp::{Options, ServeError, Services, serve_stdio};
use coordinator::policy::{Gate, Hosts, Policies};
use coordinator_core::policy::Policy;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::double::{Double, Sessions};

/// How long an answer may take before the test fails.
const ANSWER: Duration = Duration::from_secs(60);

/// A server without a process: the double, a log in memory, and what connections share.
pub struct Server {
    pub double: Arc<Double>,
    pub audit: Audit,
    services: Services,
    pub stop: CancellationToken,
}

impl Server {
    pub fn new() -> Self {
        Self::with_options(Options::default())
    }

    pub fn with_options(options: Options) -> Self {
        let double = Arc::<Double>::default();
        let audit = Audit::in_memory();
        let services = Services::new(Arc::new(Sessions(Arc::clone(&double))), audit.clone(), options);
        Self { double, audit, services, stop: CancellationToken::new() }
    }

    /// A server under this policy, and its calls that wait for approval.
    pub fn with_policy(policy: &str, options: Options) -> (Self, Approvals) {
        let server = Self::with_options(options);
        let policies = Policies::fixed(Policy::parse(policy).expect("a policy"));
        let approvals = Approvals::new(server.audit.clone());
        // Those that no call waits for are over in time, too.
        tokio::spawn(server.stop.clone().run_until_cancelled_owned(approvals.clone().keep_time()));
        let gate = Gate::new(policies, approvals.clone(), Hosts::default());
        let services = server.services.clone().admitted_by(Admission::default().behind(gate));
        (Self { services, ..server }, approvals)
    }

    /// A connection that has said nothing yet.
    pub fn connect(&self) -> Client {
        self.connect_as("ann")
    }

    pub fn connect_as(&self, user: &str) -> Client {
        self.connect_with(user, Scopes::ALL)
    }

    /// A connection whose credentials permit so much.
    pub fn connect_with(&self, user: &str, scopes: Scopes) -> Client {
        let (to_server, input) = tokio::io::duplex(1 << 16);
        let (output, from_server) = tokio::io::duplex(1 << 16);
        let caller = Caller { principal: Principal::os_user(user), scopes, client: None, trace: None };
        let served = tokio::spawn(serve_stdio(self.services.clone(), caller, input, output, self.stop.child_token()));
        let lines = BufReader::new(from_server).lines();
        Client { input: Some(to_server), lines, served, last_id: 0, seen: Vec::new() }
    }

    /// A connection of an ordinary client.
    pub async fn client(&self) -> Client {
        let mut client = self.connect();
        client.initialize("2025-11-25").await;
        client
    }
}

pub struct Client {
    input: Option<DuplexStream>,
    lines: Lines<BufReader<DuplexStream>>,
    served: JoinHandle<Result<(), ServeError>>,
    last_id: u64,
    /// Messages that were read while another was waited for.
    pub seen: Vec<Value>,
}

impl Client {
    pub async fn initialize(&mut self, revision: &str) -> Value {
        self.initialize_as("t", revision).await
    }

    pub async fn initialize_as(&mut self, name: &str, revision: &str) -> Value {
        let hello =
            json!({"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": name, "version": "1"}});
        let answer = self.request("initialize", hello).await;
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        answer["result"].clone()
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.input.as_mut().expect("the client's side is open").write_all(bytes).await.expect("the server reads");
    }

    pub async fn send(&mut self, message: &Value) {
        self.write(format!("{message}\n").as_bytes()).await;
    }

    pub async fn start(&mut self, method: &str, params: Value) -> u64 {
        self.last_id += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params})).await;
        self.last_id
    }

    pub async fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.start(method, params).await;
        self.answer_to(id).await
    }

    pub async fn start_tool(&mut self, tool: &str, arguments: Value) -> u64 {
        self.start("tools/call", json!({"name": tool, "arguments": arguments})).await
    }

    /// The result of a tool call.
    pub async fn tool(&mut self, tool: &str, arguments: Value) -> Value {
        let answer = self.request("tools/call", json!({"name": tool, "arguments": arguments})).await;
        assert!(answer.get("result").is_some(), "a protocol error: {answer}");
        answer["result"].clone()
    }

    pub async fn answer_to(&mut self, id: u64) -> Value {
        self.message(|m| m["id"] == id && m.get("method").is_none()).await
    }

    /// The next message that is so, whether it was read before or not.
    pub async fn message(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(place) = self.seen.iter().position(&wanted) {
            return self.seen.remove(place);
        }
        loop {
            let message = self.next().await.expect("the server went away without an answer");
            if wanted(&message) {
                return message;
            }
            self.seen.push(message);
        }
    }

    /// The next line, which is one JSON-RPC message; `None` when the server closed its side.
    pub async fn next(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(ANSWER, self.lines.next_line()).await.expect("an answer in time");
        let line = line.expect("output can be read")?;
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("not a message ({e}): {line:?}"));
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        Some(message)
    }

    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits until the server has ended the connection.
    pub async fn ended(self) -> Result<(), ServeError> {
        tokio::time::timeout(ANSWER, self.served).await.expect("it ends in time").expect("it does not panic")
    }

    /// Goes away without a word, as a killed client does; returns what ends when the server has noticed.
    pub fn vanish(self) -> JoinHandle<Result<(), ServeError>> {
        self.served
    }
}

/// The first text block of a result.
pub fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {result}"))
}

/// What every request of 2026-07-28 carries.
pub fn modern_meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

/// Waits until something is so.
pub async fn until(what: &str, so: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + ANSWER;
    while !so() {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
