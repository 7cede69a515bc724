//! Starting a task, taking its events up again, and cancelling it.

use std::time::Duration;

use codegen_types::{Lease, Operation, SessionId, TaskId};

use crate::field::{duration, id, millis, required};
use crate::invalid::InvalidMessage;
use crate::session::lease;
use crate::v1;

/// Start a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecuteTask {
    /// The task.
    pub task: TaskId,
    /// Its session.
    pub session: SessionId,
    /// Who holds the session.
    pub lease: Lease,
    /// Wall time from now on; the worker ends the task itself.
    pub timeout: Duration,
    /// What to do.
    pub operation: Operation,
}

/// Stream the events of a task that was started before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachTask {
    /// The task.
    pub task: TaskId,
    /// Its session.
    pub session: SessionId,
    /// Who holds the session.
    pub lease: Lease,
    /// The first sequence number wanted, from 1.
    pub from_seq: u64,
}

/// Interrupt a task, and kill it after a grace period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelTask {
    /// The task.
    pub task: TaskId,
    /// Its session.
    pub session: SessionId,
    /// Who holds the session.
    pub lease: Lease,
    /// How long it may take to end after the interrupt.
    pub grace: Duration,
}

/// The answer to a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CancelAnswer {
    /// Whether the task was running.
    pub was_running: bool,
}

impl From<ExecuteTask> for v1::TaskRequest {
    fn from(request: ExecuteTask) -> Self {
        Self {
            task_id: request.task.into(),
            session_id: request.session.into(),
            lease: Some(request.lease.into()),
            timeout_ms: millis(request.timeout),
            held: false,
            operation: Some(request.operation.into()),
        }
    }
}

impl TryFrom<v1::TaskRequest> for ExecuteTask {
    type Error = InvalidMessage;

    fn try_from(wire: v1::TaskRequest) -> Result<Self, InvalidMessage> {
        Ok(Self {
            task: id(&wire.task_id, "TaskRequest.task_id")?,
            session: id(&wire.session_id, "TaskRequest.session_id")?,
            lease: lease(wire.lease, "TaskRequest.lease")?,
            timeout: duration(wire.timeout_ms, "TaskRequest.timeout_ms")?,
            operation: required(wire.operation, "TaskRequest.operation")?.try_into()?,
        })
    }
}

impl From<AttachTask> for v1::AttachTaskRequest {
    fn from(attach: AttachTask) -> Self {
        Self {
            task_id: attach.task.into(),
            session_id: attach.session.into(),
            lease: Some(attach.lease.into()),
            from_seq: attach.from_seq,
        }
    }
}

impl TryFrom<v1::AttachTaskRequest> for AttachTask {
    type Error = InvalidMessage;

    fn try_from(wire: v1::AttachTaskRequest) -> Result<Self, InvalidMessage> {
        if wire.from_seq == 0 {
            return Err(InvalidMessage::OutOfRange { field: "AttachTaskRequest.from_seq", expected: "at least 1" });
        }
        Ok(Self {
            task: id(&wire.task_id, "AttachTaskRequest.task_id")?,
            session: id(&wire.session_id, "AttachTaskRequest.session_id")?,
            lease: lease(wire.lease, "AttachTaskRequest.lease")?,
            from_seq: wire.from_seq,
        })
    }
}

impl From<CancelTask> for v1::CancelTaskRequest {
    fn from(cancel: CancelTask) -> Self {
        Self {
            task_id: cancel.task.into(),
            session_id: cancel.session.into(),
            lease: Some(cancel.lease.into()),
            grace_ms: millis(cancel.grace),
        }
    }
}

impl TryFrom<v1::CancelTaskRequest> for CancelTask {
    type Error = InvalidMessage;

    fn try_from(wire: v1::CancelTaskRequest) -> Result<Self, InvalidMessage> {
        Ok(Self {
            task: id(&wire.task_id, "CancelTaskRequest.task_id")?,
            session: id(&wire.session_id, "CancelTaskRequest.session_id")?,
            lease: lease(wire.lease, "CancelTaskRequest.lease")?,
            grace: duration(wire.grace_ms, "CancelTaskRequest.grace_ms")?,
        })
    }
}

impl From<CancelAnswer> for v1::CancelTaskResponse {
    fn from(answer: CancelAnswer) -> Self {
        Self { was_running: answer.was_running }
    }
}

impl From<v1::CancelTaskResponse> for CancelAnswer {
    fn from(wire: v1::CancelTaskResponse) -> Self {
        Self { was_running: wire.was_running }
    }
}
