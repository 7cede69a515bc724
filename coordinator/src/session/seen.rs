//! A task as its principal sees it, while it runs and afterwards.

use codegen_types::{ErrorCode, Principal, SessionId, TaskId};
use coordinator_core::task::TaskState;
use futures::future::BoxFuture;

use super::call::{Captured, TaskOutcome};
use crate::store::TaskRow;

/// A call on its way.
pub struct Launched {
    /// Its task; that of the first call when an idempotency key joined them.
    pub task: TaskId,
    /// Done when the task has begun and can be found by its id; false when it never will.
    pub begun: BoxFuture<'static, bool>,
    /// How it ends. Dropping it loses the answer and nothing else.
    pub outcome: BoxFuture<'static, TaskOutcome>,
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskPhase {
    /// It runs.
    Running,
    /// It was carried out; a program that failed is a result, too.
    Finished,
    /// It was refused, or ended by a limit, a deadline or a cancellation.
    Failed(ErrorCode),
    /// How it ended cannot be known.
    Unknown,
}

impl TaskPhase {
    /// The phase in a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed(_) => "failed",
            Self::Unknown => "unknown",
        }
    }

    /// Why it failed, when it did.
    pub const fn code(self) -> Option<ErrorCode> {
        match self {
            Self::Running | Self::Finished => None,
            Self::Failed(code) => Some(code),
            Self::Unknown => Some(ErrorCode::TaskOutcomeUnknown),
        }
    }
}

/// What is known of a task besides its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskInfo {
    /// The task.
    pub task: TaskId,
    /// Its session.
    pub session: SessionId,
    /// Who began it.
    pub principal: Principal,
    /// The tool that began it.
    pub tool: String,
    /// Where it stands.
    pub phase: TaskPhase,
    /// When it began, in milliseconds since the Unix epoch.
    pub begun_ms: i64,
    /// When it ended, in milliseconds since the Unix epoch.
    pub ended_ms: Option<i64>,
}

impl TaskInfo {
    /// What a row says.
    pub(super) fn of_row(row: &TaskRow) -> Self {
        let phase = match &row.state {
            TaskState::Finished => TaskPhase::Finished,
            TaskState::Failed { code } => TaskPhase::Failed(*code),
            // It does not run here, and nobody wrote down how it ended.
            TaskState::Queued { .. }
            | TaskState::Dispatched { .. }
            | TaskState::Running { .. }
            | TaskState::Unknown { .. } => TaskPhase::Unknown,
        };
        let (begun_ms, ended_ms) = (row.begun_ms, row.ended_ms);
        let (principal, tool) = (row.principal.clone(), row.tool.clone());
        Self { task: row.id, session: row.session, principal, tool, phase, begun_ms, ended_ms }
    }
}

/// A task with its output so far, or its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSeen {
    /// What is known of it.
    pub info: TaskInfo,
    /// What it wrote so far, both streams in the order of arrival.
    pub log: Captured,
    /// How it ended, once it has.
    pub outcome: Option<TaskOutcome>,
}
