//! Tasks by the protocol's own methods, recorded as calls of the tools are.

use std::time::Instant;

use codegen_types::{ErrorCode, Failure, SessionId, TaskId};
use coordinator_core::policy::Subject;
use serde_json::json;

use crate::session::{TaskInfo, TaskPhase, TaskSeen};
use crate::tools::connection::Connection;
use crate::tools::resources::Asked;
use crate::tools::result::ToolResult;
use crate::tools::serve::Record;
use crate::tools::{run_result, yielding};

/// The tools that do what looking at a task does: where it stands, and what came of it.
const LOOKING: &[&str] = &["task_status", "task_wait"];
/// The tool that does what ending one does.
const ENDING: &[&str] = &["task_cancel"];
/// How much of what should be an id is recorded, in characters.
const ID_CHARS_MAX: usize = 128;

/// Where a task stands, for clients that follow it by the protocol's own methods.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskState {
    /// It runs.
    Working,
    /// It has a result, as its call would have had it: a failed one, too.
    Completed(Box<ToolResult>),
    /// It has none: how it ended cannot be known.
    Failed(Failure),
    /// It was ended on request.
    Cancelled,
}

impl TaskState {
    fn of(seen: &TaskSeen, output_chars: usize) -> Self {
        let Some(outcome) = &seen.outcome else { return Self::Working };
        match (seen.info.phase, &outcome.result) {
            (TaskPhase::Failed(ErrorCode::TaskCancelled), _) => Self::Cancelled,
            (TaskPhase::Unknown, Err(failure)) => Self::Failed(failure.clone()),
            _ => Self::Completed(Box::new(run_result::render(&seen.info.tool, outcome, output_chars))),
        }
    }
}

impl Connection {
    /// A task of this client's principal. Its result has so many characters of output at most.
    ///
    /// # Errors
    /// `NOT_FOUND` for a foreign task as for an unknown one and for what is no id; `PERMISSION_DENIED` and
    /// `APPROVAL_REQUIRED` where the policy has them for tools that do the same; `AUDIT_UNAVAILABLE`.
    pub async fn task(&self, id: &str, output_chars: usize, asked: &Asked) -> Result<(TaskInfo, TaskState), Failure> {
        let looked = async |task| self.sessions.task(self.principal.clone(), task).await;
        let seen = self.recorded(id, asked, LOOKING, looked).await?;
        let state = TaskState::of(&seen, output_chars.min(yielding::OUTPUT_CHARS));
        Ok((seen.info, state))
    }

    /// A task as it is after a recorded call about it, for what the answer to that call says beside.
    ///
    /// # Errors
    /// As of [`task`](Self::task), but for the record.
    pub(crate) async fn task_seen(&self, task: TaskId) -> Result<TaskSeen, Failure> {
        self.sessions.task(self.principal.clone(), task).await
    }

    /// The newest tasks of this client's principal, for the answer to a recorded call that asked for them.
    ///
    /// # Errors
    /// `INTERNAL` when the store cannot be read.
    pub(crate) async fn tasks_seen(&self, session: Option<SessionId>, limit: u32) -> Result<Vec<TaskInfo>, Failure> {
        self.sessions.tasks(self.principal.clone(), session, limit).await
    }

    /// Asks a task of this client's principal to end; one that has ended stays as it is.
    ///
    /// # Errors
    /// As of [`task`](Self::task).
    pub async fn cancel_task(&self, id: &str, asked: &Asked) -> Result<(), Failure> {
        let cancelled = async |task| {
            self.sessions.cancel_task(self.principal.clone(), task).await?;
            self.sessions.task(self.principal.clone(), task).await
        };
        self.recorded(id, asked, ENDING, cancelled).await.map(drop)
    }

    /// Does something about a task that these tools do as well, and records that it was asked for.
    async fn recorded(
        &self,
        id: &str,
        asked: &Asked,
        tools: &[&str],
        done: impl AsyncFnOnce(TaskId) -> Result<TaskSeen, Failure>,
    ) -> Result<TaskSeen, Failure> {
        let begun = Instant::now();
        let shown: String = id.chars().take(ID_CHARS_MAX).collect();
        let request = asked.with_args(json!({"task_id": shown}));
        let may = || tools.iter().try_for_each(|tool| self.may_look(tool, Subject::default()));
        let found = match (self.counted(asked).and_then(|()| may()), id.parse()) {
            (Err(failure), _) => Err(failure),
            (Ok(()), Ok(task)) => done(task).await,
            (Ok(()), Err(_)) => Err(no_such_task()),
        };
        match found {
            Ok(seen) => {
                self.record(None, &request, Record::served(Some(seen.info.session)), begun).await?;
                Ok(seen)
            }
            Err(failure) => {
                let failure = if failure.code == ErrorCode::NotFound { no_such_task() } else { failure };
                Err(self.refused(&request, failure, begun).await)
            }
        }
    }
}

/// The same for every id that is none of the principal's tasks, whatever the reason.
fn no_such_task() -> Failure {
    Failure::new(ErrorCode::NotFound, "there is no such task of yours, or its result is no longer kept")
}
