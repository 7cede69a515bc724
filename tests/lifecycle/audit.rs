//! The log: everything is in it, it verifies, and it says so when it does not.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use e2e::Installation;
use serde_json::{Value, json};

fn records(installation: &Installation) -> Vec<Value> {
    let query = installation.run(["audit", "query", "--json"]);
    assert!(query.status.success(), "{}", String::from_utf8_lossy(&query.stderr));
    String::from_utf8_lossy(&query.stdout).lines().map(|l| serde_json::from_str(l).expect("a record a line")).collect()
}

fn segment(installation: &Installation) -> PathBuf {
    let dir = installation.state_dir().join("audit");
    let mut segments: Vec<PathBuf> = fs::read_dir(dir)
        .expect("the log's directory")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    segments.sort();
    segments.remove(0)
}

fn used_and_stopped() -> Installation {
    let installation = Installation::new();
    let mut client = installation.client();
    client.tool("fs_write", json!({"path": "a.txt", "contents": "a"})).ok();
    client.tool("run_python", json!({"code": "print(open('a.txt').read())"})).ok();
    client.tool("fs_read", json!({"path": "../../etc/passwd"})).code("PATH_VIOLATION");
    client.close();
    installation.stop_server();
    installation
}

#[test]
fn each_action_is_an_attempt_and_an_outcome_and_each_refusal_is_there() {
    let installation = used_and_stopped();
    let records = records(&installation);
    let of = |kind: &str, tool: &str| records.iter().filter(|r| r["type"] == kind && r["tool"] == tool).count();
    assert_eq!(of("task.attempt", "run_python"), 1);
    assert_eq!(of("task.outcome", "run_python"), 1);
    assert_eq!(of("task.attempt", "fs_write"), 1);
    assert_eq!(of("task.outcome", "fs_write"), 1);
    let refused = records.iter().find(|r| r["type"] == "call.refused").expect("the refusal is recorded");
    assert_eq!(refused["code"], "PATH_VIOLATION");
    let attempt = records.iter().find(|r| r["type"] == "task.attempt").expect("an attempt");
    assert_eq!(attempt["level"], "full");
    assert!(attempt["lease"].is_object() && attempt["session"].is_string());
}

#[test]
fn a_whole_log_verifies_and_a_changed_one_names_the_record() {
    let installation = used_and_stopped();
    assert_eq!(installation.run(["audit", "verify"]).status.code(), Some(0));
    let path = segment(&installation);
    let text = fs::read(&path).expect("a segment");
    let place = text.windows(5).position(|w| w == b"a.txt").expect("a path in the log");
    fs::File::options()
        .write(true)
        .open(&path)
        .expect("the segment")
        .write_all_at(b"b", place as u64)
        .expect("a write");
    let verify = installation.run(["audit", "verify"]);
    assert_eq!(verify.status.code(), Some(10), "{}", String::from_utf8_lossy(&verify.stdout));
    let said = [verify.stdout, verify.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("record") && said.contains(".jsonl"), "the first bad record is named: {said}");
}

#[test]
fn a_log_that_was_changed_stops_the_server_from_starting() {
    let installation = used_and_stopped();
    let path = segment(&installation);
    let text = fs::read(&path).expect("a segment");
    let last_record = text[..text.len() - 1].iter().rposition(|b| *b == b'\n').expect("several records");
    let place = last_record + 20;
    fs::File::options()
        .write(true)
        .open(&path)
        .expect("the segment")
        .write_all_at(b"#", place as u64)
        .expect("a write");
    let mut client = installation.silent_client::<&str>([]);
    assert!(!client.wait().success());
}

#[test]
fn a_log_cut_after_a_checkpoint_kept_elsewhere_is_found_out() {
    let installation = used_and_stopped();
    let note = installation.run(["audit", "checkpoint"]);
    assert!(note.status.success());
    let kept = installation.outside().join("checkpoint.note");
    fs::write(&kept, note.stdout).expect("a file");
    let kept = kept.to_str().expect("a path").to_owned();
    assert_eq!(installation.run(["audit", "verify", "--checkpoint", &kept]).status.code(), Some(0));
    let path = segment(&installation);
    let text = fs::read(&path).expect("a segment");
    let ends: Vec<usize> = text.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(n, _)| n + 1).collect();
    let keep = ends[ends.len() - 4];
    fs::File::options().write(true).open(&path).expect("the segment").set_len(keep as u64).expect("cutting");
    assert_eq!(installation.run(["audit", "verify", "--checkpoint", &kept]).status.code(), Some(11));
}

#[test]
fn secrets_and_long_values_are_not_in_the_log() {
    let installation = Installation::new();
    let mut client = installation.client();
    let secret = "hunter2-hunter2";
    client.tool("run_python", json!({"code": "pass", "env": {"API_TOKEN": secret}})).ok();
    let long = "confidential ".repeat(100);
    client.tool("fs_write", json!({"path": "long.txt", "contents": long})).ok();
    client.close();
    installation.stop_server();
    let log = fs::read_to_string(segment(&installation)).expect("a segment");
    assert!(!log.contains(secret) && !log.contains("confidential"));
    assert!(log.contains("sha256"));
}
