//! A coordinator's workers with a listener of each family, and what tests ask of it.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use codegen_audit::{Audit, EventKind, Record};
use codegen_proto::{ExecuteTask, OpenSession};
use codegen_types::{
    Epoch, ErrorCode, EventBody, Exec, Failure, IsolationLevel, Lease, Limits, Operation, Program, SessionId, TaskId,
};
use coordinator::supervisor::Supervisor;
use coordinator::workers::{DispatchEnd, Fleet as _, TaskDispatch, WorkerEvent, Workers, WorkersOptions};
use coordinator_core::placement::Requirements;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::double::{Double, Route, Spec};

/// No test waits longer than this for anything that must happen.
pub const LONG: Duration = Duration::from_secs(20);
/// Events that a test need not take at once.
pub const EVENTS: usize = 16;

pub struct Rig {
    pub workers: Workers,
    pub events: mpsc::Receiver<WorkerEvent>,
    pub audit: Audit,
    pub supervisor: Supervisor,
    pub socket: PathBuf,
    pub tcp: SocketAddr,
    _dir: tempfile::TempDir,
}

/// What goes ahead of a task: nothing, the head of its request, or the task itself, to be held.
#[derive(Debug, Clone, Copy)]
pub enum Ahead {
    Nothing,
    Head,
    Held,
}

impl Ahead {
    pub const ALL: [Self; 3] = [Self::Nothing, Self::Head, Self::Held];
}

/// What a session with nothing special about it is opened with.
pub fn opening(session: SessionId, lease: Lease) -> OpenSession {
    let (limits, isolation_minimum, egress) = (Limits::default(), IsolationLevel::Full, None);
    OpenSession { session, lease, limits, isolation_minimum, egress }
}

impl Rig {
    pub async fn new(options: WorkersOptions) -> Self {
        let (audit, supervisor) = (Audit::in_memory(), Supervisor::default());
        let (workers, events) = Workers::new(options, audit.clone(), supervisor.clone()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("worker.sock");
        workers.serve_listener(UnixListener::bind(&socket).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = listener.local_addr().unwrap();
        workers.serve_listener(listener);
        Self { workers, events, audit, supervisor, socket, tcp, _dir: dir }
    }

    pub fn unix(&self) -> Route {
        Route::Unix(self.socket.clone())
    }

    pub fn routes(&self) -> [Route; 2] {
        [self.unix(), Route::Tcp(self.tcp)]
    }

    /// A worker that has joined and whose link is up.
    pub async fn joined(&mut self, spec: Spec) -> Double {
        self.joined_over(self.unix(), spec).await
    }

    pub async fn joined_over(&mut self, route: Route, spec: Spec) -> Double {
        let token = self.workers.issue_token(&spec.id);
        let mut double = Double::new(route, spec);
        let registered = double.register(token.expose()).await.unwrap();
        assert!(matches!(self.event().await, WorkerEvent::Joined { .. }));
        double.open_link(&registered.link_ticket).await.unwrap();
        self.link_up(&double, true).await;
        double
    }

    pub async fn event(&mut self) -> WorkerEvent {
        within(self.events.recv()).await.unwrap()
    }

    pub async fn link_up(&self, double: &Double, up: bool) {
        let incarnation = double.spec.incarnation;
        let is_so = || self.workers.snapshot().iter().any(|row| row.incarnation == incarnation && row.link_up == up);
        until("the link's state", is_so).await;
    }

    pub fn records(&self, kind: EventKind) -> Vec<Record> {
        self.audit.memory_records().into_iter().filter(|record| record.kind == kind).collect()
    }

    pub async fn open(&self, session: SessionId, lease: &Lease) -> Result<(), Failure> {
        within(self.workers.open(opening(session, lease.clone()))).await.map(drop)
    }

    /// A task that runs `command`, a word that the double knows, after what went ahead of it.
    pub fn task_behind(&self, ahead: Ahead, double: &Double, command: &str) -> TaskDispatch {
        let mut dispatch = TaskDispatch {
            task: TaskId::mint(),
            session: SessionId::mint(),
            lease: double.lease(),
            operation: shell(command),
            timeout: Duration::from_secs(60),
            output_bytes_max: 1 << 20,
            trace: None,
            arrival: None,
            ahead: None,
        };
        let TaskDispatch { task, session, lease, operation, timeout, .. } = dispatch.clone();
        let held = ExecuteTask { task, session, lease, timeout, operation };
        dispatch.ahead = match ahead {
            Ahead::Nothing => None,
            Ahead::Head => self.workers.go_ahead(&dispatch.lease, None),
            Ahead::Held => self.workers.go_ahead(&dispatch.lease, Some(held)),
        };
        dispatch
    }

    /// Starts a task after the head of its request.
    pub fn start(&self, double: &Double, command: &str) -> Run {
        self.start_behind(Ahead::Head, double, command)
    }

    pub fn start_behind(&self, ahead: Ahead, double: &Double, command: &str) -> Run {
        self.run(self.task_behind(ahead, double, command), EVENTS)
    }

    pub fn start_with(&self, double: &Double, command: &str, change: impl FnOnce(&mut TaskDispatch)) -> Run {
        self.start_reading(double, command, EVENTS, change)
    }

    /// Like `start_with`, with room for so many events that the test has not taken yet.
    pub fn start_reading(
        &self,
        double: &Double,
        command: &str,
        room: usize,
        change: impl FnOnce(&mut TaskDispatch),
    ) -> Run {
        let mut task = self.task_behind(Ahead::Head, double, command);
        change(&mut task);
        self.run(task, room)
    }

    pub fn run(&self, task: TaskDispatch, room: usize) -> Run {
        let (sender, events) = mpsc::channel(room);
        let (cancel, id) = (CancellationToken::new(), task.task);
        let (workers, token) = (self.workers.clone(), cancel.clone());
        let end = tokio::spawn(async move { workers.execute(task, sender, token).await });
        Run { id, events, cancel, end }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.workers.shutdown();
        self.supervisor.cancel();
    }
}

/// A task that was dispatched.
pub struct Run {
    pub id: TaskId,
    pub events: mpsc::Receiver<EventBody>,
    pub cancel: CancellationToken,
    end: tokio::task::JoinHandle<DispatchEnd>,
}

impl Run {
    /// The next event, skipping `Started`.
    pub async fn output(&mut self) -> String {
        loop {
            match within(self.events.recv()).await.expect("an event") {
                EventBody::Started => {}
                EventBody::Output { bytes, .. } => return String::from_utf8(bytes).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The end, with what events had not been taken.
    pub async fn end(mut self) -> (DispatchEnd, Vec<EventBody>) {
        let mut rest = Vec::new();
        while let Some(event) = within(self.events.recv()).await {
            rest.push(event);
        }
        (within(self.end).await.unwrap(), rest)
    }

    /// The end, without taking a single event.
    pub async fn end_unread(self) -> DispatchEnd {
        let _events = self.events;
        within(self.end).await.unwrap()
    }
}

pub fn shell(command: &str) -> Operation {
    Operation::Exec(Exec::of(Program::Shell { command: command.to_owned() }))
}

pub fn requirements() -> Requirements {
    Requirements {
        isolation_minimum: IsolationLevel::Full,
        runtimes: vec!["python".to_owned()],
        labels: Default::default(),
        trust: Default::default(),
    }
}

/// The error code with which a task ended, when it was answered with one.
pub fn answered_code(end: &DispatchEnd) -> Option<ErrorCode> {
    match end {
        DispatchEnd::Answered(EventBody::Failed { failure, .. }) => Some(failure.code),
        _ => None,
    }
}

pub fn lease(double: &Double, epoch: u64) -> Lease {
    Lease { epoch: Epoch(epoch), ..double.lease() }
}

pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LONG, future).await.expect("it happens in time")
}

pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let polled = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, polled).await.is_ok(), "{what}: not in time");
}
