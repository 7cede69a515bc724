//! Workers that come back after another spoke in their name, after this server began, or with what had been given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use codegen_audit::EventKind;
use codegen_types::{ErrorCode, Incarnation, Principal, SessionId, TaskId};
use coordinator::session::TaskPhase;
use coordinator::store::{StoreError, TaskRow, TaskStore, TasksOf};
use coordinator::workers::WorkerEvent;
use futures::future::BoxFuture;

use super::restart::{after_kill, ground, records};
use super::rig::{Double, Ground, Rig, Script, ann, call, code, options, stdout, until};

type StoreResult<T> = Result<T, StoreError>;

async fn apart() -> Rig {
    Rig::with(Ground { fleet: Double::apart(), ..Ground::in_memory() }, options()).await
}

/// The event of a life of the same worker that has nothing.
fn with_nothing(joined: &WorkerEvent, incarnation: Incarnation) -> WorkerEvent {
    let WorkerEvent::Joined { worker, .. } = joined else { panic!("it joined") };
    WorkerEvent::Joined { worker: worker.clone(), incarnation, held: Vec::new(), held_is_partial: false }
}

fn over(joined: &WorkerEvent) -> WorkerEvent {
    let WorkerEvent::Joined { worker, incarnation, .. } = joined else { panic!("it joined") };
    WorkerEvent::Gone { worker: worker.clone(), incarnation: *incarnation }
}

#[tokio::test]
async fn files_that_another_life_said_were_missing_are_found_when_the_one_that_has_them_comes_back() {
    let rig = apart().await;
    let session = rig.create().await.id;
    let true_life = rig.fleet.rejoin(&[]);
    let liar = with_nothing(&true_life, Incarnation::mint());
    rig.news.send(over(&true_life)).await.unwrap();
    rig.news.send(liar.clone()).await.unwrap();
    until("they are missing", || {
        code_of(&rig, session) == Some(EventKind::SessionLost) && rig.state(session) == "lost"
    })
    .await;
    rig.news.send(over(&liar)).await.unwrap();
    rig.news.send(true_life).await.unwrap();
    rig.reaches(session, "suspended").await;
    assert_eq!(stdout(&rig.run(call(session)).await), "ok");
}

fn code_of(rig: &Rig, session: SessionId) -> Option<EventKind> {
    rig.kinds(session).last().copied()
}

#[tokio::test]
async fn what_a_life_said_before_a_session_was_made_there_does_not_lose_the_session() {
    let rig = apart().await;
    let session = rig.create().await.id;
    let life = rig.fleet.rejoin(&[]);
    let WorkerEvent::Joined { incarnation, .. } = life else { panic!("it joined") };
    rig.news.send(with_nothing(&life, incarnation)).await.unwrap();
    // Told after it, and so heard after it.
    rig.sessions.update(&ann(), session, Default::default()).await.unwrap();
    assert_eq!(stdout(&rig.run(call(session)).await), "ok");
    assert_eq!((rig.state(session), rig.fleet.opened().len()), ("ready", 1));
}

#[tokio::test]
async fn a_worker_that_had_only_sessions_at_rest_is_waited_for_after_a_restart_and_its_end_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let first = Rig::with(ground(dir.path(), Double::apart()).await, options()).await;
    let session = first.create().await.id;
    first.sessions.shutdown().await;
    first.reaches(session, "suspended").await;
    let copy = after_kill(dir.path());
    let life = first.fleet.rejoin(&[]);
    let WorkerEvent::Joined { worker, incarnation, .. } = &life else { panic!("it joined") };
    let second = Rig::started(ground(copy.path(), first.fleet.clone()).await, options()).await;
    assert_eq!(second.fleet.expected(), [(worker.clone(), *incarnation)]);
    second.news.send(over(&life)).await.unwrap();
    second.reaches(session, "lost").await;
    assert_eq!(code(&second.run(call(session)).await), Some(ErrorCode::SessionLost));
}

/// A task of a session on a worker apart that was given up, with the worker's later answer still to come.
struct GivenUp {
    rig: Rig,
    session: SessionId,
    task: TaskId,
}

impl GivenUp {
    async fn on(ground: Ground) -> Self {
        let rig = Rig::with(ground, options()).await;
        let session = rig.create().await.id;
        let given_up = call(session);
        let task = given_up.task;
        rig.fleet.script(Script::Vanish);
        rig.fleet.script(Script::Vanish);
        assert_eq!(code(&rig.run(given_up).await), Some(ErrorCode::TaskOutcomeUnknown));
        until("it was waited for once more", || rig.fleet.attached().len() == 1).await;
        Self { rig, session, task }
    }

    async fn offered(&self, script: Script) {
        self.rig.fleet.script(script);
        self.rig.news.send(self.rig.fleet.rejoin(&[(self.session, self.task)])).await.unwrap();
    }

    async fn phase(&self) -> TaskPhase {
        self.rig.sessions.task(&ann(), self.task).await.unwrap().info.phase
    }
}

#[tokio::test]
async fn what_a_task_used_that_was_given_up_is_charged_once_it_is_known_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let given_up = GivenUp::on(ground(dir.path(), Double::apart()).await).await;
    given_up.offered(Script::Cost(700)).await;
    let receipt = |rig: &Rig| rig.sessions.get(&ann(), given_up.session).unwrap().receipt.clone();
    until("the receipt has it", || receipt(&given_up.rig).cpu_ms == 700).await;
    assert_eq!((receipt(&given_up.rig).tasks, given_up.rig.sessions.standing(&ann()).cpu_ms), (1, 700));
    let copy = after_kill(dir.path());
    let second = Rig::started(ground(copy.path(), given_up.rig.fleet.clone()).await, options()).await;
    assert_eq!((receipt(&second).tasks, receipt(&second).cpu_ms), (1, 700));
    assert_eq!(second.sessions.standing(&ann()).cpu_ms, 700);
}

#[tokio::test]
async fn a_late_result_whose_row_a_kill_kept_back_says_what_the_log_knows() {
    let dir = tempfile::tempdir().unwrap();
    let given_up = GivenUp::on(ground(dir.path(), Double::apart()).await).await;
    let early = after_kill(dir.path());
    given_up.offered(Script::Refused(ErrorCode::TaskTimeout)).await;
    until("it is on record", || records(dir.path()).iter().any(|record| record.kind == EventKind::TaskResolved)).await;
    let copy = after_kill(dir.path());
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let _ = std::fs::remove_file(copy.path().join(name));
        let _ = std::fs::copy(early.path().join(name), copy.path().join(name));
    }
    let second = Rig::started(ground(copy.path(), given_up.rig.fleet.clone()).await, options()).await;
    let seen = second.sessions.task(&ann(), given_up.task).await.unwrap();
    assert_eq!(seen.info.phase, TaskPhase::Failed(ErrorCode::TaskTimeout));
    let failure = seen.outcome.unwrap().result.unwrap_err();
    assert!(failure.code == ErrorCode::TaskTimeout && failure.message.contains("as record"), "{failure}");
}

/// A store that takes no row of a task that has ended, while it is told so.
struct Refusing {
    store: Arc<dyn TaskStore>,
    refuses: Arc<AtomicBool>,
}

impl TaskStore for Refusing {
    fn insert_task(&self, row: TaskRow) -> BoxFuture<'_, StoreResult<()>> {
        self.store.insert_task(row)
    }
    fn put_task(&self, row: TaskRow) -> BoxFuture<'_, StoreResult<()>> {
        if self.refuses.load(Ordering::SeqCst) {
            return Box::pin(std::future::ready(Err(std::io::Error::other("the disk is full").into())));
        }
        self.store.put_task(row)
    }
    fn task(&self, task: TaskId) -> BoxFuture<'_, StoreResult<Option<TaskRow>>> {
        self.store.task(task)
    }
    fn task_by_key(
        &self,
        session: SessionId,
        principal: Principal,
        key: String,
    ) -> BoxFuture<'_, StoreResult<Option<TaskRow>>> {
        self.store.task_by_key(session, principal, key)
    }
    fn unfinished_tasks(&self) -> BoxFuture<'_, StoreResult<Vec<TaskRow>>> {
        self.store.unfinished_tasks()
    }
    fn recent_tasks(&self, of: TasksOf, limit: u32) -> BoxFuture<'_, StoreResult<Vec<TaskRow>>> {
        self.store.recent_tasks(of, limit)
    }
    fn prune_tasks(&self, ended_before_ms: i64, bytes_max: u64) -> BoxFuture<'_, StoreResult<u64>> {
        self.store.prune_tasks(ended_before_ms, bytes_max)
    }
}

#[tokio::test]
async fn a_late_result_that_the_store_did_not_take_is_taken_with_the_next_offer_and_recorded_once() {
    let dir = tempfile::tempdir().unwrap();
    let (plain, refuses) = (ground(dir.path(), Double::apart()).await, Arc::<AtomicBool>::default());
    let tasks = Arc::new(Refusing { store: plain.tasks.clone(), refuses: Arc::clone(&refuses) });
    let given_up = GivenUp::on(Ground { tasks, ..plain }).await;
    let resolved = || records(dir.path()).iter().filter(|record| record.kind == EventKind::TaskResolved).count();
    refuses.store(true, Ordering::SeqCst);
    given_up.offered(Script::Say("late")).await;
    until("it is on record", || resolved() == 1).await;
    let asked = || given_up.rig.fleet.attached().len();
    refuses.store(false, Ordering::SeqCst);
    // As long as the first follower is not through, an offer is none.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while given_up.phase().await != TaskPhase::Finished {
        assert!(tokio::time::Instant::now() < deadline, "in time: it is stored, asked for {} times", asked());
        given_up.offered(Script::Say("late")).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(resolved(), 1);
}

#[tokio::test]
async fn a_worker_that_never_tells_what_it_offers_takes_its_share_of_the_places_however_often_it_joins() {
    const GIVEN_UP: usize = 70;
    const SHARE: usize = 64;
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with(ground(dir.path(), Double::apart()).await, options()).await;
    let session = rig.create().await.id;
    let mut tasks = Vec::new();
    for _ in 0..GIVEN_UP {
        let given_up = call(session);
        tasks.push((session, given_up.task));
        rig.fleet.script(Script::Vanish);
        rig.fleet.script(Script::Vanish);
        rig.run(given_up).await;
        until("it was waited for once more", || rig.fleet.attached().len() == tasks.len()).await;
    }
    (0..GIVEN_UP * 3).for_each(|_| rig.fleet.script(Script::Hang));
    for _ in 0..3 {
        rig.news.send(rig.fleet.rejoin(&tasks)).await.unwrap();
    }
    until("it is asked for its share", || rig.fleet.attached().len() == GIVEN_UP + SHARE).await;
    rig.news.send(rig.fleet.rejoin(&tasks)).await.unwrap();
    let more = until("it is asked for more", || rig.fleet.attached().len() > GIVEN_UP + SHARE);
    assert!(tokio::time::timeout(Duration::from_millis(300), more).await.is_err(), "beyond its share");
}
