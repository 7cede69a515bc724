//! `run_code`: a program for another runtime of the worker, such as Node.

use std::collections::BTreeMap;

use codegen_types::Program;
use codegen_types::operation::ScriptSource;
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use super::args;
use super::call::{Answer, Call};
use super::run::{Run, exec};
use super::yielding::AnswerArgs;

/// The longest source text, in bytes: the kernel takes no longer argument.
const CODE_BYTES_MAX: usize = (128 << 10) - 1;
/// The longest name of a runtime, in bytes.
const RUNTIME_BYTES_MAX: usize = 64;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RunCodeInput {
    /// Session handle; left out: the connection's default session.
    session_id: Option<String>,
    /// The interpreter, such as `node`, `deno`, `bun`, `perl`, `ruby`, `php`, `lua`, `r` or `julia`.
    runtime: String,
    /// Source text, at most 128 KiB. Give either this or `file`.
    code: Option<String>,
    /// A file of the workspace to run instead of `code`.
    file: Option<String>,
    /// The program's arguments.
    args: Option<Vec<String>>,
    /// Text given on standard input.
    stdin: Option<String>,
    /// Environment variables to add.
    env: Option<BTreeMap<String, String>>,
    /// Wall time after which the program is ended; fractions are allowed. Default 60.
    timeout_seconds: Option<f64>,
    /// Answer with the task's id if it still runs after so many seconds. Default 45.
    yield_after_seconds: Option<f64>,
    /// Answer at once with the task's id. Its wall time is then the longest allowed unless `timeout_seconds` says else.
    background: Option<bool>,
    /// Characters of output shown, 200 to 100000. Default 20000.
    max_output_chars: Option<u64>,
    /// At most 128 bytes. A call repeated with the same key and arguments gets the first one's result and runs nothing.
    idempotency_key: Option<String>,
}

pub(super) fn run_code<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: RunCodeInput = call.input()?;
        args::bounded("runtime", &input.runtime, RUNTIME_BYTES_MAX)?;
        let args = input.args.unwrap_or_default();
        args::program_args(&args)?;
        let source = match (input.code, input.file) {
            (Some(code), None) => {
                args::bounded("code", &code, CODE_BYTES_MAX)?;
                args::without_nul("code", &code)?;
                ScriptSource::Code(code)
            }
            (None, Some(file)) => ScriptSource::File(args::path("file", &file)?),
            (Some(_), Some(_)) => return Err(args::invalid("file", "give either `code` or `file`, not both").into()),
            (None, None) => return Err(args::invalid("code", "give `code`, or `file` to run one").into()),
        };
        let run = Run {
            session_id: input.session_id,
            kernel: None,
            program: Program::Script { runtime: input.runtime, source, args },
            stdin: input.stdin,
            env: input.env,
            answer: AnswerArgs {
                timeout_seconds: input.timeout_seconds,
                yield_after_seconds: input.yield_after_seconds,
                background: input.background,
                max_output_chars: input.max_output_chars,
            },
            idempotency_key: input.idempotency_key,
        };
        exec(call, run).await
    }
    .boxed()
}
