//! One task from its attempt to its recorded outcome, in a task of its own: a caller that vanishes loses no outcome.

mod attempt;
mod conclude;
mod execute;

pub(super) use conclude::ended_row;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codegen_audit::Entry;
use codegen_types::{ErrorCode, EventBody, Failure, WorkerId};
use coordinator_core::session::{Need, Tie};
use coordinator_core::task::{TaskInput, TaskState};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use attempt::Attempt;
use conclude::Concluded;

use super::call::{TaskCall, TaskOutcome};
use super::owner::{Begun, By, Message};
use super::receipt::Charge;
use super::recovery::{self, Left};
use super::running::{Registered, Run};
use super::{Shared, unavailable};
use crate::store::TaskRow;
use crate::telemetry;
use crate::telemetry::traces::{self, Span, Step};

/// A task without a key that ends within this time goes into the store once, with its outcome.
const UNSTORED_MAX: Duration = Duration::from_millis(20);

/// How long a task of that worker may run without a row. One that a worker goes on with when this server ends needs it
/// from the beginning.
fn unstored_max(worker: &WorkerId) -> Duration {
    match recovery::tie(worker) {
        Tie::Child => UNSTORED_MAX,
        Tie::Apart => Duration::ZERO,
    }
}

/// One task while it runs.
pub(super) struct Runner {
    pub(super) shared: Arc<Shared>,
    pub(super) owner: mpsc::Sender<Message>,
    pub(super) call: TaskCall,
    /// Follows the task live; what it does not take in time it misses, since no task waits for its watchers.
    pub(super) events: mpsc::Sender<EventBody>,
    pub(super) cancel: CancellationToken,
}

impl Runner {
    /// Runs the task to its recorded outcome, which it answers with. Whoever waits for its beginning hears of it, or that
    /// there is none.
    pub(super) async fn run(self, begins: oneshot::Sender<()>, answer: impl FnOnce(TaskOutcome)) {
        let (task, admitted) = (self.call.task, Instant::now());
        let mut queued = self.span(Step::SessionQueue);
        if let Some(arrival) = &self.call.arrival {
            // One that is cancelled meanwhile is refused further on.
            let _ = self.cancel.run_until_cancelled(arrival.turn()).await;
        }
        let begun = match self.ask(|reply| Message::Begin { task, by: self.by(), asked: admitted.into(), reply }).await
        {
            Ok(begun) => begun,
            Err(failure) => {
                queued.fail(failure.code);
                drop(queued);
                return answer(self.refused(failure));
            }
        };
        drop(queued);
        match self.start(&begun).await {
            Ok((attempt, row)) => {
                telemetry::task_queued(admitted.elapsed());
                self.run_begun(begun, attempt, row, begins, answer).await;
            }
            Err((outcome, charge)) => {
                self.leave(charge).await;
                answer(outcome);
            }
        }
    }

    /// Records the attempt and makes the task's row. The row of a call under an idempotency key is in the store before
    /// anything is sent; that of any other is only a help to find it, and goes there meanwhile.
    async fn start(&self, begun: &Begun) -> Result<(Attempt, Option<TaskRow>), (TaskOutcome, Option<Charge>)> {
        let attempt = match self.attempt(begun).await {
            Ok(attempt) => attempt,
            Err(error) => return Err((self.refused(unavailable(&error)), None)),
        };
        let row = self.row(begun, &attempt);
        if let Some(row) = row.as_ref().filter(|row| row.key.is_some())
            && let Err(failure) = self.remember(row).await
        {
            return Err(self.fail_recorded(begun, attempt, failure).await);
        }
        Ok((attempt, row))
    }

    async fn run_begun(
        &self,
        begun: Begun,
        attempt: Attempt,
        row: Option<TaskRow>,
        begins: oneshot::Sender<()>,
        answer: impl FnOnce(TaskOutcome),
    ) {
        let registered = self.register();
        registered.run.tell_began(&self.shared);
        // A caller that is gone does not wait for it.
        let _ = begins.send(());
        let unstored_max = unstored_max(&begun.lease.worker);
        let mut dispatched = pin!(self.dispatch(begun, attempt, row.clone(), &registered.run));
        let keyed = row.as_ref().is_some_and(|row| row.key.is_some());
        let (ended, stored) = match tokio::time::timeout(unstored_max, &mut dispatched).await {
            Ok(ended) => (ended, keyed),
            Err(_) => tokio::join!(dispatched, self.remember_meanwhile(row)),
        };
        let Concluded { outcome, charge, row } = self.conclude(ended, stored).await;
        self.leave(charge).await;
        let given_up = row.as_ref().filter(|row| matches!(row.state, TaskState::Unknown { .. })).cloned();
        // The log has it, and that is enough unless the same key must give the same result.
        let (first, then) = if keyed { (row, None) } else { (None, row) };
        self.store_outcome(first, stored).await;
        registered.tell(&outcome);
        registered.run.tell_ended(&self.shared, &outcome);
        answer(outcome);
        self.store_outcome(then, stored).await;
        if let Some(row) = given_up {
            self.resolve_later(row);
        }
    }

    /// Goes on waiting for the result of a task whose end could not be learnt.
    fn resolve_later(&self, row: TaskRow) {
        let TaskState::Unknown { lease: Some(lease) } = row.state.clone() else { return };
        let left = Left {
            task: self.call.task,
            session: self.call.session,
            principal: self.call.principal.clone(),
            tool: self.call.tool.to_owned(),
            path: self.call.path.clone(),
            lease,
            level: None,
            operation: self.call.operation.name().to_owned(),
            acts: true,
            attempt: row.attempt,
            begun_ms: row.begun_ms,
            row: Some(row),
        };
        recovery::resolve_later(&self.shared, left);
    }

    fn by(&self) -> By {
        By { principal: self.call.principal.clone(), need: self.call.need() }
    }

    async fn leave(&self, charge: Option<Charge>) {
        if let Some(charge) = &charge {
            self.shared.ledger.charge(&self.call.principal, charge);
        }
        // An owner that is gone has no use for the news.
        let _ = self.owner.send(Message::Ended { task: self.call.task, charge }).await;
    }

    /// Lets the task be found by its id.
    fn register(&self) -> Registered {
        let call = &self.call;
        let ids = (call.principal.clone(), call.session, call.task);
        let acts = call.need() == Need::Act;
        self.shared.running.add(Run::new(ids, call.tool, acts, self.cancel.clone()))
    }

    /// A failure before there was anything in the log.
    fn refused(&self, failure: Failure) -> TaskOutcome {
        TaskOutcome { task: self.call.task, result: Err(failure), partial: None, audit_seq: None, replayed: false }
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<Result<T, Failure>>) -> Message) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let gone = || Failure::new(ErrorCode::SessionClosed, "the session is gone");
        self.owner.send(message(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// A part of this task in the trace of its call.
    fn span(&self, part: Step) -> Span {
        traces::step(self.call.trace.as_ref(), part)
    }

    fn entry(&self, begun: &Begun) -> Entry {
        Entry {
            principal: Some(self.call.principal.clone()),
            session: Some(self.call.session),
            task: Some(self.call.task),
            lease: Some(begun.lease.clone()),
            level: begun.level,
            tool: Some(self.call.tool.to_owned()),
            path: self.call.path.clone(),
            ..Entry::default()
        }
    }
}

/// The next state; an input that does not fit leaves the state, and is a fault of ours.
fn stepped(state: &TaskState, input: &TaskInput) -> TaskState {
    state.step(input).unwrap_or_else(|refusal| {
        tracing::error!(?input, %refusal, "a task took a step that it cannot take");
        state.clone()
    })
}
