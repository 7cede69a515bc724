//! What outlives the server: on the real log and SQLite, with crashes simulated by copying what is on disk.

use std::path::Path;
use std::sync::Arc;

use codegen_audit::{Audit, EventKind, Options, Record, Verdict};
use codegen_types::{Epoch, ErrorCode};
use coordinator::session::CreateSession;
use coordinator::store::Sqlite;
use coordinator_core::task::TaskState;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::rig::{Double, Ground, Rig, Script, ann, call, code, keyed, options, stdout, until};

pub async fn ground(dir: &Path, fleet: Double) -> Ground {
    let (audit, _) = Audit::open(Options::new(dir.join("audit"))).await.unwrap();
    let store = Arc::new(Sqlite::open(&dir.join("state.db")).await.unwrap());
    Ground { audit, audit_dir: Some(dir.join("audit")), sessions: store.clone(), tasks: store, fleet }
}

async fn rig(dir: &Path, fleet: Double) -> Rig {
    Rig::with(ground(dir, fleet).await, options()).await
}

pub fn records(dir: &Path) -> Vec<Record> {
    codegen_audit::records(&dir.join("audit"), None).map(Result::unwrap).collect()
}

/// What a machine would find after the process was killed: the files as they are now.
pub fn after_kill(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_all(dir, copy.path());
    copy
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_all(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[tokio::test]
async fn after_a_kill_the_same_handle_works_and_what_ran_is_unknown_and_not_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = rig(dir.path(), Double::default()).await;
    let named = CreateSession { name: Some("mine".to_owned()), ..CreateSession::default() };
    let session = first.sessions.create(&ann(), named).await.unwrap().id;
    let done = first.run(keyed(session, "done")).await;
    first.fleet.script(Script::Hang);
    let (sessions, running) = (first.sessions.clone(), keyed(session, "running"));
    let task = running.task;
    tokio::spawn(async move { sessions.run(running, mpsc::channel(1).0, CancellationToken::new()).await });
    until("it runs", || first.fleet.dispatched().len() == 2).await;

    let copy = after_kill(dir.path());
    let ground = ground(copy.path(), first.fleet.clone()).await;
    let tasks = Arc::clone(&ground.tasks);
    let second = Rig::with(ground, options()).await;
    let row = tasks.task(task).await.unwrap().unwrap();
    assert!(matches!(row.state, TaskState::Unknown { .. }) && row.ended_ms.is_some(), "{row:?}");
    let snapshot = second.sessions.get(&ann(), session).unwrap();
    assert_eq!(snapshot.name.as_deref(), Some("mine"));
    assert_eq!(stdout(&second.run(call(session)).await), "ok");
    assert!(second.fleet.opened().last().unwrap().epoch > Epoch(1), "by a new assignment");
    let unknown = second.run(keyed(session, "running")).await;
    assert_eq!((code(&unknown), unknown.task), (Some(ErrorCode::TaskOutcomeUnknown), task));
    let replayed = second.run(keyed(session, "done")).await;
    assert_eq!((replayed.task, stdout(&replayed)), (done.task, "ok".to_owned()));
    assert_eq!(second.fleet.dispatched().len(), 3, "only the new call was dispatched");
    second.audit.close().await;
    let ends: Vec<EventKind> = records(copy.path()).iter().filter(|r| r.task == Some(task)).map(|r| r.kind).collect();
    assert_eq!(ends[..2], [EventKind::TaskAttempt, EventKind::TaskUnknown]);
    assert!(codegen_audit::open_attempts(&copy.path().join("audit"), None).unwrap().is_empty());
    let verdict = codegen_audit::verify(&copy.path().join("audit"), None);
    assert!(matches!(verdict.verdict, Verdict::Whole), "{verdict:?}");
}

#[tokio::test]
async fn a_lost_store_is_made_again_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let first = rig(dir.path(), Double::default()).await;
    let described = CreateSession {
        name: Some("mine".to_owned()),
        metadata: serde_json::from_value(json!({"a": 1})).unwrap(),
        ..CreateSession::default()
    };
    let session = first.sessions.create(&ann(), described).await.unwrap().id;
    let closed = first.create().await.id;
    first.run(call(session)).await;
    first.sessions.close(&ann(), closed).await.unwrap();
    let copy = after_kill(dir.path());
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let _ = std::fs::remove_file(copy.path().join(name));
    }
    let second = rig(copy.path(), first.fleet.clone()).await;
    let snapshot = second.sessions.get(&ann(), session).unwrap();
    assert_eq!((snapshot.name.as_deref(), json!(snapshot.metadata)), (Some("mine"), json!({"a": 1})));
    assert_eq!(second.state(closed), "closed");
    assert_eq!(stdout(&second.run(call(session)).await), "ok");
    let epochs: Vec<Epoch> = second.fleet.opened().iter().map(|lease| lease.epoch).collect();
    assert_eq!(epochs.last(), Some(&Epoch(2)), "no epoch is used twice: {epochs:?}");
}

#[tokio::test]
async fn a_store_that_is_behind_the_log_is_brought_forward() {
    let dir = tempfile::tempdir().unwrap();
    let first = rig(dir.path(), Double::default()).await;
    let session = first.create().await.id;
    let early = after_kill(dir.path());
    first.sessions.close(&ann(), session).await.unwrap();
    let copy = after_kill(dir.path());
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let _ = std::fs::remove_file(copy.path().join(name));
        let _ = std::fs::copy(early.path().join(name), copy.path().join(name));
    }
    let second = rig(copy.path(), first.fleet.clone()).await;
    assert_eq!(second.state(session), "closed");
    assert_eq!(code(&second.run(call(session)).await), Some(ErrorCode::SessionClosed));
}

#[tokio::test]
async fn a_server_that_stops_in_good_order_ends_processes_and_keeps_files() {
    let dir = tempfile::tempdir().unwrap();
    let first = rig(dir.path(), Double::default()).await;
    let session = first.create().await.id;
    first.sessions.shutdown().await;
    assert_eq!(first.state(session), "suspended");
    assert!(first.fleet.closed().iter().all(|(_, deleted)| !deleted));
    first.supervisor.cancel();
    first.audit.close().await;
    let second = rig(dir.path(), first.fleet.clone()).await;
    assert_eq!(stdout(&second.run(call(session)).await), "ok");
}
