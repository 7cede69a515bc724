//! What goes wrong between two steps: the log fails, a worker refuses, the process ends.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use codegen_audit::{EventKind, Outcome, Record};
use codegen_types::{ErrorCode, Failure, LogSeq, OperationResult, TaskId};
use coordinator::session::{CreateSession, SessionOptions, TaskCall, TaskPhase};
use coordinator::store::{SessionStore, Sqlite, TaskRow, TaskStore};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::restart::{after_kill, ground, records};
use super::rig::{Double, Ground, Rig, Script, ann, call, code, keyed, options, stdout, until};

fn fail_the_log_while_opening(rig: &Rig) {
    let audit = rig.audit.clone();
    *rig.fleet.on_open.lock() = Some(Box::new(move || audit.set_memory_fault(Some("the disk is full"))));
}

fn end_the_fault(rig: &Rig) {
    *rig.fleet.on_open.lock() = None;
    rig.audit.set_memory_fault(None);
}

/// Attempts without, and with more than, one record that closes them.
fn wrongly_closed(records: &[Record]) -> Vec<(TaskId, usize)> {
    let closings = |attempt: &Record| {
        let closes = |r: &&Record| {
            matches!(r.kind, EventKind::TaskOutcome | EventKind::TaskUnknown | EventKind::LogWithdrawn)
                && r.task == attempt.task
                && r.cites == Some(attempt.seq)
        };
        records.iter().filter(closes).count()
    };
    let attempts = records.iter().filter(|record| record.kind == EventKind::TaskAttempt);
    attempts.map(|attempt| (attempt.task.unwrap(), closings(attempt))).filter(|(_, count)| *count != 1).collect()
}

#[tokio::test]
async fn a_session_whose_reopening_cannot_be_recorded_is_ended_again_and_reopens_when_the_log_is_back() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    rig.news.send(rig.fleet.leave()).await.unwrap();
    rig.reaches(session, "suspended").await;
    rig.news.send(rig.fleet.join()).await.unwrap();
    fail_the_log_while_opening(&rig);
    assert_eq!(code(&rig.run(call(session)).await), Some(ErrorCode::AuditUnavailable));
    assert_eq!(rig.state(session), "suspended");
    assert_eq!(rig.fleet.closed().last().map(|(_, deleted)| *deleted), Some(false), "its processes are ended");
    end_the_fault(&rig);
    assert_eq!(stdout(&rig.run(call(session)).await), "ok");
}

#[tokio::test]
async fn a_new_session_that_cannot_be_recorded_as_open_leaves_nothing_behind() {
    let ground = Ground::in_memory();
    let rig = Rig::with(ground.clone(), options()).await;
    fail_the_log_while_opening(&rig);
    let failed = rig.sessions.create(&ann(), CreateSession::default()).await.unwrap_err();
    assert_eq!(failed.code, ErrorCode::AuditUnavailable);
    assert_eq!(rig.fleet.closed().last().map(|(_, deleted)| *deleted), Some(true), "its sandbox and files are gone");
    assert!(rig.sessions.list(&ann(), true).is_empty());
    assert!(ground.sessions.sessions().await.unwrap().is_empty(), "nor is there a row of it");
    end_the_fault(&rig);
    rig.create().await;
}

#[tokio::test]
async fn a_refusal_that_another_placement_would_not_change_is_final_and_leaves_other_tasks_alone() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    let gate = Arc::new(Notify::new());
    rig.fleet.script(Script::Gate(Arc::clone(&gate)));
    let (sessions, long) = (rig.sessions.clone(), call(session));
    let neighbour = tokio::spawn(async move { sessions.run(long, mpsc::channel(1).0, CancellationToken::new()).await });
    until("it runs", || rig.fleet.dispatched().len() == 1).await;
    for refusal in [ErrorCode::NoCapacity, ErrorCode::InvalidArgument, ErrorCode::TaskCancelled] {
        rig.fleet.script(Script::Refuse(refusal));
        let refused = rig.run(call(session)).await;
        assert_eq!(code(&refused), Some(refusal));
        assert_eq!(rig.records_of(refused.task).len(), 2);
    }
    // The worker is there and runs the neighbour, so that it is not made to take the session up anew.
    rig.fleet.script(Script::NotStarted);
    assert_eq!(code(&rig.run(call(session)).await), Some(ErrorCode::WorkerUnavailable));
    assert_eq!((rig.fleet.dispatched().len(), rig.fleet.opened().len()), (5, 1));
    gate.notify_one();
    assert_eq!(code(&neighbour.await.unwrap()), None);
    assert_eq!(wrongly_closed(&rig.audit.memory_records()), []);
}

#[tokio::test]
async fn every_attempt_has_one_closing_record_also_of_reads_and_of_what_was_placed_again() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    for read_only in [false, true] {
        rig.fleet.script(Script::NotStarted);
        let placed_again = rig.run(TaskCall { read_only, ..call(session) }).await;
        assert_eq!(stdout(&placed_again), "ok");
        assert_eq!(rig.records_of(placed_again.task).len(), 4);
        rig.fleet.script(Script::NotStarted);
        rig.fleet.script(Script::NotStarted);
        assert_eq!(code(&rig.run(TaskCall { read_only, ..call(session) }).await), Some(ErrorCode::WorkerUnavailable));
        rig.fleet.script(Script::NotStarted);
        fail_the_log_while_opening(&rig);
        let cut_off = rig.run(TaskCall { read_only, ..call(session) }).await;
        assert_eq!(code(&cut_off), Some(ErrorCode::AuditUnavailable));
        end_the_fault(&rig);
        assert_eq!(stdout(&rig.run(call(session)).await), "ok");
    }
    assert_eq!(wrongly_closed(&rig.audit.memory_records()), []);
}

#[tokio::test]
async fn a_read_that_takes_its_time_is_in_the_log_before_it_ends() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    let gate = Arc::new(Notify::new());
    // Also when it was placed once more.
    rig.fleet.script(Script::NotStarted);
    rig.fleet.script(Script::Gate(Arc::clone(&gate)));
    let read = TaskCall { read_only: true, ..call(session) };
    let task = read.task;
    let reading = tokio::spawn({
        let sessions = rig.sessions.clone();
        async move { sessions.run(read, mpsc::channel(1).0, CancellationToken::new()).await }
    });
    let kinds = || rig.records_of(task).iter().map(|record| record.kind).collect::<Vec<_>>();
    let placed = [EventKind::TaskAttempt, EventKind::TaskOutcome];
    until("the attempt is on record", || kinds() == [&placed[..], &placed[..1]].concat()).await;
    gate.notify_one();
    assert_eq!(code(&reading.await.unwrap()), None);
    assert_eq!(kinds(), [placed, placed].concat());
    assert_eq!(wrongly_closed(&rig.audit.memory_records()), []);
}

#[tokio::test]
async fn while_the_log_fails_not_even_a_read_is_done() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    rig.audit.set_memory_fault(Some("the disk is full"));
    // The first one to need it finds out.
    rig.run(call(session)).await;
    let read = || rig.run(TaskCall { read_only: true, ..call(session) });
    assert_eq!(code(&read().await), Some(ErrorCode::AuditUnavailable));
    assert_eq!(rig.fleet.dispatched().len(), 0);
    rig.audit.set_memory_fault(None);
    assert_eq!(stdout(&read().await), "ok");
}

#[tokio::test]
async fn files_that_could_not_be_deleted_are_deleted_later() {
    let soon = SessionOptions { cleanup_interval: Duration::from_millis(20), ..options() };
    let rig = Rig::with(Ground::in_memory(), soon).await;
    let session = rig.create().await.id;
    rig.fleet.fail_close(Some(Failure::new(ErrorCode::Internal, "busy")));
    assert_eq!(rig.sessions.close(&ann(), session).await.unwrap().state, "closing");
    rig.fleet.fail_close(None);
    rig.reaches(session, "closed").await;
}

#[tokio::test]
async fn what_was_done_under_a_key_is_not_done_again_when_the_store_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let first = Rig::with(ground(dir.path(), Double::default()).await, options()).await;
    let session = first.create().await.id;
    let done = first.run(keyed(session, "done")).await;
    first.fleet.script(Script::Hang);
    let (sessions, running) = (first.sessions.clone(), keyed(session, "running"));
    tokio::spawn(async move { sessions.run(running, mpsc::channel(1).0, CancellationToken::new()).await });
    until("it runs", || first.fleet.dispatched().len() == 2).await;
    let copy = after_kill(dir.path());
    lose_the_store(copy.path());
    let second = Rig::with(ground(copy.path(), first.fleet.clone()).await, options()).await;
    assert_eq!(code(&second.run(keyed(session, "running")).await), Some(ErrorCode::TaskOutcomeUnknown));
    let again = second.run(keyed(session, "done")).await;
    assert_eq!((code(&again), again.task, again.audit_seq), (None, done.task, done.audit_seq));
    assert_eq!(second.fleet.dispatched().len(), 2, "nothing was dispatched again");
    assert_eq!(stdout(&second.run(keyed(session, "new")).await), "ok");
    second.audit.close().await;
    assert_eq!(wrongly_closed(&records(copy.path())), []);
}

#[tokio::test]
async fn how_tasks_ended_is_known_when_the_store_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let first = Rig::with(ground(dir.path(), Double::default()).await, options()).await;
    let session = first.create().await.id;
    let done = first.run(call(session)).await.task;
    let looked = first.run(TaskCall { read_only: true, ..call(session) }).await.task;
    first.fleet.script(Script::Hang);
    let (sessions, running) = (first.sessions.clone(), call(session));
    let cut_off = running.task;
    tokio::spawn(async move { sessions.run(running, mpsc::channel(1).0, CancellationToken::new()).await });
    until("it runs", || first.fleet.dispatched().len() == 3).await;
    let copy = after_kill(dir.path());
    lose_the_store(copy.path());
    let second = Rig::with(ground(copy.path(), first.fleet.clone()).await, options()).await;
    let listed = second.sessions.tasks(&ann(), None, 10).await.unwrap();
    let phases: Vec<_> = listed.iter().map(|info| (info.task, info.phase, info.session)).collect();
    assert_eq!(phases, [(cut_off, TaskPhase::Unknown, session), (done, TaskPhase::Finished, session)]);
    let seen = second.sessions.task(&ann(), done).await.unwrap();
    let completed = seen.outcome.unwrap().result.expect("the log says how it ended");
    let Some(OperationResult::Exec(exit)) = completed.result else { panic!("it was a program") };
    assert_eq!((exit.code, exit.notes.len()), (Some(0), 1), "that what it wrote is lost is said");
    assert!(second.sessions.task(&ann(), looked).await.is_err(), "looks are no tasks that are kept");
    second.audit.close().await;
    assert_eq!(wrongly_closed(&records(copy.path())), []);
}

#[tokio::test]
async fn an_outcome_that_was_kept_but_never_recorded_is_recorded_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let first = Rig::with(ground(dir.path(), Double::default()).await, options()).await;
    let session = first.create().await.id;
    let task = first.run(keyed(session, "key")).await.task;
    let copy = after_kill(dir.path());
    // As the log and the store are when the log failed from the outcome on, until the process was killed.
    let outcome = records(copy.path()).into_iter().rfind(|r| r.task == Some(task)).unwrap();
    assert_eq!(outcome.kind, EventKind::TaskOutcome);
    cut_the_log_before(copy.path(), outcome.seq);
    let store = Sqlite::open(&copy.path().join("state.db")).await.unwrap();
    let row = store.task(task).await.unwrap().unwrap();
    store.put_task(TaskRow { outcome_seq: None, revision: row.revision + 1, ..row }).await.unwrap();
    store.close().await;

    let second = Rig::with(ground(copy.path(), first.fleet.clone()).await, options()).await;
    let replayed = second.run(keyed(session, "key")).await;
    assert_eq!((stdout(&replayed), replayed.task), ("ok".to_owned(), task));
    second.audit.close().await;
    let records = records(copy.path());
    let recorded = records.iter().find(|r| Some(r.seq) == replayed.audit_seq).unwrap();
    assert_eq!((recorded.kind, recorded.outcome), (EventKind::TaskOutcome, Some(Outcome::Ok)));
    assert_eq!(wrongly_closed(&records), []);
}

#[tokio::test]
async fn a_session_that_was_given_up_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let brief = SessionOptions {
        retention: Duration::from_millis(300),
        cleanup_interval: Duration::from_millis(50),
        ttl_default: Duration::from_secs(1),
        ..options()
    };
    let first = Rig::with(ground(dir.path(), Double::default()).await, brief).await;
    let session = first.create().await.id;
    let early = after_kill(dir.path());
    first.reaches(session, "forgotten").await;
    let copy = after_kill(dir.path());
    lose_the_store(copy.path());
    for name in STORE {
        let _ = std::fs::copy(early.path().join(name), copy.path().join(name));
    }
    for _ in 0..2 {
        let again = Rig::with(ground(copy.path(), first.fleet.clone()).await, options()).await;
        assert_eq!(again.state(session), "forgotten");
        again.supervisor.cancel();
        again.audit.close().await;
    }
    let store = Sqlite::open(&copy.path().join("state.db")).await.unwrap();
    assert!(store.sessions().await.unwrap().is_empty());
}

const STORE: [&str; 3] = ["state.db", "state.db-wal", "state.db-shm"];

fn lose_the_store(dir: &Path) {
    for name in STORE {
        let _ = std::fs::remove_file(dir.join(name));
    }
}

/// Cuts the one segment of a log before a record.
fn cut_the_log_before(dir: &Path, seq: LogSeq) {
    let mut segments = std::fs::read_dir(dir.join("audit")).unwrap().map(|entry| entry.unwrap().path());
    let segment = segments.find(|path| path.extension().is_some_and(|ext| ext == "jsonl")).unwrap();
    let contents = std::fs::read(&segment).unwrap();
    let text = String::from_utf8_lossy(&contents);
    let kept: String = text.lines().take(usize::try_from(seq.0).unwrap() - 1).flat_map(|line| [line, "\n"]).collect();
    std::fs::write(&segment, kept).unwrap();
}
