//! A task as clients see it.

use std::fmt::Write;

use codegen_types::{Exit, OperationResult};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::session::{TaskInfo, TaskPhase, TaskSeen};
use crate::tools::words;

/// The states by which tasks are picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::tools) enum Wanted {
    Running,
    Finished,
    Failed,
    Unknown,
}

impl Wanted {
    pub(super) const fn is(self, phase: TaskPhase) -> bool {
        matches!(
            (self, phase),
            (Self::Running, TaskPhase::Running)
                | (Self::Finished, TaskPhase::Finished)
                | (Self::Failed, TaskPhase::Failed(_))
                | (Self::Unknown, TaskPhase::Unknown)
        )
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::tools) struct TaskListOutput {
    /// The tasks, the newest first.
    pub(super) tasks: Vec<TaskView>,
}

#[derive(Debug, Serialize, JsonSchema, ToSchema)]
pub(crate) struct TaskView {
    /// The task.
    task_id: String,
    /// Its session.
    session_id: String,
    /// Who began it.
    principal: String,
    /// The tool that began it.
    tool: String,
    /// `running`, `finished`, `failed` (refused, or ended by a limit or a cancellation) or `unknown`.
    state: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// The exit code of its program.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    /// When it began (RFC 3339).
    begun_at: String,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// How long it ran, or has run.
    seconds: f64,
    /// Bytes that it wrote to stdout and stderr.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_bytes: Option<u64>,
}

impl TaskView {
    pub(crate) fn of(info: &TaskInfo) -> Self {
        let until_ms = info.ended_ms.unwrap_or_else(|| jiff::Timestamp::now().as_millisecond());
        #[expect(clippy::cast_precision_loss, reason = "no task runs for 2^52 milliseconds")]
        let seconds = (until_ms - info.begun_ms).max(0) as f64 / 1000.0;
        Self {
            task_id: info.task.to_string(),
            session_id: info.session.to_string(),
            principal: info.principal.to_string(),
            tool: info.tool.clone(),
            state: info.phase.name().to_owned(),
            code: info.phase.code().map(|code| code.as_str().to_owned()),
            exit_code: None,
            begun_at: words::time(info.begun_ms),
            ended_at: info.ended_ms.map(words::time),
            seconds,
            output_bytes: None,
        }
    }

    pub(crate) fn of_seen(seen: &TaskSeen) -> Self {
        let completed = seen.outcome.as_ref().and_then(|outcome| outcome.result.as_ref().ok());
        let exit_code = match completed.and_then(|completed| completed.result.as_ref()) {
            Some(OperationResult::Exec(Exit { code, .. })) => *code,
            _ => None,
        };
        Self { exit_code, output_bytes: Some(seen.log.written()), ..Self::of(&seen.info) }
    }

    /// One line, for lists.
    pub(in crate::tools) fn line(&self) -> String {
        let mut line = format!("{} {} {}", self.task_id, self.tool, self.state);
        if let Some(code) = &self.code {
            let _ = write!(line, " ({code})");
        }
        let verb = if self.ended_at.is_some() { "took" } else { "for" };
        let _ = write!(line, " {verb} {:.1} s, begun {}, in {}", self.seconds, self.begun_at, self.session_id);
        line
    }

    /// Everything, for a model.
    pub(super) fn text(&self) -> String {
        let mut text = self.line();
        if let Some(code) = self.exit_code {
            let _ = write!(text, "\nexit {code}");
        }
        if let Some(bytes) = self.output_bytes {
            let _ = write!(text, "\noutput so far: {}", words::bytes(bytes));
        }
        text.push_str(match self.state.as_str() {
            "running" => "\nNext: task_wait waits for its end, task_logs shows its output, task_cancel ends it.",
            "unknown" => "\nNext: look at the files before repeating it; it may have run in part or whole.",
            _ => "\nNext: task_wait gives its result, task_logs its output.",
        });
        text
    }
}
