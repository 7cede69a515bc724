//! The product over HTTP: independent clients, and the operator's side of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use e2e::{Installation, all_passes, suite};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A server that an operator started. Dropping it ends it.
pub struct Server {
    child: Child,
    url: String,
    _installation: Installation,
}

impl Server {
    pub fn start(arguments: &[&str]) -> Self {
        let installation = Installation::new();
        let mut command = installation.command(["--grpc-port", "0", "serve", "--http", "127.0.0.1:0"]);
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().expect("the server starts");
        let mut said = String::new();
        let stderr = child.stderr.take().expect("a pipe was asked for");
        BufReader::new(stderr).read_line(&mut said).expect("it says where it is");
        let url = said.split_whitespace().last().expect("a URL").to_owned();
        Self { child, url, _installation: installation }
    }

    /// Where it keeps its state.
    pub fn installation(&self) -> &Installation {
        &self._installation
    }

    /// What it says to a request that is written as it is, until it closes the connection.
    pub fn says(&self, request: &str) -> String {
        let address = self.url.trim_start_matches("http://").trim_end_matches("/mcp");
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("it answers");
        said
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        let _gone = kill_process(pid, Signal::TERM);
        let _reaped = self.child.wait();
    }
}

#[test]
fn the_flows_work_through_an_independent_client_over_http() {
    all_passes(&mut suite(&Installation::new(), "protocol/test_http.py"));
}

#[test]
fn an_independent_client_finds_the_issuer_and_gets_in_with_its_token() {
    all_passes(&mut suite(&Installation::new(), "protocol/test_oauth.py"));
}

#[test]
fn the_inspector_works_over_http_in_both_eras() {
    let server = Server::start(&[]);
    let inspector = std::env::var("CODEGEN_TEST_INSPECTOR").expect("`make test` gets and names the Inspector");
    for era in ["legacy", "modern"] {
        let output = Command::new(&inspector)
            .args(["--cli", "--format", "json", "--connect-timeout", "60000", "--protocol-era", era])
            .args(["--method", "tools/call", "--tool-name", "session_create", "--tool-args-json", "{}"])
            .args(["--transport", "http", &server.url])
            .env("HOME", server._installation.outside())
            .output()
            .expect("the Inspector starts");
        assert!(output.status.success(), "{era}: {output:?}");
        let printed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let handle = &printed["result"]["structuredContent"]["session_id"];
        assert!(handle.as_str().is_some_and(|handle| handle.starts_with("ses_")), "{era}: {printed}");
    }
}

#[test]
fn a_foreign_host_and_a_foreign_origin_are_refused_each_alone() {
    let server = Server::start(&[]);
    let request = |host: &str, origin: &str| {
        server.says(&format!("GET /mcp HTTP/1.1\r\nhost: {host}\r\n{origin}connection: close\r\n\r\n"))
    };
    assert!(request("evil.example", "").starts_with("HTTP/1.1 403"));
    assert!(request("localhost", "origin: http://evil.example\r\n").starts_with("HTTP/1.1 403"));
    assert!(request("localhost", "origin: http://localhost:3000\r\n").starts_with("HTTP/1.1 403"));
    let own = server.url.trim_end_matches("/mcp");
    assert!(!request("localhost", &format!("origin: {own}\r\n")).starts_with("HTTP/1.1 403"));
}

/// The value of a series, zero when there is none.
fn metric(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

#[test]
fn a_call_is_seen_in_the_metrics_and_among_the_requests() {
    let server = Server::start(&[]);
    let metrics = || server.says("GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let call = |name: &str, arguments: Value| {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "watched", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let params = json!({"name": name, "arguments": arguments, "_meta": meta});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
        server.says(&format!(
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\n\
             mcp-method: tools/call\r\nmcp-name: {name}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    let before = metrics();
    assert!(before.starts_with("HTTP/1.1 200"), "{before}");
    let made = call("session_create", json!({}));
    let session = made.split('"').find(|word| word.starts_with("ses_") && word.len() > 8).expect("a handle");
    let ran = call("run_python", json!({"code": "print(6 * 7)", "session_id": session}));
    assert!(ran.contains("42"), "{ran}");
    let after = metrics();
    let grown = |series: &str| metric(&after, series) - metric(&before, series);
    for (series, expected) in [
        (r#"codegen_calls_total{tool="session_create",code="OK"}"#, 1.0),
        (r#"codegen_calls_total{tool="run_python",code="OK"}"#, 1.0),
        (r#"codegen_call_duration_seconds_count{tool="run_python"}"#, 1.0),
        ("codegen_task_queue_duration_seconds_count", 1.0),
        (r#"codegen_task_run_duration_seconds_count{tool="run_python"}"#, 1.0),
        (r#"codegen_sessions{state="ready"}"#, 1.0),
        (r#"codegen_worker_slots{state="used"}"#, 1.0),
    ] {
        assert!((grown(series) - expected).abs() < 0.5, "{series} {}: {after}", grown(series));
    }
    assert!(grown("codegen_log_sync_duration_seconds_count") >= 2.0, "an attempt and its outcome: {after}");
    let requests = server._installation.run(["requests", "--client", "watched", "--tool", "run_python", "--json"]);
    let request: Value = serde_json::from_slice(&requests.stdout).expect("one request");
    assert_eq!((&request["status"], &request["session"]), (&json!("ok"), &json!(session)), "{request}");
    assert!((metric(&after, r#"codegen_worker_links{state="up"}"#) - 1.0).abs() < 0.5, "{after}");
}

#[test]
fn a_server_that_would_let_in_the_whole_network_does_not_start() {
    let installation = Installation::new();
    let output = installation.run(["--grpc-port", "0", "serve", "--http", "0.0.0.0:0"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("0.0.0.0") && said.contains("127.0.0.1") && said.contains("token"), "{said}");
}
