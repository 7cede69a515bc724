//! The service over a backend that runs nothing: what is told of tasks and sessions, whatever a program does.

mod held;
mod sessions;

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use codegen_proto::SessionClosed;
use codegen_types::{
    Epoch, Event, EventBody, Exec, IsolationLevel, Limits, Operation, OperationResult, OutputStream, Program,
};
use futures::StreamExt;
use sandbox::fake::{FakeEnd, FakeRun};
use sandbox::files::WorkspaceBase;
use sandbox::{ChildEnd, FakeBackend};
use tokio::sync::watch;

use super::*;
use crate::runtimes::Runtimes;
use crate::session::{Owners, PoolOptions};

struct Bench {
    service: Service,
    starts: Arc<AtomicUsize>,
    /// Whether sandboxes die when they are destroyed.
    mortal: watch::Sender<bool>,
    session: SessionId,
    directory: tempfile::TempDir,
}

impl Bench {
    /// A worker whose programs all do the same, with one session open under epoch 2.
    async fn new(run: FakeRun) -> Self {
        let bench = Self::without_session(run, IsolationLevel::Full).await;
        bench.open(2).await.unwrap();
        bench
    }

    async fn without_session(run: FakeRun, level: IsolationLevel) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let starts = Arc::new(AtomicUsize::new(0));
        let counted = starts.clone();
        let backend = FakeBackend::new(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            run.clone()
        });
        let mortal = backend.mortal();
        let tasks = Arc::new(Tasks::default());
        let base = WorkspaceBase::open(&directory.path().join("workspaces")).unwrap();
        let pool = Pool::new(PoolOptions {
            owners: Owners::of(&base).unwrap(),
            base,
            backend: Arc::new(backend.with_level(level)),
            runtimes: Runtimes::find("/nowhere".as_ref()).await,
            tasks: tasks.clone(),
            way_out: crate::upstream::WayOut::default(),
            sessions_max: 2,
            isolation_minimum: IsolationLevel::Reduced,
            spare_limits: None,
        });
        let identity = Identity { worker: "w".parse().unwrap(), incarnation: Incarnation::mint() };
        let service = Service::new(identity, pool, tasks);
        Self { service, starts, mortal, session: SessionId::mint(), directory }
    }

    fn lease(&self, epoch: u64) -> Lease {
        let Identity { worker, incarnation } = self.service.identity().clone();
        Lease { worker, incarnation, epoch: Epoch(epoch) }
    }

    async fn open(&self, epoch: u64) -> Result<bool, ErrorCode> {
        self.open_session(self.session, epoch, IsolationLevel::Full).await
    }

    async fn open_session(&self, session: SessionId, epoch: u64, minimum: IsolationLevel) -> Result<bool, ErrorCode> {
        self.open_as(OpenSession { isolation_minimum: minimum, ..self.opening(session, epoch) }).await
    }

    fn opening(&self, session: SessionId, epoch: u64) -> OpenSession {
        OpenSession {
            session,
            lease: self.lease(epoch),
            limits: Limits { output_bytes: 1_000, ..Limits::default() },
            isolation_minimum: IsolationLevel::Full,
            egress: None,
        }
    }

    /// Whether its workspace was made by this.
    async fn open_as(&self, open: OpenSession) -> Result<bool, ErrorCode> {
        let opened = self.service.open_session(Request::new(open.into())).await;
        opened.map(|opened| opened.into_inner().workspace_created).map_err(code)
    }

    async fn close(&self, epoch: u64, delete_workspace: bool) -> Result<u64, ErrorCode> {
        self.close_as(epoch, delete_workspace).await.map(|closed| closed.workspace_bytes)
    }

    async fn close_as(&self, epoch: u64, delete_workspace: bool) -> Result<SessionClosed, ErrorCode> {
        let close = CloseSession { session: self.session, lease: self.lease(epoch), delete_workspace };
        let closed = self.service.close_session(Request::new(close.into())).await;
        closed.map(|closed| closed.into_inner().try_into().expect("a well-formed answer")).map_err(code)
    }

    fn request(&self, task: TaskId, epoch: u64) -> ExecuteTask {
        let program = Program::Shell { command: "true".to_owned() };
        let exec = Exec::of(program);
        ExecuteTask {
            task,
            session: self.session,
            lease: self.lease(epoch),
            timeout: Duration::from_secs(20),
            operation: Operation::Exec(exec),
        }
    }

    async fn execute(&self, request: ExecuteTask) -> Result<EventStream, ErrorCode> {
        self.service.take(None, futures::stream::iter([Ok(request.into())])).await.map_err(code)
    }

    async fn attach(&self, task: TaskId, from_seq: u64) -> Result<EventStream, ErrorCode> {
        let attach = AttachTask { task, session: self.session, lease: self.lease(2), from_seq };
        let answer = self.service.attach_task(Request::new(attach.into())).await;
        answer.map(Response::into_inner).map_err(code)
    }

    async fn cancel(&self, task: TaskId) -> Result<bool, ErrorCode> {
        let grace = Duration::from_secs(5);
        let cancel = CancelTask { task, session: self.session, lease: self.lease(2), grace };
        let answer = self.service.cancel_task(Request::new(cancel.into())).await;
        answer.map(|answer| answer.into_inner().was_running).map_err(code)
    }
}

fn code(status: Status) -> ErrorCode {
    codegen_proto::status::stated_code(&status).expect("every refusal states its code")
}

async fn collect(stream: EventStream) -> Vec<Event> {
    let events = tokio::time::timeout(Duration::from_secs(10), stream.collect::<Vec<_>>()).await.expect("it ends");
    events.into_iter().map(|event| event.unwrap().try_into().unwrap()).collect()
}

fn failure_code(events: &[Event]) -> Option<ErrorCode> {
    match &events.last()?.body {
        EventBody::Failed { failure, .. } => Some(failure.code),
        _ => None,
    }
}

fn prints(text: &str) -> FakeRun {
    FakeRun { stdout: text.into(), ..FakeRun::default() }
}

fn never_ends(end: FakeEnd) -> FakeRun {
    FakeRun { end, ..FakeRun::default() }
}

#[tokio::test]
async fn a_task_that_is_asked_for_twice_is_started_once_and_tells_the_same() {
    let bench = Bench::new(prints("hello")).await;
    let task = TaskId::mint();
    let first = collect(bench.execute(bench.request(task, 2)).await.unwrap()).await;
    let again = collect(bench.execute(bench.request(task, 2)).await.unwrap()).await;
    assert_eq!(first, again);
    assert_eq!(bench.starts.load(Ordering::SeqCst), 1);
    assert_eq!(first[0].body, EventBody::Started);
    assert_eq!(first[1].body, EventBody::Output { stream: OutputStream::Stdout, bytes: b"hello".to_vec() });
    assert!(matches!(&first[2].body, EventBody::Finished(OperationResult::Exec(exit)) if exit.code == Some(0)));
}

#[tokio::test]
async fn attaching_replays_exactly_the_events_from_the_place_asked_for() {
    let bench = Bench::new(prints("hello")).await;
    let task = TaskId::mint();
    let all = collect(bench.execute(bench.request(task, 2)).await.unwrap()).await;
    for from in 1..=4 {
        let tail = collect(bench.attach(task, from).await.unwrap()).await;
        assert_eq!(tail, all[usize::try_from(from - 1).unwrap()..], "from {from}");
    }
}

#[tokio::test]
async fn a_task_that_never_came_is_denied() {
    let bench = Bench::new(prints("")).await;
    assert_eq!(bench.attach(TaskId::mint(), 1).await.err(), Some(ErrorCode::NotFound));
}

#[tokio::test]
async fn a_dropped_stream_does_not_end_the_task() {
    let bench = Bench::new(never_ends(FakeEnd::WhenSignalled)).await;
    let task = TaskId::mint();
    drop(bench.execute(bench.request(task, 2)).await.unwrap());
    assert_eq!(bench.service.tasks().running(), 1);
    assert_eq!(bench.cancel(task).await, Ok(true));
    let events = collect(bench.attach(task, 1).await.unwrap()).await;
    assert_eq!(failure_code(&events), Some(ErrorCode::TaskCancelled));
    assert_eq!(bench.cancel(task).await, Ok(false));
}

#[tokio::test]
async fn a_program_that_ignores_the_interrupt_is_killed_after_the_grace() {
    let bench = Bench::new(never_ends(FakeEnd::WhenKilled)).await;
    let task = TaskId::mint();
    let mut request = bench.request(task, 2);
    request.timeout = Duration::from_millis(50);
    let events = collect(bench.execute(request).await.unwrap()).await;
    let EventBody::Failed { failure, exit: Some(exit) } = &events.last().unwrap().body else { panic!("{events:?}") };
    assert_eq!(failure.code, ErrorCode::TaskTimeout);
    assert_eq!(exit.signal, Some(libc::SIGKILL));
}

#[tokio::test]
async fn output_is_delivered_up_to_its_limit_and_no_further() {
    let run = FakeRun { stdout: vec![b'x'; 5_000], end: FakeEnd::WhenKilled, ..FakeRun::default() };
    let bench = Bench::new(run).await;
    let events = collect(bench.execute(bench.request(TaskId::mint(), 2)).await.unwrap()).await;
    assert_eq!(failure_code(&events), Some(ErrorCode::OutputLimit));
    let written: usize = events
        .iter()
        .map(|event| match &event.body {
            EventBody::Output { bytes, .. } => bytes.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(written, 1_000);
}

#[tokio::test]
async fn a_program_that_kills_its_supervisor_costs_the_sandbox_and_the_next_call_gets_a_new_one() {
    let bench = Bench::new(never_ends(FakeEnd::SupervisorLost)).await;
    let events = collect(bench.execute(bench.request(TaskId::mint(), 2)).await.unwrap()).await;
    assert!(matches!(
        &events.last().unwrap().body,
        EventBody::Finished(OperationResult::Exec(exit)) if exit.signal == Some(libc::SIGKILL)
    ));
    let note = |event: &Event| matches!(&event.body, EventBody::Output { stream: OutputStream::Stderr, .. });
    assert!(events.iter().any(note), "the client is told");
    let next = collect(bench.execute(bench.request(TaskId::mint(), 2)).await.unwrap()).await;
    let EventBody::Finished(OperationResult::Exec(exit)) = &next.last().unwrap().body else { panic!("{next:?}") };
    assert!(exit.notes.iter().any(|note| note.contains("replaced")), "{exit:?}");
}

#[tokio::test]
async fn a_program_that_fails_when_the_memory_limit_was_hit_is_said_to_have_hit_it() {
    let end = ChildEnd { signal: Some(libc::SIGKILL), memory_limit_hit: true, ..ChildEnd::default() };
    let bench = Bench::new(never_ends(FakeEnd::At(end))).await;
    let events = collect(bench.execute(bench.request(TaskId::mint(), 2)).await.unwrap()).await;
    assert_eq!(failure_code(&events), Some(ErrorCode::MemoryLimit));
}

#[tokio::test]
async fn a_stale_lease_is_refused_everywhere() {
    let bench = Bench::new(prints("")).await;
    let stale = Some(ErrorCode::PermissionDenied);
    assert_eq!(bench.open(1).await.err(), stale);
    assert_eq!(bench.close(1, false).await.err(), stale);
    assert_eq!(bench.execute(bench.request(TaskId::mint(), 1)).await.err(), stale);
    let mut other_life = bench.request(TaskId::mint(), 2);
    other_life.lease.incarnation = Incarnation::mint();
    assert_eq!(bench.execute(other_life).await.err(), stale);
    assert_eq!(bench.starts.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn opening_again_is_answered_as_before_and_a_higher_epoch_takes_over() {
    let bench = Bench::without_session(never_ends(FakeEnd::WhenSignalled), IsolationLevel::Full).await;
    assert_eq!(bench.open(2).await, Ok(true));
    assert_eq!(bench.open(2).await, Ok(true));
    let running = bench.execute(bench.request(TaskId::mint(), 2)).await.unwrap();
    assert_eq!(bench.open(3).await, Ok(false), "its files are there already");
    assert_eq!(failure_code(&collect(running).await), Some(ErrorCode::TaskCancelled));
    assert_eq!(bench.execute(bench.request(TaskId::mint(), 2)).await.err(), Some(ErrorCode::PermissionDenied));
    assert!(bench.execute(bench.request(TaskId::mint(), 3)).await.is_ok());
}

#[tokio::test]
async fn a_closed_session_stays_closed_for_its_epoch() {
    let bench = Bench::new(prints("")).await;
    assert_eq!(bench.close(2, true).await, Ok(0));
    assert_eq!(bench.close(2, true).await, Ok(0), "closing again is no error");
    assert_eq!(bench.open(2).await.err(), Some(ErrorCode::PermissionDenied));
    assert_eq!(bench.open(3).await, Ok(true), "the workspace was deleted");
}

#[tokio::test]
async fn a_workspace_that_is_kept_is_counted_when_its_processes_are_ended() {
    let bench = Bench::new(prints("")).await;
    let workspace = bench.directory.path().join("workspaces").join(bench.session.to_string());
    std::fs::write(workspace.join("large"), vec![b'x'; 300 << 10]).unwrap();
    let bytes = bench.close(2, false).await.unwrap();
    assert!((300 << 10..400 << 10).contains(&bytes), "{bytes}");
    assert_eq!(bench.close(2, false).await, Ok(bytes), "closing again tells the same");
    assert_eq!(bench.open(3).await, Ok(false));
    std::fs::create_dir_all(workspace.join("d/".repeat(300))).unwrap();
    assert_eq!(bench.close(3, false).await, Ok(u64::MAX), "what cannot be counted does not pass for little");
    assert_eq!(bench.close(3, true).await, Ok(0));
    assert_eq!(bench.close(3, false).await, Ok(0));
}

#[tokio::test]
async fn sessions_beyond_the_limit_or_below_the_isolation_asked_for_are_refused() {
    let bench = Bench::without_session(prints(""), IsolationLevel::Portable).await;
    let full = bench.open_session(SessionId::mint(), 1, IsolationLevel::Full).await;
    assert_eq!(full.err(), Some(ErrorCode::IsolationUnavailable));
    for _ in 0..2 {
        assert!(bench.open_session(SessionId::mint(), 1, IsolationLevel::None).await.is_ok());
    }
    let third = bench.open_session(SessionId::mint(), 1, IsolationLevel::None).await;
    assert_eq!(third.err(), Some(ErrorCode::NoCapacity));
    let weak = Bench::without_session(prints(""), IsolationLevel::None).await;
    let none = weak.open_session(SessionId::mint(), 1, IsolationLevel::None).await;
    assert_eq!(none.err(), Some(ErrorCode::IsolationUnavailable), "the worker's own minimum holds, too");
}

#[tokio::test]
async fn files_are_worked_on_without_any_program() {
    let bench = Bench::new(prints("")).await;
    let write = codegen_types::operation::Write {
        path: "a/b.txt".to_owned().try_into().unwrap(),
        contents: b"text".to_vec(),
        mode: codegen_types::operation::WriteMode::Create,
        if_match: None,
    };
    let mut request = bench.request(TaskId::mint(), 2);
    request.operation = Operation::Write(write);
    let events = collect(bench.execute(request).await.unwrap()).await;
    assert!(matches!(&events[1].body, EventBody::Finished(OperationResult::Write { created: true, .. })), "{events:?}");
    assert_eq!(bench.starts.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_python_task_without_a_python_is_refused_before_anything_runs() {
    let bench = Bench::new(prints("")).await;
    let mut request = bench.request(TaskId::mint(), 2);
    let program = Program::PythonCode { code: "pass".to_owned(), args: Vec::new() };
    request.operation = Operation::Exec(Exec::of(program));
    let events = collect(bench.execute(request).await.unwrap()).await;
    assert_eq!(failure_code(&events), Some(ErrorCode::NotFound));
}

#[tokio::test]
async fn a_worker_that_stops_lets_running_tasks_end_and_takes_no_others() {
    let bench = Bench::new(never_ends(FakeEnd::WhenSignalled)).await;
    let task = TaskId::mint();
    let running = bench.execute(bench.request(task, 2)).await.unwrap();
    let drained = tokio::spawn({
        let service = bench.service.clone();
        async move { service.drain().await }
    });
    tokio::task::yield_now().await;
    assert_eq!(bench.execute(bench.request(TaskId::mint(), 2)).await.err(), Some(ErrorCode::WorkerUnavailable));
    bench.cancel(task).await.unwrap();
    collect(running).await;
    tokio::time::timeout(Duration::from_secs(5), drained).await.expect("it drains").unwrap();
}

#[tokio::test]
async fn workspaces_that_cannot_be_listed_are_not_said_to_be_gone() {
    let bench = Bench::new(FakeRun::default()).await;
    let pool = bench.service.pool();
    assert_eq!(pool.held().await.unwrap().len(), 1);
    // As when a volume was taken away.
    std::fs::remove_dir_all(bench.directory.path()).unwrap();
    let held = pool.held().await;
    assert!(held.is_err(), "{held:?}");
}
