//! What the file tools' replies have in common.

use codegen_types::event::{FileKind, FileStat};
use codegen_types::{ErrorCode, Failure, OperationResult};

use crate::session::TaskOutcome;
use crate::tools::call::Reply;
use crate::tools::result::{Raw, ToolResult};
use crate::tools::words;

/// The reply to a file operation: what `render` makes of its result, or its failure.
pub(in crate::tools) fn file_reply(
    outcome: TaskOutcome,
    render: impl FnOnce(&OperationResult) -> Option<ToolResult>,
) -> Reply {
    let result = match &outcome.result {
        Ok(completed) => completed.result.as_ref().and_then(render).unwrap_or_else(|| {
            let failure = Failure::new(ErrorCode::Internal, "the worker answered with the result of another operation");
            ToolResult::failure(&failure)
        }),
        Err(failure) => ToolResult::failure(failure),
    };
    let result = result.of_task(outcome.task).recorded_at(outcome.audit_seq);
    Reply::Recorded(ToolResult { raw: Some(Raw::Outcome(Box::new(outcome))), ..result })
}

/// One file, in one line.
pub(in crate::tools) fn line(stat: &FileStat) -> String {
    let place = if stat.path.is_empty() { "." } else { &stat.path };
    match (stat.kind, &stat.etag) {
        (FileKind::File, Some(etag)) => {
            format!("{place}: {} bytes, modified {}, etag {etag}", stat.size, words::time(stat.modified_ms))
        }
        (FileKind::File, None) => format!("{place}: {} bytes, modified {}", stat.size, words::time(stat.modified_ms)),
        (kind, _) => format!("{place}: {}, modified {}", kind_word(kind), words::time(stat.modified_ms)),
    }
}

/// The kind of a thing, as clients read it.
pub(super) const fn kind_word(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Other => "other",
    }
}
