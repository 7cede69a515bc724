//! `echo`: whether the way to the coordinator and back works.

use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use super::args;
use super::call::{Answer, Call, Reply};
use super::result::ToolResult;

/// The longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EchoInput {
    /// The text to give back.
    message: String,
}

pub(super) fn echo<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: EchoInput = call.input()?;
        args::bounded("message", &input.message, MESSAGE_BYTES_MAX)?;
        // Several model interfaces refuse an empty text block.
        let text = if input.message.is_empty() { "(empty)".to_owned() } else { input.message };
        Ok(Reply::Unrecorded(ToolResult::text(text), None))
    }
    .boxed()
}
