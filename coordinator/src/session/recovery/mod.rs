//! Tasks whose end was not learnt when it should have been, because the server ended or their worker was away.
//!
//! A worker that runs by itself goes on with what it was sent. What an earlier server left open is taken up again as a
//! running task (`resumed`) and ends by its worker's word, or as unknown when the worker does not come in time. What was
//! given up as unknown gets one more record when its worker tells of it after all (`resolved`). A worker that joins is
//! asked for what was given up, and to end what it still has though it is over here (`joining`).

mod joining;
mod resolved;
mod resumed;

use std::time::Duration;

use codegen_audit::{Entry, Record};
use codegen_types::{IsolationLevel, Lease, LogSeq, Principal, SessionId, TaskId, WorkerId};
use coordinator_core::session::Tie;

pub(super) use joining::{Joining, look_at, strangers};
pub(super) use resolved::{Resolving, WAITING_MAX, resolve_later};
pub(super) use resumed::resume;

use super::Shared;
use super::record::is_read_only;
use crate::store::TaskRow;
use crate::workers::{EMBEDDED_WORKER, TaskAttach};

/// The most tasks that one start takes up again; what is more ends as unknown at once.
pub(super) const LEFT_MAX: usize = 4_096;

/// How the worker of that name stands to this server.
pub(super) fn tie(worker: &WorkerId) -> Tie {
    if worker.as_str() == EMBEDDED_WORKER { Tie::Child } else { Tie::Apart }
}

/// A task that was attempted, and of whose end nothing is known.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub(super) task: TaskId,
    pub(super) session: SessionId,
    pub(super) principal: Principal,
    pub(super) tool: String,
    pub(super) path: Option<String>,
    pub(super) lease: Lease,
    pub(super) level: Option<IsolationLevel>,
    /// The name of its operation.
    pub(super) operation: String,
    pub(super) acts: bool,
    pub(super) attempt: LogSeq,
    pub(super) begun_ms: i64,
    /// Tasks that change nothing have none.
    pub(super) row: Option<TaskRow>,
}

impl Left {
    /// What the record of an attempt says of its task.
    pub(super) fn of(attempt: &Record, row: Option<TaskRow>) -> Option<Self> {
        Some(Self {
            task: attempt.task?,
            session: attempt.session?,
            principal: attempt.principal.clone()?,
            tool: attempt.tool.clone()?,
            path: attempt.path.clone(),
            lease: attempt.lease.clone()?,
            level: attempt.level,
            operation: attempt.detail.as_ref()?.get("operation")?.as_str()?.to_owned(),
            acts: !is_read_only(attempt),
            attempt: attempt.seq,
            begun_ms: attempt.ts.as_millisecond(),
            row,
        })
    }

    /// Whether its worker may have gone on with it when the server ended.
    pub(super) fn may_run(&self) -> bool {
        tie(&self.lease.worker) == Tie::Apart
    }

    fn attach(&self, shared: &Shared, patience: Duration) -> TaskAttach {
        let limits = &shared.options.limits;
        TaskAttach {
            task: self.task,
            session: self.session,
            lease: self.lease.clone(),
            operation: self.operation.clone(),
            // How long it was to take is not on record; its worker knows, and ends it.
            timeout: Duration::from_millis(limits.task_ms_max),
            output_bytes_max: limits.output_bytes,
            patience,
        }
    }

    fn entry(&self) -> Entry {
        Entry {
            principal: Some(self.principal.clone()),
            session: Some(self.session),
            task: Some(self.task),
            lease: Some(self.lease.clone()),
            level: self.level,
            tool: Some(self.tool.clone()),
            path: self.path.clone(),
            cites: Some(self.attempt),
            ..Entry::default()
        }
    }
}
