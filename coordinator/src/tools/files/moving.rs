//! `fs_move` and `fs_delete`.

use codegen_types::operation::{Move, Remove};
use codegen_types::{Operation, OperationResult};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use super::reply::{file_reply, line};
use crate::tools::args;
use crate::tools::call::{Act, Answer, Call};
use crate::tools::result::ToolResult;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct FsMoveInput {
    /// Session handle; left out: the default one.
    session_id: Option<String>,
    /// What to rename, relative to the workspace.
    from: String,
    /// Its new path; missing directories are made.
    to: String,
    /// Whether a file that is already there is replaced. Default false.
    overwrite: Option<bool>,
    /// At most 128 bytes. The same key and arguments again get the first result.
    idempotency_key: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct FsDeleteInput {
    /// Session handle; left out: the default one.
    session_id: Option<String>,
    /// The file or directory, relative to the workspace.
    path: String,
    /// Whether a directory may be deleted with all that is in it. Default false.
    recursive: Option<bool>,
    /// At most 128 bytes. The same key and arguments again get the first result.
    idempotency_key: Option<String>,
}

pub(in crate::tools) fn mv<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: FsMoveInput = call.input()?;
        let idempotency_key = args::key(input.idempotency_key)?;
        let (from, to) = (args::path("from", &input.from)?, args::path("to", &input.to)?);
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let operation = Operation::Move(Move { from: from.clone(), to, overwrite: input.overwrite.unwrap_or(false) });
        let outcome = call.act(session, Act { operation, timeout: None, idempotency_key }).await?;
        Ok(file_reply(outcome, |result| match result {
            OperationResult::Move { stat } => Some(ToolResult::text(format!("moved {from} to {}", line(stat)))),
            _ => None,
        }))
    }
    .boxed()
}

pub(in crate::tools) fn delete<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: FsDeleteInput = call.input()?;
        let idempotency_key = args::key(input.idempotency_key)?;
        let path = args::path("path", &input.path)?;
        let session = call.connection.session(input.session_id.as_deref()).await?;
        let operation = Operation::Remove(Remove { path: path.clone(), recursive: input.recursive.unwrap_or(false) });
        let outcome = call.act(session, Act { operation, timeout: None, idempotency_key }).await?;
        Ok(file_reply(outcome, |result| match result {
            OperationResult::Remove { removed: 1 } => Some(ToolResult::text(format!("deleted {path}"))),
            OperationResult::Remove { removed } => {
                Some(ToolResult::text(format!("deleted {path}, {removed} files and directories in all")))
            }
            _ => None,
        }))
    }
    .boxed()
}
