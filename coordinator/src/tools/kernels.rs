//! `kernel_list` and `kernel_restart`: the interpreters of a session that keep variables between calls.

use std::fmt::Write;

use codegen_types::event::KernelInfo;
use codegen_types::operation::Kernels;
use codegen_types::{ErrorCode, Failure, KernelName, Operation, OperationResult};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::call::{Act, Answer, Call, Reply};
use super::result::ToolResult;
use super::{args, words};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KernelListInput {
    /// Session handle; left out: the default one.
    session_id: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KernelRestartInput {
    /// Session handle; left out: the default one.
    session_id: Option<String>,
    /// The kernel's name.
    kernel: String,
    /// At most 128 bytes. The same key and arguments again get the first result; nothing runs.
    idempotency_key: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct KernelListOutput {
    /// The session's kernels, in order of name.
    kernels: Vec<KernelView>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct KernelView {
    /// Its name, to pass as `kernel` to `run_python`.
    name: String,
    /// `idle` or `busy`.
    state: String,
    /// Calls that wait for it.
    waiting: u32,
    /// Calls that were made since it was started.
    calls: u64,
    /// When it was started (RFC 3339).
    started_at: String,
    /// Its memory after the last call, in bytes.
    memory_bytes: u64,
}

/// The name of a kernel.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn name(text: String) -> Result<KernelName, Failure> {
    KernelName::try_from(text).map_err(|error| args::invalid("kernel", error.to_string()))
}

pub(super) fn list<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: KernelListInput = call.input()?;
        perform(call, input.session_id, Act::from(Operation::Kernels(Kernels::List))).await
    }
    .boxed()
}

pub(super) fn restart<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: KernelRestartInput = call.input()?;
        let operation = Operation::Kernels(Kernels::Restart { name: name(input.kernel)? });
        let act = Act { operation, timeout: None, idempotency_key: args::key(input.idempotency_key)? };
        perform(call, input.session_id, act).await
    }
    .boxed()
}

async fn perform(call: &Call<'_>, session: Option<String>, act: Act) -> Answer {
    let session = call.connection.session(session.as_deref()).await?;
    let outcome = call.act(session, act).await?;
    let result = match &outcome.result {
        Ok(completed) => match &completed.result {
            Some(OperationResult::Kernels { kernels }) => shown(kernels),
            _ => ToolResult::failure(&Failure::new(
                ErrorCode::Internal,
                "the worker did not say which kernels there are",
            )),
        },
        Err(failure) => ToolResult::failure(failure),
    };
    Ok(Reply::Recorded(result.of_task(outcome.task).recorded_at(outcome.audit_seq)))
}

fn shown(kernels: &[KernelInfo]) -> ToolResult {
    let views: Vec<KernelView> = kernels.iter().map(KernelView::of).collect();
    let mut text = match kernels.len() {
        0 => "no kernels; run_python starts one when it is given a name for it in `kernel`".to_owned(),
        1 => "1 kernel".to_owned(),
        count => format!("{count} kernels"),
    };
    for KernelView { name, state, waiting, calls, started_at, memory_bytes } in &views {
        let memory = words::bytes(*memory_bytes);
        let _ = write!(text, "\n{name} {state}, {calls} calls since {started_at}, {memory}");
        if *waiting > 0 {
            let _ = write!(text, ", {waiting} calls wait");
        }
    }
    ToolResult::structured(text, serde_json::json!(KernelListOutput { kernels: views }))
}

impl KernelView {
    fn of(kernel: &KernelInfo) -> Self {
        Self {
            name: kernel.name.to_string(),
            state: if kernel.busy { "busy" } else { "idle" }.to_owned(),
            waiting: kernel.waiting,
            calls: kernel.calls,
            started_at: words::time(kernel.started_ms),
            memory_bytes: kernel.memory_bytes,
        }
    }
}
