//! A server over HTTP with tokens, and what curl gets of it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};

use e2e::Installation;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A server with a token of an operator, `ann`. Dropping it ends it.
pub struct Server {
    running: Running,
    pub url: String,
    pub token: String,
    pub installation: Installation,
}

/// The process. Dropping it ends it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _reaped = self.0.wait();
    }
}

impl Server {
    pub fn start() -> Self {
        Self::with(Installation::new(), &[])
    }

    /// With options, on what an earlier server left.
    pub fn with(installation: Installation, options: &[&str]) -> Self {
        let token = token(&installation, "ann", "tools,sessions,admin");
        let mut command = installation.command(["--grpc-port", "0"]);
        command.args(options).args(["serve", "--http", "127.0.0.1:0"]);
        // The suite asks more often than any user may.
        command.env("HTTP_RATE", "1000/s burst 10000");
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the server starts");
        let stderr = child.stderr.take().expect("a pipe was asked for");
        let running = Running(child);
        let mut said = String::new();
        BufReader::new(stderr).read_line(&mut said).expect("it says where it is");
        let url = said.split_whitespace().last().expect("a URL").trim_end_matches("/mcp").to_owned();
        Self { running, url, token, installation }
    }

    /// Ends it, and gives what it leaves.
    pub fn end(self) -> Installation {
        let Self { running, installation, .. } = self;
        drop(running);
        installation
    }

    /// A token of somebody who is no operator.
    pub fn token_of(&self, principal: &str) -> String {
        token(&self.installation, principal, "tools,sessions")
    }

    /// A request that is about to be made by whoever has this token.
    pub fn asks(&self, token: &str, path: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("curl");
        let (bearer, url) = (format!("Authorization: Bearer {token}"), format!("{}{path}", self.url));
        command.args(["-sS", "-H", &bearer]).args(arguments).arg(url);
        command
    }

    /// What curl gets, which must be no refusal.
    pub fn curl(&self, path: &str, arguments: &[&str]) -> Vec<u8> {
        let output = self.asks(&self.token, path, &[&["--fail-with-body"], arguments].concat()).output();
        let output = output.expect("curl is there");
        assert!(output.status.success(), "{path}: {output:?}");
        output.stdout
    }

    pub fn json(&self, path: &str, arguments: &[&str]) -> Value {
        serde_json::from_slice(&self.curl(path, arguments)).expect("JSON")
    }

    pub fn post(&self, path: &str, body: &Value) -> Value {
        self.json(path, &["-H", "Content-Type: application/json", "-d", &body.to_string()])
    }

    /// What comes of posting, by whoever has this token: the status and the body. It must come within a minute.
    pub fn posted(&self, token: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let arguments = ["-m", "60", "-H", "Content-Type: application/json", "-d", &body];
        status_and_body(&self.asks(token, path, &arguments).args(WITH_STATUS).output().expect("curl is there"))
    }

    /// Makes a session; its handle.
    pub fn session(&self) -> String {
        self.post("/api/v1/sessions", &json!({}))["session_id"].as_str().expect("a handle").to_owned()
    }
}

/// Has curl say the status after the body.
pub const WITH_STATUS: [&str; 2] = ["-w", "\n%{http_code}"];

/// What curl said that was asked [`WITH_STATUS`].
pub fn status_and_body(output: &Output) -> (u16, Value) {
    let said = String::from_utf8_lossy(&output.stdout);
    let (body, status) = said.rsplit_once('\n').unwrap_or_else(|| panic!("{output:?}"));
    (status.parse().expect("a status"), serde_json::from_str(body).unwrap_or(Value::Null))
}

fn token(installation: &Installation, principal: &str, scopes: &str) -> String {
    let made = installation.run(["tokens", "create", "--principal", principal, "--scope", scopes, "--json"]);
    let made: Value = serde_json::from_slice(&made.stdout).expect("a token");
    made["token"].as_str().expect("its text").to_owned()
}
