//! A task that an earlier server left open, from there to its recorded outcome.

use std::sync::Arc;

use codegen_audit::AuditUnavailable;
use codegen_types::Failure;
use coordinator_core::session::Need;
use coordinator_core::task::TaskInput;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Left, resolve_later};
use crate::session::call::{Completed, TaskOutcome};
use crate::session::ledger::Place;
use crate::session::outcome::{Traffic, describe, outcome_of};
use crate::session::owner::{Begun, By, Message};
use crate::session::receipt::Charge;
use crate::session::repeat::{self, Claimed};
use crate::session::running::{Registered, Run};
use crate::session::task::ended_row;
use crate::session::{Shared, unavailable};
use crate::store::{StoredOutcome, TaskRow};
use crate::supervisor::OnEnd;
use crate::workers::DispatchEnd;

/// Events between the link and the transcript; the link's flow control holds the worker back when they are that many.
const EVENTS: usize = 64;

/// Takes a task up again. From now on it is found among those that run, and repeats under its key join it.
pub(in crate::session) fn resume(shared: &Arc<Shared>, left: Left) {
    let ids = (left.principal.clone(), left.session, left.task);
    let cancel = CancellationToken::new();
    let run = Run::new(ids, left.tool.clone(), left.acts, cancel.clone()).begun_at(left.begun_ms);
    let resumed = Resumed {
        registered: shared.running.add(run),
        claimed: left.row.as_ref().and_then(|row| repeat::claim_again(&shared.repeats, row)),
        // A quota that was lowered ends nothing that runs.
        place: shared.ledger.begin(&left.principal).ok(),
        cancel,
        shared: Arc::clone(shared),
        left,
    };
    shared.supervisor.spawn("task of an earlier server", OnEnd::Ignore, resumed.run());
}

/// One such task.
struct Resumed {
    shared: Arc<Shared>,
    left: Left,
    registered: Registered,
    claimed: Option<Claimed>,
    place: Option<Place>,
    cancel: CancellationToken,
}

impl Resumed {
    async fn run(self) {
        let session_ends = self.tell_owner().await.map(|begun| begun.cancel).unwrap_or_default();
        self.registered.run.tell_began(&self.shared);
        let end = self.follow(&session_ends).await;
        let (outcome, row, charge) = self.conclude(end).await;
        let Self { shared, left, registered, claimed, place, cancel: _ } = self;
        if let Some(charge) = &charge {
            shared.ledger.charge(&left.principal, charge);
        }
        if let Some(entry) = shared.table.get(left.session) {
            // An owner that is gone has no use for the news.
            let _ = entry.owner.send(Message::Ended { task: left.task, charge }).await;
        }
        store(&shared, row.clone()).await;
        drop(place);
        if let Some(claimed) = claimed {
            claimed.tell(&outcome);
        }
        registered.tell(&outcome);
        registered.run.tell_ended(&shared, &outcome);
        drop(registered);
        if let Some(row) = row {
            resolve_later(&shared, Left { row: Some(row), ..left });
        }
    }

    /// Lets the session know that the task runs, so that it does not pass for idle. One that is not as it was any more
    /// has no place for it; the worker may still tell how it ended.
    async fn tell_owner(&self) -> Option<Begun> {
        let entry = self.shared.table.get(self.left.session)?;
        let need = if self.left.acts { Need::Act } else { Need::Read };
        let by = By { principal: self.left.principal.clone(), need };
        let (reply, resumed) = oneshot::channel();
        let (task, lease) = (self.left.task, self.left.lease.clone());
        entry.owner.send(Message::Resume { task, lease, by, reply }).await.ok()?;
        resumed.await.ok()?.ok()
    }

    async fn follow(&self, session_ends: &CancellationToken) -> DispatchEnd {
        let (sender, mut events) = mpsc::channel(EVENTS);
        let cancel = CancellationToken::new();
        let patience = self.shared.options.reconnect_grace;
        let mut following = self.shared.fleet.attach(self.left.attach(&self.shared, patience), sender, cancel.clone());
        let cancelled = async {
            tokio::select! {
                () = self.cancel.cancelled() => {}
                () = session_ends.cancelled() => {}
            }
            cancel.cancel();
            std::future::pending::<()>().await;
        };
        tokio::pin!(cancelled);
        let end = loop {
            tokio::select! {
                biased;
                Some(event) = events.recv() => self.registered.run.saw(&self.shared, &event),
                end = &mut following => break end,
                () = &mut cancelled => {}
            }
        };
        while let Ok(event) = events.try_recv() {
            self.registered.run.saw(&self.shared, &event);
        }
        end
    }

    /// Records how it ended; gives what its caller, the store and the ledger are to know.
    async fn conclude(&self, end: DispatchEnd) -> (TaskOutcome, Option<TaskRow>, Option<Charge>) {
        let (written, captured) = captured(&self.registered);
        let (outcome, input) = outcome_of(end, captured);
        let mut entry = self.left.entry();
        describe(&mut entry, &outcome, &input, Traffic { written, ..Traffic::default() });
        let charge = Charge::of(entry.outcome, entry.detail.as_ref());
        if self.left.acts && !matches!(input, TaskInput::Failed { .. }) {
            self.shared.changes.tell(self.left.session, None);
        }
        let ended = |outcome, seq| self.left.row.clone().map(|row| ended_row(row, outcome, &input, seq));
        match self.shared.audit.queue(entry).await {
            Ok(seq) => (self.told(outcome.clone(), Some(seq)), ended(outcome, Some(seq)), charge),
            Err(error) => {
                // What the log keeps until it can be written again is kept back until then; what it will never have,
                // nobody may get.
                let kept = matches!(error, AuditUnavailable::Failing(_) | AuditUnavailable::Deadline);
                let row = if kept { ended(outcome, None) } else { None };
                let outcome = StoredOutcome { result: Err::<Completed, Failure>(unavailable(&error)), partial: None };
                (self.told(outcome, None), row, charge)
            }
        }
    }

    fn told(
        &self,
        StoredOutcome { result, partial }: StoredOutcome,
        audit_seq: Option<codegen_types::LogSeq>,
    ) -> TaskOutcome {
        TaskOutcome { task: self.left.task, result, partial, audit_seq, replayed: false }
    }
}

fn captured(registered: &Registered) -> (u64, Completed) {
    let mut transcript = registered.run.transcript.lock();
    (transcript.bytes(), transcript.completed())
}

/// Whether the store has it then.
pub(super) async fn store(shared: &Shared, row: Option<TaskRow>) -> bool {
    let Some(row) = row else { return true };
    let task = row.id;
    let stored = shared.tasks.put_task(row).await;
    if let Err(error) = &stored {
        let error: &dyn std::error::Error = error;
        tracing::error!(%task, error, "the outcome of a task could not be stored; the log has it");
    }
    stored.is_ok()
}
