//! `run_python` and `run_shell`: programs in the session's sandbox.

use std::collections::BTreeMap;

use codegen_types::{Exec, Operation, Program};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use super::call::{Act, Answer, Call, Reply};
use super::yielding::AnswerArgs;
use super::{args, kernels};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RunPythonInput {
    /// Session handle; left out: the connection's default session.
    session_id: Option<String>,
    /// Python source text, run as `__main__`. Give either this or `file`. Print what you want to see.
    code: Option<String>,
    /// A Python file of the workspace to run instead of `code`.
    file: Option<String>,
    /// Run in the kernel of this name, which keeps variables and imports between calls; made when first needed. Left
    /// out: a fresh interpreter.
    kernel: Option<String>,
    /// The program's arguments, `sys.argv[1:]`.
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

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RunShellInput {
    /// Session handle; left out: the connection's default session.
    session_id: Option<String>,
    /// The command line, run by bash (by sh where there is none) in the workspace.
    command: String,
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

/// What the tools that run programs share.
pub(super) struct Run {
    pub(super) session_id: Option<String>,
    pub(super) program: Program,
    pub(super) kernel: Option<String>,
    pub(super) stdin: Option<String>,
    pub(super) env: Option<BTreeMap<String, String>>,
    pub(super) answer: AnswerArgs,
    pub(super) idempotency_key: Option<String>,
}

pub(super) fn run_python<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: RunPythonInput = call.input()?;
        let args = input.args.unwrap_or_default();
        args::program_args(&args)?;
        let program = match (input.code, input.file) {
            (Some(code), None) => {
                args::bounded("code", &code, args::CODE_BYTES_MAX)?;
                Program::PythonCode { code, args }
            }
            (None, Some(file)) => Program::PythonFile { path: args::path("file", &file)?, args },
            (Some(_), Some(_)) => return Err(args::invalid("file", "give either `code` or `file`, not both").into()),
            (None, None) => return Err(args::invalid("code", "give `code`, or `file` to run one").into()),
        };
        let run = Run {
            session_id: input.session_id,
            program,
            kernel: input.kernel,
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

pub(super) fn run_shell<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: RunShellInput = call.input()?;
        args::bounded("command", &input.command, args::COMMAND_BYTES_MAX)?;
        args::without_nul("command", &input.command)?;
        let run = Run {
            session_id: input.session_id,
            program: Program::Shell { command: input.command },
            kernel: None,
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

pub(super) async fn exec(call: &Call<'_>, run: Run) -> Answer {
    let stdin = run.stdin.unwrap_or_default();
    args::bounded("stdin", &stdin, args::STDIN_BYTES_MAX)?;
    let env = run.env.unwrap_or_default();
    args::env(&env)?;
    let kernel = run.kernel.map(kernels::name).transpose()?;
    let answering = run.answer.read(call)?;
    let idempotency_key = args::key(run.idempotency_key)?;
    let session = call.connection.session(run.session_id.as_deref()).await?;
    let operation = Operation::Exec(Exec { stdin: stdin.into_bytes(), env, kernel, ..Exec::of(run.program) });
    let act = Act { operation, timeout: answering.timeout, idempotency_key };
    call.run(session, act, answering).await.map(Reply::Recorded)
}
