//! What a tool gives, before any protocol: content, structure, and failures as the client reads them.

use codegen_types::{ErrorCode, Failure, LogSeq, TaskId};
use serde_json::{Map, Value, json};

use super::resource_uri::WorkspaceUri;
use crate::session::{TaskInfo, TaskOutcome};

/// What a tool call gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolResult {
    /// What a model reads; the first block stands alone.
    pub content: Vec<Content>,
    /// The same for programs, from the tools that declare an output schema.
    pub structured: Option<Value>,
    /// Whether the call was refused, or what it ran failed.
    pub is_error: bool,
    /// Facts about the call for programs: `codegen/task_id`, `codegen/audit_seq`, `codegen/error` and the like.
    pub meta: Map<String, Value>,
    /// The task of this call, when the call is answered although its task still runs. The content says so, too.
    pub goes_on: Option<TaskInfo>,
    /// Why the call was refused, or what ended its task. The content says so, too.
    pub failure: Option<Failure>,
    /// What it gave before it was put into words, for programs of this process; only some tools have it.
    pub raw: Option<Raw>,
}

/// What a call gave, not yet in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Raw {
    /// How its task ended.
    Outcome(Box<TaskOutcome>),
    /// A part of a task's output.
    Log(LogPart),
}

/// A part of a task's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPart {
    /// The text.
    pub text: String,
    /// Where to go on.
    pub cursor: String,
    /// Whether there is more, or may be.
    pub more: bool,
}

/// One block of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Text.
    Text(String),
    /// A picture.
    Image {
        /// Its media type.
        mime: String,
        /// Its bytes.
        data: Vec<u8>,
    },
    /// A file that stays where it is. Not every client takes one, so the result's text names the same address.
    ResourceLink(ResourceLink),
}

/// The address of a file, for clients that fetch it themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceLink {
    /// Where it is.
    pub uri: WorkspaceUri,
    /// What it is called.
    pub name: String,
    /// Its media type.
    pub mime: String,
    /// Its size, in bytes.
    pub size: u64,
}

impl ToolResult {
    /// A result of one text block.
    pub fn text(text: impl Into<String>) -> Self {
        Self { content: vec![Content::Text(text.into())], ..Self::default() }
    }

    /// A result for models and programs alike.
    pub fn structured(text: impl Into<String>, structured: Value) -> Self {
        Self { structured: Some(structured), ..Self::text(text) }
    }

    /// A refusal or failure: its code, what happened, and what to do next.
    pub fn failure(failure: &Failure) -> Self {
        let mut text = failure.to_string();
        if let Some(step) = next_step(failure.code) {
            text.push_str("\nNext: ");
            text.push_str(step);
        }
        let mut error = json!({ "code": failure.code });
        if let Some(millis) = failure.retry_after_ms {
            error["retry_after_ms"] = millis.into();
        }
        Self { is_error: true, failure: Some(failure.clone()), ..Self::text(text) }.with_meta("codegen/error", error)
    }

    /// How the call went, in one word: `OK`, the code of the failure, or `FAILED` when what it ran failed by itself.
    pub fn code(&self) -> String {
        let code = self.meta.get("codegen/error").and_then(|error| error.get("code")?.as_str());
        code.unwrap_or(if self.is_error { "FAILED" } else { "OK" }).to_owned()
    }

    /// The result with one more fact for programs.
    #[must_use]
    pub fn with_meta(mut self, key: &str, value: Value) -> Self {
        self.meta.insert(key.to_owned(), value);
        self
    }

    /// The result with the task it is about, also inside `codegen/error` when it failed.
    #[must_use]
    pub fn of_task(mut self, task: TaskId) -> Self {
        if let Some(Value::Object(error)) = self.meta.get_mut("codegen/error") {
            error.insert("task_id".to_owned(), json!(task));
        }
        self.with_meta("codegen/task_id", json!(task))
    }

    /// The result with the place of its record in the audit log, when there is one.
    #[must_use]
    pub fn recorded_at(self, seq: Option<LogSeq>) -> Self {
        match seq {
            Some(seq) => self.with_meta("codegen/audit_seq", json!(seq)),
            None => self,
        }
    }
}

/// What a client can do about a failure that its message does not already say.
const fn next_step(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::InvalidArgument => Some("correct the argument and call again; nothing was done."),
        ErrorCode::PathViolation => {
            Some("name a plain file or directory inside the workspace, such as `data/input.csv`.")
        }
        ErrorCode::NotAFile | ErrorCode::NotADirectory => Some("fs_stat says what is there."),
        ErrorCode::AlreadyExists => Some("choose another path, or allow overwriting."),
        ErrorCode::FileTooLarge => Some("split the file, or make it with run_python inside the session."),
        ErrorCode::PreconditionFailed => Some("read the file again with fs_read; go by its present text and etag."),
        ErrorCode::SessionNotFound => Some("session_list shows your sessions; session_create makes one."),
        ErrorCode::SessionClosed | ErrorCode::SessionLost => Some("session_create makes a new session."),
        ErrorCode::SessionLimit => Some("close a session you no longer need with session_close."),
        ErrorCode::NoCapacity | ErrorCode::WorkerUnavailable | ErrorCode::RateLimited => {
            Some("try again in a few seconds; nothing was run.")
        }
        ErrorCode::NoWorkerFits => Some("ask for less, such as fewer labels; nothing was run."),
        ErrorCode::IsolationUnavailable => {
            Some("the operator mends what is named; `coordinator doctor` shows every layer.")
        }
        ErrorCode::TaskTimeout => Some("make the work shorter, or give a longer timeout_seconds."),
        ErrorCode::TaskOutcomeUnknown => {
            Some("look at the files before repeating it; the program may have run in part or whole.")
        }
        ErrorCode::OutputLimit => Some("write to a file in the workspace and read the part you need."),
        ErrorCode::MemoryLimit => Some("work on the data in smaller pieces."),
        ErrorCode::ProcessLimit => Some("start fewer processes or threads at once."),
        ErrorCode::DiskLimit => Some("delete files you no longer need with fs_delete."),
        ErrorCode::AuditUnavailable => Some("nothing runs unrecorded; try again once the log can be written."),
        ErrorCode::ApprovalRequired => {
            Some("once it is approved, make the same call again with the same arguments; it then goes through once.")
        }
        ErrorCode::NotFound
        | ErrorCode::TaskCancelled
        | ErrorCode::Unauthenticated
        | ErrorCode::PermissionDenied
        | ErrorCode::QuotaExceeded
        | ErrorCode::Internal => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_its_code_its_task_and_a_next_step() {
        let task = TaskId::mint();
        let failure = Failure::new(ErrorCode::SessionNotFound, "there is no such session");
        let result = ToolResult::failure(&failure).of_task(task);
        assert!(result.is_error);
        let [Content::Text(text)] = result.content.as_slice() else { panic!("one text block: {result:?}") };
        assert!(text.starts_with("SESSION_NOT_FOUND: there is no such session\nNext: "), "{text}");
        assert_eq!(result.meta["codegen/error"], json!({"code": "SESSION_NOT_FOUND", "task_id": task}));
    }
}
