//! What sessions need of the workers: a seam with one real implementation ([`super::Workers`] with
//! [`crate::dispatch`]) and a double for tests of the session layer.

use std::time::Duration;

use codegen_proto::{ExecuteTask, OpenSession};
use codegen_types::{
    Contact, EventBody, Failure, HeldSession, Incarnation, IsolationReport, Lease, Operation, Runtime, SessionId,
    TaskId, TraceContext, WorkerId,
};
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::arrivals::Arrival;
use crate::dispatch::Ahead;

use coordinator_core::placement::Requirements;

/// A slot on a worker, held until a session is opened in it or it is dropped.
pub trait Reservation: Send + Sync {
    /// The worker and the life of it that has the slot.
    fn worker(&self) -> (&WorkerId, Incarnation);
}

/// What a session's worker said when it opened the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What its sandbox really has.
    pub isolation: IsolationReport,
    /// Whether the workspace is new.
    pub workspace_created: bool,
}

/// What a session's worker said when it ended the session's processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closed {
    /// Bytes that a workspace which is kept takes.
    pub workspace_bytes: u64,
    /// Whom the session asked to reach since its last program ended.
    pub contacts: Vec<Contact>,
}

/// One task, as it is sent to a worker.
#[derive(Debug, Clone)]
pub struct TaskDispatch {
    /// The task.
    pub task: TaskId,
    /// Its session.
    pub session: SessionId,
    /// Who holds the session, by the session's own record.
    pub lease: Lease,
    /// What to do.
    pub operation: Operation,
    /// Wall time; the worker ends the task then.
    pub timeout: Duration,
    /// Stdout and stderr together, in bytes; the coordinator trusts no worker to keep to it.
    pub output_bytes_max: u64,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
    /// Who waits until its worker has it.
    pub arrival: Option<Arrival>,
    /// The stream that went ahead to its worker.
    pub ahead: Option<Ahead>,
}

/// A task that was sent by an earlier server, or was given up, and may still be with its worker.
#[derive(Debug, Clone)]
pub struct TaskAttach {
    /// The task.
    pub task: TaskId,
    /// Its session.
    pub session: SessionId,
    /// Who held the session when it was sent.
    pub lease: Lease,
    /// The name of its operation: an answer to another one is none.
    pub operation: String,
    /// How long it may go on from now, at most; the worker ends it earlier by its own limit.
    pub timeout: Duration,
    /// Stdout and stderr together, in bytes.
    pub output_bytes_max: u64,
    /// How long that life of the worker is waited for, each time that it is away.
    pub patience: Duration,
}

/// How a dispatched task ended, as far as the coordinator can know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DispatchEnd {
    /// The worker answered; the last event, [`EventBody::Finished`] or [`EventBody::Failed`].
    Answered(EventBody),
    /// It was never written to a link, or that incarnation denies having it: it may be placed again.
    NotStarted(Failure),
    /// It was sent, and its end cannot be learnt: `TASK_OUTCOME_UNKNOWN`.
    Unknown(Failure),
}

/// What the workers do for sessions.
pub trait Fleet: Send + Sync + 'static {
    /// Finds a worker with a free slot and reserves it. `prefer` is the worker that has the files of that session: when
    /// it is given, no other worker will do, and a slot that the session has there still counts as free.
    fn reserve(
        &self,
        requirements: &Requirements,
        prefer: Option<(&WorkerId, SessionId)>,
    ) -> Result<Box<dyn Reservation>, Failure>;

    /// Changes whenever reserving may give something else than before.
    fn changes(&self) -> watch::Receiver<()>;

    /// What a worker runs programs with; nothing while it is not known.
    fn runtimes(&self, worker: &WorkerId) -> Vec<Runtime>;

    /// Opens a session on its worker; idempotent for one lease, but that it reaches what was said last.
    fn open(&self, open: OpenSession) -> BoxFuture<'_, Result<Opened, Failure>>;

    /// Ends a session's processes, and deletes its workspace when asked. What it gives is the worker's word.
    fn close(&self, session: SessionId, lease: Lease, delete_workspace: bool)
    -> BoxFuture<'_, Result<Closed, Failure>>;

    /// Goes ahead to a session's worker for a task that may follow. No word of the task is said, unless it is to be `held`
    /// there until it follows. Nothing where that takes waiting.
    fn go_ahead(&self, lease: &Lease, held: Option<ExecuteTask>) -> Option<Ahead>;

    /// Runs a task to its end. `Started`, `Output`, `Progress` and `Display` go to `events` in order; the last event
    /// is returned. Cancelling `cancel` ends the task on the worker and still waits for its last event.
    fn execute(
        &self,
        task: TaskDispatch,
        events: mpsc::Sender<EventBody>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, DispatchEnd>;

    /// Follows a task to its end that may have been sent before, and sends it to nobody. `NotStarted` is the worker's
    /// word that it never came.
    fn attach(
        &self,
        task: TaskAttach,
        events: mpsc::Sender<EventBody>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, DispatchEnd>;

    /// Says which lives of workers were there before this server and may come back: calls to them wait, and one that
    /// does not come in time is gone.
    fn expect(&self, lives: Vec<(WorkerId, Incarnation)>);
}

/// What became of a worker; sessions follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerEvent {
    /// A life of a worker has joined (or joined again). Sessions leased to an earlier life of it keep their files when
    /// they are in `held`, else they are lost.
    Joined {
        /// Which worker.
        worker: WorkerId,
        /// Which life of it.
        incarnation: Incarnation,
        /// Sessions whose workspaces it has, and the tasks whose events it keeps.
        held: Vec<HeldSession>,
        /// Whether it has more than these: those that are not named keep their files until opening them shows otherwise.
        held_is_partial: bool,
    },
    /// A life of a worker is over: it left, was pruned, or was superseded.
    Gone {
        /// Which worker.
        worker: WorkerId,
        /// Which life of it.
        incarnation: Incarnation,
    },
}
