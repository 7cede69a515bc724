//! The whole product, whose log is under faults: an error, a full disk or a kill at the n-th system call on it of a thread,
//! for each n that a thread comes to.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use e2e::{Client, Installation};
use serde_json::{Value, json};

/// How many calls are made in each run.
const CALLS: usize = 3;
/// More system calls of one name than a run has on the log.
const FAULTS_MAX: usize = 60;

/// The strace that these tests inject faults with.
pub fn strace() -> PathBuf {
    let named = std::env::var_os("CODEGEN_TEST_STRACE").map(PathBuf::from);
    let found = named.or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|dir| dir.join("strace")).find(|path| path.is_file())
    });
    found.expect("strace is needed: `make test` brings it (Debian, Ubuntu: apt install strace)")
}

/// The server in one process, with a fault, in the words of strace, under its calls on the log's files. Its worker is let go
/// of when it begins.
fn faulty(installation: &Installation, fault: &str) -> Command {
    let product = installation.command(["--standalone"]);
    let log = installation.state_dir().join("audit");
    let mut command = Command::new(strace());
    command.env_clear().envs(product.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.args(["-f", "-qq", "-b", "execve", "-o"]).arg(installation.outside().join("trace"));
    let first = format!("segment-{:020}.jsonl", 1);
    for file in ["", "writer.lock", &first, "checkpoints", "checkpoints/.new", "keys/.checkpoint.key.new"] {
        command.arg("-P").arg(log.join(file).components().collect::<PathBuf>());
    }
    let calls = fault.split(':').next().unwrap_or_default();
    command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={fault}")]);
    command.arg(product.get_program()).args(product.get_args());
    command
}

/// What a client knows of its calls.
#[derive(Default)]
struct Known {
    session: Option<Value>,
    acknowledged: Vec<usize>,
    said: Vec<String>,
}

fn work(client: &mut Client) -> Known {
    let mut known = Known::default();
    let greeting = json!({"name": "e2e", "version": "1"});
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": greeting});
    if client.request_unless_gone("initialize", hello).is_none() {
        return known;
    }
    while known.session.is_none() {
        let Some(created) = client.tool_unless_gone("session_create", json!({})) else { return known };
        known.session = created.structured.get("session_id").cloned().filter(|_| !created.is_error);
        // The log recovers by itself.
        assert!(known.session.is_some() || known.said.len() < 1_000, "{:?}", known.said.last());
        known.said.extend(created.is_error.then_some(created.text));
    }
    for call in 0..CALLS {
        let arguments = json!({"session_id": known.session, "command": format!("echo call-{call} >> ran.txt")});
        match client.tool_unless_gone("run_shell", arguments) {
            Some(answer) if answer.is_error => known.said.push(answer.text),
            Some(_) => known.acknowledged.push(call),
            None => break,
        }
    }
    known
}

/// Works under one fault, then starts without any, and compares. Gives whether the fault came about.
fn survives(fault: &str) -> bool {
    let installation = Installation::new();
    let mut client = Client::launch(faulty(&installation, fault));
    let known = work(&mut client);
    client.close();
    let trace = fs::read(installation.outside().join("trace")).unwrap_or_default();
    let trace = String::from_utf8_lossy(&trace).into_owned();
    assert!(
        fault.contains("KILL") || !known.said.iter().any(|text| !text.contains("AUDIT_UNAVAILABLE")),
        "{fault}: {:?}",
        known.said
    );

    let mut after = installation.client();
    let ran = known.session.as_ref().map_or_else(String::new, |session| {
        let read = after.tool("fs_read", json!({"session_id": session, "path": "ran.txt"}));
        if read.is_error { read.code("NOT_FOUND").to_owned() } else { read.text }
    });
    after.close();
    installation.stop_server();
    let verify = installation.run(["audit", "verify"]);
    assert_eq!(verify.status.code(), Some(0), "{fault}: {}", String::from_utf8_lossy(&verify.stdout));
    let query = installation.run(["audit", "query", "--json"]);
    let records: Vec<Value> = String::from_utf8_lossy(&query.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a record a line"))
        .collect();
    for call in 0..CALLS {
        let command = format!("echo call-{call} >> ran.txt");
        let attempts: Vec<&Value> = records
            .iter()
            .filter(|r| r["type"] == "task.attempt" && r["args"]["command"] == command.as_str())
            .collect();
        let runs = ran.lines().filter(|line| line.ends_with(&format!("call-{call}"))).count();
        assert!(
            runs <= 1 && (attempts.len() == 1 || (attempts.is_empty() && runs == 0)),
            "{fault}: call {call}: {attempts:?}, ran {runs} times"
        );
        let ends = |kind: &str| {
            attempts
                .iter()
                .any(|a| records.iter().any(|r| r["type"] == kind && r["cites"] == a["seq"] && r["task"] == a["task"]))
        };
        if known.acknowledged.contains(&call) {
            assert!(runs == 1 && ends("task.outcome"), "{fault}: call {call} was acknowledged");
        }
        let is_settled = ["task.outcome", "task.unknown", "log.withdrawn"].into_iter().any(ends);
        assert!(attempts.is_empty() || is_settled, "{fault}: call {call} has no end");
    }
    trace.contains("(INJECTED)") || trace.contains("killed by SIGKILL")
}

fn every_call_of(names: &[&str], fault: &str) {
    for name in names {
        let faults = (1..FAULTS_MAX).take_while(|n| survives(&format!("{name}:{fault}:when={n}"))).count();
        assert!(faults > 0 && faults + 1 < FAULTS_MAX, "{name}: {faults} faults");
    }
}

#[test]
fn an_error_of_the_disk_at_the_nth_sync_of_a_thread_on_the_log_loses_no_acknowledged_call_and_runs_none_unrecorded() {
    every_call_of(&["fdatasync", "fsync"], "error=EIO");
}

#[test]
fn an_error_of_the_disk_at_the_nth_write_of_a_thread_to_the_log_loses_no_acknowledged_call_and_runs_none_unrecorded() {
    every_call_of(&["pwrite64", "write", "rename"], "error=EIO");
}

#[test]
fn an_error_of_the_disk_at_the_nth_open_of_a_thread_on_the_log_loses_no_acknowledged_call_and_runs_none_unrecorded() {
    every_call_of(&["openat"], "error=EIO");
}

#[test]
fn no_space_at_the_nth_call_of_a_thread_on_the_log_loses_no_acknowledged_call_and_runs_none_unrecorded() {
    every_call_of(&["pwrite64", "fallocate", "openat"], "error=ENOSPC");
}

#[test]
fn no_space_at_the_nth_sync_or_new_file_of_a_thread_on_the_log_loses_no_acknowledged_call_and_runs_none_unrecorded() {
    every_call_of(&["fdatasync", "write", "rename"], "error=ENOSPC");
}

#[test]
fn a_kill_at_the_nth_write_of_a_thread_to_the_log_loses_no_acknowledged_call_and_runs_none_unrecorded() {
    every_call_of(&["pwrite64", "write", "rename"], "signal=KILL");
}

#[test]
fn a_kill_at_the_nth_open_of_a_thread_on_the_log_loses_no_acknowledged_call_and_runs_none_unrecorded() {
    every_call_of(&["openat"], "signal=KILL");
}

#[test]
fn a_kill_at_the_nth_sync_of_a_thread_on_the_log_loses_no_acknowledged_call_and_runs_none_unrecorded() {
    every_call_of(&["fdatasync", "fsync"], "signal=KILL");
}
