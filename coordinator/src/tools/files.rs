//! `fs_list`, `fs_stat`, `fs_move`, `fs_delete`; reading and writing have files of their own.

use codegen_types::event::{FileKind, FileStat};
use codegen_types::operation::{List, Move, Remove, Stat};
use codegen_types::{ErrorCode, Failure, Operation, OperationResult};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::call::{Act, Answer, Call, Reply};
use super::result::ToolResult;
use super::{args, words};
use crate::session::TaskOutcome;

/// The most entries that one listing gives.
pub(super) const ENTRIES_MAX: u32 = 1_000;
/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1_024;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FsListInput {
    /// Session handle; left out: the connection's default session.
    session_id: Option<String>,
    /// The directory, relative to the workspace; left out, the workspace itself.
    path: Option<String>,
    /// Whether to list what is in directories below, too.
    recursive: Option<bool>,
    /// A glob that the path below `path` must match: `*` stops at a slash, `**` does not. Example: `**/*.py` with
    /// `recursive`.
    pattern: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FsStatInput {
    /// Session handle; left out: the connection's default session.
    session_id: Option<String>,
    /// The file or directory, relative to the workspace.
    path: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FsMoveInput {
    /// Session handle; left out: the connection's default session.
    session_id: Option<String>,
    /// What to rename, relative to the workspace.
    from: String,
    /// Its new path; missing directories are made.
    to: String,
    /// Whether a file that is already there is replaced. Default false.
    overwrite: Option<bool>,
    /// At most 128 bytes. A call repeated with the same key and arguments gets the first one's result.
    idempotency_key: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FsDeleteInput {
    /// Session handle; left out: the connection's default session.
    session_id: Option<String>,
    /// The file or directory, relative to the workspace.
    path: String,
    /// Whether a directory may be deleted with all that is in it. Default false.
    recursive: Option<bool>,
    /// At most 128 bytes. A call repeated with the same key and arguments gets the first one's result.
    idempotency_key: Option<String>,
}

/// A file or directory as clients see it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct FileView {
    /// Its path, relative to the workspace.
    path: String,
    /// `file`, `directory`, `symlink` or `other`.
    kind: String,
    /// Its size, in bytes.
    size: u64,
    /// When its contents last changed (RFC 3339).
    modified_at: String,
    /// Permission bits, in octal.
    mode: String,
    /// Names this version of a file's contents, for `if_match` of fs_write.
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct FsListOutput {
    /// What was found, sorted by path.
    entries: Vec<FileView>,
    /// Whether there is more than one listing gives.
    truncated: bool,
}

pub(super) fn list<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: FsListInput = call.input()?;
        let path = args::path("path", input.path.as_deref().unwrap_or(""))?;
        let pattern = input.pattern;
        pattern.as_deref().map_or(Ok(()), |text| args::bounded("pattern", text, PATTERN_BYTES_MAX))?;
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let recursive = input.recursive.unwrap_or(false);
        let list = List { path: path.clone(), recursive, pattern, entries_max: ENTRIES_MAX };
        let outcome = call.act(session, Operation::List(list).into()).await?;
        Ok(file_reply(&outcome, |result| match result {
            OperationResult::List { entries, truncated } => Some(listing(&path.to_string(), entries, *truncated)),
            _ => None,
        }))
    }
    .boxed()
}

pub(super) fn stat<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: FsStatInput = call.input()?;
        let path = args::path("path", &input.path)?;
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let outcome = call.act(session, Operation::Stat(Stat { path }).into()).await?;
        Ok(file_reply(&outcome, |result| match result {
            OperationResult::Stat { stat } => Some(ToolResult::structured(line(stat), json!(FileView::of(stat)))),
            _ => None,
        }))
    }
    .boxed()
}

pub(super) fn mv<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: FsMoveInput = call.input()?;
        let idempotency_key = args::key(input.idempotency_key)?;
        let (from, to) = (args::path("from", &input.from)?, args::path("to", &input.to)?);
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let operation = Operation::Move(Move { from: from.clone(), to, overwrite: input.overwrite.unwrap_or(false) });
        let outcome = call.act(session, Act { operation, timeout: None, idempotency_key }).await?;
        Ok(file_reply(&outcome, |result| match result {
            OperationResult::Move { stat } => Some(ToolResult::text(format!("moved {from} to {}", line(stat)))),
            _ => None,
        }))
    }
    .boxed()
}

pub(super) fn delete<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: FsDeleteInput = call.input()?;
        let idempotency_key = args::key(input.idempotency_key)?;
        let path = args::path("path", &input.path)?;
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let operation = Operation::Remove(Remove { path: path.clone(), recursive: input.recursive.unwrap_or(false) });
        let outcome = call.act(session, Act { operation, timeout: None, idempotency_key }).await?;
        Ok(file_reply(&outcome, |result| match result {
            OperationResult::Remove { removed: 1 } => Some(ToolResult::text(format!("deleted {path}"))),
            OperationResult::Remove { removed } => {
                Some(ToolResult::text(format!("deleted {path}, {removed} files and directories in all")))
            }
            _ => None,
        }))
    }
    .boxed()
}

/// The reply to a file operation: what `render` makes of its result, or its failure.
pub(super) fn file_reply(outcome: &TaskOutcome, render: impl FnOnce(&OperationResult) -> Option<ToolResult>) -> Reply {
    let result = match &outcome.result {
        Ok(completed) => completed.result.as_ref().and_then(render).unwrap_or_else(|| {
            let failure = Failure::new(ErrorCode::Internal, "the worker answered with the result of another operation");
            ToolResult::failure(&failure)
        }),
        Err(failure) => ToolResult::failure(failure),
    };
    Reply::Recorded(result.of_task(outcome.task).recorded_at(outcome.audit_seq))
}

/// One file, in one line.
pub(super) fn line(stat: &FileStat) -> String {
    let place = if stat.path.is_empty() { "." } else { &stat.path };
    match (stat.kind, &stat.etag) {
        (FileKind::File, Some(etag)) => {
            format!("{place}: {} bytes, modified {}, etag {etag}", stat.size, words::time(stat.modified_ms))
        }
        (FileKind::File, None) => format!("{place}: {} bytes, modified {}", stat.size, words::time(stat.modified_ms)),
        (kind, _) => format!("{place}: {}, modified {}", kind_word(kind), words::time(stat.modified_ms)),
    }
}

fn listing(path: &str, entries: &[FileStat], truncated: bool) -> ToolResult {
    let mut lines = Vec::with_capacity(entries.len() + 2);
    lines.push(match entries.len() {
        0 => format!("{path}: nothing there"),
        1 => format!("{path}: 1 entry"),
        n => format!("{path}: {n} entries"),
    });
    lines.extend(entries.iter().map(|entry| match entry.kind {
        FileKind::File => format!("{} ({})", entry.path, words::bytes(entry.size)),
        FileKind::Directory => format!("{}/", entry.path),
        kind => format!("{} ({})", entry.path, kind_word(kind)),
    }));
    if truncated {
        lines.push(format!("[only the first {}; narrow it with path or pattern]", entries.len()));
    }
    let output = FsListOutput { entries: entries.iter().map(FileView::of).collect(), truncated };
    ToolResult::structured(lines.join("\n"), json!(output))
}

const fn kind_word(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Other => "other",
    }
}

impl FileView {
    fn of(stat: &FileStat) -> Self {
        Self {
            path: stat.path.clone(),
            kind: kind_word(stat.kind).to_owned(),
            size: stat.size,
            modified_at: words::time(stat.modified_ms),
            mode: format!("{:03o}", stat.mode & 0o7777),
            etag: stat.etag.clone(),
        }
    }
}
