//! The life of a session: what may happen next, what is put on record, and what has to be done.
//!
//! `now` and all times are milliseconds since the Unix epoch, because sessions outlive the machine's uptime.

mod made;
mod sharing;
mod step;
#[cfg(test)]
mod tests;
mod whereabouts;
mod writing;

use std::collections::BTreeSet;

use codegen_types::{Epoch, Incarnation, Lease, TaskId, WorkerId};
use serde::{Deserialize, Serialize};

pub use sharing::{Access, Need, NotShared, Role, SHARES_MAX, Shares};
pub use whereabouts::{Files, LostWhy, Tie};
pub use writing::{WriterLease, Writing};

/// A session, as far as decisions about it need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Where it stands.
    pub state: SessionState,
    /// Tasks that run in it.
    pub running: BTreeSet<TaskId>,
    /// When a task last began or ended, or it was changed.
    pub last_used_ms: i64,
    /// Idle time after which its processes are ended.
    pub ttl_ms: u64,
    /// Tasks that were ever started in it.
    pub tasks: u64,
}

/// Where a session stands. Each state owns what is known in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SessionState {
    /// A worker was chosen and is making its sandbox.
    Opening {
        /// The assignment under way.
        lease: Lease,
        /// Whether it has been ready before.
        purpose: Purpose,
    },
    /// It takes tasks.
    Ready {
        /// Who holds it.
        lease: Lease,
    },
    /// It has no processes; its files wait on the worker.
    Suspended {
        /// Who held it last and has its files.
        lease: Lease,
    },
    /// Its files cannot be had.
    Lost {
        /// Who held it last.
        lease: Lease,
        /// Since when this is known.
        since: i64,
        /// Why, and so whether they may yet turn up.
        #[serde(default)]
        why: LostWhy,
        /// Which life of its worker said that it has no files, when one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        said_by: Option<Incarnation>,
    },
    /// Its end is decided; its worker is yet to delete its files.
    Closing {
        /// Who has to delete them.
        lease: Lease,
        /// Why.
        reason: CloseReason,
    },
    /// It is over.
    Closed {
        /// Why.
        reason: CloseReason,
        /// Since when.
        at: i64,
    },
}

impl SessionState {
    /// Every word that [`name`](Self::name) gives.
    pub const NAMES: [&'static str; 6] = ["opening", "ready", "suspended", "lost", "closing", "closed"];

    /// The state in a word.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Opening { .. } => "opening",
            Self::Ready { .. } => "ready",
            Self::Suspended { .. } => "suspended",
            Self::Lost { .. } => "lost",
            Self::Closing { .. } => "closing",
            Self::Closed { .. } => "closed",
        }
    }

    /// Who holds the session, or held it last.
    pub const fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Opening { lease, .. }
            | Self::Ready { lease }
            | Self::Suspended { lease }
            | Self::Lost { lease, .. }
            | Self::Closing { lease, .. } => Some(lease),
            Self::Closed { .. } => None,
        }
    }
}

/// Why a session is being opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// It is new and has no files yet.
    First,
    /// It was suspended, and its files must still be there.
    Again,
}

/// Why a session ends for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// Its principal asked for it.
    Requested,
    /// It was never ready.
    OpenFailed,
    /// Nobody used it for so long, or room was needed, that its files were deleted.
    Expired,
}

/// A life of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Which worker.
    pub worker: WorkerId,
    /// Which life of it.
    pub incarnation: Incarnation,
}

impl Assignment {
    /// The lease of a session that is assigned there under this epoch.
    pub fn lease(&self, epoch: Epoch) -> Lease {
        Lease { worker: self.worker.clone(), incarnation: self.incarnation, epoch }
    }

    /// Whether a lease is of this life of this worker.
    pub fn is_of(&self, lease: &Lease) -> bool {
        self.worker == lease.worker && self.incarnation == lease.incarnation
    }
}

/// What happens to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A slot was found for a new session.
    Create {
        /// Where.
        at: Assignment,
        /// Its idle time.
        ttl_ms: u64,
    },
    /// Its worker made its sandbox.
    Opened {
        /// By which assignment.
        epoch: Epoch,
        /// Whether the workspace was there already.
        files: Files,
    },
    /// Its worker did not make its sandbox.
    OpenFailed {
        /// By which assignment.
        epoch: Epoch,
    },
    /// A slot was found for a suspended session.
    Reopen {
        /// Where; the worker that has its files.
        at: Assignment,
    },
    /// A task begins.
    TaskStarted {
        /// Which.
        task: TaskId,
    },
    /// A task that began before the server did turns out to be still with its worker, or may be.
    TaskResumed {
        /// Which.
        task: TaskId,
        /// Who held the session when it began.
        lease: Lease,
    },
    /// A task is over, in whatever way.
    TaskEnded {
        /// Which.
        task: TaskId,
    },
    /// Its description changes.
    Update {
        /// Its new idle time, if that changes.
        ttl_ms: Option<u64>,
    },
    /// Its owner shares it with somebody.
    Share,
    /// Its owner shares it with somebody no longer.
    Unshare,
    /// Time has passed.
    IdleSweep,
    /// An operator has its worker drained.
    WorkerDraining {
        /// Which.
        worker: WorkerId,
    },
    /// The server goes down in good order.
    ServerStopping,
    /// The server has started and read this session from its store.
    ServerStarted {
        /// How the worker that held it stands to the server.
        tie: Tie,
    },
    /// A life of its worker joined, or joined again.
    WorkerJoined {
        /// Which.
        at: Assignment,
        /// Whether it has this session's files.
        files: Files,
    },
    /// A life of its worker still has processes of it, or may have them.
    ProcessesLeft {
        /// Which.
        at: Assignment,
    },
    /// A life of a worker is over.
    WorkerGone {
        /// Which.
        at: Assignment,
        /// How it stood to the server.
        tie: Tie,
    },
    /// Its worker does not know the assignment by which it was asked for something.
    Misplaced {
        /// Which worker.
        at: Assignment,
    },
    /// Its principal closes it.
    CloseRequested {
        /// The present life of its worker, if there is one.
        present: Option<Incarnation>,
    },
    /// Its worker deleted its files.
    CloseDone,
    /// Its worker did not delete its files.
    CloseFailed,
    /// Retention chose it: it is too old, or room is needed.
    RetentionSweep {
        /// The present life of its worker, if there is one.
        present: Option<Incarnation>,
    },
}

/// What is put on record about a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEvent {
    /// It was made.
    Created,
    /// It is being opened again, under a new epoch.
    Opening,
    /// It is ready.
    Opened,
    /// It has no processes any more.
    Suspended(SuspendReason),
    /// Its files are gone.
    Lost,
    /// Its description changed.
    Updated,
    /// It was shared with somebody.
    Shared,
    /// It is shared with somebody no longer.
    Unshared,
    /// Its end is decided.
    Closing(CloseReason),
    /// It is over.
    Closed(CloseReason),
}

/// Why a session has no processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SuspendReason {
    /// Nobody used it for its idle time.
    Idle,
    /// It could not be opened again.
    OpenFailed,
    /// Its worker is gone.
    WorkerGone,
    /// Its worker did not know of it.
    Misplaced,
    /// Its worker has begun a new life.
    WorkerRestarted,
    /// An operator has its worker drained.
    WorkerDrained,
    /// The server went down in good order.
    ServerStopped,
    /// The server went down without a word.
    ServerRestarted,
    /// Files that were given up turned up again.
    FilesFound,
}

/// What has to be done, after the transition was recorded and stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Have the worker make the sandbox.
    Open {
        /// By this assignment.
        lease: Lease,
    },
    /// Have the worker end all processes and keep the files.
    EndProcesses {
        /// By this assignment.
        lease: Lease,
    },
    /// Have the worker end all processes and delete the files; then comes `CloseDone` or `CloseFailed`.
    DeleteWorkspace {
        /// By this assignment.
        lease: Lease,
    },
    /// End the tasks that run.
    CancelTasks,
    /// Remove the row.
    Forget,
}

/// What follows from an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The session from now on.
    pub next: Session,
    /// What is put on record; nothing when only its activity changed.
    pub event: Option<SessionEvent>,
    /// What has to be done then, in this order.
    pub effects: Vec<Effect>,
}

/// Why an input changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such session yet.
    #[error("there is no such session")]
    Absent,
    /// It was made before.
    #[error("the session exists already")]
    Exists,
    /// It has to be opened first, or is being opened.
    #[error("the session is not ready")]
    NotReady,
    /// It has as many tasks as it may.
    #[error("the session runs as many tasks as it may")]
    TooManyTasks,
    /// That task is not running, or is running already.
    #[error("the task is not in the state for that")]
    WrongTask,
    /// Its files are gone.
    #[error("the session's files are lost")]
    Lost,
    /// It is over, or is about to be.
    #[error("the session is closed")]
    Closed,
    /// The message belongs to an earlier assignment.
    #[error("the message belongs to an earlier assignment")]
    Stale,
    /// There is nothing to do about it.
    #[error("there is nothing to do")]
    NotDue,
}

/// Bounds that the operator sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Tasks of one session that may run at once.
    pub tasks_max: usize,
}

/// Decides what follows from `input`. `None` stands for a session that has not been made yet.
///
/// # Errors
/// [`Refusal`]: nothing changes, nothing is recorded, nothing is to be done.
pub fn step(session: Option<&Session>, input: &Input, now: i64, rules: &Rules) -> Result<Transition, Refusal> {
    step::step(session, input, now, rules)
}
