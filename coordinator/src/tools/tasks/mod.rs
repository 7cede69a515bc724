//! `task_status`, `task_wait`, `task_logs`, `task_cancel`, `task_list`: what became of tasks that were answered with their id.

mod grep;
mod logs;
mod methods;
mod view;

use std::time::Duration;

use codegen_types::{ErrorCode, Failure, TaskId};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::call::{Answer, Call, Refusal, Reply};
use super::result::ToolResult;
use super::{args, run_result, yielding};
use crate::session::TaskSeen;
pub(super) use logs::{TaskLogsInput, logs};
pub use methods::TaskState;
pub(super) use view::TaskListOutput;
pub(crate) use view::TaskView;
use view::Wanted;

/// How long `task_wait` waits when the call does not say.
const WAIT: Duration = Duration::from_secs(30);
/// How long `task_cancel` waits for the end that it asked for.
const CANCEL_WAIT: Duration = Duration::from_secs(5);
/// The most tasks that are listed.
const LISTED_MAX: usize = 100;
/// The most tasks that are looked through for them.
const LOOKED_AT_MAX: u32 = 1_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskStatusInput {
    /// The task.
    task_id: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskWaitInput {
    /// The task.
    task_id: String,
    /// Seconds to wait at most. Default 30; no call waits longer than 45 (`YIELD_AFTER`).
    timeout_seconds: Option<f64>,
    /// Characters of output shown, 200 to 100000. Default 20000.
    max_output_chars: Option<u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskCancelInput {
    /// The task.
    task_id: String,
    /// At most 128 bytes. Cancelling again changes nothing, with a key or without.
    idempotency_key: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskListInput {
    /// Only tasks of this session, those of others it is shared with, too; left out: all of yours.
    session_id: Option<String>,
    /// Only tasks in this state.
    state: Option<Wanted>,
}

pub(super) fn status<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: TaskStatusInput = call.input()?;
        let seen = call.seen(handle(&input.task_id)?).await?;
        Ok(viewed(&seen))
    }
    .boxed()
}

pub(super) fn wait<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: TaskWaitInput = call.input()?;
        let task = handle(&input.task_id)?;
        let output_chars = yielding::output_chars(input.max_output_chars, call)?;
        let timeout = match input.timeout_seconds {
            None => WAIT,
            Some(seconds) => Duration::try_from_secs_f64(seconds)
                .map_err(|_| args::invalid("timeout_seconds", "must be a number of seconds, 0 or more"))?,
        };
        let longest = call.request.yield_after;
        let seen = call.wait(task, timeout.min(longest)).await?;
        let cut_to = (timeout > longest).then_some(longest);
        Ok(Reply::Unrecorded(run_result::render_waited(&seen, output_chars, cut_to), Some(seen.info.session)))
    }
    .boxed()
}

pub(super) fn cancel<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: TaskCancelInput = call.input()?;
        args::key(input.idempotency_key)?;
        let task = handle(&input.task_id)?;
        let connection = call.connection;
        connection.sessions.cancel_task(connection.principal.clone(), task).await?;
        Ok(viewed(&call.wait(task, CANCEL_WAIT.min(call.request.yield_after)).await?))
    }
    .boxed()
}

pub(super) fn list<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: TaskListInput = call.input()?;
        let connection = call.connection;
        let session = match input.session_id.as_deref() {
            Some(named) => {
                let session = connection.session(Some(named)).await?;
                let of_session = |failure| Refusal::of_session(failure, session);
                connection.sessions.get(&connection.principal, session).map_err(of_session)?;
                Some(session)
            }
            None => None,
        };
        let mut infos = connection.sessions.tasks(connection.principal.clone(), session, LOOKED_AT_MAX).await?;
        infos.retain(|info| input.state.is_none_or(|wanted| wanted.is(info.phase)));
        let more = infos.len().saturating_sub(LISTED_MAX);
        let tasks: Vec<TaskView> = infos.iter().take(LISTED_MAX).map(TaskView::of).collect();
        let mut lines: Vec<String> = tasks.iter().map(TaskView::line).collect();
        if lines.is_empty() {
            lines.push("no such tasks; results are kept for a day".to_owned());
        }
        if more > 0 {
            lines.push(format!("and {more} older ones; session_id or state picks"));
        }
        let result = ToolResult::structured(lines.join("\n"), json!(TaskListOutput { tasks }));
        Ok(Reply::Unrecorded(result, session))
    }
    .boxed()
}

fn viewed(seen: &TaskSeen) -> Reply {
    let view = TaskView::of_seen(seen);
    let result = ToolResult::structured(view.text(), json!(view)).of_task(seen.info.task);
    Reply::Unrecorded(result, Some(seen.info.session))
}

/// The task that a text names. One that names none is like one that is not there.
///
/// # Errors
/// `NOT_FOUND`.
fn handle(text: &str) -> Result<TaskId, Failure> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        let text = format!("{shown:?} names no task; ids begin with `tsk_`, and task_list shows those there are");
        Failure::new(ErrorCode::NotFound, text)
    })
}

impl Call<'_> {
    async fn seen(&self, task: TaskId) -> Result<TaskSeen, Failure> {
        self.connection.sessions.task(self.connection.principal.clone(), task).await
    }

    /// Waits for a task's end; a client that wants no answer any more ends the wait, not the task.
    async fn wait(&self, task: TaskId, timeout: Duration) -> Result<TaskSeen, Failure> {
        let principal = self.connection.principal.clone();
        tokio::select! {
            seen = self.connection.sessions.wait(principal, task, timeout) => seen,
            () = self.request.cancel.cancelled() => self.seen(task).await,
        }
    }
}
