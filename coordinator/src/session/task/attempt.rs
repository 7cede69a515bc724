//! The beginning of a task: its attempt in the log, and its row in the store.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use codegen_audit::{Audit, AuditUnavailable, Entry, EventKind, Health, Outcome as Verdict, Pending};
use codegen_proto::ExecuteTask;
use codegen_types::{ErrorCode, Failure, LogSeq};
use coordinator_core::session::Tie;
use coordinator_core::task::{TaskInput, TaskState};
use futures::poll;
use serde_json::json;

use super::{Runner, stepped};
use crate::dispatch::Ahead;
use crate::session::call::TaskOutcome;
use crate::session::owner::Begun;
use crate::session::receipt::{Charge, bytes_in};
use crate::session::{now_ms, recovery, repeat, unavailable};
use crate::store::{StoreError, TaskRow};
use crate::telemetry::traces::Step;

/// How long the record of an attempt that changes nothing waits for that of its outcome, to be written with it.
const HELD_MAX: Duration = Duration::from_millis(10);

/// What a task that is held by its worker may bring along, in bytes.
const HELD_BYTES_MAX: u64 = 64 << 10;

/// The record of an attempt: on disk, with what went ahead to the worker meanwhile, or for calls that change nothing on its
/// way there.
pub(super) enum Attempt {
    Durable(LogSeq, Option<Ahead>),
    Held(Held),
    Queued(Pending),
    /// The record that closes it is on its way, too.
    Closed(Pending),
}

/// An attempt's record that waits for that of its outcome. Dropped, it is written alone.
pub(super) struct Held {
    audit: Audit,
    entry: Option<Box<Entry>>,
}

impl Held {
    fn new(audit: &Audit, entry: Entry) -> Self {
        Self { audit: audit.clone(), entry: Some(Box::new(entry)) }
    }

    /// Writes it by itself.
    pub(super) fn queue(mut self) -> Pending {
        self.audit.queue(*self.entry.take().expect("it is taken once"))
    }

    /// Writes it together with the record of its outcome, which cites it.
    pub(super) fn queue_with(mut self, outcome: Entry) -> Pending {
        self.audit.queue_after(*self.entry.take().expect("it is taken once"), outcome)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            drop(self.audit.queue(*entry));
        }
    }
}

impl Attempt {
    /// Resolves once a record that is held back has waited long enough, and never for any other.
    pub(super) async fn held_too_long(&self) {
        match self {
            Self::Held(_) => tokio::time::sleep(HELD_MAX).await,
            Self::Durable(..) | Self::Queued(_) | Self::Closed(_) => std::future::pending().await,
        }
    }

    /// What went ahead of the task, once.
    pub(super) fn take_ahead(&mut self) -> Option<Ahead> {
        if let Self::Durable(_, ahead) = self { ahead.take() } else { None }
    }

    /// Holds the record back no longer.
    pub(super) fn let_go(self) -> Self {
        match self {
            Self::Held(held) => Self::Queued(held.queue()),
            other => other,
        }
    }
}

impl Runner {
    /// Records the attempt; for acting calls it is durable before anything is sent.
    pub(super) async fn attempt(&self, begun: &Begun) -> Result<Attempt, AuditUnavailable> {
        let mut detail = json!({"operation": self.call.operation.name(), "idempotency_key": self.call.idempotency_key});
        if let Some(client) = &self.call.client {
            detail["client"] = json!(client);
        }
        if let Some(approval) = self.call.leave.approval() {
            detail["approval"] = json!(approval);
        }
        if self.call.read_only {
            detail["read_only"] = json!(true);
        }
        let entry = Entry {
            kind: EventKind::TaskAttempt,
            called_as: (self.call.called_as != self.call.tool).then(|| self.call.called_as.clone()),
            args: Some(self.call.args.clone()),
            trace: self.call.trace.as_ref().map(ToString::to_string),
            detail: Some(detail),
            ..self.entry(begun)
        };
        if self.call.read_only {
            if let Health::Unavailable { why, .. } = &*self.shared.audit.health().borrow() {
                return Err(AuditUnavailable::Failing(why.clone()));
            }
            return Ok(Attempt::Held(Held::new(&self.shared.audit, entry)));
        }
        let mut span = self.span(Step::AuditAttempt);
        let mut appending = pin!(self.shared.audit.append(entry));
        let (appended, ahead) = match poll!(appending.as_mut()) {
            Poll::Ready(appended) => (appended, None),
            // A call that is traced has its trace in the head, which is not known yet.
            Poll::Pending if self.call.trace.is_some() => (appending.await, None),
            Poll::Pending => {
                let ahead = self.shared.fleet.go_ahead(&begun.lease, self.held(begun));
                (appending.await, ahead)
            }
        };
        if appended.is_err() {
            span.fail(ErrorCode::AuditUnavailable);
        }
        appended.map(|seq| Attempt::Durable(seq, ahead))
    }

    /// The task, when it may be held by its worker: a short one, and by the server's own, which ends with the server.
    fn held(&self, begun: &Begun) -> Option<ExecuteTask> {
        let is_short = bytes_in(&self.call.operation) <= HELD_BYTES_MAX;
        (is_short && recovery::tie(&begun.lease.worker) == Tie::Child).then(|| self.request(begun))
    }

    /// The task's row. Calls that change nothing have none.
    pub(super) fn row(&self, begun: &Begun, attempt: &Attempt) -> Option<TaskRow> {
        let Attempt::Durable(attempt, _) = attempt else { return None };
        let call = &self.call;
        Some(TaskRow {
            id: call.task,
            session: call.session,
            principal: call.principal.clone(),
            tool: call.tool.to_owned(),
            key: call.idempotency_key.clone(),
            digest: repeat::digest(call),
            state: stepped(&TaskState::admitted(), &TaskInput::Dispatch { lease: begun.lease.clone() }),
            attempt: *attempt,
            outcome_seq: None,
            begun_ms: now_ms(),
            ended_ms: None,
            outcome: None,
            revision: 1,
        })
    }

    /// Puts the task's row into the store.
    pub(super) async fn remember(&self, row: &TaskRow) -> Result<(), Failure> {
        match self.shared.tasks.insert_task(row.clone()).await {
            Ok(()) => Ok(()),
            Err(StoreError::Exists) => {
                Err(Failure::new(ErrorCode::InvalidArgument, "this `idempotency_key` is in use; use a new one"))
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(task = %row.id, error, "a task could not be stored");
                Err(Failure::new(ErrorCode::Internal, "the task could not be stored, so it was not started"))
            }
        }
    }

    /// Puts the row of a task without a key into the store, while it runs. Without it the task is found while it runs, and
    /// in the log.
    /// Gives whether the store has it now.
    pub(super) async fn remember_meanwhile(&self, row: Option<TaskRow>) -> bool {
        match row {
            // What went wrong is in the diagnostics.
            Some(row) if row.key.is_none() => self.remember(&row).await.is_ok(),
            keyed_or_none => keyed_or_none.is_some(),
        }
    }

    /// Ends a task that was attempted in the log and sent nowhere.
    pub(super) async fn fail_recorded(
        &self,
        begun: &Begun,
        mut attempt: Attempt,
        failure: Failure,
    ) -> (TaskOutcome, Option<Charge>) {
        drop(attempt.take_ahead());
        let mut outcome = self.refused(failure);
        let mut entry = self.entry(begun);
        entry.kind = EventKind::TaskOutcome;
        entry.outcome = Some(Verdict::Failed);
        entry.code = outcome.result.as_ref().err().map(|failure| failure.code);
        if let Attempt::Durable(seq, _) = attempt {
            entry.cites = Some(seq);
        }
        let charge = Charge::of(entry.outcome, None);
        match self.shared.audit.queue(entry).await {
            Ok(seq) => outcome.audit_seq = Some(seq),
            Err(error) => outcome.result = Err(unavailable(&error)),
        }
        (outcome, charge)
    }

    /// Closes the attempt of a placement that came to nothing, so that the next one has an attempt of its own.
    pub(super) async fn close_unstarted(&self, begun: &Begun, attempt: Attempt, code: ErrorCode) -> Pending {
        let cites = match attempt {
            Attempt::Durable(seq, _) => Some(seq),
            Attempt::Held(held) => held.queue().await.ok(),
            Attempt::Queued(attempted) | Attempt::Closed(attempted) => attempted.await.ok(),
        };
        self.shared.audit.queue(Entry {
            kind: EventKind::TaskOutcome,
            cites,
            outcome: Some(Verdict::Failed),
            code: Some(code),
            detail: Some(json!({"not_started": true})),
            ..self.entry(begun)
        })
    }
}
