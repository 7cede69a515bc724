//! `lint_check`: what ruff finds in the session's Python files, or else which of them have broken syntax.

use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::args;
use super::super::call::{Answer, Call};
use super::super::run::{Run, exec};
use super::super::yielding::AnswerArgs;
use super::program;

const SOURCE: &str = concat!(include_str!("programs/prelude.py"), include_str!("programs/lint_check.py"));

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct LintCheckInput {
    /// Session handle; left out: the default one.
    session_id: Option<String>,
    /// A file or directory of the workspace; left out: all.
    path: Option<String>,
    /// Wall time after which the program is ended; fractions are allowed. Default 60.
    timeout_seconds: Option<f64>,
    /// At most 128 bytes. The same key and arguments again get the first result; nothing runs.
    idempotency_key: Option<String>,
}

pub(in super::super) fn lint_check<'a>(call: &'a Call<'a>) -> BoxFuture<'a, Answer> {
    async move {
        let input: LintCheckInput = call.input()?;
        let path = match input.path.as_deref() {
            Some(path) => args::path("path", path)?.as_str().to_owned(),
            None => String::new(),
        };
        let run = Run {
            session_id: input.session_id,
            program: program(SOURCE, &path, Vec::new()),
            stdin: None,
            env: None,
            kernel: None,
            answer: AnswerArgs { timeout_seconds: input.timeout_seconds, ..AnswerArgs::default() },
            idempotency_key: input.idempotency_key,
        };
        exec(call, run).await
    }
    .boxed()
}
