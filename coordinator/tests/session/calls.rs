//! Promises about one call: recorded before it acts and before it is answered, at most once, bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use codegen_audit::{EventKind, Outcome};
use codegen_types::{ErrorCode, Exec, Operation, Principal, Program, SessionId, TraceContext};
use coordinator::session::TaskCall;
use serde_json::json;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::restart::ground;
use super::rig::{Double, Ground, Rig, Script, ann, call, code, keyed, options, stdout, until};

#[tokio::test]
async fn the_attempt_and_the_row_are_there_before_dispatch_and_the_outcome_before_the_answer() {
    let ground = Ground::in_memory();
    let rig = Rig::with(ground.clone(), options()).await;
    let session = rig.create().await.id;
    let (audit, seen) = (rig.audit.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&seen);
    *rig.fleet.witness.lock() = Some(Box::new(move |dispatch| {
        let attempts = audit.memory_records();
        let attempts = attempts.iter().filter(|r| r.task == Some(dispatch.task) && r.kind == EventKind::TaskAttempt);
        count.fetch_add(attempts.count(), Ordering::Relaxed);
    }));
    let outcome = rig.run(call(session)).await;
    assert_eq!(seen.load(Ordering::Relaxed), 1, "the attempt was in the log at the moment of dispatch");
    let [attempt, end] = &rig.records_of(outcome.task)[..] else { panic!("two records") };
    assert_eq!((end.kind, end.outcome, end.cites), (EventKind::TaskOutcome, Some(Outcome::Ok), Some(attempt.seq)));
    assert_eq!(outcome.audit_seq, Some(end.seq));
    assert_eq!(attempt.called_as.as_deref(), Some("run.python"));
    for record in [attempt, end] {
        assert!(record.lease.is_some() && record.level.is_some(), "lease and level are on every record");
    }
    let row = ground.tasks.task(outcome.task).await.unwrap().unwrap();
    assert_eq!((row.attempt, row.outcome_seq), (attempt.seq, Some(end.seq)));
}

#[tokio::test]
async fn a_call_that_changes_nothing_has_two_records_and_no_row() {
    let ground = Ground::in_memory();
    let rig = Rig::with(ground.clone(), options()).await;
    let outcome = rig.run(TaskCall { read_only: true, ..call(rig.create().await.id) }).await;
    let [attempt, end] = &rig.records_of(outcome.task)[..] else { panic!("two records") };
    assert_eq!((attempt.kind, end.kind), (EventKind::TaskAttempt, EventKind::TaskOutcome));
    // Both are queued at once, so the outcome may name its attempt by the task alone.
    assert!(end.cites.is_none_or(|cited| cited == attempt.seq), "{:?}", end.cites);
    assert_eq!(ground.tasks.task(outcome.task).await.unwrap(), None);
}

/// What goes ahead of a call while its attempt goes to the disk.
#[derive(Debug, PartialEq, Eq)]
enum GoesAhead {
    Task,
    Head,
    Nothing,
}

#[tokio::test]
async fn a_short_acting_call_goes_ahead_to_be_held_by_the_servers_own_worker_and_by_no_other() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let long = |call: &mut TaskCall| {
        let program = Program::PythonCode { code: "1\n".repeat(40_000), args: vec![] };
        call.operation = Operation::Exec(Exec::of(program));
    };
    type Change<'a> = &'a dyn Fn(&mut TaskCall);
    let cases: [(Double, Change<'_>, GoesAhead); 5] = [
        (Double::default(), &|_| {}, GoesAhead::Task),
        (Double::apart(), &|_| {}, GoesAhead::Head),
        (Double::default(), &long, GoesAhead::Head),
        (Double::default(), &|call| call.trace = TraceContext::parse(TRACE, None), GoesAhead::Nothing),
        (Double::default(), &|call| call.read_only = true, GoesAhead::Nothing),
    ];
    for (number, (fleet, change, expected)) in cases.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig::with(ground(dir.path(), fleet).await, options()).await;
        let mut call = call(rig.create().await.id);
        change(&mut call);
        let task = call.task;
        rig.run(call).await.result.unwrap();
        let went = match rig.fleet.ahead()[..] {
            [] => GoesAhead::Nothing,
            [None] => GoesAhead::Head,
            [Some(held)] if held == task => GoesAhead::Task,
            ref other => panic!("{other:?}"),
        };
        assert_eq!(went, expected, "case {number}");
    }
}

#[tokio::test]
async fn without_a_log_nothing_is_run() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    rig.audit.set_memory_fault(Some("the disk is full"));
    assert_eq!(code(&rig.run(call(session)).await), Some(ErrorCode::AuditUnavailable));
    assert_eq!(rig.fleet.dispatched().len(), 0);
    rig.audit.set_memory_fault(None);
    assert_eq!(stdout(&rig.run(call(session)).await), "ok");
}

#[tokio::test]
async fn an_outcome_that_cannot_be_recorded_is_given_under_its_key_once_the_log_recovers() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    let gate = Arc::new(Notify::new());
    rig.fleet.script(Script::Gate(Arc::clone(&gate)));
    let first = keyed(session, "key");
    let task = first.task;
    let running = tokio::spawn({
        let sessions = rig.sessions.clone();
        async move { sessions.run(first, mpsc::channel(1).0, CancellationToken::new()).await }
    });
    until("it runs", || rig.fleet.dispatched().len() == 1).await;
    rig.audit.set_memory_fault(Some("the disk is full"));
    gate.notify_one();
    let outcome = running.await.unwrap();
    let failure = outcome.result.unwrap_err();
    assert_eq!((failure.code, outcome.audit_seq), (ErrorCode::AuditUnavailable, None));
    assert!(failure.message.contains(&task.to_string()), "{failure}");
    rig.audit.set_memory_fault(None);
    // The log in memory recovers when it is next written to.
    rig.run(call(session)).await;
    until("the outcome is on record", || rig.records_of(task).iter().any(|r| r.kind == EventKind::TaskOutcome)).await;
    let mut replayed = rig.run(keyed(session, "key")).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while code(&replayed).is_some() && tokio::time::Instant::now() < deadline {
        tokio::task::yield_now().await;
        replayed = rig.run(keyed(session, "key")).await;
    }
    assert_eq!((code(&replayed), replayed.task, replayed.replayed), (None, task, true));
    assert_eq!(rig.fleet.dispatched().len(), 2, "it was not run again");
}

#[tokio::test]
async fn a_key_joins_the_running_call_and_replays_the_finished_one() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    let gate = Arc::new(Notify::new());
    rig.fleet.script(Script::Gate(Arc::clone(&gate)));
    let run = |call: TaskCall| {
        let sessions = rig.sessions.clone();
        tokio::spawn(async move { sessions.run(call, mpsc::channel(1).0, CancellationToken::new()).await })
    };
    let first = run(keyed(session, "key"));
    until("it runs", || rig.fleet.dispatched().len() == 1).await;
    let second = run(keyed(session, "key"));
    let other = TaskCall { args: json!({"code": "2"}), ..keyed(session, "key") };
    assert_eq!(code(&rig.run(other.clone()).await), Some(ErrorCode::InvalidArgument), "while it runs");
    gate.notify_one();
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((first.task, first.result.is_ok()), (second.task, second.result.is_ok()));
    let third = rig.run(keyed(session, "key")).await;
    assert_eq!((third.task, third.replayed, third.result), (first.task, true, first.result));
    assert_eq!(code(&rig.run(other).await), Some(ErrorCode::InvalidArgument), "when it is over");
    assert_eq!(rig.fleet.dispatched().len(), 1);
}

#[tokio::test]
async fn a_caller_that_vanishes_loses_no_outcome() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    let gate = Arc::new(Notify::new());
    rig.fleet.script(Script::Gate(Arc::clone(&gate)));
    let call = keyed(session, "key");
    let task = call.task;
    let caller = tokio::spawn({
        let sessions = rig.sessions.clone();
        async move { sessions.run(call, mpsc::channel(1).0, CancellationToken::new()).await }
    });
    until("it runs", || rig.fleet.dispatched().len() == 1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    gate.notify_one();
    until("its outcome is recorded", || rig.records_of(task).len() == 2).await;
    until("it has left the session", || rig.sessions.running_tasks() == 0).await;
    let again = rig.run(keyed(session, "key")).await;
    assert_eq!((again.task, again.replayed), (task, true));
}

#[tokio::test]
async fn a_watcher_that_does_not_watch_stalls_nothing_and_the_result_is_bounded() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    rig.fleet.script(Script::Flood(4_000));
    let (events, _unread) = mpsc::channel(1);
    let running = rig.sessions.run(call(session), events, CancellationToken::new());
    let outcome = tokio::time::timeout(Duration::from_secs(30), running).await.unwrap();
    let stdout = outcome.result.unwrap().stdout;
    let kept = stdout.head.len() + stdout.tail.len();
    assert!(kept <= 1 << 20, "{kept}");
    assert_eq!(kept as u64 + stdout.omitted, 4_000 * 1024);
}

#[tokio::test]
async fn cancelling_ends_the_task_and_still_gives_its_outcome() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    rig.fleet.script(Script::Hang);
    let cancel = CancellationToken::new();
    let running = rig.sessions.run(call(session), mpsc::channel(1).0, cancel.clone());
    let cancelling = async {
        until("it runs", || rig.sessions.running_tasks() == 1 && rig.fleet.dispatched().len() == 1).await;
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(running, cancelling);
    assert_eq!(code(&outcome), Some(ErrorCode::TaskCancelled));
    assert!(outcome.audit_seq.is_some());
}

#[tokio::test]
async fn an_end_that_cannot_be_learnt_is_never_guessed() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    rig.fleet.script(Script::Vanish);
    let outcome = rig.run(keyed(session, "key")).await;
    assert_eq!(code(&outcome), Some(ErrorCode::TaskOutcomeUnknown));
    assert_eq!(rig.records_of(outcome.task)[1].kind, EventKind::TaskUnknown);
    let again = rig.run(keyed(session, "key")).await;
    assert_eq!((code(&again), again.task), (Some(ErrorCode::TaskOutcomeUnknown), outcome.task));
    assert_eq!(rig.fleet.dispatched().len(), 1, "it was not run again");
}

#[tokio::test]
async fn a_task_that_was_not_started_is_placed_again_once_under_a_newer_epoch() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    rig.fleet.script(Script::NotStarted);
    let outcome = rig.run(call(session)).await;
    assert_eq!(stdout(&outcome), "ok");
    let dispatched = rig.fleet.dispatched();
    assert_eq!(dispatched.len(), 2);
    assert!(dispatched[0].lease.epoch <= dispatched[1].lease.epoch);
    rig.fleet.script(Script::NotStarted);
    rig.fleet.script(Script::NotStarted);
    let outcome = rig.run(call(session)).await;
    assert_eq!(code(&outcome), Some(ErrorCode::WorkerUnavailable));
    assert_eq!(rig.fleet.dispatched().len(), 4);
    assert!(open_attempts(&rig).is_empty(), "every attempt has its end: {:?}", open_attempts(&rig));
}

/// Attempts that no later record cites.
fn open_attempts(rig: &Rig) -> Vec<u64> {
    let records = rig.audit.memory_records();
    let cited: Vec<_> = records.iter().filter_map(|r| r.cites).collect();
    let attempts = records.iter().filter(|r| r.kind == EventKind::TaskAttempt && !cited.contains(&r.seq));
    attempts.map(|r| r.seq.0).collect()
}

#[tokio::test]
async fn a_program_that_fails_is_a_result_and_is_recorded_as_failed() {
    let rig = Rig::new().await;
    rig.fleet.script(Script::Exit(3));
    let outcome = rig.run(call(rig.create().await.id)).await;
    assert!(outcome.result.is_ok());
    assert_eq!(rig.records_of(outcome.task)[1].outcome, Some(Outcome::Failed));
}

#[tokio::test]
async fn tasks_of_one_session_are_bounded_and_name_their_neighbours() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    let gate = Arc::new(Notify::new());
    let mut running = Vec::new();
    for _ in 0..options().tasks_per_session_max {
        rig.fleet.script(Script::Gate(Arc::clone(&gate)));
        let (sessions, call) = (rig.sessions.clone(), call(session));
        running
            .push(tokio::spawn(async move { sessions.run(call, mpsc::channel(1).0, CancellationToken::new()).await }));
    }
    until("all run", || rig.fleet.dispatched().len() == running.len()).await;
    let refused = rig.run(call(session)).await;
    assert_eq!((code(&refused), refused.audit_seq), (Some(ErrorCode::RateLimited), None));
    assert_eq!(refused.result.as_ref().unwrap_err().retry_after_ms, Some(1_000));
    gate.notify_waiters();
    let count = running.len();
    for outcome in running {
        let outcome = outcome.await.unwrap();
        let overlapped = outcome.result.unwrap().overlapped;
        assert_eq!(overlapped.len(), count - 1);
        assert!(!overlapped.contains(&outcome.task));
    }
    assert_eq!(stdout(&rig.run(call(session)).await), "ok", "there is room again");
}

#[tokio::test]
async fn a_foreign_handle_is_answered_like_one_that_was_never_made() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    let bob = Principal::os_user("bob");
    let unknown = SessionId::mint();
    let text = |failure: codegen_types::Failure, id: SessionId| failure.message.replace(&id.to_string(), "ID");
    let foreign = rig.sessions.get(&bob, session).unwrap_err();
    assert_eq!(foreign.code, ErrorCode::SessionNotFound);
    let never = rig.sessions.get(&bob, unknown).unwrap_err();
    assert_eq!(text(foreign, session), text(never, unknown));
    let stolen = rig.run(TaskCall { principal: bob.clone(), ..call(session) }).await;
    assert_eq!(code(&stolen), Some(ErrorCode::SessionNotFound));
    assert!(rig.sessions.close(&bob, session).await.is_err() && rig.sessions.list(&bob, true).is_empty());
    assert_eq!(rig.sessions.list(&ann(), false).len(), 1);
    assert_eq!(rig.fleet.dispatched().len(), 0);
}
