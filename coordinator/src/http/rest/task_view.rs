//! A task with its result, as programs read it.

use codegen_types::event::FileChange;
use codegen_types::{Exit, OperationResult};
use serde::Serialize;
use utoipa::ToSchema;

use crate::session::{Captured, Completed, TaskSeen};
use crate::tools::TaskView;

/// A task, and what came of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Task {
    #[serde(flatten)]
    view: TaskView,
    /// What came of it, once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<TaskResult>,
}

/// What came of a task.
#[derive(Debug, Serialize, ToSchema)]
struct TaskResult {
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// Standard output.
    stdout: Output,
    /// Standard error.
    stderr: Output,
    /// The signal that ended its program, when one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    /// Processor time of all its processes, in seconds.
    cpu_seconds: f64,
    /// Peak resident memory of its largest process, in bytes.
    memory_peak_bytes: u64,
    /// Values that it showed.
    values: Vec<String>,
    /// Files in which the workspace keeps what it showed.
    shown_files: Vec<String>,
    /// Files of the workspace that changed meanwhile.
    files_changed: Vec<Change>,
    /// Whether more files changed than are named.
    files_changed_truncated: bool,
}

/// What was written to a stream.
#[derive(Debug, Serialize, ToSchema)]
struct Output {
    /// What was written, as UTF-8 text; bytes that are none are shown as U+FFFD.
    text: String,
    /// Bytes in the middle that are left out; the logs have them.
    omitted_bytes: u64,
}

/// A file that changed.
#[derive(Debug, Serialize, ToSchema)]
struct Change {
    /// Its path, relative to the workspace.
    path: String,
    /// `created`, `modified` or `deleted`.
    #[schema(value_type = String)]
    change: codegen_types::event::ChangeKind,
    /// Its size now, in bytes.
    size: u64,
}

impl Task {
    pub(super) fn of(seen: &TaskSeen) -> Self {
        let result = seen.outcome.as_ref().map(|outcome| {
            let completed = outcome.result.as_ref().ok().or(outcome.partial.as_ref());
            let message = outcome.result.as_ref().err().map(|failure| failure.message.clone());
            TaskResult::of(completed, message)
        });
        Self { view: TaskView::of_seen(seen), result }
    }
}

impl TaskResult {
    fn of(completed: Option<&Completed>, message: Option<String>) -> Self {
        let output = |stream: fn(&Completed) -> &Captured| Output::of(completed.map(stream));
        let exit = match completed.and_then(|completed| completed.result.as_ref()) {
            Some(OperationResult::Exec(exit)) => exit.clone(),
            _ => Exit::default(),
        };
        let displays = completed.map(|completed| completed.displays.as_slice()).unwrap_or_default();
        let values = displays.iter().filter(|display| display.mime == "text/plain");
        #[expect(clippy::cast_precision_loss, reason = "no task uses 2^52 milliseconds")]
        let cpu_seconds = exit.used.cpu_ms as f64 / 1000.0;
        Self {
            message,
            stdout: output(|completed| &completed.stdout),
            stderr: output(|completed| &completed.stderr),
            signal: exit.signal,
            cpu_seconds,
            memory_peak_bytes: exit.used.memory_peak_bytes,
            values: values.map(|display| String::from_utf8_lossy(&display.data).into_owned()).collect(),
            shown_files: displays.iter().filter_map(|display| Some(display.path.as_ref()?.to_string())).collect(),
            files_changed: exit.files_changed.into_iter().map(Change::of).collect(),
            files_changed_truncated: exit.files_changed_truncated,
        }
    }
}

impl Change {
    fn of(changed: FileChange) -> Self {
        let FileChange { path, change, size } = changed;
        Self { path: path.to_string(), change, size }
    }
}

impl Output {
    fn of(captured: Option<&Captured>) -> Self {
        let Some(Captured { head, tail, omitted }) = captured else {
            return Self { text: String::new(), omitted_bytes: 0 };
        };
        let whole = [head.as_slice(), tail.as_slice()].concat();
        Self { text: String::from_utf8_lossy(&whole).into_owned(), omitted_bytes: *omitted }
    }
}
