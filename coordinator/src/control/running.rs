//! What is asked of a running server about workers, sessions and tasks.

use codegen_types::{Failure, SessionId, TaskId, WorkerId};
use coordinator_core::worker::Admittance;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::serving::json;
use crate::operators::{Actor, Operators, SessionsFilter, TasksFilter};

/// What can be asked about the workers, sessions and tasks of a running server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum OperateAsk {
    /// To list the workers.
    Workers,
    /// To show a worker.
    Worker {
        /// Which.
        id: WorkerId,
    },
    /// To say what new work a worker gets.
    Admit {
        /// Which.
        id: WorkerId,
        /// What it gets.
        admittance: Admittance,
    },
    /// To list sessions.
    Sessions(SessionsFilter),
    /// To show a session.
    Session {
        /// Which.
        id: SessionId,
    },
    /// To end a session for good.
    CloseSession {
        /// Which.
        id: SessionId,
    },
    /// To list tasks.
    Tasks(TasksFilter),
    /// To show a task.
    Task {
        /// Which.
        id: TaskId,
    },
    /// To end a task.
    CancelTask {
        /// Which.
        id: TaskId,
    },
    /// To show what a task wrote.
    TaskLog {
        /// Which.
        id: TaskId,
        /// From which byte on.
        from: u64,
        /// Whether to wait a moment for more.
        waits: bool,
    },
    /// To show everything at one moment.
    Top,
}

pub(super) async fn answer(operators: &Operators, ask: OperateAsk, actor: Actor) -> Result<Value, Failure> {
    Ok(match ask {
        OperateAsk::Workers => json(&operators.workers()),
        OperateAsk::Worker { id } => json(&operators.worker(&id)?),
        OperateAsk::Admit { id, admittance } => json(&operators.admit(id, admittance, actor).await?),
        OperateAsk::Sessions(filter) => json(&operators.sessions(&filter)?),
        OperateAsk::Session { id } => json(&operators.session(id)?),
        OperateAsk::CloseSession { id } => json(&operators.close_session(id, &actor).await?),
        OperateAsk::Tasks(filter) => json(&operators.tasks(&filter).await?),
        OperateAsk::Task { id } => json(&operators.task(id).await?),
        OperateAsk::CancelTask { id } => json(&operators.cancel_task(id, &actor).await?),
        OperateAsk::TaskLog { id, from, waits } => json(&operators.task_log(id, from, waits, &actor).await?),
        OperateAsk::Top => json(&operators.top()),
    })
}
