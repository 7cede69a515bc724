//! `test_run`: the session's tests, by pytest or by unittest.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::super::args;
use super::super::call::{Answer, Call};
use super::super::run::{Run, exec};
use super::super::run_input::run_input;
use super::{place, program};

const SOURCE: &str = concat!(include_str!("programs/prelude.py"), include_str!("programs/test_run.py"));

run_input! {
    pub(in super::super) struct TestRunInput {
        /// A file or directory of the workspace, or one test as `file.py::name`; left out: all.
        path: Option<String>,
        /// Further arguments of pytest, such as `["-k", "name"]`; without it `-k`, `-v`, `-f` of unittest.
        args: Option<Vec<String>>,
    }
}

pub(in super::super) fn test_run<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: TestRunInput = call.input()?;
        let answer = input.answer();
        let args = input.args.unwrap_or_default();
        args::program_args(&args)?;
        let run = Run {
            session_id: input.session_id,
            program: program(SOURCE, &place(input.path.as_deref())?, args),
            stdin: None,
            env: None,
            kernel: None,
            answer,
            idempotency_key: input.idempotency_key,
        };
        exec(call, run).await
    }
    .boxed()
}
