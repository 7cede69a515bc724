//! `fs_list` and `fs_stat`: what is there.

use codegen_types::event::{FileKind, FileStat};
use codegen_types::operation::{List, Stat};
use codegen_types::{Operation, OperationResult};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::reply::{file_reply, kind_word, line};
use crate::tools::call::{Answer, Call};
use crate::tools::result::ToolResult;
use crate::tools::{args, words};

/// The most entries that one listing gives.
pub(in crate::tools) const ENTRIES_MAX: u32 = 1_000;
/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1_024;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct FsListInput {
    /// Session handle; left out: the default one.
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
pub(in crate::tools) struct FsStatInput {
    /// Session handle; left out: the default one.
    session_id: Option<String>,
    /// The file or directory, relative to the workspace.
    path: String,
}

/// A file or directory as clients see it.
#[derive(Debug, Serialize, JsonSchema, ToSchema)]
pub(crate) struct FileView {
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
pub(in crate::tools) struct FsListOutput {
    /// What was found, sorted by path.
    entries: Vec<FileView>,
    /// Whether there is more than one listing gives.
    truncated: bool,
}

pub(in crate::tools) fn list<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: FsListInput = call.input()?;
        let path = args::path("path", input.path.as_deref().unwrap_or(""))?;
        let pattern = input.pattern;
        pattern.as_deref().map_or(Ok(()), |text| args::bounded("pattern", text, PATTERN_BYTES_MAX))?;
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let recursive = input.recursive.unwrap_or(false);
        let list = List { path: path.clone(), recursive, pattern, entries_max: ENTRIES_MAX };
        let outcome = call.act(session, Operation::List(list).into()).await?;
        Ok(file_reply(outcome, |result| match result {
            OperationResult::List { entries, truncated } => Some(listing(&path.to_string(), entries, *truncated)),
            _ => None,
        }))
    }
    .boxed()
}

pub(in crate::tools) fn stat<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: FsStatInput = call.input()?;
        let path = args::path("path", &input.path)?;
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let outcome = call.act(session, Operation::Stat(Stat { path }).into()).await?;
        Ok(file_reply(outcome, |result| match result {
            OperationResult::Stat { stat } => Some(ToolResult::structured(line(stat), json!(FileView::of(stat)))),
            _ => None,
        }))
    }
    .boxed()
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

impl FileView {
    pub(crate) fn of(stat: &FileStat) -> Self {
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
