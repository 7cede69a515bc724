//! The middle of a task: sent to its session's worker, and once more when that was certainly not its place.

use std::pin::pin;
use std::time::{Duration, Instant};

use codegen_proto::ExecuteTask;
use codegen_types::{ErrorCode, EventBody};
use coordinator_core::task::{self, TaskInput};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::attempt::Attempt;
use super::{Runner, stepped};
use crate::dispatch::Ahead;
use crate::session::call::Completed;
use crate::session::owner::{Begun, Message};
use crate::session::running::Run;
use crate::session::unavailable;
use crate::store::TaskRow;
use crate::telemetry::traces::Step;
use crate::workers::{DispatchEnd, TaskDispatch};

/// Events of a task between its link and its transcript. When they are that many, the link's flow control holds the
/// worker back.
const EVENTS: usize = 64;

/// A finished dispatch, not yet recorded.
pub(super) struct Ended {
    pub(super) begun: Begun,
    pub(super) attempt: Attempt,
    pub(super) row: Option<TaskRow>,
    pub(super) end: DispatchEnd,
    /// Bytes of output, kept or not.
    pub(super) written: u64,
    pub(super) captured: Completed,
    pub(super) wall: Duration,
}

impl Runner {
    pub(super) async fn dispatch(
        &self,
        mut begun: Begun,
        mut attempt: Attempt,
        mut row: Option<TaskRow>,
        run: &Run,
    ) -> Ended {
        let start = Instant::now();
        let mut end;
        (end, attempt) = self.execute_noted(&begun, attempt, run).await;
        if let DispatchEnd::NotStarted(failure) = &end
            && let Some(renewed) = self.renewed(&begun, failure.code).await
        {
            let closed = self.close_unstarted(&begun, attempt, failure.code).await;
            match self.attempt(&renewed).await {
                Ok(again) => {
                    placed_again(row.as_mut(), &again, &renewed, failure.code);
                    (begun, attempt) = (renewed, again);
                    (end, attempt) = self.execute_noted(&begun, attempt, run).await;
                }
                Err(error) => {
                    attempt = Attempt::Closed(closed);
                    end = DispatchEnd::NotStarted(unavailable(&error));
                }
            }
        }
        let mut transcript = run.transcript.lock();
        let (written, captured) = (transcript.bytes(), transcript.completed());
        Ended { begun, attempt, row, end, written, captured, wall: start.elapsed() }
    }

    /// The session made ready once more for a task that was certainly not started, when that lay in the placement.
    async fn renewed(&self, begun: &Begun, code: ErrorCode) -> Option<Begun> {
        if !task::is_misplacement(code) || self.cancel.is_cancelled() || begun.cancel.is_cancelled() {
            return None;
        }
        let (task, lease) = (self.call.task, begun.lease.clone());
        self.ask(|reply| Message::Renew { task, lease, why: code, reply }).await.ok()
    }

    /// Sends the task, and holds the record of its attempt back no longer than may be.
    async fn execute_noted(&self, begun: &Begun, mut attempt: Attempt, run: &Run) -> (DispatchEnd, Attempt) {
        let mut executing = pin!(self.execute(begun, attempt.take_ahead(), run));
        tokio::select! {
            biased;
            end = &mut executing => return (end, attempt),
            () = attempt.held_too_long() => {}
        }
        let attempt = attempt.let_go();
        (executing.await, attempt)
    }

    /// Sends the task and takes down what it writes, handing it on to whoever follows.
    async fn execute(&self, begun: &Begun, ahead: Option<Ahead>, run: &Run) -> DispatchEnd {
        let mut span = self.span(Step::Dispatch);
        span.set_id("codegen.session.id", Some(self.call.session));
        span.set_id("codegen.task.id", Some(self.call.task));
        span.set_id("codegen.worker.id", Some(&begun.lease.worker));
        let ExecuteTask { task, session, lease, timeout, operation } = self.request(begun);
        let dispatch = TaskDispatch {
            task,
            session,
            lease,
            operation,
            timeout,
            output_bytes_max: self.shared.options.limits.output_bytes,
            trace: span.context().cloned(),
            arrival: self.call.arrival.clone(),
            ahead,
        };
        let (sender, mut events) = mpsc::channel(EVENTS);
        let cancel = CancellationToken::new();
        let mut executing = self.shared.fleet.execute(dispatch, sender, cancel.clone());
        let cancelled = async {
            tokio::select! {
                () = self.cancel.cancelled() => {}
                () = begun.cancel.cancelled() => {}
            }
            cancel.cancel();
            std::future::pending::<()>().await;
        };
        tokio::pin!(cancelled);
        let end = loop {
            tokio::select! {
                biased;
                Some(event) = events.recv() => self.saw(run, event),
                end = &mut executing => break end,
                () = &mut cancelled => {}
            }
        };
        while let Ok(event) = events.try_recv() {
            self.saw(run, event);
        }
        if let Some(code) = code(&end) {
            span.fail(code);
        }
        end
    }

    /// The task as its worker is asked for it.
    pub(super) fn request(&self, begun: &Begun) -> ExecuteTask {
        ExecuteTask {
            task: self.call.task,
            session: self.call.session,
            lease: begun.lease.clone(),
            timeout: self.call.timeout.unwrap_or(Duration::from_millis(self.shared.options.limits.task_ms)),
            operation: self.call.operation.clone(),
        }
    }

    fn saw(&self, run: &Run, event: EventBody) {
        run.saw(&self.shared, &event);
        if let EventBody::FilesChanged(files) = &event {
            // An empty list says that there is more than can be named.
            self.shared.changes.tell(self.call.session, Some(files.clone()).filter(|files| !files.is_empty()));
        }
        // A follower that is slow or gone misses it; the result has it.
        let _ = self.events.try_send(event);
    }
}

/// With what a dispatch failed, if it did.
fn code(end: &DispatchEnd) -> Option<ErrorCode> {
    match end {
        DispatchEnd::Answered(EventBody::Failed { failure, .. })
        | DispatchEnd::NotStarted(failure)
        | DispatchEnd::Unknown(failure) => Some(failure.code),
        DispatchEnd::Answered(_) => None,
    }
}

/// Puts into the row that its task is placed once more.
fn placed_again(row: Option<&mut TaskRow>, attempt: &Attempt, begun: &Begun, code: ErrorCode) {
    let (Some(row), Attempt::Durable(seq, _)) = (row, attempt) else { return };
    row.attempt = *seq;
    let queued = stepped(&row.state, &TaskInput::NotStarted { code });
    row.state = stepped(&queued, &TaskInput::Dispatch { lease: begun.lease.clone() });
}
