//! The double's tasks: their events are kept and can be streamed from any place on. A task's command is a word that
//! says what it does.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use codegen_proto::v1::worker_server::Worker;
use codegen_proto::{ExecuteTask, SessionOpened, status, v1};
use codegen_types::{
    ErrorCode, Event, EventBody, Exit, Failure, IsolationLevel, IsolationReport, Operation, OperationResult,
    OutputStream, Program,
};
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// The bytes of one piece of a flood.
pub const PIECE_BYTES: usize = 64 << 10;

/// What is sent on each stream of a task: the first one, and each that it is asked for again.
pub type Script = VecDeque<Vec<Result<v1::TaskEvent, Status>>>;

pub struct Tasks {
    level: IsolationLevel,
    tasks: Mutex<HashMap<String, Arc<Task>>>,
    /// Scripts by their command, and what is left of them by their task.
    scripts: Mutex<HashMap<String, Script>>,
    /// How often each task was executed; more than once is the mistake that all of this is about.
    executed: Mutex<HashMap<String, u32>>,
    /// What came with each task beside its message.
    beside: Mutex<HashMap<String, MetadataMap>>,
    socket: Mutex<Option<OwnedFd>>,
    /// Opened by tests for tasks that wait.
    pub gate: Notify,
    pub closed: AtomicU32,
    pub opened: AtomicU32,
    pub cancels: AtomicU32,
    /// Calls whose heads came, whether or not a message followed.
    pub heads: AtomicU32,
    /// Tasks that came to be held, whether or not they began.
    pub held: AtomicU32,
    /// Pieces of a task without end that the link took.
    pub given: AtomicUsize,
}

struct Task {
    events: Mutex<Vec<v1::TaskEvent>>,
    news: watch::Sender<()>,
    cancelled: CancellationToken,
    /// Its gap is gone when its events are asked for again.
    mends: bool,
}

impl Task {
    fn push_raw(&self, seq: u64, body: EventBody) {
        self.events.lock().push(Event { seq, body }.into());
        self.news.send_replace(());
    }

    fn push(&self, body: EventBody) {
        let seq = self.events.lock().len() as u64 + 1;
        self.push_raw(seq, body);
    }

    fn say(&self, text: &str) {
        self.push(EventBody::Output { stream: OutputStream::Stdout, bytes: text.as_bytes().to_vec() });
    }

    fn finish(&self) {
        self.push(EventBody::Finished(OperationResult::Exec(Exit { code: Some(0), ..Exit::default() })));
    }

    fn fail(&self, code: ErrorCode) {
        self.push(EventBody::Failed { failure: Failure::new(code, "as asked"), exit: None });
    }
}

impl Tasks {
    pub fn new(level: IsolationLevel) -> Arc<Self> {
        Arc::new(Self {
            level,
            tasks: Mutex::default(),
            scripts: Mutex::default(),
            executed: Mutex::default(),
            beside: Mutex::default(),
            socket: Mutex::default(),
            gate: Notify::new(),
            closed: AtomicU32::new(0),
            opened: AtomicU32::new(0),
            cancels: AtomicU32::new(0),
            heads: AtomicU32::new(0),
            held: AtomicU32::new(0),
            given: AtomicUsize::new(0),
        })
    }

    pub fn set_socket(&self, socket: OwnedFd) {
        *self.socket.lock() = Some(socket);
    }

    /// Has tasks of this command, which begins with `script`, send this.
    pub fn follow(&self, command: &str, script: Script) {
        self.scripts.lock().insert(command.to_owned(), script);
    }

    /// What a task whose stream is asked for sends on it, if it follows a script that goes on.
    fn next_of_script(&self, task: &str) -> Option<BoxStream<'static, Result<v1::TaskEvent, Status>>> {
        let events = self.scripts.lock().get_mut(task)?.pop_front()?;
        Some(Box::pin(futures::stream::iter(events)))
    }

    /// How often the task was executed.
    pub fn executed(&self, task: impl ToString) -> u32 {
        self.executed.lock().get(&task.to_string()).copied().unwrap_or(0)
    }

    /// How often any task was executed.
    pub fn executed_at_all(&self) -> u32 {
        self.executed.lock().values().sum()
    }

    /// What came with a task beside its message.
    pub fn beside(&self, task: impl ToString) -> MetadataMap {
        self.beside.lock().remove(&task.to_string()).expect("it was executed")
    }

    fn break_link(&self) {
        let socket = self.socket.lock().take().expect("a link");
        rustix::net::shutdown(&socket, rustix::net::Shutdown::Both).unwrap();
    }

    fn stream(task: Arc<Task>, from: u64) -> BoxStream<'static, Result<v1::TaskEvent, Status>> {
        let state = (task.news.subscribe(), task, usize::try_from(from - 1).unwrap(), false);
        Box::pin(futures::stream::unfold(state, |(mut news, task, next, done)| async move {
            if done {
                return None;
            }
            loop {
                let event = task.events.lock().get(next).cloned();
                if let Some(event) = event {
                    use v1::task_event::Body;
                    let last = matches!(event.body, Some(Body::Finished(_) | Body::Failed(_)));
                    return Some((Ok(event), (news, task, next + 1, last)));
                }
                news.changed().await.ok()?;
            }
        }))
    }
}

impl Tasks {
    /// Output that is made only when the link takes it, until the task is cancelled.
    fn without_end(tasks: Arc<Self>, task: Arc<Task>) -> BoxStream<'static, Result<v1::TaskEvent, Status>> {
        Box::pin(futures::stream::unfold((tasks, task, 1, false), |(tasks, task, seq, done)| async move {
            let body = match seq {
                _ if done => return None,
                1 => EventBody::Started,
                _ if task.cancelled.is_cancelled() => {
                    EventBody::Failed { failure: Failure::new(ErrorCode::TaskCancelled, "as asked"), exit: None }
                }
                _ => {
                    tasks.given.fetch_add(1, Ordering::SeqCst);
                    EventBody::Output { stream: OutputStream::Stdout, bytes: vec![b'z'; PIECE_BYTES] }
                }
            };
            let last = body.is_last();
            Some((Ok(Event { seq, body }.into()), (tasks, task, seq + 1, last)))
        }))
    }
}

/// What the words do. Every task begins with `Started`.
async fn act(tasks: Arc<Tasks>, task: Arc<Task>, word: String) {
    task.push(EventBody::Started);
    match word.as_str() {
        "hello" => {
            task.say("hello");
            task.say("world");
            task.finish();
        }
        // Two pieces of output with the test's leave between them.
        "gated" => {
            task.say("before");
            tasks.gate.notified().await;
            task.say("after");
            task.finish();
        }
        "until cancelled" => {
            task.say("running");
            task.cancelled.cancelled().await;
            task.fail(ErrorCode::TaskCancelled);
        }
        "for ever" => task.say("running"),
        "flood" => {
            let piece = vec![b'x'; PIECE_BYTES];
            for _ in 0..40 {
                task.push(EventBody::Output { stream: OutputStream::Stdout, bytes: piece.clone() });
                tokio::task::yield_now().await;
                if task.cancelled.is_cancelled() {
                    return task.fail(ErrorCode::TaskCancelled);
                }
            }
            task.cancelled.cancelled().await;
            task.fail(ErrorCode::TaskCancelled);
        }
        "a megabyte" => {
            for _ in 0..16 {
                task.push(EventBody::Output { stream: OutputStream::Stdout, bytes: vec![b'y'; PIECE_BYTES] });
            }
            task.finish();
        }
        // Larger than anything that a link carries.
        "too large" => task.push(EventBody::Output { stream: OutputStream::Stdout, bytes: vec![b'z'; 81 << 20] }),
        "gap" | "gap once" => task.push_raw(3, EventBody::Progress { message: "out of order".to_owned() }),
        "again" => task.push_raw(1, EventBody::Started),
        "another answer" => task.push(EventBody::Finished(OperationResult::Remove { removed: 1 })),
        other => panic!("no such word: {other}"),
    }
}

/// Serves [`Tasks`].
pub struct Service(pub Arc<Tasks>);

#[tonic::async_trait]
impl Worker for Service {
    type ExecuteTaskStream = BoxStream<'static, Result<v1::TaskEvent, Status>>;
    type AttachTaskStream = BoxStream<'static, Result<v1::TaskEvent, Status>>;

    async fn open_session(
        &self,
        _: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        let isolation = IsolationReport { level: self.0.level, layers: Vec::new() };
        Ok(Response::new(SessionOpened { isolation, workspace_created: true }.into()))
    }

    async fn close_session(
        &self,
        _: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        self.0.closed.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(v1::CloseSessionResponse::default()))
    }

    async fn execute_task(
        &self,
        request: Request<Streaming<v1::TaskRequest>>,
    ) -> Result<Response<Self::ExecuteTaskStream>, Status> {
        let (beside, _, mut messages) = request.into_parts();
        let request = messages.message().await?.ok_or_else(|| Status::cancelled("no task"))?;
        if request.held {
            self.0.held.fetch_add(1, Ordering::Relaxed);
            messages.message().await?.ok_or_else(|| Status::cancelled("given up"))?;
        }
        let request: ExecuteTask = status::accept(request)?;
        self.0.beside.lock().insert(request.task.to_string(), beside);
        let Operation::Exec(exec) = request.operation else { panic!("only programs") };
        let Program::Shell { command } = exec.program else { panic!("only commands") };
        match command.as_str() {
            "refused" => return Err(status::from_failure(Failure::new(ErrorCode::SessionNotFound, "as asked"))),
            // The link breaks before the task came to anything.
            "never arrived" => {
                self.0.break_link();
                return std::future::pending().await;
            }
            _ => {}
        }
        let id = request.task.to_string();
        *self.0.executed.lock().entry(id.clone()).or_default() += 1;
        if command.starts_with("script") {
            let mut scripts = self.0.scripts.lock();
            let script = scripts.remove(&command).expect("it was written");
            scripts.insert(id.clone(), script);
            drop(scripts);
            return Ok(Response::new(self.0.next_of_script(&id).expect("it has a stream")));
        }
        let task = Arc::new(Task {
            events: Mutex::default(),
            news: watch::Sender::new(()),
            cancelled: CancellationToken::new(),
            mends: command == "gap once",
        });
        self.0.tasks.lock().insert(id, Arc::clone(&task));
        if command == "without end" {
            return Ok(Response::new(Tasks::without_end(Arc::clone(&self.0), task)));
        }
        tokio::spawn(act(Arc::clone(&self.0), Arc::clone(&task), command));
        Ok(Response::new(Tasks::stream(task, 1)))
    }

    async fn attach_task(
        &self,
        request: Request<v1::AttachTaskRequest>,
    ) -> Result<Response<Self::AttachTaskStream>, Status> {
        let request = request.into_inner();
        if let Some(stream) = self.0.next_of_script(&request.task_id) {
            return Ok(Response::new(stream));
        }
        let task = self.0.tasks.lock().get(&request.task_id).cloned();
        let task = task.ok_or_else(|| status::from_failure(Failure::new(ErrorCode::NotFound, "never seen")))?;
        if task.mends {
            task.events.lock().truncate(1);
            task.say("in order");
            task.finish();
        }
        Ok(Response::new(Tasks::stream(task, request.from_seq)))
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::CancelTaskResponse>, Status> {
        self.0.cancels.fetch_add(1, Ordering::Relaxed);
        let task = self.0.tasks.lock().get(&request.into_inner().task_id).cloned();
        let task = task.ok_or_else(|| status::from_failure(Failure::new(ErrorCode::NotFound, "never seen")))?;
        task.cancelled.cancel();
        Ok(Response::new(v1::CancelTaskResponse { was_running: true }))
    }
}
