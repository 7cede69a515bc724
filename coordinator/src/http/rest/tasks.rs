//! `/tasks`: programs begun in a session, looked after by their id.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use codegen_types::{ErrorCode, SessionId, TaskId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{Api, Served, WAIT_MAX};
use super::asked::Asked;
use super::extract::{InBody, InPath, InQuery};
use super::idempotency::Repeatable;
use super::page::{self, PageQuery};
use super::sessions::in_session;
use super::task_view::Task;
use crate::http::error::ApiError;
use crate::tools::{Connection, TaskView};

/// The newest tasks, among which pages are.
const LOOKED_AT_MAX: u32 = 1_000;

/// What runs a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// Python: `code` or `file`, `kernel`, `args`.
    Python,
    /// The shell: `command`.
    Shell,
    /// Another interpreter: `runtime`, `code` or `file`, `args`.
    Code,
}

impl Kind {
    const fn tool(self) -> &'static str {
        match self {
            Self::Python => "run_python",
            Self::Shell => "run_shell",
            Self::Code => "run_code",
        }
    }
}

/// A program to run. Which fields it takes depends on its kind.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"kind": "python", "code": "print(6 * 7)"}))]
struct NewTask {
    /// What runs it.
    kind: Kind,
    /// Source text.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// A file of the workspace to run instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    /// The command line of the shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    /// The interpreter, such as `node`.
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<String>,
    /// The kernel that runs it and keeps its variables.
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<String>,
    /// The program's arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Vec<String>>,
    /// Text given on standard input.
    #[serde(skip_serializing_if = "Option::is_none")]
    stdin: Option<String>,
    /// Environment variables to add.
    #[serde(skip_serializing_if = "Option::is_none")]
    env: Option<BTreeMap<String, String>>,
    /// Wall time after which it is ended, in seconds. Default 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<f64>,
}

/// How long to wait.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wait {
    /// Seconds to wait for the end of the task, at most 60. Default 0.
    #[param(minimum = 0, maximum = 60)]
    wait: Option<f64>,
}

/// Which tasks.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct TaskFilter {
    /// Only those of this session.
    session_id: Option<String>,
    /// Only those in this state: `running`, `finished`, `failed` or `unknown`.
    state: Option<String>,
    /// At most so many entries. Default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(max_length = 256)]
    cursor: Option<String>,
}

/// A page of tasks.
#[derive(Debug, Serialize, ToSchema)]
struct TaskPage {
    /// The tasks, the newest first.
    tasks: Vec<TaskView>,
    /// Goes on after the last one; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(list)).routes(routes!(get)).routes(routes!(cancel))
}

/// Run a program
///
/// It runs in the session's sandbox and goes on whoever asked for it stays or not.
#[utoipa::path(post, path = "/sessions/{session_id}/tasks", tag = "tasks", operation_id = "create_task",
    params(("session_id" = String, Path, description = "The session's handle"), Wait, Repeatable), request_body = NewTask,
    responses(
        (status = 200, description = "It has ended", body = Task),
        (status = 202, description = "It runs", body = Task, headers(("location" = String, description = "Where it is"))),
    ))]
async fn create(
    State(api): State<Api>,
    asked: Asked,
    InPath(session): InPath<String>,
    InQuery(Wait { wait }): InQuery<Wait>,
    InBody(new): InBody<NewTask>,
) -> Result<Response, ApiError> {
    let wait = seconds(wait)?;
    let tool = new.kind.tool();
    let mut args = in_session(&session);
    if let Value::Object(new) = json!(new) {
        args.extend(new);
        args.remove("kind");
    }
    #[expect(clippy::cast_precision_loss, reason = "limits of time are far below 2^52 milliseconds")]
    let timeout = api.limits().task_ms as f64 / 1000.0;
    args.entry("timeout_seconds").or_insert(json!(timeout));
    match wait {
        wait if wait > 0.0 => args.insert("yield_after_seconds".to_owned(), json!(wait.max(0.001))),
        _ => args.insert("background".to_owned(), json!(true)),
    };
    let Served { connection, result } = api.serve(&asked, tool, Value::Object(args)).await?;
    let task = result.meta.get("codegen/task_id").and_then(|task| task.as_str()?.parse::<TaskId>().ok());
    match (result.failure, task) {
        (Some(failure), None) => Err(asked.refused(tool, failure)),
        (Some(failure), Some(task)) if failure.code == ErrorCode::AuditUnavailable => {
            Err(ApiError::from(failure).with_details(json!({"task_id": task})))
        }
        // A task that failed is one, too.
        (_, Some(task)) => shown(&connection, task).await,
        (None, None) => Err(super::api::nothing_given()),
    }
}

fn seconds(wait: Option<f64>) -> Result<f64, ApiError> {
    let wait = wait.unwrap_or_default();
    let most = WAIT_MAX.as_secs_f64();
    if (0.0..=most).contains(&wait) {
        Ok(wait)
    } else {
        Err(ApiError::bad_request(format!("`wait`: from 0 to {most}")))
    }
}

/// A task that was just begun: what it gave, or where to ask for it.
async fn shown(connection: &Connection, task: TaskId) -> Result<Response, ApiError> {
    let seen = connection.task_seen(task).await?;
    let task = Task::of(&seen);
    if seen.outcome.is_some() {
        return Ok(Json(task).into_response());
    }
    let location = HeaderValue::try_from(format!("{}/tasks/{}", super::BASE, seen.info.task));
    let location = location.map_err(|error| ApiError::internal(&error))?;
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(task)).into_response())
}

/// List your tasks
///
/// Results are kept for a day, and the newest thousand can be listed.
#[utoipa::path(get, path = "/tasks", tag = "tasks", operation_id = "list_tasks", params(TaskFilter), responses(
    (status = 200, description = "A page of them, the newest first", body = TaskPage, headers(("link" = String, description = "Where the next page is"))),
))]
async fn list(
    State(api): State<Api>,
    asked: Asked,
    OriginalUri(uri): OriginalUri,
    InQuery(filter): InQuery<TaskFilter>,
) -> Result<Response, ApiError> {
    let TaskFilter { session_id, state, limit, cursor } = filter;
    let session: Option<SessionId> = session_id.as_deref().and_then(|text| text.parse().ok());
    let mut args = serde_json::Map::new();
    args.extend(session_id.map(|session| ("session_id".to_owned(), json!(session))));
    args.extend(state.clone().map(|state| ("state".to_owned(), json!(state))));
    // The record, and every check of what is asked for.
    let Served { connection, result } = api.serve(&asked, "task_list", Value::Object(args)).await?;
    if let Some(failure) = result.failure {
        return Err(asked.refused("task_list", failure));
    }
    let mut tasks = connection.tasks_seen(session, LOOKED_AT_MAX).await?;
    tasks.retain(|task| state.as_ref().is_none_or(|state| task.phase.name() == *state));
    let place = |task: &crate::session::TaskInfo| (task.begun_ms, task.task.to_string());
    let (tasks, next) = page::of(tasks, &PageQuery { limit, cursor }, place, |one, other| one < other)?;
    let tasks = tasks.iter().map(|task| json!(TaskView::of(task))).collect();
    Ok(page::answer("tasks", tasks, next, &uri))
}

/// Describe a task, with its result once it has ended
#[utoipa::path(get, path = "/tasks/{task_id}", tag = "tasks", operation_id = "get_task",
    params(("task_id" = String, Path, description = "The task"), Wait), responses(
    (status = 200, description = "How it is", body = Task),
))]
async fn get(
    State(api): State<Api>,
    asked: Asked,
    InPath(task): InPath<String>,
    InQuery(Wait { wait }): InQuery<Wait>,
) -> Result<Json<Task>, ApiError> {
    let args = json!({"task_id": task, "timeout_seconds": seconds(wait)?});
    seen(&api, &asked, "task_wait", &task, args).await
}

/// Cancel a task
///
/// It is ended with all its processes. What it wrote and changed stays; one that has ended stays as it is.
#[utoipa::path(post, path = "/tasks/{task_id}/cancel", tag = "tasks", operation_id = "cancel_task",
    params(("task_id" = String, Path, description = "The task"), Repeatable), responses(
    (status = 200, description = "How it is now", body = Task),
))]
async fn cancel(State(api): State<Api>, asked: Asked, InPath(task): InPath<String>) -> Result<Json<Task>, ApiError> {
    let args = json!({"task_id": task});
    seen(&api, &asked, "task_cancel", &task, args).await
}

/// Calls a tool about a task, and shows the task as it is then. A task whose program failed is no failure of this.
async fn seen(api: &Api, asked: &Asked, tool: &'static str, task: &str, args: Value) -> Result<Json<Task>, ApiError> {
    let Served { connection, result } = api.serve(asked, tool, args).await?;
    let about_task = result.meta.contains_key("codegen/task_id");
    match (result.failure, task.parse()) {
        (Some(failure), _) if !about_task || failure.code == ErrorCode::AuditUnavailable => {
            Err(asked.refused(tool, failure))
        }
        (_, Ok(task)) => Ok(Json(Task::of(&connection.task_seen(task).await?))),
        (_, Err(_)) => Err(super::api::nothing_given()),
    }
}
