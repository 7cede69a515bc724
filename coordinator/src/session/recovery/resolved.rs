//! Results that come after a task was given up as unknown.

use std::sync::Arc;
use std::time::Duration;

use codegen_audit::{EventKind, records};
use codegen_types::{EventBody, HeldSession, Incarnation, TaskId, WorkerId};
use coordinator_core::task::{TaskInput, TaskState};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Left;
use super::resumed::store;
use crate::session::Shared;
use crate::session::outcome::{Traffic, describe, outcome_of};
use crate::session::task::ended_row;
use crate::session::transcript::Transcript;
use crate::store::TaskRow;
use crate::supervisor::OnEnd;
use crate::workers::DispatchEnd;

/// Late results that are waited for at once. Beyond it a task stays unknown until its worker joins again and offers it.
pub(in crate::session) const WAITING_MAX: usize = 256;
/// How long the life of a worker is waited for that is not known to be over.
const PATIENCE: Duration = Duration::from_secs(900);
/// The most tasks of one joining worker that are looked up.
const OFFERS_MAX: usize = 4_096;
/// Events between the link and the transcript.
const EVENTS: usize = 64;

/// Goes on waiting for the result of a task that was given up, as long as that life of its worker may come back.
pub(in crate::session) fn resolve_later(shared: &Arc<Shared>, left: Left) {
    let is_unknown = left.row.as_ref().is_some_and(|row| matches!(row.state, TaskState::Unknown { lease: Some(_) }));
    let Ok(place) = Arc::clone(&shared.late).try_acquire_owned() else { return };
    if !is_unknown || !left.may_run() {
        return;
    }
    let waiting = Arc::clone(shared);
    shared.supervisor.spawn("late result", OnEnd::Ignore, async move {
        resolve(&waiting, left).await;
        drop(place);
    });
}

/// Asks a worker that has joined for what it offers and was given up before. What it names besides is not looked at.
pub(in crate::session) fn follow_offers(
    shared: &Arc<Shared>,
    worker: &WorkerId,
    incarnation: Incarnation,
    held: &[HeldSession],
) {
    let running = |task: &TaskId| shared.running.get(*task).is_some();
    let offered: Vec<TaskId> =
        held.iter().flat_map(|held| &held.tasks).copied().filter(|task| !running(task)).take(OFFERS_MAX).collect();
    if offered.is_empty() {
        return;
    }
    let (asking, worker) = (Arc::clone(shared), worker.clone());
    shared.supervisor.spawn("offered results", OnEnd::Ignore, async move {
        for task in offered {
            if let Some(left) = given_up(&asking, task, &worker, incarnation).await {
                resolve(&asking, left).await;
            }
        }
    });
}

/// A task that was given up and had been sent to that life of that worker.
async fn given_up(shared: &Shared, task: TaskId, worker: &WorkerId, incarnation: Incarnation) -> Option<Left> {
    let row = shared.tasks.task(task).await.ok().flatten()?;
    let TaskState::Unknown { lease: Some(lease) } = &row.state else { return None };
    if lease.worker != *worker || lease.incarnation != incarnation {
        tracing::warn!(%task, %worker, "a worker offers the result of a task that another had");
        return None;
    }
    let (dir, from) = (shared.audit_dir.clone()?, row.attempt);
    let attempt = tokio::task::spawn_blocking(move || records(&dir, Some(from)).next()).await.ok()??.ok()?;
    Left::of(&attempt, Some(row)).filter(|left| left.task == task && left.attempt == from)
}

/// Follows the task to its end; what is learnt becomes one more record, and what the store has.
async fn resolve(shared: &Shared, mut left: Left) {
    // Where the session was opened again since by the same life, only its present lease is listened to.
    let present = shared.table.get(left.session).and_then(|entry| entry.snapshot.lease.clone());
    let sent = left.lease.clone();
    if let Some(lease) = present.filter(|lease| (&lease.worker, lease.incarnation) == (&sent.worker, sent.incarnation))
    {
        left.lease = lease;
    }
    let (sender, mut events) = mpsc::channel(EVENTS);
    let mut following = shared.fleet.attach(left.attach(shared, PATIENCE), sender, CancellationToken::new());
    let mut transcript = Transcript::default();
    let end = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => transcript.add(&event),
            end = &mut following => break end,
        }
    };
    while let Ok(event) = events.try_recv() {
        transcript.add(&event);
    }
    left.lease = sent;
    if let DispatchEnd::Answered(last) = end {
        conclude(shared, &left, last, transcript).await;
    }
}

async fn conclude(shared: &Shared, left: &Left, last: EventBody, mut transcript: Transcript) {
    let Some(row) = still_unknown(shared, left.task).await else { return };
    let written = transcript.bytes();
    let (outcome, input) = outcome_of(DispatchEnd::Answered(last), transcript.completed());
    let code = match input {
        TaskInput::Finished => None,
        TaskInput::Failed { code } => Some(code),
        TaskInput::Dispatch { .. }
        | TaskInput::Started
        | TaskInput::NotStarted { .. }
        | TaskInput::OutcomeLost
        | TaskInput::ServerStarted
        | TaskInput::Resolved { .. } => return,
    };
    let mut entry = left.entry();
    describe(&mut entry, &outcome, &input, Traffic { written, ..Traffic::default() });
    entry.kind = EventKind::TaskResolved;
    match shared.audit.queue(entry).await {
        Ok(seq) => {
            let row = ended_row(row, outcome, &TaskInput::Resolved { code }, Some(seq));
            store(shared, Some(row)).await;
            tracing::info!(task = %left.task, worker = %left.lease.worker, "a task that was given up ended after all");
        }
        // It stays unknown; the worker offers it again when it joins again.
        Err(error) => tracing::warn!(task = %left.task, %error, "a late result is not recorded"),
    }
}

/// The row as it is now: somebody else may have learnt the same meanwhile.
async fn still_unknown(shared: &Shared, task: TaskId) -> Option<TaskRow> {
    let row = shared.tasks.task(task).await.ok().flatten()?;
    matches!(row.state, TaskState::Unknown { .. }).then_some(row)
}
