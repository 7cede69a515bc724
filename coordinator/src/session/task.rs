//! One task from its attempt to its recorded outcome, in a task of its own: a caller that vanishes loses no outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use codegen_audit::{AuditUnavailable, Entry, EventKind, Health, Outcome as Verdict, Pending};
use codegen_types::{ErrorCode, EventBody, Failure, LogSeq};
use coordinator_core::task::{self, TaskInput, TaskState};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::call::{Completed, TaskCall, TaskOutcome};
use super::outcome::{Traffic, describe, outcome_of};
use super::owner::{Begun, Message};
use super::receipt::{self, Charge};
use super::running::{Registered, Run};
use super::transcript::Transcript;
use super::{Shared, now_ms, repeat, unavailable};
use crate::store::{StoreError, StoredOutcome, TaskRow};
use crate::workers::{DispatchEnd, TaskDispatch};

/// Events of a task between its link and its transcript. When they are that many, the link's flow control holds the
/// worker back.
const EVENTS: usize = 64;

/// One task while it runs.
pub(super) struct Runner {
    pub(super) shared: Arc<Shared>,
    pub(super) owner: mpsc::Sender<Message>,
    pub(super) call: TaskCall,
    /// Follows the task live; what it does not take in time it misses, since no task waits for its watchers.
    pub(super) events: mpsc::Sender<EventBody>,
    pub(super) cancel: CancellationToken,
}

/// A finished dispatch, not yet recorded.
struct Ended {
    begun: Begun,
    attempt: Attempt,
    row: Option<TaskRow>,
    end: DispatchEnd,
    /// Bytes of output, kept or not.
    written: u64,
    captured: Completed,
    wall: Duration,
}

/// The record of an attempt: on disk, or on its way there for calls that change nothing.
enum Attempt {
    Durable(LogSeq),
    Queued(Pending),
    /// The record that closes it is on its way, too.
    Closed(Pending),
}

impl Runner {
    /// Runs the task to its recorded outcome. Whoever waits for its beginning hears of it, or that there is none.
    pub(super) async fn run(self, begins: oneshot::Sender<()>) -> TaskOutcome {
        let task = self.call.task;
        let begun = match self.ask(|reply| Message::Begin { task, reply }).await {
            Ok(begun) => begun,
            Err(failure) => return self.refused(failure),
        };
        let (outcome, charge) = self.run_begun(begun, begins).await;
        // An owner that is gone has no use for the news.
        let _ = self.owner.send(Message::Ended { task, charge }).await;
        outcome
    }

    async fn run_begun(&self, begun: Begun, begins: oneshot::Sender<()>) -> (TaskOutcome, Option<Charge>) {
        let attempt = match self.attempt(&begun).await {
            Ok(attempt) => attempt,
            Err(error) => return (self.refused(unavailable(&error)), None),
        };
        let row = match self.remember(&begun, &attempt).await {
            Ok(row) => row,
            Err(failure) => return self.fail_recorded(&begun, attempt, failure).await,
        };
        let registered = self.register();
        // A caller that is gone does not wait for it.
        let _ = begins.send(());
        let ended = self.dispatch(begun, attempt, row, &registered.run.transcript).await;
        let (outcome, charge) = self.conclude(ended).await;
        registered.tell(&outcome);
        (outcome, charge)
    }

    /// Lets the task be found by its id.
    fn register(&self) -> Registered {
        let call = &self.call;
        let ids = (call.principal.clone(), call.session, call.task);
        self.shared.running.add(Run::new(ids, call.tool, self.cancel.clone()))
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

    /// Records the attempt; for acting calls it is durable before anything is sent.
    async fn attempt(&self, begun: &Begun) -> Result<Attempt, AuditUnavailable> {
        let entry = Entry {
            kind: EventKind::TaskAttempt,
            called_as: (self.call.called_as != self.call.tool).then(|| self.call.called_as.clone()),
            args: Some(self.call.args.clone()),
            trace: self.call.trace.clone(),
            detail: Some(
                json!({"operation": self.call.operation.name(), "idempotency_key": self.call.idempotency_key}),
            ),
            ..self.entry(begun)
        };
        if self.call.read_only {
            if let Health::Unavailable { why, .. } = &*self.shared.audit.health().borrow() {
                return Err(AuditUnavailable::Failing(why.clone()));
            }
            return Ok(Attempt::Queued(self.shared.audit.queue(entry)));
        }
        self.shared.audit.append(entry).await.map(Attempt::Durable)
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

    /// Puts the task's row into the store before anything is sent. Calls that change nothing have none.
    async fn remember(&self, begun: &Begun, attempt: &Attempt) -> Result<Option<TaskRow>, Failure> {
        let Attempt::Durable(attempt) = attempt else { return Ok(None) };
        let call = &self.call;
        let row = TaskRow {
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
        };
        match self.shared.tasks.insert_task(row.clone()).await {
            Ok(()) => Ok(Some(row)),
            Err(StoreError::Exists) => {
                Err(Failure::new(ErrorCode::InvalidArgument, "this `idempotency_key` is in use; use a new one"))
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(task = %call.task, error, "a task could not be stored and is not started");
                Err(Failure::new(ErrorCode::Internal, "the task could not be stored, so it was not started"))
            }
        }
    }

    /// Ends a task that was attempted in the log and sent nowhere.
    async fn fail_recorded(&self, begun: &Begun, attempt: Attempt, failure: Failure) -> (TaskOutcome, Option<Charge>) {
        let mut outcome = self.refused(failure);
        let mut entry = self.entry(begun);
        entry.kind = EventKind::TaskOutcome;
        entry.outcome = Some(Verdict::Failed);
        entry.code = outcome.result.as_ref().err().map(|failure| failure.code);
        if let Attempt::Durable(seq) = attempt {
            entry.cites = Some(seq);
        }
        let charge = Charge::of(entry.outcome, None);
        match self.shared.audit.queue(entry).await {
            Ok(seq) => outcome.audit_seq = Some(seq),
            Err(error) => outcome.result = Err(unavailable(&error)),
        }
        (outcome, charge)
    }

    async fn dispatch(
        &self,
        mut begun: Begun,
        mut attempt: Attempt,
        mut row: Option<TaskRow>,
        transcript: &Mutex<Transcript>,
    ) -> Ended {
        let start = Instant::now();
        let mut end = self.execute(&begun, transcript).await;
        if let DispatchEnd::NotStarted(failure) = &end
            && let Some(renewed) = self.renewed(&begun, failure.code).await
        {
            let closed = self.close_unstarted(&begun, attempt, failure.code).await;
            match self.attempt(&renewed).await {
                Ok(again) => {
                    placed_again(row.as_mut(), &again, &renewed, failure.code);
                    (begun, attempt) = (renewed, again);
                    end = self.execute(&begun, transcript).await;
                }
                Err(error) => {
                    attempt = Attempt::Closed(closed);
                    end = DispatchEnd::NotStarted(unavailable(&error));
                }
            }
        }
        let mut transcript = transcript.lock();
        let (written, captured) = (transcript.bytes(), transcript.completed());
        Ended { begun, attempt, row, end, written, captured, wall: start.elapsed() }
    }

    /// The session made ready once more for a task that was certainly not started, when that lay in the placement.
    async fn renewed(&self, begun: &Begun, code: ErrorCode) -> Option<Begun> {
        if !task::is_misplacement(code) || self.cancel.is_cancelled() || begun.cancel.is_cancelled() {
            return None;
        }
        let (task, lease) = (self.call.task, begun.lease.clone());
        self.ask(|reply| Message::Renew { task, lease, reply }).await.ok()
    }

    /// Closes the attempt of a placement that came to nothing, so that the next one has an attempt of its own.
    async fn close_unstarted(&self, begun: &Begun, attempt: Attempt, code: ErrorCode) -> Pending {
        let cites = match attempt {
            Attempt::Durable(seq) => Some(seq),
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

    /// Sends the task and takes down what it writes, handing it on to whoever follows.
    async fn execute(&self, begun: &Begun, transcript: &Mutex<Transcript>) -> DispatchEnd {
        let limits = &self.shared.options.limits;
        let dispatch = TaskDispatch {
            task: self.call.task,
            session: self.call.session,
            lease: begun.lease.clone(),
            operation: self.call.operation.clone(),
            timeout: self.call.timeout.unwrap_or(Duration::from_millis(limits.task_ms)),
            output_bytes_max: limits.output_bytes,
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
                Some(event) = events.recv() => self.saw(transcript, event),
                end = &mut executing => break end,
                () = &mut cancelled => {}
            }
        };
        while let Ok(event) = events.try_recv() {
            self.saw(transcript, event);
        }
        end
    }

    fn saw(&self, transcript: &Mutex<Transcript>, event: EventBody) {
        transcript.lock().add(&event);
        if let EventBody::FilesChanged(files) = &event {
            // An empty list says that there is more than can be named.
            self.shared.changes.tell(self.call.session, Some(files.clone()).filter(|files| !files.is_empty()));
        }
        // A follower that is slow or gone misses it; the result has it.
        let _ = self.events.try_send(event);
    }

    /// Records how it ended, stores it, and only then gives the answer.
    async fn conclude(&self, ended: Ended) -> (TaskOutcome, Option<Charge>) {
        let Ended { begun, attempt, row, end, written, mut captured, wall } = ended;
        let mut entry = self.entry(&begun);
        entry.duration_ms = Some(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX));
        captured.overlapped = begun.overlapped.lock().iter().copied().collect();
        let (outcome, input) = outcome_of(end, captured);
        let bytes_in = receipt::bytes_in(&self.call.operation);
        describe(&mut entry, &outcome, &input, Traffic { bytes_in, written });
        let charge = Charge::of(entry.outcome, entry.detail.as_ref());
        let lost = matches!(input, TaskInput::OutcomeLost);
        self.shared.changes.tell_outcome(self.call.session, &self.call.operation, &outcome, lost);
        let told = match self.record_outcome(entry, attempt).await {
            Ok(seq) => {
                self.store_outcome(row, outcome.clone(), &input, Some(seq)).await;
                self.told(outcome, Some(seq))
            }
            Err(error) => {
                let then = match error {
                    AuditUnavailable::Failing(_) | AuditUnavailable::Deadline => {
                        // The log keeps the record until it can be written again; until then nobody gets the result.
                        self.store_outcome(row, outcome, &input, None).await;
                        "its result is given under the same `idempotency_key`, if it has one, once the log recovers"
                    }
                    // The log will never have it, so nobody may get it: the next start calls the task unknown.
                    AuditUnavailable::QueueFull | AuditUnavailable::Closed => "its result is lost",
                };
                let task = self.call.task;
                let text = format!("the task {task} ended, but the audit log cannot be written ({error}); {then}");
                let failure = Failure::new(ErrorCode::AuditUnavailable, text);
                self.told(StoredOutcome { result: Err(failure), partial: None }, None)
            }
        };
        (told, charge)
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
            Attempt::Durable(seq) => {
                entry.cites = Some(seq);
                self.shared.audit.queue(entry).await
            }
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

    async fn store_outcome(
        &self,
        row: Option<TaskRow>,
        outcome: StoredOutcome,
        input: &TaskInput,
        seq: Option<LogSeq>,
    ) {
        let Some(row) = row else { return };
        let row = ended_row(row, outcome, input, seq);
        let task = row.id;
        if let Err(error) = self.shared.tasks.put_task(row).await {
            let error: &dyn std::error::Error = &error;
            tracing::error!(%task, error, "the outcome of a task could not be stored; the log has it");
        }
    }
}

/// Puts into the row that its task is placed once more.
fn placed_again(row: Option<&mut TaskRow>, attempt: &Attempt, begun: &Begun, code: ErrorCode) {
    let (Some(row), Attempt::Durable(seq)) = (row, attempt) else { return };
    row.attempt = *seq;
    let queued = stepped(&row.state, &TaskInput::NotStarted { code });
    row.state = stepped(&queued, &TaskInput::Dispatch { lease: begun.lease.clone() });
}

fn ended_row(row: TaskRow, outcome: StoredOutcome, input: &TaskInput, seq: Option<LogSeq>) -> TaskRow {
    TaskRow {
        ended_ms: Some(now_ms()),
        state: stepped(&row.state, input),
        outcome: Some(outcome.bounded()),
        revision: row.revision + 1,
        outcome_seq: seq,
        ..row
    }
}

/// The next state; an input that does not fit leaves the state, and is a fault of ours.
fn stepped(state: &TaskState, input: &TaskInput) -> TaskState {
    state.step(input).unwrap_or_else(|refusal| {
        tracing::error!(?input, %refusal, "a task took a step that it cannot take");
        state.clone()
    })
}
