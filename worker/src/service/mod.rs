//! The service that the coordinator drives this worker by. Every message is checked, every call's lease too.

mod held;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use codegen_proto::status::{accept, from_failure};
use codegen_proto::v1::worker_server::Worker;
use codegen_proto::{AttachTask, CancelAnswer, CancelTask, CloseSession, ExecuteTask, OpenSession, v1};
use codegen_types::{ErrorCode, Failure, Incarnation, Lease, SessionId, TaskId, TraceContext, WorkerId};
use futures::{Stream, TryStreamExt as _};
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::executor;
use crate::session::{Pool, Session};
use crate::tasks::{Admitted, EventStream, Gate, Known, Stop, Task, Tasks};
use held::Begun;

/// Who this worker is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub worker: WorkerId,
    pub incarnation: Incarnation,
}

/// The service; cheap to clone.
#[derive(Clone)]
pub(crate) struct Service(Arc<Parts>);

struct Parts {
    identity: Identity,
    pool: Pool,
    tasks: Arc<Tasks>,
    running: TaskTracker,
    draining: AtomicBool,
}

impl Service {
    pub fn new(identity: Identity, pool: Pool, tasks: Arc<Tasks>) -> Self {
        let parts = Parts { identity, pool, tasks, running: TaskTracker::new(), draining: AtomicBool::new(false) };
        Self(Arc::new(parts))
    }

    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    pub fn pool(&self) -> &Pool {
        &self.0.pool
    }

    pub fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    /// Takes no new task or session from now on.
    pub fn take_nothing_new(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Takes no new task or session and waits until those that run have ended.
    pub async fn drain(&self) {
        self.take_nothing_new();
        self.0.running.close();
        self.0.running.wait().await;
    }

    /// Whether nothing new is taken any more.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Ends everything: tasks, then every process of every session.
    pub async fn end_all(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
        self.0.tasks.stop_all(Stop::WorkerStops);
        self.0.pool.close_all().await;
    }

    fn check_holder(&self, lease: &Lease) -> Result<(), Failure> {
        let Identity { worker, incarnation } = &self.0.identity;
        if lease.worker == *worker && lease.incarnation == *incarnation {
            return Ok(());
        }
        Err(Failure::new(
            ErrorCode::PermissionDenied,
            "The lease names another worker, or an earlier life of this one.",
        ))
    }

    fn check_accepting(&self) -> Result<(), Failure> {
        if self.0.draining.load(Ordering::Relaxed) {
            return Err(Failure::new(ErrorCode::WorkerUnavailable, "The worker is stopping and takes nothing new."));
        }
        Ok(())
    }

    /// Takes a task from its request, and runs it as soon as it may begin.
    async fn take(&self, trace: Option<TraceContext>, mut messages: impl Requests) -> Result<EventStream, Status> {
        let message = messages.try_next().await?.ok_or_else(|| from_failure(given_up()))?;
        let held = message.held;
        let execute: ExecuteTask = accept(message)?;
        if let Some(trace) = trace {
            tracing::debug!(task = %execute.task, %trace, "a task that is traced");
        }
        let begun = if held { self.hold(&execute, messages).await? } else { None };
        self.execute(execute, begun).map_err(from_failure)
    }

    fn session(&self, request: &ExecuteTask) -> Result<Arc<Session>, Failure> {
        self.0.pool.get(request.session, &request.lease)
    }

    fn execute(&self, request: ExecuteTask, begun: Option<Begun>) -> Result<EventStream, Failure> {
        self.check_holder(&request.lease)?;
        let id = request.task;
        // A task that is known is answered even by a session that was closed since: it may have ended in time.
        if let Some(task) = self.known(id, request.session, &request.lease)? {
            return Ok(task.log.read(1));
        }
        self.check_accepting()?;
        let session = self.session(&request)?;
        let begun = match begun.filter(|begun| begun.is_of(&session)) {
            Some(begun) => begun,
            None => Begun::new(session, request, Gate::open()),
        };
        match self.0.tasks.admit(&begun.task) {
            Admitted::New => {
                let (task, events) = (begun.task.clone(), begun.task.log.read(1));
                self.0.running.spawn(executor::run(self.0.tasks.clone(), task, begun.end()));
                Ok(events)
            }
            Admitted::Known(task) => Ok(task.log.read(1)),
            Admitted::Forgotten => Err(forgotten()),
        }
    }

    fn attach(&self, request: &AttachTask) -> Result<EventStream, Failure> {
        self.check_holder(&request.lease)?;
        let task = self.known(request.task, request.session, &request.lease)?.ok_or_else(never)?;
        Ok(task.log.read(request.from_seq))
    }

    fn cancel(&self, request: &CancelTask) -> Result<CancelAnswer, Failure> {
        self.check_holder(&request.lease)?;
        let task = self.known(request.task, request.session, &request.lease)?.ok_or_else(never)?;
        let was_running = !task.log.has_ended();
        task.stop(Stop::Cancelled { grace: request.grace });
        Ok(CancelAnswer { was_running })
    }

    /// A task of that session, if this life of the worker ever saw it.
    fn known(&self, id: TaskId, session: SessionId, lease: &Lease) -> Result<Option<Arc<Task>>, Failure> {
        self.0.pool.check_lease(session, lease)?;
        match self.0.tasks.find(id) {
            Known::Kept(task) if task.session != session || task.epoch > lease.epoch => {
                Err(Failure::new(ErrorCode::PermissionDenied, "The task is not one of that session and lease."))
            }
            Known::Kept(task) => Ok(Some(task)),
            Known::Forgotten => Err(forgotten()),
            Known::Never => Ok(None),
        }
    }
}

/// The messages of one request.
trait Requests: Stream<Item = Result<v1::TaskRequest, Status>> + Send + Unpin {}
impl<T: Stream<Item = Result<v1::TaskRequest, Status>> + Send + Unpin> Requests for T {}

/// This answer is a promise that nothing was run: the coordinator may place the task again.
fn never() -> Failure {
    Failure::new(ErrorCode::NotFound, "This life of the worker never saw that task.")
}

fn given_up() -> Failure {
    Failure::new(ErrorCode::TaskCancelled, "The task was given up before it began; nothing was run.")
}

fn forgotten() -> Failure {
    let message = "The task may have run on this worker; its outcome is not kept any more.";
    Failure::new(ErrorCode::TaskOutcomeUnknown, message)
}

#[tonic::async_trait]
impl Worker for Service {
    type ExecuteTaskStream = EventStream;
    type AttachTaskStream = EventStream;

    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        let open: OpenSession = accept(request.into_inner())?;
        self.check_holder(&open.lease).and_then(|()| self.check_accepting()).map_err(from_failure)?;
        // Detached, so that a call that is given up does not leave a session half open.
        let service = self.clone();
        let opened = tokio::spawn(async move { service.0.pool.open(open).await }).await;
        Ok(Response::new(opened.map_err(panicked)?.map_err(from_failure)?.into()))
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        let close: CloseSession = accept(request.into_inner())?;
        self.check_holder(&close.lease).map_err(from_failure)?;
        let service = self.clone();
        let closed = tokio::spawn(async move { service.0.pool.close(close).await }).await;
        Ok(Response::new(closed.map_err(panicked)?.map_err(from_failure)?.into()))
    }

    async fn execute_task(
        &self,
        request: Request<Streaming<v1::TaskRequest>>,
    ) -> Result<Response<EventStream>, Status> {
        let trace = trace_of(request.metadata());
        self.take(trace, request.into_inner()).await.map(Response::new)
    }

    async fn attach_task(&self, request: Request<v1::AttachTaskRequest>) -> Result<Response<EventStream>, Status> {
        let attach: AttachTask = accept(request.into_inner())?;
        self.attach(&attach).map(Response::new).map_err(from_failure)
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::CancelTaskResponse>, Status> {
        let cancel: CancelTask = accept(request.into_inner())?;
        self.cancel(&cancel).map(|answer| Response::new(answer.into())).map_err(from_failure)
    }
}

/// The trace that a task belongs to. Its spans are made by the coordinator, from the times that go with the last event;
/// here it only shows in the diagnostics.
fn trace_of(metadata: &MetadataMap) -> Option<TraceContext> {
    TraceContext::parse(metadata.get("traceparent")?.to_str().ok()?, None)
}

fn panicked(error: tokio::task::JoinError) -> Status {
    tracing::error!(%error, "a call to a session failed");
    from_failure(Failure::new(ErrorCode::Internal, "The worker failed while it worked on the session."))
}

#[cfg(test)]
mod tests;
