//! A front launched by a test, and the server that it found.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

/// How long anything may take before a test fails.
pub const SOON: Duration = Duration::from_secs(20);

/// A state directory of a test. Dropping it kills the server in it, by process id.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
        command.env_clear().env("HOME", self.path()).env("GRPC_PORT", "0");
        command.arg("--state-dir").arg(self.path()).args(args);
        command
    }

    /// A front with pipes.
    pub fn front(&self, args: &[&str]) -> Front {
        Front::launch(self.command(args))
    }

    /// A front that has been greeted.
    pub fn client(&self) -> Front {
        let mut front = self.front(&[]);
        front.greet();
        front
    }

    /// The process that listens for fronts, by the kernel's word.
    pub fn server(&self) -> Option<u32> {
        let socket = std::os::unix::net::UnixStream::connect(self.path().join("server.sock")).ok()?;
        let peer = rustix::net::sockopt::socket_peercred(&socket).ok()?;
        u32::try_from(peer.pid.as_raw_nonzero().get()).ok()
    }

    /// What the server wrote for its operator.
    pub fn diagnostics(&self) -> String {
        let files = fs::read_dir(self.path().join("logs")).unwrap().flatten();
        files.map(|file| fs::read_to_string(file.path()).unwrap_or_default()).collect()
    }

    pub fn socket_files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path()).unwrap().flatten().map(|entry| entry.path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "sock")).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(server) = self.server() {
            signal(server, Signal::KILL);
        }
    }
}

pub struct Front {
    pub child: Child,
    pub stdin: Option<ChildStdin>,
    pub stdout: BufReader<ChildStdout>,
    pub stderr: ChildStderr,
}

impl Front {
    pub fn launch(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = child.stderr.take().unwrap();
        Self { child, stdin, stdout, stderr }
    }

    pub fn send(&mut self, message: &Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{message}").unwrap();
    }

    /// The next message; every line of stdout must be one.
    pub fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("no protocol ({e}): {line:?}"));
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        message
    }

    pub fn greet(&mut self) {
        self.send(&hello());
        assert_eq!(self.receive()["id"], 0);
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    }

    pub fn echo(&mut self, text: &str) {
        self.send(&echo(text));
        let answer = self.receive();
        assert!(!answer["result"]["isError"].as_bool().unwrap_or(false), "{answer}");
        assert!(answer["result"]["content"][0]["text"].as_str().unwrap().contains(text), "{answer}");
    }

    /// Closes the client's side and waits for the end.
    pub fn close(&mut self) -> ExitStatus {
        self.stdin = None;
        self.wait()
    }

    pub fn signal(&self, which: Signal) {
        signal(self.child.id(), which);
    }

    pub fn wait(&mut self) -> ExitStatus {
        poll("the process ends", || self.child.try_wait().unwrap())
    }

    /// What stdout still holds once the process has ended; every line must be protocol.
    pub fn rest_of_stdout(&mut self) -> Vec<Value> {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        rest.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"))).collect()
    }

    pub fn said_on_stderr(&mut self) -> String {
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // Most tests have waited for it already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn hello() -> Value {
    let client = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
}

pub fn echo(text: &str) -> Value {
    let params = json!({"name": "echo", "arguments": {"message": text}});
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
}

pub fn signal(pid: u32, which: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // One that is gone already is what the callers want.
    let _ = rustix::process::kill_process(pid, which);
}

/// Whether a process is there and no zombie.
pub fn is_running(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit(')').next().unwrap().trim_start().chars().next();
    !matches!(state, Some('Z' | 'X') | None)
}

/// Living processes below `pid`.
pub fn below(pid: u32) -> Vec<u32> {
    let parent_of = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
    };
    let all: Vec<u32> =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(all.iter().filter(|p| parent_of(**p) == Some(parent) && is_running(**p)));
        next += 1;
    }
    found.split_off(1)
}

/// Asks until the answer is `Some`.
pub fn poll<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < SOON, "{what}: not within {SOON:?}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
