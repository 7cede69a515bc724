//! The embedded worker's process, with a shell script in its place.

use std::path::Path;
use std::time::Duration;

use codegen_types::ErrorCode;
use coordinator::provision::embedded::{Embedded, EmbeddedOptions};
use coordinator::workers::{Fleet as _, WorkersOptions};

use crate::rig::{Rig, requirements, until, within};

fn script(dir: &Path, script: &str) -> EmbeddedOptions {
    EmbeddedOptions {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), format!("cd '{}'; {script}", dir.display()).into()],
        restart_rest_min: Duration::from_millis(10),
        restart_rest_max: Duration::from_millis(50),
        ..EmbeddedOptions::new("/state/worker.sock", "/state/workspaces")
    }
}

fn lines(dir: &Path, file: &str) -> Vec<String> {
    std::fs::read_to_string(dir.join(file)).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Whether a process is there and is no zombie.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

#[tokio::test]
async fn the_child_gets_a_start_message_a_life_line_and_nothing_else() {
    let rig = Rig::new(WorkersOptions::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let options = script(dir.path(), "read line; echo \"$line\" > start; cat; echo ended > life; exit 0");
    let embedded = Embedded::start(options, rig.workers.clone(), &rig.supervisor);
    until("the start message", || !lines(dir.path(), "start").is_empty()).await;
    let pid = embedded.process_id().unwrap();
    assert_eq!(std::fs::read(format!("/proc/{pid}/environ")).unwrap(), b"", "its environment is empty");
    let group = rustix::process::getpgid(rustix::process::Pid::from_raw(pid.cast_signed())).unwrap();
    assert_eq!(group.as_raw_pid().unsigned_abs(), pid, "its process group is its own");
    let start: worker::StartMessage = serde_json::from_str(&lines(dir.path(), "start")[0]).unwrap();
    assert_eq!(start.coordinator, "unix:/state/worker.sock");
    assert_eq!((start.worker_id.as_str(), start.sessions_max), ("embedded", 64));
    assert!(start.token.unwrap().len() >= 43);
    assert!(lines(dir.path(), "life").is_empty(), "its standard input is still open");
    within(embedded.stop()).await;
    assert!(!runs(pid));
}

#[tokio::test]
async fn a_child_that_ends_is_started_again_with_a_fresh_token_and_its_last_words_are_told() {
    let rig = Rig::new(WorkersOptions::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let options = script(dir.path(), "read line; echo \"$line\" >> starts; echo 'no \x1bsandbox here' >&2; exit 3");
    let embedded = Embedded::start(options, rig.workers.clone(), &rig.supervisor);
    until("three lives", || lines(dir.path(), "starts").len() >= 3).await;
    let refused = rig.workers.reserve(&requirements(), None).err().unwrap();
    assert_eq!(refused.code, ErrorCode::WorkerUnavailable);
    assert!(refused.message.contains("exit code 3"), "{refused}");
    assert!(refused.message.contains("sandbox here") && !refused.message.contains('\x1b'), "{refused}");
    within(embedded.stop()).await;
    let starts = lines(dir.path(), "starts");
    let token = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap()["token"].clone();
    let tokens: std::collections::BTreeSet<String> = starts.iter().map(|line| token(line).to_string()).collect();
    assert_eq!(tokens.len(), starts.len(), "no token twice");
}

#[tokio::test]
async fn stopping_asks_first() {
    let rig = Rig::new(WorkersOptions::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let options =
        script(dir.path(), "trap 'echo asked > end; exit 0' TERM; read line; echo up > up; while :; do read x; done");
    let embedded = Embedded::start(options, rig.workers.clone(), &rig.supervisor);
    until("it is up", || !lines(dir.path(), "up").is_empty()).await;
    within(embedded.stop()).await;
    assert_eq!(lines(dir.path(), "end"), ["asked"]);
    assert_eq!(embedded.process_id(), None);
}

#[tokio::test]
async fn a_child_that_does_not_end_when_asked_is_killed_with_its_group() {
    let rig = Rig::new(WorkersOptions::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let deaf = "trap '' TERM; read line; sleep 600 & echo $! > child; while :; do wait; done";
    let options = EmbeddedOptions { stop_grace: Duration::from_millis(100), ..script(dir.path(), deaf) };
    let embedded = Embedded::start(options, rig.workers.clone(), &rig.supervisor);
    until("it is up", || !lines(dir.path(), "child").is_empty()).await;
    let (pid, child) = (embedded.process_id().unwrap(), lines(dir.path(), "child")[0].parse().unwrap());
    assert!(runs(pid) && runs(child));
    within(embedded.stop()).await;
    assert!(!runs(pid));
    until("its child is gone as well", || !runs(child)).await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_failure_that_says_so() {
    let rig = Rig::new(WorkersOptions::default()).await;
    let options = EmbeddedOptions { program: "/nowhere/worker".into(), ..script(Path::new("/"), "") };
    let embedded = Embedded::start(options, rig.workers.clone(), &rig.supervisor);
    let told =
        || rig.workers.reserve(&requirements(), None).err().is_some_and(|f| f.message.contains("could not be started"));
    until("the failure", told).await;
    within(embedded.stop()).await;
}
