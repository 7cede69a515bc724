//! What a worker that runs by itself goes on with while its coordinator is away, and what comes of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use codegen_audit::EventKind;
use codegen_types::{Epoch, ErrorCode, HeldSession, SessionId, TaskId};
use coordinator::session::{SessionOptions, TaskCall, TaskPhase};
use coordinator::workers::WorkerEvent;
use coordinator_core::task::TaskState;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::restart::{after_kill, ground, records};
use super::rig::{Double, Ground, Rig, Script, ann, call, code, keyed, options, stdout, until};

/// A server that was killed while a task ran on a worker that runs by itself, and the files that it left.
struct Killed {
    first: Rig,
    session: SessionId,
    task: TaskId,
    left: tempfile::TempDir,
}

impl Killed {
    async fn amid(make: impl FnOnce(SessionId) -> TaskCall) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let first = Rig::with(ground(dir.path(), Double::apart()).await, options()).await;
        let session = first.create().await.id;
        first.fleet.script(Script::Hang);
        let (sessions, running) = (first.sessions.clone(), make(session));
        let task = running.task;
        tokio::spawn(async move { sessions.run(running, mpsc::channel(1).0, CancellationToken::new()).await });
        until("it runs", || first.fleet.dispatched().len() == 1).await;
        let left = after_kill(dir.path());
        Self { first, session, task, left }
    }

    /// The next server, with whose fleet the task fares so.
    async fn next(&self, script: Script) -> Rig {
        self.first.fleet.script(script);
        Rig::started(ground(self.left.path(), self.first.fleet.clone()).await, options()).await
    }

    fn kinds(&self, dir: &Path) -> Vec<EventKind> {
        records(dir).into_iter().filter(|record| record.task == Some(self.task)).map(|record| record.kind).collect()
    }
}

#[tokio::test]
async fn after_a_kill_a_task_that_its_worker_goes_on_with_runs_and_ends_by_its_word() {
    for is_keyed in [false, true] {
        let killed = Killed::amid(|session| if is_keyed { keyed(session, "key") } else { call(session) }).await;
        let gate = Arc::new(Notify::new());
        let second = killed.next(Script::Gate(Arc::clone(&gate))).await;
        let seen = second.sessions.task(&ann(), killed.task).await.unwrap();
        assert_eq!(seen.info.phase, TaskPhase::Running);
        assert_eq!(second.state(killed.session), "ready", "what runs in it is not ended");
        let lease = second.sessions.get(&ann(), killed.session).unwrap().lease.clone().unwrap();
        assert_eq!(second.fleet.expected(), [(lease.worker, lease.incarnation)]);
        until("the session knows", || second.sessions.get(&ann(), killed.session).unwrap().running == [killed.task])
            .await;
        let repeated = is_keyed.then(|| {
            let (sessions, repeat) = (second.sessions.clone(), keyed(killed.session, "key"));
            tokio::spawn(async move { sessions.run(repeat, mpsc::channel(1).0, CancellationToken::new()).await })
        });
        gate.notify_one();
        let ended = second.sessions.wait(&ann(), killed.task, Duration::from_secs(60)).await.unwrap();
        assert_eq!(ended.info.phase, TaskPhase::Finished, "{ended:?}");
        if let Some(repeated) = repeated {
            let repeated = repeated.await.unwrap();
            assert!(repeated.result.is_ok() && repeated.task == killed.task && repeated.replayed, "{repeated:?}");
        }
        assert_eq!(second.fleet.dispatched().len(), 1, "nothing was sent again");
        assert_eq!(second.fleet.attached().len(), 1);
        assert_eq!(killed.kinds(killed.left.path()), [EventKind::TaskAttempt, EventKind::TaskOutcome]);
        until("it is over", || second.sessions.get(&ann(), killed.session).unwrap().running.is_empty()).await;
        assert_eq!(second.sessions.get(&ann(), killed.session).unwrap().receipt.tasks, 1);
    }
}

#[tokio::test]
async fn what_a_task_wrote_while_its_coordinator_was_away_is_not_lost() {
    let killed = Killed::amid(|session| keyed(session, "key")).await;
    let second = killed.next(Script::Say("written meanwhile")).await;
    second.sessions.wait(&ann(), killed.task, Duration::from_secs(60)).await.unwrap();
    let replayed = second.run(keyed(killed.session, "key")).await;
    assert_eq!((stdout(&replayed), replayed.replayed), ("written meanwhile".to_owned(), true));
}

#[tokio::test]
async fn a_worker_that_never_had_the_task_makes_it_one_that_was_not_run() {
    let killed = Killed::amid(call).await;
    let second = killed.next(Script::NotStarted).await;
    let ended = second.sessions.wait(&ann(), killed.task, Duration::from_secs(60)).await.unwrap();
    assert_eq!(ended.info.phase, TaskPhase::Failed(ErrorCode::WorkerUnavailable));
}

#[tokio::test]
async fn a_server_that_is_killed_again_takes_the_same_task_up_again() {
    let killed = Killed::amid(call).await;
    let second = killed.next(Script::Hang).await;
    until("it is asked for", || second.fleet.attached().len() == 1).await;
    let copy = after_kill(killed.left.path());
    second.fleet.script(Script::Say("at last"));
    let third = Rig::started(ground(copy.path(), second.fleet.clone()).await, options()).await;
    let ended = third.sessions.wait(&ann(), killed.task, Duration::from_secs(60)).await.unwrap();
    assert_eq!(ended.info.phase, TaskPhase::Finished);
}

#[tokio::test]
async fn a_result_that_comes_after_its_task_was_given_up_is_recorded_once_and_told() {
    let killed = Killed::amid(|session| keyed(session, "key")).await;
    // The life of the worker that has it does not come in time, nor soon after.
    killed.first.fleet.script(Script::Vanish);
    killed.first.fleet.script(Script::Vanish);
    let second = Rig::started(ground(killed.left.path(), killed.first.fleet.clone()).await, options()).await;
    let unknown = second.sessions.wait(&ann(), killed.task, Duration::from_secs(60)).await.unwrap();
    assert_eq!(unknown.info.phase, TaskPhase::Unknown);
    until("it was waited for once more", || second.fleet.attached().len() == 2).await;
    let event = second.fleet.rejoin(&[(killed.session, killed.task)]);
    second.fleet.script(Script::Say("late"));
    second.news.send(event.clone()).await.unwrap();
    until("the log has it", || killed.kinds(killed.left.path()).contains(&EventKind::TaskResolved)).await;
    let row = || async { second.sessions.task(&ann(), killed.task).await.unwrap().info.phase };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while row().await != TaskPhase::Finished {
        assert!(tokio::time::Instant::now() < deadline, "in time: its row is resolved");
        tokio::task::yield_now().await;
    }
    assert_eq!(stdout(&second.run(keyed(killed.session, "key")).await), "late");
    // What is known is not asked for again.
    second.news.send(event).await.unwrap();
    second.sessions.update(&ann(), killed.session, Default::default()).await.unwrap();
    let expected = [EventKind::TaskAttempt, EventKind::TaskUnknown, EventKind::TaskResolved];
    assert_eq!(killed.kinds(killed.left.path()), expected);
    let resolved =
        records(killed.left.path()).into_iter().find(|record| record.kind == EventKind::TaskResolved).unwrap();
    let attempt = records(killed.left.path()).into_iter().find(|record| record.kind == EventKind::TaskAttempt).unwrap();
    assert_eq!((resolved.cites, resolved.task), (Some(attempt.seq), Some(killed.task)));
}

#[tokio::test]
async fn no_worker_tells_how_a_task_of_another_ended() {
    let killed = Killed::amid(call).await;
    killed.first.fleet.script(Script::Vanish);
    killed.first.fleet.script(Script::Vanish);
    let second = Rig::started(ground(killed.left.path(), killed.first.fleet.clone()).await, options()).await;
    second.sessions.wait(&ann(), killed.task, Duration::from_secs(60)).await.unwrap();
    until("it was waited for once more", || second.fleet.attached().len() == 2).await;
    // Another life of the worker: for that it is another worker.
    let _new_life = second.fleet.join();
    second.fleet.script(Script::Say("forged"));
    second.news.send(second.fleet.rejoin(&[(killed.session, killed.task)])).await.unwrap();
    let other = second.create().await;
    assert_eq!(stdout(&second.run(call(other.id)).await), "forged", "nobody took the script");
    assert_eq!(second.fleet.attached().len(), 2);
    assert_eq!(killed.kinds(killed.left.path()), [EventKind::TaskAttempt, EventKind::TaskUnknown]);
}

#[tokio::test]
async fn the_sessions_of_a_worker_that_is_gone_are_lost_say_so_and_come_back_with_it() {
    let rig = Rig::with(Ground { fleet: Double::apart(), ..Ground::in_memory() }, options()).await;
    let session = rig.create().await.id;
    let life = rig.fleet.rejoin(&[]);
    rig.news.send(rig.fleet.leave()).await.unwrap();
    rig.reaches(session, "lost").await;
    let refused = rig.run(call(session)).await;
    assert_eq!(code(&refused), Some(ErrorCode::SessionLost));
    let why = refused.result.unwrap_err().message;
    assert!(why.contains("worker is gone") && why.contains("session_create"), "{why}");
    drop(life);
    rig.news.send(rig.fleet.join()).await.unwrap();
    rig.reaches(session, "suspended").await;
    assert_eq!(stdout(&rig.run(call(session)).await), "ok");
    assert_eq!(rig.fleet.opened().len(), 2, "by a new lease");
}

/// The end of the life that an event tells of, of a worker that was cut off and does not know.
fn cut_off(life: &WorkerEvent) -> WorkerEvent {
    let (WorkerEvent::Joined { worker, incarnation, .. } | WorkerEvent::Gone { worker, incarnation }) = life;
    WorkerEvent::Gone { worker: worker.clone(), incarnation: *incarnation }
}

#[tokio::test]
async fn a_worker_that_was_cut_off_ends_what_is_at_rest_or_over_here() {
    let rig = Rig::with(Ground { fleet: Double::apart(), ..Ground::in_memory() }, options()).await;
    let (rests, over, unheard) = (rig.create().await.id, rig.create().await.id, SessionId::mint());
    let mut life = rig.fleet.rejoin(&[]);
    rig.news.send(cut_off(&life)).await.unwrap();
    rig.reaches(over, "lost").await;
    rig.sessions.close(&ann(), over).await.unwrap();
    assert_eq!((rig.state(over), rig.fleet.closed().len()), ("closed", 0));
    let WorkerEvent::Joined { held, .. } = &mut life else { panic!("it joined") };
    held.push(HeldSession { session: unheard, epoch: Epoch(7), open: true, tasks: vec![] });
    rig.news.send(life).await.unwrap();
    until("it has ended all three", || rig.fleet.closed().len() == 3).await;
    let mut closed: Vec<_> = rig.fleet.closed().iter().map(|(lease, delete)| (lease.epoch.0, *delete)).collect();
    closed.sort_unstable();
    assert_eq!(closed, [(1, false), (1, true), (7, false)], "files of what is not on record are kept");
    assert_eq!(stdout(&rig.run(call(rests)).await), "ok");
}

#[tokio::test]
async fn processes_that_a_worker_could_not_be_asked_to_end_are_ended_later() {
    let options = SessionOptions { cleanup_interval: Duration::from_millis(20), ..options() };
    let rig = Rig::with(Ground { fleet: Double::apart(), ..Ground::in_memory() }, options).await;
    let session = rig.create().await.id;
    rig.fleet.fail_close(Some(codegen_types::Failure::new(ErrorCode::WorkerUnavailable, "its link is down")));
    rig.sessions.shutdown().await;
    assert_eq!((rig.state(session), rig.fleet.closed().len()), ("suspended", 0));
    rig.fleet.fail_close(None);
    until("it is asked again", || rig.fleet.closed().len() == 1).await;
}

#[tokio::test]
async fn one_late_result_is_recorded_once_however_often_its_worker_joins_and_its_processes_end_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with(ground(dir.path(), Double::apart()).await, options()).await;
    let session = rig.create().await.id;
    let (given_up, gate) = (call(session), Arc::new(Notify::new()));
    let task = given_up.task;
    rig.fleet.script(Script::Vanish);
    rig.fleet.script(Script::Gate(Arc::clone(&gate)));
    assert_eq!(code(&rig.run(given_up).await), Some(ErrorCode::TaskOutcomeUnknown));
    until("it is waited for", || rig.fleet.attached().len() == 1).await;
    let life = rig.fleet.rejoin(&[(session, task)]);
    rig.news.send(cut_off(&life)).await.unwrap();
    rig.reaches(session, "lost").await;
    for _ in 0..300 {
        rig.news.send(life.clone()).await.unwrap();
    }
    rig.reaches(session, "suspended").await;
    assert!(rig.fleet.closed().is_empty(), "what runs there may still be heard of");
    gate.notify_one();
    // Once more by whoever still looks at what it joined with.
    until("its processes are ended", || !rig.fleet.closed().is_empty()).await;
    let resolved = records(dir.path()).into_iter().filter(|record| record.kind == EventKind::TaskResolved).count();
    assert_eq!((resolved, rig.fleet.attached().len()), (1, 1));
}

#[tokio::test]
async fn a_task_that_goes_on_for_long_does_not_hold_up_the_late_results_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with(ground(dir.path(), Double::apart()).await, options()).await;
    let session = rig.create().await.id;
    let mut tasks = Vec::new();
    for given_up in [call(session), call(session)] {
        tasks.push((session, given_up.task));
        rig.fleet.script(Script::Vanish);
        rig.fleet.script(Script::Vanish);
        rig.run(given_up).await;
        until("it was waited for once more", || rig.fleet.attached().len() == tasks.len()).await;
    }
    rig.fleet.script(Script::Hang);
    rig.fleet.script(Script::Say("late"));
    rig.news.send(rig.fleet.rejoin(&tasks)).await.unwrap();
    let resolved = || records(dir.path()).iter().any(|record| record.kind == EventKind::TaskResolved);
    until("the one that has ended is known", resolved).await;
}

#[tokio::test]
async fn a_worker_that_cannot_be_reached_keeps_what_runs_in_its_sessions() {
    let rig = Rig::with(Ground { fleet: Double::apart(), ..Ground::in_memory() }, options()).await;
    let session = rig.create().await.id;
    rig.fleet.script(Script::NotStarted);
    assert_eq!(stdout(&rig.run(call(session)).await), "ok", "it was sent once more");
    rig.fleet.script(Script::NotStarted);
    rig.fleet.script(Script::NotStarted);
    assert_eq!(code(&rig.run(call(session)).await), Some(ErrorCode::WorkerUnavailable));
    assert_eq!((rig.state(session), rig.fleet.opened().len()), ("ready", 1), "it was not opened anew");
}

#[tokio::test]
async fn the_embedded_worker_ends_with_its_server_and_what_it_ran_is_unknown_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let first = Rig::with(ground(dir.path(), Double::default()).await, SessionOptions { ..options() }).await;
    let session = first.create().await.id;
    first.fleet.script(Script::Hang);
    let (sessions, running) = (first.sessions.clone(), call(session));
    let task = running.task;
    tokio::spawn(async move { sessions.run(running, mpsc::channel(1).0, CancellationToken::new()).await });
    until("it runs", || first.fleet.dispatched().len() == 1).await;
    let copy = after_kill(dir.path());
    let ground = ground(copy.path(), first.fleet.clone()).await;
    let tasks = Arc::clone(&ground.tasks);
    let second = Rig::started(ground, options()).await;
    assert!(matches!(tasks.task(task).await.unwrap().unwrap().state, TaskState::Unknown { .. }));
    assert_eq!((second.fleet.attached().len(), second.fleet.expected().len()), (0, 0));
}

#[tokio::test]
async fn no_session_is_lost_of_a_worker_that_has_more_than_it_may_name() {
    let rig = Rig::with(Ground { fleet: Double::apart(), ..Ground::in_memory() }, options()).await;
    let (session, emptied) = (rig.create().await.id, rig.create().await.id);
    let WorkerEvent::Joined { worker, incarnation, .. } = rig.fleet.join() else { panic!("it joined") };
    let life = WorkerEvent::Joined { worker, incarnation, held: Vec::new(), held_is_partial: true };
    rig.news.send(life).await.unwrap();
    rig.reaches(session, "suspended").await;
    assert_eq!(stdout(&rig.run(call(session)).await), "ok");
    rig.reaches(emptied, "suspended").await;
    rig.fleet.lose_files();
    let refused = rig.run(call(emptied)).await;
    assert_eq!(code(&refused), Some(ErrorCode::SessionLost), "opening it shows that its files are gone");
}
