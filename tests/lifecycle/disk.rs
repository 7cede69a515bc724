//! Disks that are full or stall when a test says so, and a server on them.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::{Client, Installation, is_running, poll_until, processes_of, signal};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::faults;

/// Longer than anything takes here that is to come about.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Calls of [`fill_log`] that take more than the log has allocated ahead.
const CALLS_MAX: usize = 400;

/// A disk of a few MiB. Dropping it takes it away from whoever uses it.
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// A disk of so many MiB at a directory, which is made; `None` where tests may not mount, unless with `CI=true`.
    pub fn at(dir: &Path, mebibytes: u32) -> Option<Self> {
        fs::create_dir_all(dir).expect("a directory");
        let size = std::ffi::CString::new(format!("size={mebibytes}m,mode=0700")).expect("no NUL in it");
        match mount("tmpfs", dir, "tmpfs", MountFlags::NOSUID, size.as_c_str()) {
            Ok(()) => Some(Self { at: dir.to_owned() }),
            Err(why) => skipped(&format!("it needs to mount a small disk: {why}")),
        }
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).expect("a file");
        let mut chunk = vec![b'b'; 1 << 20];
        while !chunk.is_empty() {
            match ballast.write(&chunk) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => chunk.truncate(chunk.len() / 2),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Gives the room back.
    pub fn free(&self) {
        fs::remove_file(self.ballast()).expect("the ballast");
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _gone = unmount(&self.at, UnmountFlags::DETACH);
    }
}

/// A disk whose syncs do not return for as long as this lives: strace holds back whoever of a process calls for one.
pub struct Stall {
    strace: Child,
}

impl Stall {
    /// Begins for this process and its threads; `None` where tests may not trace it, unless with `CI=true`.
    pub fn of(pid: u32, outside: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return skipped("only root may trace a server that runs already");
        }
        let mut command = Command::new(faults::strace());
        command.args([
            "-f",
            "-qq",
            "-e",
            "trace=fdatasync,fsync",
            "-e",
            "inject=fdatasync,fsync:delay_enter=900000000",
        ]);
        command.arg("-o").arg(outside.join("stall")).args(["-p", &pid.to_string()]);
        let strace = command.stdin(Stdio::null()).spawn().expect("strace starts");
        poll_until("every thread is traced", PATIENCE, || all_traced_by(pid, strace.id()).then_some(()));
        Some(Self { strace })
    }

    /// The disk answers again.
    pub fn end(mut self) {
        signal(self.strace.id(), Signal::TERM);
        let _status = self.strace.wait();
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        if matches!(self.strace.try_wait(), Ok(None)) {
            signal(self.strace.id(), Signal::TERM);
            let _status = self.strace.wait();
        }
    }
}

/// Says that the test is skipped, and why; with `CI=true` it fails.
fn skipped<T>(why: &str) -> Option<T> {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test}: {why}");
    eprintln!("SKIPPED {test}: {why}");
    None
}

fn all_traced_by(pid: u32, tracer: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let line = format!("TracerPid:\t{tracer}");
    threads.flatten().all(|thread| {
        fs::read_to_string(thread.path().join("status")).is_ok_and(|status| status.lines().any(|l| l == line))
    })
}

/// A server with a port for HTTP, which fronts of its installation find. Dropping it ends it.
pub struct Server {
    pub child: Child,
    address: String,
}

impl Server {
    pub fn start(installation: &Installation) -> Self {
        Self::launch(Self::command(installation))
    }

    /// How it is started.
    pub fn command(installation: &Installation) -> Command {
        installation.command(["--grpc-port", "0", "serve", "--http", "127.0.0.1:0"])
    }

    /// Starts it by such a command.
    pub fn launch(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the server starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe was asked for"));
        let mut said = String::new();
        stderr.read_line(&mut said).expect("it says where it is");
        // Whatever else it says is read, so that it is never held up.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        let url = said.split_whitespace().last().expect("a URL");
        let address = url.trim_start_matches("http://").trim_end_matches("/mcp").to_owned();
        Self { child, address }
    }

    /// The status and the body of what it answers a GET with.
    pub fn get(&self, path: &str) -> (u16, Value) {
        self.ask(&format!("GET {path}"), "", "")
    }

    /// The same of a request with a token.
    pub fn get_as(&self, path: &str, token: &str) -> (u16, Value) {
        self.ask(&format!("GET {path}"), &format!("Authorization: Bearer {token}\r\n"), "")
    }

    /// The same of putting text there.
    pub fn put_as(&self, path: &str, token: &str, text: &str) -> (u16, Value) {
        let length = text.len();
        let headers = format!("Authorization: Bearer {token}\r\nContent-Length: {length}\r\n");
        self.ask(&format!("PUT {path}"), &headers, text)
    }

    fn ask(&self, what: &str, headers: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        let host = &self.address;
        let request = format!("{what} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("it answers");
        let status = said.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let body = said.split_once("\r\n\r\n").map_or(Value::Null, |(_, body)| {
            serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()))
        });
        (status, body)
    }

    pub fn until_ready(&self, is_ready: bool) -> Value {
        let wanted = if is_ready { 200 } else { 503 };
        poll_until("its readiness is as it should be", PATIENCE, || {
            let (status, body) = self.get("/readyz");
            (status == wanted).then_some(body)
        })
    }

    /// Ends it as an operator does, and waits for that.
    pub fn stop(&mut self) {
        signal(self.child.id(), Signal::TERM);
        let child = &mut self.child;
        poll_until("the server ends after SIGTERM", PATIENCE, || child.try_wait().expect("waiting for a child"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.child.id(), Signal::TERM);
            let _status = self.child.wait();
        }
    }
}

pub fn session(client: &mut Client) -> Value {
    let created = client.tool("session_create", json!({}));
    created.ok();
    created.structured["session_id"].clone()
}

/// A token of this principal.
pub fn token_of(installation: &Installation, principal: &str, more: &[&str]) -> String {
    let made = installation.run([&["tokens", "create", "--principal", principal], more].concat());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8_lossy(&made.stdout).trim().to_owned()
}

/// What the list says of a session, which is no use of it.
pub fn state_of(client: &mut Client, session: &Value) -> Value {
    let listed = client.tool("session_list", json!({})).structured["sessions"].take();
    let row = listed.as_array().expect("sessions").iter().find(|row| row["session_id"] == *session);
    row.unwrap_or_else(|| panic!("{session} is in {listed}"))["state"].clone()
}

pub fn until_suspended(client: &mut Client, session: &Value) {
    poll_until("the idle session is suspended", PATIENCE, || (state_of(client, session) == "suspended").then_some(()));
}

/// A program that ends only when it is ended, and how it is known on the host.
pub struct Endless {
    pub task: String,
    seconds: String,
}

impl Endless {
    pub fn start(client: &mut Client, session: &Value, nickname: u32) -> Self {
        let seconds = format!("86400.{}{nickname}", std::process::id());
        let command = format!("setsid sleep {seconds} & sleep {seconds}");
        let call = json!({"session_id": session, "command": command, "background": true});
        let answer = client.tool("run_shell", call);
        answer.ok();
        let task = answer.meta["codegen/task_id"].as_str().expect("an id").to_owned();
        let endless = Self { task, seconds };
        poll_until("the program runs", PATIENCE, || (endless.processes() >= 2).then_some(()));
        endless
    }

    fn processes(&self) -> usize {
        processes_of(Path::new(&self.seconds)).into_iter().filter(|pid| is_running(*pid)).count()
    }

    pub fn until_gone(&self) {
        poll_until("nothing of the program is left", PATIENCE, || (self.processes() == 0).then_some(()));
    }
}

/// Two sessions with an endless program each: the task of the first is to be cancelled, the second is to be closed.
pub struct Doomed {
    pub kept: Value,
    pub closed: Value,
    pub cancelled: Endless,
    pub ended: Endless,
}

impl Doomed {
    pub fn start(client: &mut Client) -> Self {
        let (kept, closed) = (session(client), session(client));
        let (cancelled, ended) = (Endless::start(client, &kept, 1), Endless::start(client, &closed, 2));
        Self { kept, closed, cancelled, ended }
    }

    /// That each has one end on record, and which.
    pub fn assert_ends_on_record(&self, records: &[Value]) {
        assert_eq!(outcome_code(records, &self.cancelled.task), "TASK_CANCELLED");
        assert!(!outcome_code(records, &self.ended.task).is_null());
        let closings = of_kind(records, "session.closed").into_iter().filter(|record| record["session"] == self.closed);
        assert_eq!(closings.count(), 1);
    }

    /// Has an operator end both, and looks that they end.
    pub fn end_by_an_operator(&self, installation: &Installation) {
        let said = operators_say(installation, &["tasks", "cancel", &self.cancelled.task]);
        assert!(said.contains("was asked to end"), "{said}");
        self.cancelled.until_gone();
        let said = operators_say(installation, &["sessions", "close", self.closed.as_str().expect("a handle")]);
        assert!(said.contains("is closed"), "{said}");
        self.ended.until_gone();
    }

    /// That this operator's commands are on record.
    pub fn assert_operator_on_record(&self, records: &[Value]) {
        let acts: Vec<Value> = of_kind(records, "operator.acted").iter().map(|record| record["tool"].clone()).collect();
        assert_eq!(acts, ["tasks/cancel", "sessions/close"]);
    }
}

/// What an operator's command says when it has done what it was to.
fn operators_say(installation: &Installation, command: &[&str]) -> String {
    let output = installation.run(command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The code of the one outcome of a task.
pub fn outcome_code(records: &[Value], task: &str) -> Value {
    let outcomes: Vec<Value> =
        of_kind(records, "task.outcome").into_iter().filter(|record| record["task"] == task).collect();
    assert_eq!(outcomes.len(), 1, "{task}: {outcomes:?}");
    outcomes[0]["code"].clone()
}

/// Makes calls, all of them refused and on record, until the log has no room for another.
pub fn fill_log(client: &mut Client) {
    let padding: Vec<String> = (0..200).map(|n| format!("{n}{}", "x".repeat(240))).collect();
    for _ in 0..CALLS_MAX {
        let answer = client.tool("echo", json!({"message": "a", "padding": padding}));
        if answer.text.contains("AUDIT_UNAVAILABLE") {
            return;
        }
        answer.code("INVALID_ARGUMENT");
    }
    panic!("the log takes records without end");
}

/// All records, of a log that verifies.
pub fn verified_records(installation: &Installation) -> Vec<Value> {
    let verify = installation.run(["audit", "verify"]);
    assert_eq!(verify.status.code(), Some(0), "{}", String::from_utf8_lossy(&verify.stdout));
    let query = installation.run(["audit", "query", "--json"]);
    let lines = String::from_utf8_lossy(&query.stdout).into_owned();
    lines.lines().map(|line| serde_json::from_str(line).expect("a record a line")).collect()
}

pub fn of_kind(records: &[Value], kind: &str) -> Vec<Value> {
    records.iter().filter(|record| record["type"] == kind).cloned().collect()
}

/// The files of the log, the oldest first.
pub fn segments(installation: &Installation) -> Vec<PathBuf> {
    let files =
        fs::read_dir(installation.state_dir().join("audit")).expect("the log").flatten().map(|file| file.path());
    let mut segments: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect();
    segments.sort();
    segments
}
