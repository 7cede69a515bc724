//! Sessions: one owner task each, a table of published snapshots, the reaper.
//!
//! A transition is decided purely by `coordinator-core`; its owner records, stores, publishes and carries it out, in that
//! order. Tasks run in tasks of their own, so that a caller that vanishes loses no outcome.

mod access;
mod call;
mod capture;
mod changes;
mod creation;
mod everybody;
mod following;
mod ledger;
mod live;
mod news;
mod options;
mod outcome;
mod owner;
mod reaper;
mod receipt;
mod reconcile;
mod record;
mod recovery;
mod repeat;
mod running;
mod seam;
mod seen;
mod service;
mod table;
mod task;
mod tasks;
mod transcript;
mod update;
mod waiting;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use codegen_audit::{Audit, AuditUnavailable};
use codegen_types::{ErrorCode, Failure, Incarnation, WorkerId};
use parking_lot::RwLock;
use tokio::sync::Semaphore;

use crate::store::{SessionStore, TaskStore};
use crate::supervisor::Supervisor;
use crate::workers::Fleet;

pub use coordinator_core::egress::InForce;
pub use coordinator_core::session::{Access, Role, Shares, Writing};

pub use call::{Captured, Completed, CreateSession, Leave, SessionSnapshot, TaskCall, TaskOutcome, UpdateSession};
pub use changes::{Changed, Changes, ChangesFollower, News};
pub use creation::CreationKey;
pub use live::{Live, SessionFollower, SessionNews};
pub use options::{OUTCOME_KEPT, SessionOptions, SessionsDeps};
pub(crate) use receipt::Charge;
pub use receipt::Receipt;
pub(crate) use repeat::sorted;
pub use seen::{Launched, TaskInfo, TaskPhase, TaskSeen};
pub use service::{Sessions, StartError};

/// What all owners and tasks share.
struct Shared {
    audit: Audit,
    /// Where that log is read from; absent for a log in memory.
    audit_dir: Option<PathBuf>,
    sessions: Arc<dyn SessionStore>,
    tasks: Arc<dyn TaskStore>,
    fleet: Arc<dyn Fleet>,
    supervisor: Supervisor,
    options: SessionOptions,
    table: Arc<table::Table>,
    /// The present life of each worker that has joined.
    workers: RwLock<HashMap<WorkerId, Incarnation>>,
    /// Lives that are over.
    ended: following::EndedLives,
    /// Calls that wait for a slot.
    waiting: waiting::Waiting,
    /// Calls under idempotency keys that run at present.
    repeats: repeat::Repeats,
    /// Sessions that are being made under idempotency keys.
    creations: creation::Creations,
    /// Tasks that run at present.
    running: Arc<running::RunningTasks>,
    /// What changes in workspaces.
    changes: Changes,
    /// What runs, for those who follow it.
    live: Live,
    /// What each principal uses today.
    ledger: ledger::Ledger,
    /// Places for tasks that were given up, and whose results may still come.
    late: Arc<Semaphore>,
    /// Those that hold such a place.
    resolving: Arc<recovery::Resolving>,
    /// What workers that have joined are being asked about.
    joining: recovery::Joining,
    /// When this server began, by the clock in milliseconds since the Unix epoch and by the time that passes.
    began: (i64, Instant),
}

impl Shared {
    /// Milliseconds since the Unix epoch, of a clock that was not set ahead since the server began: what is kept for a while
    /// is forgotten by it.
    fn believed_ms(&self) -> i64 {
        let (began_ms, began) = self.began;
        let passed_ms = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
        now_ms().min(began_ms.saturating_add(passed_ms))
    }

    fn present(&self, worker: &WorkerId) -> Option<Incarnation> {
        self.workers.read().get(worker).copied()
    }
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn unavailable(error: &AuditUnavailable) -> Failure {
    let text = format!("the audit log cannot be written ({error}), so nothing was done; it recovers by itself");
    Failure::new(ErrorCode::AuditUnavailable, text)
}
