//! Calls that may take longer than their client waits: they are answered with their task, which goes on.

use std::time::Duration;

use codegen_types::{Failure, Limits, SessionId, TaskId};
use tokio_util::sync::CancellationToken;

use super::call::{Act, Call, Refusal};
use super::result::ToolResult;
use super::{args, run_result};
use crate::session::TaskOutcome;

/// Characters of output in a result when the call names none.
pub(super) const OUTPUT_CHARS: usize = 20_000;
/// Characters that what is said about a part, and of the way to the rest, may take.
const ABOUT_CHARS: usize = 500;
/// What a call may ask for.
const OUTPUT_CHARS_ALLOWED: std::ops::RangeInclusive<u64> = 200..=100_000;

/// How long a call that waited for approval has at least before it is answered with its task.
const YIELD_LEAST: Duration = Duration::from_secs(5);

/// What every run tool can be told about its answer, as the client sent it.
#[derive(Debug, Default)]
pub(super) struct AnswerArgs {
    pub(super) timeout_seconds: Option<f64>,
    pub(super) yield_after_seconds: Option<f64>,
    pub(super) background: Option<bool>,
    pub(super) max_output_chars: Option<u64>,
}

/// When and with how much a run tool's call is answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answering {
    /// How long the task may run.
    pub(super) timeout: Option<Duration>,
    /// When the call is answered at the latest.
    pub(super) yields: Yields,
    /// Characters of output.
    pub(super) output_chars: usize,
}

/// When a call is answered although its task still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Yields {
    /// As soon as it has begun.
    AtOnce,
    /// After so long.
    After(Duration),
}

/// What came of a call in the time that it had.
enum Came {
    Ended(Box<TaskOutcome>),
    Running(TaskId),
}

impl AnswerArgs {
    /// Reads and checks them.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub(super) fn read(self, call: &Call<'_>) -> Result<Answering, Failure> {
        let limits = &call.connection.limits;
        let background = self.background.unwrap_or(false);
        let longest = Duration::from_millis(limits.task_ms_max);
        let timeout = args::timeout(self.timeout_seconds, limits)?.or_else(|| background.then_some(longest));
        let yields = match (background, yield_after(self.yield_after_seconds, limits)?) {
            (true, _) => Yields::AtOnce,
            (false, after) => Yields::After(after.unwrap_or_else(|| call.yield_after())),
        };
        Ok(Answering { timeout, yields, output_chars: output_chars(self.max_output_chars, call)? })
    }
}

fn yield_after(seconds: Option<f64>, limits: &Limits) -> Result<Option<Duration>, Failure> {
    let Some(seconds) = seconds else { return Ok(None) };
    let longest = Duration::from_millis(limits.task_ms_max);
    match Duration::try_from_secs_f64(seconds) {
        Ok(after) if after >= Duration::from_millis(1) && after <= longest => Ok(Some(after)),
        _ => {
            let text =
                format!("must be more than 0 and at most {}; `background` answers at once", longest.as_secs_f64());
            Err(args::invalid("yield_after_seconds", text))
        }
    }
}

/// The characters of output that a call wants.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn output_chars(wanted: Option<u64>, call: &Call<'_>) -> Result<usize, Failure> {
    let Some(chars) = wanted else { return Ok(call.request.output_chars.min(OUTPUT_CHARS)) };
    if OUTPUT_CHARS_ALLOWED.contains(&chars) {
        return Ok(usize::try_from(chars).unwrap_or(OUTPUT_CHARS));
    }
    let (least, most) = (OUTPUT_CHARS_ALLOWED.start(), OUTPUT_CHARS_ALLOWED.end());
    Err(args::invalid("max_output_chars", format!("must be from {least} to {most}")))
}

impl Call<'_> {
    /// Characters of a file or a listing that its client shows along with what is said about them, when the call names
    /// no number of its own; at least one.
    pub(super) fn part_chars(&self) -> usize {
        self.request.output_chars.saturating_sub(ABOUT_CHARS).max(1)
    }

    /// What is left of its client's patience.
    fn yield_after(&self) -> Duration {
        self.request.yield_after.saturating_sub(self.waited).max(YIELD_LEAST.min(self.request.yield_after))
    }

    /// Runs an operation in a session, and answers with its result or, when that takes too long, with its task.
    ///
    /// # Errors
    /// What the session layer refused before there was a task in the log.
    pub(super) async fn run(&self, session: SessionId, act: Act, answering: Answering) -> Result<ToolResult, Refusal> {
        match self.run_or_yield(session, act, answering.yields).await? {
            Came::Ended(outcome) => Ok(run_result::render(self.tool.name, &outcome, answering.output_chars)),
            Came::Running(task) => self.running(session, task, answering).await,
        }
    }

    /// Until it yields, the call's end is the task's; from then on the task goes on without it.
    async fn run_or_yield(&self, session: SessionId, act: Act, yields: Yields) -> Result<Came, Refusal> {
        let cancel = CancellationToken::new();
        let mut launched = self.launch(session, act, cancel.clone()).await;
        let due = async {
            if let Yields::After(after) = yields {
                tokio::time::sleep(after).await;
            }
            // A task that never began is over, or will be at once.
            if !launched.begun.await {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            outcome = &mut launched.outcome => return self.ran(session, outcome).map(|ran| Came::Ended(Box::new(ran))),
            () = self.request.cancel.cancelled() => cancel.cancel(),
            () = due => return Ok(Came::Running(launched.task)),
        }
        self.ran(session, launched.outcome.await).map(|ran| Came::Ended(Box::new(ran)))
    }

    /// What is said of a task that still runs.
    async fn running(&self, session: SessionId, task: TaskId, answering: Answering) -> Result<ToolResult, Refusal> {
        let of_task = |failure| Refusal { failure, session: Some(session), task: Some(task) };
        let seen = self.connection.sessions.task(self.connection.principal.clone(), task).await.map_err(of_task)?;
        let result = run_result::render_seen(&seen, answering.output_chars);
        // It may have ended just now.
        let goes_on = seen.outcome.is_none().then_some(seen.info);
        Ok(ToolResult { goes_on, ..result })
    }
}
