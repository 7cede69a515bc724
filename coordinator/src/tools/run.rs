//! `run_python` and `run_shell`: programs in the session's sandbox.

use std::collections::BTreeMap;

use codegen_types::{Exec, Operation, Program};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::call::{Act, Answer, Call, Reply};
use super::run_input::run_input;
use super::yielding::AnswerArgs;
use super::{args, kernels};

run_input! {
    pub(super) struct RunPythonInput {
        /// Python source text, run as `__main__`. Give either this or `file`. Print what you want to see.
        code: Option<String>,
        /// A Python file of the workspace to run instead of `code`.
        file: Option<String>,
        /// Run in the kernel of this name, which keeps variables and imports between calls; made when first needed. Left
        /// out: a fresh interpreter.
        kernel: Option<String>,
        /// The program's arguments, `sys.argv[1:]`. A kernel keeps those of the last call that gave some.
        args: Option<Vec<String>>,
        /// Text given on standard input.
        stdin: Option<String>,
        /// Environment variables to add. A kernel keeps them for later calls.
        env: Option<BTreeMap<String, String>>,
    }
}

run_input! {
    pub(super) struct RunShellInput {
        /// The command line, run by bash (by sh where there is none) in the workspace.
        command: String,
        /// Text given on standard input.
        stdin: Option<String>,
        /// Environment variables to add.
        env: Option<BTreeMap<String, String>>,
    }
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
        let answer = input.answer();
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
            answer,
            idempotency_key: input.idempotency_key,
        };
        exec(call, run).await
    }
    .boxed()
}

pub(super) fn run_shell<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: RunShellInput = call.input()?;
        let answer = input.answer();
        args::bounded("command", &input.command, args::COMMAND_BYTES_MAX)?;
        args::without_nul("command", &input.command)?;
        let run = Run {
            session_id: input.session_id,
            program: Program::Shell { command: input.command },
            kernel: None,
            stdin: input.stdin,
            env: input.env,
            answer,
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
