//! The end of a task: its outcome in the log, and only then with its caller; in the store.

use codegen_audit::{AuditUnavailable, Entry};
use codegen_types::{ErrorCode, Failure, LogSeq};
use coordinator_core::task::TaskInput;

use super::attempt::Attempt;
use super::execute::Ended;
use super::{Runner, stepped};
use crate::session::call::TaskOutcome;
use crate::session::now_ms;
use crate::session::outcome::{Traffic, describe, outcome_of};
use crate::session::receipt::{self, Charge};
use crate::store::{StoredOutcome, TaskRow};
use crate::telemetry;
use crate::telemetry::traces::Step;

/// A task that has ended and is recorded.
pub(super) struct Concluded {
    pub(super) outcome: TaskOutcome,
    pub(super) charge: Option<Charge>,
    /// What the store is to know of it.
    pub(super) row: Option<TaskRow>,
}

impl Runner {
    /// Records how it ended. `stored` says whether the store has the task's row.
    pub(super) async fn conclude(&self, ended: Ended, stored: bool) -> Concluded {
        let Ended { begun, attempt, row, end, written, mut captured, wall } = ended;
        let mut entry = self.entry(&begun);
        telemetry::task_ran(self.call.tool, wall);
        entry.duration_ms = Some(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX));
        captured.overlapped = begun.overlapped.lock().iter().copied().collect();
        let (outcome, input) = outcome_of(end, captured);
        let bytes_in = receipt::bytes_in(&self.call.operation);
        describe(&mut entry, &outcome, &input, Traffic { bytes_in, written });
        let charge = Charge::of(entry.outcome, entry.detail.as_ref());
        let lost = matches!(input, TaskInput::OutcomeLost);
        self.shared.changes.tell_outcome(self.call.session, &self.call.operation, &outcome, lost);
        let mut span = self.span(Step::AuditOutcome);
        let recorded = self.record_outcome(entry, attempt).await;
        if recorded.is_err() {
            span.fail(ErrorCode::AuditUnavailable);
        }
        drop(span);
        match recorded {
            Ok(seq) => {
                let row = row.map(|row| ended_row(row, outcome.clone(), &input, Some(seq)));
                Concluded { outcome: self.told(outcome, Some(seq)), charge, row }
            }
            Err(error) => {
                let then = match error {
                    AuditUnavailable::Failing(_) | AuditUnavailable::Deadline => {
                        // The log keeps the record until it can be written again; until then nobody gets the result.
                        self.store_outcome(row.map(|row| ended_row(row, outcome, &input, None)), stored).await;
                        "once the log recovers, task_wait gives its result, and so does a call with the same `idempotency_key`"
                    }
                    // The log will never have it, so nobody may get it: the next start calls the task unknown.
                    AuditUnavailable::QueueFull | AuditUnavailable::Closed => "its result is lost",
                };
                let task = self.call.task;
                let text = format!("the task {task} ended, but the audit log cannot be written ({error}); {then}");
                let failure = Failure::new(ErrorCode::AuditUnavailable, text);
                let outcome = self.told(StoredOutcome { result: Err(failure), partial: None }, None);
                Concluded { outcome, charge, row: None }
            }
        }
    }

    fn told(&self, outcome: StoredOutcome, audit_seq: Option<LogSeq>) -> TaskOutcome {
        let StoredOutcome { result, partial } = outcome;
        // Without a number the tools name the task with AUDIT_UNAVAILABLE, and record no refusal: its attempt is in the log.
        TaskOutcome { task: self.call.task, result, partial, audit_seq, replayed: false }
    }

    /// Waits for the record of the outcome, which cites its attempt. What happened is kept by the log, whatever it
    /// answers.
    async fn record_outcome(&self, mut entry: Entry, attempt: Attempt) -> Result<LogSeq, AuditUnavailable> {
        match attempt {
            Attempt::Durable(seq, _) => {
                entry.cites = Some(seq);
                self.shared.audit.queue(entry).await
            }
            Attempt::Held(held) => held.queue_with(entry).await,
            // By now it is as good as written, so that this costs no wait of its own.
            Attempt::Queued(attempted) => {
                let attempted = attempted.await;
                entry.cites = attempted.as_ref().ok().copied();
                let ended = self.shared.audit.queue(entry).await;
                attempted.and(ended)
            }
            Attempt::Closed(closed) => closed.await,
        }
    }

    /// Puts the row of a task that has ended into the store, in place of the one that was `stored` when it began.
    pub(super) async fn store_outcome(&self, row: Option<TaskRow>, stored: bool) {
        let Some(row) = row else { return };
        let (task, tasks) = (row.id, &self.shared.tasks);
        let put = if stored { tasks.put_task(row) } else { tasks.insert_task(row) };
        if let Err(error) = put.await {
            let error: &dyn std::error::Error = &error;
            tracing::error!(%task, error, "the outcome of a task could not be stored; the log has it");
        }
    }
}

/// The row of a task that has ended so.
pub(in crate::session) fn ended_row(
    row: TaskRow,
    outcome: StoredOutcome,
    input: &TaskInput,
    seq: Option<LogSeq>,
) -> TaskRow {
    TaskRow {
        ended_ms: Some(now_ms()),
        state: stepped(&row.state, input),
        outcome: Some(outcome.bounded()),
        revision: row.revision + 1,
        outcome_seq: seq,
        ..row
    }
}
