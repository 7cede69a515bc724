//! `test_run`: the session's tests, by pytest or by unittest.

use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::args;
use super::super::call::{Answer, Call};
use super::super::run::{Run, exec};
use super::super::yielding::AnswerArgs;
use super::{place, program};

const SOURCE: &str = concat!(include_str!("programs/prelude.py"), include_str!("programs/test_run.py"));

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct TestRunInput {
    /// Session handle; left out: the connection's default session.
    session_id: Option<String>,
    /// A file or directory of the workspace, or one test as `file.py::name`; left out: all.
    path: Option<String>,
    /// Further arguments of pytest, such as `["-k", "name"]`.
    args: Option<Vec<String>>,
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

pub(in super::super) fn test_run<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: TestRunInput = call.input()?;
        let args = input.args.unwrap_or_default();
        args::program_args(&args)?;
        let run = Run {
            session_id: input.session_id,
            program: program(SOURCE, &place(input.path.as_deref())?, args),
            stdin: None,
            env: None,
            kernel: None,
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
