//! Results that come after a task was given up as unknown.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use codegen_audit::{EventKind, records};
use codegen_types::{EventBody, HeldSession, Incarnation, LogSeq, SessionId, TaskId, WorkerId};
use coordinator_core::session::Assignment;
use coordinator_core::task::{TaskInput, TaskState};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::Left;
use super::resumed::store;
use crate::session::Shared;
use crate::session::outcome::{Traffic, describe, outcome_of};
use crate::session::owner::Message;
use crate::session::receipt::Charge;
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
/// Results that the store did not take and whose records are remembered; of one more there may be two records.
const UNSTORED_MAX: usize = 4_096;
/// Events between the link and the transcript.
const EVENTS: usize = 64;

/// Late results of the tasks of one worker that are waited for at once: the places are not all for the one that never
/// tells.
const WAITING_OF_ONE_MAX: usize = 64;

/// Tasks whose late results are being waited for, each by one follower, so that each is recorded once.
#[derive(Default)]
pub(in crate::session) struct Resolving {
    tasks: Mutex<HashMap<TaskId, SessionId>>,
    /// The places of each worker; those of a worker that none is taken of are not kept.
    shares: Mutex<HashMap<WorkerId, Arc<Semaphore>>>,
    /// Results that are on record and that the store did not take. A store takes those that come next, or none.
    unstored: Mutex<HashMap<TaskId, LogSeq>>,
}

/// A task that is waited for; no longer when dropped.
pub(super) struct Following {
    task: TaskId,
    of: Arc<Resolving>,
}

impl Resolving {
    /// Nothing when somebody waits for it already.
    fn begin(self: &Arc<Self>, task: TaskId, session: SessionId) -> Option<Following> {
        match self.tasks.lock().entry(task) {
            Entry::Occupied(_) => None,
            Entry::Vacant(place) => {
                place.insert(session);
                Some(Following { task, of: Arc::clone(self) })
            }
        }
    }

    /// Whether a task of that session may yet be heard of.
    pub(in crate::session) fn has_of(&self, session: SessionId) -> bool {
        self.tasks.lock().values().any(|of| *of == session)
    }

    /// The record that there is of a result already.
    fn recorded(&self, task: TaskId) -> Option<LogSeq> {
        self.unstored.lock().get(&task).copied()
    }

    fn note(&self, task: TaskId, seq: LogSeq, stored: bool) {
        let mut unstored = self.unstored.lock();
        if stored {
            unstored.remove(&task);
        } else if unstored.len() < UNSTORED_MAX {
            unstored.insert(task, seq);
        }
    }

    fn share(&self, worker: &WorkerId) -> Arc<Semaphore> {
        let mut shares = self.shares.lock();
        shares.retain(|_, share| Arc::strong_count(share) > 1);
        let share = shares.entry(worker.clone()).or_insert_with(|| Arc::new(Semaphore::new(WAITING_OF_ONE_MAX)));
        Arc::clone(share)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.of.tasks.lock().remove(&self.task);
    }
}

/// A place to wait for a late result, among those of its worker and among all.
type Place = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// A result that a worker offers of a task that was given up.
pub(super) struct Offer {
    left: Left,
    following: Following,
}

/// Goes on waiting for the result of a task that was given up, as long as that life of its worker may come back.
pub(in crate::session) fn resolve_later(shared: &Arc<Shared>, left: Left) {
    let is_unknown = left.row.as_ref().is_some_and(|row| matches!(row.state, TaskState::Unknown { lease: Some(_) }));
    if !is_unknown || !left.may_run() {
        return;
    }
    let of_worker = shared.resolving.share(&left.lease.worker).try_acquire_owned();
    let (Ok(of_worker), Ok(of_all)) = (of_worker, Arc::clone(&shared.late).try_acquire_owned()) else { return };
    if let Some(following) = shared.resolving.begin(left.task, left.session) {
        follow(shared, Offer { left, following }, (of_worker, of_all));
    }
}

/// What a worker that has joined offers and was given up before. What it names besides is not looked at.
pub(super) async fn offers(shared: &Shared, at: &Assignment, held: &[HeldSession]) -> Vec<Offer> {
    let running = |task: &TaskId| shared.running.get(*task).is_some();
    let offered = held.iter().flat_map(|held| &held.tasks).copied().filter(|task| !running(task)).take(OFFERS_MAX);
    let mut offers = Vec::new();
    for task in offered {
        if let Some(left) = given_up(shared, task, &at.worker, at.incarnation).await
            && let Some(following) = shared.resolving.begin(task, left.session)
            // Whoever followed it meanwhile may have learnt its end.
            && still_unknown(shared, task).await.is_some()
        {
            offers.push(Offer { left, following });
        }
    }
    offers
}

/// Follows them all at once, as far as there are places, so that none waits for another that goes on for long.
pub(super) async fn follow_all(shared: &Arc<Shared>, worker: &WorkerId, offers: Vec<Offer>) {
    let share = shared.resolving.share(worker);
    for offer in offers {
        let Ok(of_worker) = Arc::clone(&share).acquire_owned().await else { return };
        let Ok(of_all) = Arc::clone(&shared.late).acquire_owned().await else { return };
        follow(shared, offer, (of_worker, of_all));
    }
}

fn follow(shared: &Arc<Shared>, offer: Offer, place: Place) {
    let (waiting, Offer { left, following }) = (Arc::clone(shared), offer);
    shared.supervisor.spawn("late result", OnEnd::Ignore, async move {
        let session = left.session;
        resolve(&waiting, left).await;
        drop((following, place));
        if let Some(entry) = waiting.table.get(session) {
            // What it left behind may end now. An owner that is gone has no session any more.
            let _ = entry.owner.send(Message::EndLeft).await;
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
    let recorded = match shared.resolving.recorded(left.task) {
        Some(seq) => seq,
        None => {
            let charge = Charge::of(entry.outcome, entry.detail.as_ref());
            match shared.audit.queue(entry).await {
                Ok(seq) => {
                    charge_late(shared, left, charge).await;
                    seq
                }
                // It stays unknown; the worker offers it again when it joins again.
                Err(error) => return tracing::warn!(task = %left.task, %error, "a late result is not recorded"),
            }
        }
    };
    let row = ended_row(row, outcome, &TaskInput::Resolved { code }, Some(recorded));
    let stored = store(shared, Some(row)).await;
    shared.resolving.note(left.task, recorded, stored);
    tracing::info!(task = %left.task, worker = %left.lease.worker, "a task that was given up ended after all");
}

/// Counts what it used, of which nothing was known when it was given up.
async fn charge_late(shared: &Shared, left: &Left, charge: Option<Charge>) {
    let Some(charge) = charge else { return };
    shared.ledger.charge(&left.principal, &charge);
    if let Some(entry) = shared.table.get(left.session) {
        // An owner that is gone has no receipt any more.
        let _ = entry.owner.send(Message::Charged { charge }).await;
    }
}

/// The row as it is now: somebody else may have learnt the same meanwhile.
async fn still_unknown(shared: &Shared, task: TaskId) -> Option<TaskRow> {
    let row = shared.tasks.task(task).await.ok().flatten()?;
    matches!(row.state, TaskState::Unknown { .. }).then_some(row)
}
