//! `fs_edit`: exact text replaced in a file.

use codegen_types::event::Edited;
use codegen_types::operation::Edit;
use codegen_types::{Operation, OperationResult};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::reply::{file_reply, line};
use super::write::ETAG_BYTES_MAX;
use crate::tools::args;
use crate::tools::call::{Act, Answer, Call};
use crate::tools::result::ToolResult;

/// The longest text that is replaced or put in its place, in bytes.
const TEXT_BYTES_MAX: usize = 4 << 20;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct FsEditInput {
    /// Session handle; left out: the default one.
    session_id: Option<String>,
    /// The file, relative to the workspace.
    path: String,
    /// The text to replace, exactly as it is in the file, with blanks and line ends.
    old: String,
    /// What to put in its place; empty deletes it.
    new: String,
    /// Whether every occurrence is replaced. Default false: the text must be there exactly once.
    replace_all: Option<bool>,
    /// Edit only if the file's present etag is this one.
    if_match: Option<String>,
    /// At most 128 bytes. The same key and arguments again get the first result.
    idempotency_key: Option<String>,
}

pub(in crate::tools) fn edit<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: FsEditInput = call.input()?;
        let idempotency_key = args::key(input.idempotency_key)?;
        let path = args::path("path", &input.path)?;
        if input.old.is_empty() {
            return Err(args::invalid("old", "it is empty; to write a whole file use fs_write").into());
        }
        if input.old == input.new {
            return Err(args::invalid("new", "it is the same as `old`, so nothing would change").into());
        }
        args::bounded("old", &input.old, TEXT_BYTES_MAX)?;
        args::bounded("new", &input.new, TEXT_BYTES_MAX)?;
        input.if_match.as_deref().map_or(Ok(()), |etag| args::bounded("if_match", etag, ETAG_BYTES_MAX))?;
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let operation = Operation::Edit(Edit {
            path,
            old: input.old,
            new: input.new,
            replace_all: input.replace_all.unwrap_or(false),
            if_match: input.if_match,
        });
        let outcome = call.act(session, Act { operation, timeout: None, idempotency_key }).await?;
        Ok(file_reply(outcome, |result| match result {
            OperationResult::Edit(edited) => Some(render(edited)),
            _ => None,
        }))
    }
    .boxed()
}

fn render(edited: &Edited) -> ToolResult {
    let Edited { stat, replaced, diff } = edited;
    let places = if *replaced == 1 { "1 place".to_owned() } else { format!("{replaced} places") };
    let text = format!("edited {places} in {}\n\n{}", line(stat), diff.trim_end());
    let facts = json!({"size": stat.size, "etag": stat.etag, "replaced": replaced});
    ToolResult::text(text).with_meta("codegen/file", facts)
}
