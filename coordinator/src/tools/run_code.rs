//! `run_code`: a program for another runtime of the worker, such as Node.

use std::collections::BTreeMap;

use codegen_types::Program;
use codegen_types::operation::ScriptSource;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::args;
use super::call::{Answer, Call};
use super::run::{Run, exec};
use super::run_input::run_input;

/// The longest source text, in bytes: the kernel takes no longer argument.
const CODE_BYTES_MAX: usize = (128 << 10) - 1;
/// The longest name of a runtime, in bytes.
const RUNTIME_BYTES_MAX: usize = 64;

run_input! {
    pub(super) struct RunCodeInput {
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
    }
}

pub(super) fn run_code<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: RunCodeInput = call.input()?;
        let answer = input.answer();
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
            answer,
            idempotency_key: input.idempotency_key,
        };
        exec(call, run).await
    }
    .boxed()
}
