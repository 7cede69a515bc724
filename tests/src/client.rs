//! An MCP client that writes raw JSON lines.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::installation::signal;
use crate::processes::poll_until;

/// How long an answer may take before the test fails.
const ANSWER: Duration = Duration::from_secs(30);

/// A front that was launched, seen from its client.
#[derive(Debug)]
pub struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    answers: HashMap<u64, Value>,
    notifications: Vec<Value>,
    strays: Vec<Value>,
    last_id: u64,
}

impl Client {
    /// Launches the front with pipes.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn launch(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the front starts");
        let stdout = child.stdout.take().expect("a pipe was asked for");
        let stdin = child.stdin.take();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { break };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let (answers, notifications, strays) = Default::default();
        Self { child, stdin, lines, answers, notifications, strays, last_id: 0 }
    }

    /// The process id of the front.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Greets the server as a client of `revision` and returns what it answered.
    pub fn initialize(&mut self, revision: &str) -> Value {
        let client = json!({"name": "e2e", "version": "1"});
        let hello = json!({"protocolVersion": revision, "capabilities": {}, "clientInfo": client});
        let answer = self.request("initialize", hello);
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        answer["result"].clone()
    }

    /// Writes one line as it is.
    ///
    /// # Panics
    /// When the client's side was closed, or the server's side is.
    pub fn send_line(&mut self, line: &[u8]) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin
            .write_all(line)
            .and_then(|()| stdin.write_all(b"\n"))
            .and_then(|()| stdin.flush())
            .expect("stdin is read");
    }

    /// Writes one message.
    pub fn send(&mut self, message: &Value) {
        self.send_line(message.to_string().as_bytes());
    }

    /// Sends a request and does not wait; returns its id.
    pub fn start(&mut self, method: &str, params: Value) -> u64 {
        self.last_id += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params}));
        self.last_id
    }

    /// Sends a request and waits for its answer, a whole JSON-RPC message.
    pub fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.start(method, params);
        self.answer_to(id)
    }

    /// Calls a tool and does not wait; returns the request's id. Its output comes as progress.
    pub fn start_tool(&mut self, name: &str, arguments: Value) -> u64 {
        let token = format!("p{}", self.last_id + 1);
        self.start("tools/call", json!({"name": name, "arguments": arguments, "_meta": {"progressToken": token}}))
    }

    /// Calls a tool and waits for what it gives.
    pub fn tool(&mut self, name: &str, arguments: Value) -> Answer {
        let answer = self.request("tools/call", json!({"name": name, "arguments": arguments}));
        Answer::of(&answer)
    }

    /// Waits for the answer to a tool call that was started.
    pub fn tool_answer(&mut self, id: u64) -> Answer {
        let answer = self.answer_to(id);
        Answer::of(&answer)
    }

    /// Waits for the answer to a request.
    ///
    /// # Panics
    /// When there is none in time, or the server went away first.
    pub fn answer_to(&mut self, id: u64) -> Value {
        let deadline = Instant::now() + ANSWER;
        loop {
            if let Some(answer) = self.answers.remove(&id) {
                return answer;
            }
            assert!(self.read_one(deadline), "no answer to request {id}");
        }
    }

    /// Calls a tool and does not wait; a server that is gone by then did not get the call.
    pub fn start_tool_unless_gone(&mut self, name: &str, arguments: Value) {
        self.last_id += 1;
        let params = json!({"name": name, "arguments": arguments});
        let message = json!({"jsonrpc": "2.0", "id": self.last_id, "method": "tools/call", "params": params});
        self.stdin.as_mut().and_then(|stdin| writeln!(stdin, "{message}").ok());
    }

    /// Calls a tool and waits for what it gives; `None` when the server goes away first.
    pub fn tool_unless_gone(&mut self, name: &str, arguments: Value) -> Option<Answer> {
        let answer = self.request_unless_gone("tools/call", json!({"name": name, "arguments": arguments}))?;
        Some(Answer::of(&answer))
    }

    /// Sends a request and waits for its answer; `None` when the server goes away first.
    ///
    /// # Panics
    /// When it stays and does not answer in time.
    pub fn request_unless_gone(&mut self, method: &str, params: Value) -> Option<Value> {
        self.last_id += 1;
        let message = json!({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params});
        writeln!(self.stdin.as_mut()?, "{message}").ok()?;
        let deadline = Instant::now() + ANSWER;
        while !self.answers.contains_key(&self.last_id) {
            if !self.read_one(deadline) {
                assert!(Instant::now() < deadline, "no answer to {method}");
                return None;
            }
        }
        self.answers.remove(&self.last_id)
    }

    /// Waits for a message that answers no request of this client: an error about a line, for instance.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn stray(&mut self) -> Value {
        let deadline = Instant::now() + ANSWER;
        while self.strays.is_empty() {
            assert!(self.read_one(deadline), "no such message");
        }
        self.strays.remove(0)
    }

    /// Waits for the next progress message.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn progress(&mut self) -> String {
        let deadline = Instant::now() + ANSWER;
        loop {
            let place = self.notifications.iter().position(|n| n["method"] == "notifications/progress");
            if let Some(place) = place {
                return self.notifications.remove(place)["params"]["message"].as_str().unwrap_or_default().to_owned();
            }
            assert!(self.read_one(deadline), "no progress");
        }
    }

    /// Waits for the next notification of that method.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn notification(&mut self, method: &str) -> Value {
        let deadline = Instant::now() + ANSWER;
        loop {
            if let Some(place) = self.notifications.iter().position(|message| message["method"] == method) {
                return self.notifications.remove(place);
            }
            assert!(self.read_one(deadline), "no {method}");
        }
    }

    /// Asks the server to give up a request.
    pub fn cancel(&mut self, id: u64) {
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}));
    }

    /// Closes the client's side and waits for the front to end.
    pub fn close(mut self) -> ExitStatus {
        self.stdin = None;
        self.wait()
    }

    /// Sends the front a signal.
    pub fn signal(&self, which: Signal) {
        signal(self.pid(), which);
    }

    /// Waits for the front to end.
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        poll_until("the front ends", Duration::from_secs(15), || child.try_wait().expect("waiting for a child"))
    }

    /// Reads one line; false when there is none until `deadline` or ever again.
    fn read_one(&mut self, deadline: Instant) -> bool {
        let line = match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
        };
        let message: Value =
            serde_json::from_str(&line).unwrap_or_else(|e| panic!("stdout is not protocol ({e}): {line:?}"));
        assert_eq!(message["jsonrpc"], "2.0", "stdout is not protocol: {line:?}");
        match message.get("id").and_then(Value::as_u64) {
            Some(id) => {
                assert!(self.answers.insert(id, message).is_none(), "request {id} was answered twice");
            }
            None if message.get("method").is_some() => self.notifications.push(message),
            None => self.strays.push(message),
        }
        true
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a tool call gave.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Whether the result says that the call failed.
    pub is_error: bool,
    /// All text blocks.
    pub text: String,
    /// The structured result, or null.
    pub structured: Value,
    /// The result's metadata, or null.
    pub meta: Value,
}

impl Answer {
    fn of(message: &Value) -> Self {
        let result = message.get("result").unwrap_or_else(|| panic!("a JSON-RPC error, not a result: {message}"));
        let blocks = result["content"].as_array().into_iter().flatten();
        Self {
            is_error: result["isError"].as_bool().unwrap_or(false),
            text: blocks.filter_map(|block| block["text"].as_str()).collect::<Vec<_>>().join("\n"),
            structured: result["structuredContent"].clone(),
            meta: result["_meta"].clone(),
        }
    }

    /// The text of a call that succeeded.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert!(!self.is_error, "the call failed: {}", self.text);
        &self.text
    }

    /// The text of a call that was refused or failed with this code.
    ///
    /// # Panics
    /// When it succeeded or failed otherwise.
    #[track_caller]
    pub fn code(&self, code: &str) -> &str {
        assert!(self.is_error, "the call succeeded: {}", self.text);
        assert!(self.text.contains(code), "expected {code}: {}", self.text);
        &self.text
    }

    /// The text of a program that failed by itself.
    ///
    /// # Panics
    /// When the call succeeded.
    #[track_caller]
    pub fn failed(&self) -> &str {
        assert!(self.is_error, "the call succeeded: {}", self.text);
        &self.text
    }
}
