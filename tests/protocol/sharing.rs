//! A session that two users of one server share over HTTP, each with a token of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use e2e::{Installation, poll_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// How long anything may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);
const META: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28",
    "io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;

/// A server over HTTP. Dropping it ends it.
pub struct Server {
    child: Child,
    address: String,
}

impl Server {
    pub fn start(installation: &Installation) -> Self {
        let mut command = installation.command(["--grpc-port", "0", "serve", "--http", "127.0.0.1:0"]);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the server starts");
        let mut said = String::new();
        BufReader::new(child.stderr.take().expect("a pipe")).read_line(&mut said).expect("it says where it is");
        let url = said.split_whitespace().last().expect("a URL");
        let address = url.trim_start_matches("http://").trim_end_matches("/mcp").to_owned();
        Self { child, address }
    }

    /// Sends a request of 2026-07-28; the stream of its answer.
    pub fn send(&self, token: &str, method: &str, mut params: Value) -> BufReader<TcpStream> {
        params["_meta"] = serde_json::from_str(META).expect("JSON");
        let name = ["name", "uri"].iter().find_map(|key| params[key].as_str());
        let name = name.map(|name| format!("mcp-name: {name}\r\n")).unwrap_or_default();
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let head = format!(
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\naccept: application/json, text/event-stream\r\n\
             mcp-protocol-version: 2026-07-28\r\nmcp-method: {method}\r\n{name}content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).expect("it reads");
        BufReader::new(stream)
    }

    /// The answer to a request.
    pub fn ask(&self, token: &str, method: &str, params: Value) -> Value {
        let mut said = String::new();
        self.send(token, method, params).read_to_string(&mut said).expect("it answers");
        let messages = said.lines().filter_map(|line| {
            let start = line.find('{')?;
            serde_json::from_str::<Value>(&line[start..]).ok()
        });
        messages.rev().find(|message| message["id"] == 1).unwrap_or_else(|| panic!("an answer: {said}"))
    }

    pub fn tool(&self, token: &str, name: &str, arguments: Value) -> Value {
        self.ask(token, "tools/call", json!({"name": name, "arguments": arguments}))["result"].clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _reaped = self.child.wait();
    }
}

pub fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_default()
}

pub fn token(installation: &Installation, user: &str) -> String {
    let made = installation.run(["tokens", "create", "--principal", user, "--json"]);
    let made: Value = serde_json::from_slice(&made.stdout).expect("a token");
    made["token"].as_str().expect("its text").to_owned()
}

#[test]
fn two_users_share_a_session_and_part_again() {
    let installation = Installation::new();
    let (ann, bob) = (token(&installation, "ann"), token(&installation, "bob"));
    let server = Server::start(&installation);
    let made = server.tool(&ann, "session_create", json!({}));
    let session = made["structuredContent"]["session_id"].as_str().expect("a handle").to_owned();
    let here = |more: Value| {
        let mut arguments = json!({"session_id": session});
        arguments.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        arguments
    };

    // A foreign handle is answered like one that never was, byte for byte but for the handle and the record's number.
    let never = "ses_00000000-0000-4000-8000-000000000000".replace('-', "");
    for (tool, more) in [("session_info", json!({})), ("run_python", json!({"code": "1"})), ("fs_list", json!({}))] {
        let foreign = server.tool(&bob, tool, here(more.clone()));
        let mut unknown = more;
        unknown["session_id"] = json!(never);
        let unknown = server.tool(&bob, tool, unknown);
        assert_eq!((&foreign["content"], &foreign["isError"]), (&unknown["content"], &json!(true)), "{tool}");
        assert!(text(&foreign).starts_with("SESSION_NOT_FOUND"), "{foreign}");
    }

    // An observer follows what runs, live, and acts in nothing.
    let shared = server.tool(&ann, "session_share", here(json!({"principal": "bob", "role": "observer"})));
    assert_eq!(shared["structuredContent"]["shared_with"], json!({"bob": "observer"}), "{shared}");
    assert!(text(&server.tool(&bob, "session_list", json!({}))).contains("shared by ann (observer)"));
    let transcript = format!("transcript://{session}");
    let filter = json!({"resourceSubscriptions": [transcript]});
    let mut following = server.send(&bob, "subscriptions/listen", json!({"notifications": filter}));
    let mut line = String::new();
    while !line.contains("acknowledged") {
        line.clear();
        assert_ne!(following.read_line(&mut line).expect("a stream"), 0, "the stream is open");
    }
    let code = "import time\nprint('first', flush=True)\ntime.sleep(600)";
    let ran = server.tool(&ann, "run_python", here(json!({"code": code, "background": true})));
    let task = text(&ran).split_whitespace().find(|word| word.starts_with("tsk_")).expect("a task");
    let task = task.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned();
    while !line.contains("notifications/resources/updated") {
        line.clear();
        assert_ne!(following.read_line(&mut line).expect("a stream"), 0, "the stream is open");
    }
    assert!(line.contains(&transcript), "{line}");
    let read = poll_until("the transcript has the output", PATIENCE, || {
        let read = server.ask(&bob, "resources/read", json!({"uri": transcript}));
        read["result"]["contents"][0]["text"].as_str().filter(|text| text.contains("| first")).map(str::to_owned)
    });
    assert!(read.contains("run_python running") && read.contains("by ann"), "{read}");
    assert!(text(&server.tool(&bob, "task_logs", json!({"task_id": task}))).contains("first"));
    for (tool, more) in [("run_shell", json!({"command": "true"})), ("fs_delete", json!({"path": "a"}))] {
        assert!(text(&server.tool(&bob, tool, here(more))).starts_with("PERMISSION_DENIED"), "{tool}");
    }

    // A writer waits its turn.
    server.tool(&ann, "session_share", here(json!({"principal": "bob", "role": "writer"})));
    let refused = server.tool(&bob, "run_shell", here(json!({"command": "true"})));
    assert!(text(&refused).starts_with("PRECONDITION_FAILED: ann writes"), "{refused}");

    // Shares outlive the server.
    drop(following);
    drop(server);
    let server = Server::start(&installation);
    let wrote = server.tool(&bob, "fs_write", here(json!({"path": "b.txt", "contents": "bob's"})));
    assert_eq!(wrote["isError"], json!(false), "{wrote}");
    let refused = server.tool(&ann, "fs_write", here(json!({"path": "b.txt", "contents": "ann's"})));
    assert!(text(&refused).starts_with("PRECONDITION_FAILED: bob writes"), "{refused}");

    // What is taken back ends at once, whoever waits for it.
    let waiting = server.send(&bob, "tools/call", {
        let arguments = here(json!({"command": "echo begun > begun; sleep 600"}));
        json!({"name": "run_shell", "arguments": arguments})
    });
    poll_until("it runs", PATIENCE, || {
        let listed = server.tool(&ann, "fs_list", here(json!({})));
        text(&listed).contains("begun").then_some(())
    });
    server.tool(&ann, "session_unshare", here(json!({"principal": "bob"})));
    let mut said = String::new();
    { waiting }.read_to_string(&mut said).expect("it is answered");
    assert!(said.contains("TASK_CANCELLED"), "{said}");
    assert!(text(&server.tool(&bob, "session_info", here(json!({})))).starts_with("SESSION_NOT_FOUND"));
    let read = server.ask(&bob, "resources/read", json!({"uri": transcript}));
    assert_eq!(read["error"]["data"]["code"], "SESSION_NOT_FOUND", "{read}");
    let wrote = server.tool(&ann, "fs_write", here(json!({"path": "b.txt", "contents": "ann's"})));
    assert_eq!(wrote["isError"], json!(false), "{wrote}");

    // All of it is in the log.
    let query = installation.run(["audit", "query", "--session", session.as_str(), "--json"]);
    let said = String::from_utf8(query.stdout).expect("text");
    let records: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |kind: &str| records.iter().filter(|record| record["type"] == kind).count();
    assert_eq!((of("session.shared"), of("session.unshared")), (2, 1));
    let by_bob = |kind: &str| records.iter().any(|record| record["type"] == kind && record["principal"] == "bob");
    assert!(by_bob("call.refused") && by_bob("task.attempt") && by_bob("task.outcome"), "{said}");
}
