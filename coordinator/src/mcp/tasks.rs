//! The extension `io.modelcontextprotocol/tasks` of 2026-07-28: a call that outlasts its client's patience is answered
//! with a handle for its task in place of a text.
//!
//! The tasks are those of the session layer; nothing is kept here.

use codegen_types::{ErrorCode, Failure};
use rmcp::model::{
    CallToolResult, CreateTaskResult, DetailedTask, ErrorData, GetTaskResult, JsonObject, ProtocolVersion, Task,
    TaskPayload, TaskStatus,
};
use rmcp::service::{RequestContext, RoleServer};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::SemaphorePermit;

use super::handler::Handler;
use super::{convert, methods, resources};
use crate::session::{OUTCOME_KEPT, TaskInfo};
use crate::tools::TaskState;

/// How often a client had best ask, in milliseconds.
const POLL_MS: u64 = 1_000;

/// Whether this request's client knows the extension and speaks the revision that has it.
pub(super) fn declared(context: &RequestContext<RoleServer>) -> bool {
    let revision = context.protocol_version();
    revision.is_some_and(|revision| revision.as_str() >= ProtocolVersion::V_2026_07_28.as_str())
        && context.client_capabilities().is_some_and(|capabilities| capabilities.supports_tasks())
}

/// What a call is answered with whose task goes on.
pub(super) fn handle(info: &TaskInfo) -> CreateTaskResult {
    CreateTaskResult::new(task(info, TaskStatus::Working))
}

fn task(info: &TaskInfo, status: TaskStatus) -> Task {
    let changed_ms = info.ended_ms.unwrap_or(info.begun_ms);
    let task = Task::new(info.task.to_string(), status, time(info.begun_ms), time(changed_ms))
        .with_ttl_ms(ttl_ms(info))
        .with_poll_interval_ms(POLL_MS);
    match status {
        TaskStatus::Working => task.with_status_message(format!(
            "{} runs in {}; task_logs shows what it wrote so far",
            info.tool, info.session
        )),
        _ => task,
    }
}

/// How long after its beginning a task can still be asked for: its result is kept from its end on, so that while it
/// runs this grows.
fn ttl_ms(info: &TaskInfo) -> u64 {
    let until_ms = info.ended_ms.unwrap_or_else(|| jiff::Timestamp::now().as_millisecond());
    let ran_ms = u64::try_from(until_ms - info.begun_ms).unwrap_or(0);
    ran_ms.saturating_add(u64::try_from(OUTCOME_KEPT.as_millis()).unwrap_or(u64::MAX))
}

fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

impl Handler {
    /// Where a task stands, and its result once it has one.
    pub(super) async fn task(
        &self,
        id: &str,
        context: &RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        let _place = self.task_place("tasks/get", context)?;
        let client = self.quirks(context);
        let asked = self.asked("tasks/get", context);
        let (info, state) = self.connection().task(id, client.result_chars_max, &asked).await.map_err(|f| error(&f))?;
        let payload = match state {
            TaskState::Working => TaskPayload::Working,
            TaskState::Cancelled => TaskPayload::Cancelled,
            TaskState::Failed(failure) => TaskPayload::Failed { error: object(&error(&failure))? },
            TaskState::Completed(result) => {
                let result: CallToolResult = convert::result(*result, self.listed(&info.tool), client);
                TaskPayload::Completed { result: object(&result)? }
            }
        };
        Ok(GetTaskResult::new(DetailedTask::new(task(&info, payload.status()), payload)))
    }

    /// Answers to questions that no task asks: there is nothing to be done with them.
    pub(super) async fn task_updated(&self, id: &str, context: &RequestContext<RoleServer>) -> Result<(), ErrorData> {
        let _place = self.task_place("tasks/update", context)?;
        let asked = self.asked("tasks/update", context);
        self.connection().task(id, 0, &asked).await.map(drop).map_err(|f| error(&f))
    }

    /// Asks a task to end; that it has ended is seen later.
    pub(super) async fn task_cancelled(&self, id: &str, context: &RequestContext<RoleServer>) -> Result<(), ErrorData> {
        let _place = self.task_place("tasks/cancel", context)?;
        let asked = self.asked("tasks/cancel", context);
        self.connection().cancel_task(id, &asked).await.map_err(|f| error(&f))
    }

    /// A place among the calls, for clients that the extension is for.
    fn task_place(&self, method: &str, context: &RequestContext<RoleServer>) -> Result<SemaphorePermit<'_>, ErrorData> {
        if !declared(context) {
            // rmcp lets those pass that declare the extension in the handshake of an earlier revision.
            return Err(methods::unknown(method));
        }
        self.place()
    }
}

/// The protocol's word for what is no task is that the parameters are wrong.
fn error(failure: &Failure) -> ErrorData {
    match failure.code {
        ErrorCode::NotFound => ErrorData::invalid_params(failure.to_string(), Some(json!({"code": failure.code}))),
        _ => resources::error(failure),
    }
}

fn object(value: &impl Serialize) -> Result<JsonObject, ErrorData> {
    match serde_json::to_value(value) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(ErrorData::internal_error("the result of the task cannot be put into the protocol's terms", None)),
    }
}
