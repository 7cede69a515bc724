//! A fleet that does what a test tells it, and sessions on top of it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use codegen_audit::{Audit, EventKind, Record};
use codegen_proto::{Egress, ExecuteTask, OpenSession};
use codegen_types::{
    Epoch, ErrorCode, EventBody, Exec, Exit, Failure, HeldSession, Incarnation, IsolationLevel, IsolationReport, Lease,
    Operation, OperationResult, OutputStream, Principal, Program, ResourceUse, Runtime, SessionId, TaskId, WorkerId,
};
use coordinator::dispatch::Ahead;
use coordinator::session::{
    CreateSession, Leave, SessionOptions, SessionSnapshot, Sessions, SessionsDeps, TaskCall, TaskOutcome,
};
use coordinator::store::{Memory, SessionStore, TaskStore};
use coordinator::supervisor::Supervisor;
use coordinator::workers::{
    Closed, DispatchEnd, EMBEDDED_WORKER, Fleet, Opened, Reservation, TaskAttach, TaskDispatch, WorkerEvent,
};
use coordinator_core::placement::Requirements;
use futures::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// What the fleet does with the next task.
pub enum Script {
    /// Says something and ends with code 0.
    Say(&'static str),
    /// Ends with this code.
    Exit(i32),
    /// Ends well, after so many milliseconds of processor time.
    Cost(u64),
    /// Ends by a limit, as its worker says.
    Refused(ErrorCode),
    /// Runs until it is cancelled.
    Hang,
    /// Runs until it is let go, or cancelled.
    Gate(Arc<Notify>),
    /// Writes so many pieces of 1 KiB.
    Flood(usize),
    /// Was never sent.
    NotStarted,
    /// Was refused by the worker, for this reason.
    Refuse(ErrorCode),
    /// Was sent, and nothing more is known.
    Vanish,
}

#[derive(Default)]
struct Inner {
    worker: Option<(WorkerId, Incarnation)>,
    files: HashSet<SessionId>,
    sizes: HashMap<SessionId, u64>,
    opened: Vec<Lease>,
    /// What a session reaches, by each opening that succeeded.
    told: Vec<Egress>,
    closed: Vec<(Lease, bool)>,
    /// What went ahead to it: a task to be held, or nothing of any.
    ahead: Vec<Option<TaskId>>,
    dispatched: Vec<TaskDispatch>,
    attached: Vec<TaskAttach>,
    expected: Vec<(WorkerId, Incarnation)>,
    scripts: VecDeque<Script>,
    open_failure: Option<Failure>,
    no_secrets: bool,
    close_failure: Option<Failure>,
}

/// Looks at a dispatch.
pub type Witness = Box<dyn Fn(&TaskDispatch) + Send + Sync>;

/// Does something while a session is opened.
pub type OnOpen = Box<dyn Fn() + Send + Sync>;

/// A fleet of one worker at most.
#[derive(Clone, Default)]
pub struct Double {
    inner: Arc<Mutex<Inner>>,
    /// Its worker runs by itself, and not as a child of the server.
    apart: bool,
    /// Changes when its worker comes.
    changed: Arc<watch::Sender<()>>,
    /// Looked into at the moment of each dispatch.
    pub witness: Arc<Mutex<Option<Witness>>>,
    /// Called at the moment of each opening.
    pub on_open: Arc<Mutex<Option<OnOpen>>>,
}

struct Slot(WorkerId, Incarnation);

impl Reservation for Slot {
    fn worker(&self) -> (&WorkerId, Incarnation) {
        (&self.0, self.1)
    }
}

impl Double {
    pub fn script(&self, script: Script) {
        self.inner.lock().scripts.push_back(script);
    }
    pub fn fail_open(&self, failure: Option<Failure>) {
        self.inner.lock().open_failure = failure;
    }
    /// Whether its worker is told no secrets.
    pub fn keep_secrets(&self, no_secrets: bool) {
        self.inner.lock().no_secrets = no_secrets;
    }
    /// The hosts, and after them the secrets, that its worker was told of each time.
    pub fn told(&self) -> Vec<Vec<String>> {
        let of = |egress: &Egress| {
            let hosts = egress.hosts.iter().map(|allowed| allowed.host.to_string());
            hosts.chain(egress.secrets.iter().map(|secret| secret.name.clone())).collect()
        };
        self.inner.lock().told.iter().map(of).collect()
    }
    pub fn fail_close(&self, failure: Option<Failure>) {
        self.inner.lock().close_failure = failure;
    }
    /// What a session's files take from now on, as the worker tells it.
    pub fn takes(&self, session: SessionId, bytes: u64) {
        self.inner.lock().sizes.insert(session, bytes);
    }
    pub fn lose_files(&self) {
        self.inner.lock().files.clear();
    }
    pub fn opened(&self) -> Vec<Lease> {
        self.inner.lock().opened.clone()
    }
    pub fn closed(&self) -> Vec<(Lease, bool)> {
        self.inner.lock().closed.clone()
    }
    pub fn ahead(&self) -> Vec<Option<TaskId>> {
        self.inner.lock().ahead.clone()
    }
    pub fn dispatched(&self) -> Vec<TaskDispatch> {
        self.inner.lock().dispatched.clone()
    }
    /// A fleet whose worker runs by itself.
    pub fn apart() -> Self {
        Self { apart: true, ..Self::default() }
    }
    pub fn attached(&self) -> Vec<TaskAttach> {
        self.inner.lock().attached.clone()
    }
    pub fn expected(&self) -> Vec<(WorkerId, Incarnation)> {
        self.inner.lock().expected.clone()
    }
    /// The present life of the worker joins again; gives its event, with the tasks that it offers.
    pub fn rejoin(&self, offered: &[(SessionId, TaskId)]) -> WorkerEvent {
        let inner = self.inner.lock();
        let (worker, incarnation) = inner.worker.clone().unwrap();
        let of = |session: SessionId| offered.iter().filter(move |(of, _)| *of == session).map(|(_, task)| *task);
        let held = |session: &SessionId| HeldSession { tasks: of(*session).collect(), ..held(*session) };
        WorkerEvent::Joined {
            worker,
            incarnation,
            held: inner.files.iter().map(held).collect(),
            held_is_partial: false,
        }
    }
    /// The present life of the worker ends; gives its event.
    pub fn leave(&self) -> WorkerEvent {
        let (worker, incarnation) = self.inner.lock().worker.take().unwrap();
        WorkerEvent::Gone { worker, incarnation }
    }
    /// A new life of the worker begins; gives its event.
    pub fn join(&self) -> WorkerEvent {
        let mut inner = self.inner.lock();
        let name = if self.apart { "w1" } else { EMBEDDED_WORKER };
        let (worker, incarnation): (WorkerId, _) = (name.parse().unwrap(), Incarnation::mint());
        inner.worker = Some((worker.clone(), incarnation));
        self.changed.send_replace(());
        WorkerEvent::Joined {
            worker,
            incarnation,
            held: inner.files.iter().copied().map(held).collect(),
            held_is_partial: false,
        }
    }
    /// Whether the lease is of the worker's present life.
    fn is_present(&self, lease: &Lease) -> bool {
        self.inner.lock().worker == Some((lease.worker.clone(), lease.incarnation))
    }
}

fn held(session: SessionId) -> HeldSession {
    HeldSession { session, epoch: Epoch(1), open: true, tasks: Vec::new() }
}

fn away() -> Failure {
    Failure::new(ErrorCode::WorkerUnavailable, "the worker is away")
}

impl Fleet for Double {
    fn reserve(
        &self,
        _: &Requirements,
        prefer: Option<(&WorkerId, SessionId)>,
    ) -> Result<Box<dyn Reservation>, Failure> {
        let worker = self.inner.lock().worker.clone();
        match worker {
            Some((worker, life)) if prefer.is_none_or(|(prefer, _)| *prefer == worker) => {
                Ok(Box::new(Slot(worker, life)))
            }
            Some(_) | None => Err(away()),
        }
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn runtimes(&self, _: &WorkerId) -> Vec<Runtime> {
        Vec::new()
    }

    fn open(&self, open: OpenSession) -> BoxFuture<'_, Result<Opened, Failure>> {
        let OpenSession { session, lease, egress, .. } = open;
        async move {
            if !self.is_present(&lease) {
                return Err(away());
            }
            if let Some(on_open) = self.on_open.lock().as_ref() {
                on_open();
            }
            let mut inner = self.inner.lock();
            if let Some(failure) = inner.open_failure.clone() {
                return Err(failure);
            }
            if inner.no_secrets && egress.as_ref().is_some_and(|egress| !egress.secrets.is_empty()) {
                return Err(Failure::new(ErrorCode::PermissionDenied, "the worker is told no secrets"));
            }
            inner.opened.push(lease);
            inner.told.extend(egress);
            let isolation = IsolationReport { level: IsolationLevel::Full, layers: vec![] };
            Ok(Opened { isolation, workspace_created: inner.files.insert(session) })
        }
        .boxed()
    }

    fn close(
        &self,
        session: SessionId,
        lease: Lease,
        delete_workspace: bool,
    ) -> BoxFuture<'_, Result<Closed, Failure>> {
        async move {
            if !self.is_present(&lease) {
                return Err(away());
            }
            let mut inner = self.inner.lock();
            if let Some(failure) = inner.close_failure.clone() {
                return Err(failure);
            }
            if delete_workspace {
                inner.files.remove(&session);
            }
            inner.closed.push((lease, delete_workspace));
            let size = inner.sizes.get(&session).copied().unwrap_or_default();
            let workspace_bytes = if delete_workspace { 0 } else { size };
            Ok(Closed { workspace_bytes, contacts: Vec::new() })
        }
        .boxed()
    }

    fn go_ahead(&self, _: &Lease, held: Option<ExecuteTask>) -> Option<Ahead> {
        self.inner.lock().ahead.push(held.map(|task| task.task));
        None
    }

    fn execute(
        &self,
        task: TaskDispatch,
        events: mpsc::Sender<EventBody>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, DispatchEnd> {
        if let Some(witness) = self.witness.lock().as_ref() {
            witness(&task);
        }
        let mut inner = self.inner.lock();
        inner.dispatched.push(task);
        let script = inner.scripts.pop_front().unwrap_or(Script::Say("ok"));
        perform(script, events, cancel).boxed()
    }

    fn attach(
        &self,
        task: TaskAttach,
        events: mpsc::Sender<EventBody>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, DispatchEnd> {
        let mut inner = self.inner.lock();
        inner.attached.push(task);
        let script = inner.scripts.pop_front().unwrap_or(Script::Vanish);
        perform(script, events, cancel).boxed()
    }

    fn expect(&self, lives: Vec<(WorkerId, Incarnation)>) {
        self.inner.lock().expected = lives;
    }
}

async fn perform(script: Script, events: mpsc::Sender<EventBody>, cancel: CancellationToken) -> DispatchEnd {
    let exit = |code| DispatchEnd::Answered(EventBody::Finished(OperationResult::Exec(exit(code))));
    let output = |bytes: Vec<u8>| EventBody::Output { stream: OutputStream::Stdout, bytes };
    let cancelled = DispatchEnd::Answered(EventBody::Failed {
        failure: Failure::new(ErrorCode::TaskCancelled, "it was cancelled"),
        exit: Some(Exit::default()),
    });
    match script {
        Script::NotStarted => return DispatchEnd::NotStarted(away()),
        Script::Refuse(code) => return DispatchEnd::NotStarted(Failure::new(code, "it was refused")),
        Script::Vanish => return DispatchEnd::Unknown(away()),
        Script::Exit(code) => return exit(code),
        Script::Cost(cpu_ms) => {
            let used = ResourceUse { cpu_ms, ..ResourceUse::default() };
            let exit = Exit { code: Some(0), used, ..Exit::default() };
            return DispatchEnd::Answered(EventBody::Finished(OperationResult::Exec(exit)));
        }
        Script::Refused(code) => {
            let failure = Failure::new(code, "it took too long");
            return DispatchEnd::Answered(EventBody::Failed { failure, exit: Some(Exit::default()) });
        }
        Script::Say(text) => events.send(output(text.into())).await.unwrap(),
        Script::Flood(pieces) => {
            for _ in 0..pieces {
                events.send(output(vec![b'x'; 1024])).await.unwrap();
            }
        }
        Script::Hang => {
            cancel.cancelled().await;
            return cancelled;
        }
        Script::Gate(gate) => tokio::select! {
            () = gate.notified() => {}
            () = cancel.cancelled() => return cancelled,
        },
    }
    exit(0)
}

fn exit(code: i32) -> Exit {
    Exit { code: Some(code), ..Exit::default() }
}

/// Sessions over a double, with everything that a test looks at.
pub struct Rig {
    pub sessions: Sessions,
    pub fleet: Double,
    pub audit: Audit,
    pub supervisor: Supervisor,
    pub news: mpsc::Sender<WorkerEvent>,
}

/// What a rig stands on.
#[derive(Clone)]
pub struct Ground {
    pub audit: Audit,
    pub audit_dir: Option<PathBuf>,
    pub sessions: Arc<dyn SessionStore>,
    pub tasks: Arc<dyn TaskStore>,
    pub fleet: Double,
}

impl Ground {
    pub fn in_memory() -> Self {
        let store = Arc::new(Memory::default());
        let fleet = Double::default();
        Self { audit: Audit::in_memory(), audit_dir: None, sessions: store.clone(), tasks: store, fleet }
    }
}

pub fn options() -> SessionOptions {
    SessionOptions { worker_patience: Duration::from_millis(300), ..SessionOptions::default() }
}

impl Rig {
    /// Sessions with one worker that has joined.
    pub async fn new() -> Self {
        Self::with(Ground::in_memory(), options()).await
    }

    pub async fn with(ground: Ground, options: SessionOptions) -> Self {
        let this = Self::started(ground, options).await;
        this.news.send(this.fleet.join()).await.unwrap();
        this
    }

    /// The same, where no worker has joined yet.
    pub async fn started(ground: Ground, options: SessionOptions) -> Self {
        let supervisor = Supervisor::default();
        let Ground { audit, audit_dir, sessions, tasks, fleet } = ground;
        let sessions = Sessions::start(SessionsDeps {
            audit: audit.clone(),
            audit_dir,
            sessions,
            tasks,
            fleet: Arc::new(fleet.clone()),
            supervisor: supervisor.clone(),
            options,
        });
        let sessions = sessions.await.unwrap();
        let (news, events) = mpsc::channel(16);
        tokio::spawn(sessions.clone().follow(events));
        Self { sessions, fleet, audit, supervisor, news }
    }

    pub async fn create(&self) -> Arc<SessionSnapshot> {
        self.sessions.create(&ann(), CreateSession::default()).await.unwrap()
    }

    pub async fn run(&self, call: TaskCall) -> TaskOutcome {
        let (events, _) = mpsc::channel(1);
        self.sessions.run(call, events, CancellationToken::new()).await
    }

    pub fn state(&self, session: SessionId) -> &'static str {
        self.sessions.get(&ann(), session).map_or("forgotten", |snapshot| snapshot.state)
    }

    pub async fn reaches(&self, session: SessionId, state: &str) {
        until(&format!("the session is {state}"), || self.state(session) == state).await;
    }

    /// The kinds of a session's records, in order.
    pub fn kinds(&self, session: SessionId) -> Vec<EventKind> {
        self.audit.memory_records().iter().filter(|r| r.session == Some(session)).map(|r| r.kind).collect()
    }

    pub fn records_of(&self, task: TaskId) -> Vec<Record> {
        self.audit.memory_records().into_iter().filter(|r| r.task == Some(task)).collect()
    }
}

pub fn ann() -> Principal {
    Principal::os_user("ann")
}

pub fn call(session: SessionId) -> TaskCall {
    let program = Program::PythonCode { code: "1".to_owned(), args: vec![] };
    TaskCall {
        principal: ann(),
        session,
        task: TaskId::mint(),
        tool: "run_python",
        called_as: "run.python".to_owned(),
        args: json!({"code": "1"}),
        path: None,
        operation: Operation::Exec(Exec::of(program)),
        read_only: false,
        timeout: None,
        idempotency_key: None,
        client: None,
        trace: None,
        arrival: None,
        leave: Leave::Free,
    }
}

pub fn keyed(session: SessionId, key: &str) -> TaskCall {
    TaskCall { idempotency_key: Some(key.to_owned()), ..call(session) }
}

pub fn code(outcome: &TaskOutcome) -> Option<ErrorCode> {
    outcome.result.as_ref().err().map(|failure| failure.code)
}

pub fn stdout(outcome: &TaskOutcome) -> String {
    String::from_utf8(outcome.result.as_ref().unwrap().stdout.head.clone()).unwrap()
}

/// Looks again and again, for ten seconds at most.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
