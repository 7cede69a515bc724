//! One owner task per session: it alone changes the session, one input after the other.
//!
//! Each input is decided purely; then the step is recorded, stored, published, and carried out, in that order.

mod asked;
mod effects;
mod reach;
mod sharing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use codegen_types::{ErrorCode, Failure, IsolationLevel, Lease, LogSeq, Principal, TaskId};
use coordinator_core::session::{
    Input, Need, Refusal, Role, Session, SessionEvent, SessionState, Transition, WriterLease, step,
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::call::{SessionSnapshot, UpdateSession};
use super::news::OwnerNews;
use super::receipt::{Charge, Receipt};
use super::record::{self, Sharing};
use super::{Shared, now_ms, unavailable};
use crate::store::SessionRow;
use asked::gone;
pub(in crate::session) use asked::gone_for_good;
pub(in crate::session) use reach::note;

/// Messages that wait for one owner. When they are that many, senders wait: each is a call of one client.
pub(in crate::session) const MAILBOX: usize = 64;
/// How long activity alone may go unstored; it only matters to retention, which counts days.
const ACTIVITY_UNSTORED_MS: i64 = 60_000;
type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// What an owner is asked.
pub(in crate::session) enum Message {
    /// A task begins, which was asked for then: make the session ready for it.
    Begin { task: TaskId, by: By, asked: Instant, reply: Reply<Begun> },
    /// A task that began did not reach its worker: make the session ready once more.
    Renew { task: TaskId, lease: Lease, why: ErrorCode, reply: Reply<Begun> },
    /// A task that an earlier server had begun under this lease may still run.
    Resume { task: TaskId, lease: Lease, by: By, reply: Reply<Begun> },
    /// A task is over, and this is what it used; nothing for one that the log has nothing of.
    Ended { task: TaskId, charge: Option<Charge> },
    /// What a task used that had been given up is known after all.
    Charged { charge: Charge },
    /// The description changes.
    Update { update: UpdateSession, reply: Reply<Arc<SessionSnapshot>> },
    /// It is shared with somebody.
    Share { with: Principal, role: Role, reply: Reply<Arc<SessionSnapshot>> },
    /// It is shared with somebody no longer.
    Unshare { with: Principal, reply: Reply<Arc<SessionSnapshot>> },
    /// End it for good.
    Close { reply: Reply<Arc<SessionSnapshot>> },
    /// Processes of it that its worker was not seen to end are to be ended.
    EndLeft,
    /// Something else happened to it.
    Happened { input: Input },
    /// The server goes down: end its processes, then say so.
    Stop { done: oneshot::Sender<()> },
}

/// Who begins a task, and what that needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::session) struct By {
    pub(in crate::session) principal: Principal,
    pub(in crate::session) need: Need,
}

/// A session that is ready for a task.
#[derive(Debug, Clone)]
pub(in crate::session) struct Begun {
    pub(in crate::session) lease: Lease,
    pub(in crate::session) level: Option<IsolationLevel>,
    /// Cancelled when the session ends.
    pub(in crate::session) cancel: CancellationToken,
    /// Tasks that ran meanwhile; grows until the task ends.
    pub(in crate::session) overlapped: Arc<Mutex<BTreeSet<TaskId>>>,
}

struct Running {
    by: By,
    cancel: CancellationToken,
    overlapped: Arc<Mutex<BTreeSet<TaskId>>>,
}

/// Owns one session.
pub(in crate::session) struct Owner {
    shared: Arc<Shared>,
    /// What is stored of it; `session` is what is decided about.
    row: SessionRow,
    session: Session,
    running: BTreeMap<TaskId, Running>,
    /// Its times are milliseconds since `began`: the clock may be set meanwhile.
    writer: WriterLease,
    began: Instant,
    /// With whom the step that is being taken shares the session, or shares it no longer, for its record.
    sharing: Option<Sharing>,
    /// What its tasks used. The row has it as it was when the server started; the log has the rest.
    receipt: Arc<Receipt>,
    stored_ms: i64,
    /// The last use, and when that was as time passes: the clock may be set meanwhile.
    used: (i64, Instant),
    /// Why it could not be opened last.
    open_failure: Option<Failure>,
    /// Why it could not be made ready last, and since when this is known.
    unready: Option<(Instant, Failure)>,
    /// What its worker was told that it reaches; nothing while this server has not told it.
    told: Option<reach::Told>,
    /// When it is told once more what it could not be told.
    retelling: Option<reach::Retelling>,
    /// News of what decides about that, from the beginning on.
    decided: reach::Decided,
    /// Its worker may still have processes of it, though it is at rest.
    left_over: bool,
    forgotten: bool,
}

impl Owner {
    /// The owner of a session that is in the store.
    pub(in crate::session) fn of_row(shared: Arc<Shared>, row: SessionRow) -> Self {
        let session = Session {
            state: row.state.clone(),
            running: BTreeSet::new(),
            last_used_ms: row.last_used_ms,
            ttl_ms: row.ttl_ms,
            tasks: row.tasks,
        };
        let (running, writer, sharing, open_failure, unready, told, retelling) = Default::default();
        let decided = reach::Decided::of(&shared.options, &row.network);
        let receipt = Arc::new(row.receipt.clone());
        let stored_ms = row.last_used_ms;
        let idle_ms = u64::try_from(now_ms() - row.last_used_ms).unwrap_or_default().min(row.ttl_ms);
        let now = Instant::now();
        let used = (row.last_used_ms, now.checked_sub(Duration::from_millis(idle_ms)).unwrap_or(now));
        Self {
            shared,
            row,
            session,
            running,
            writer,
            began: now,
            sharing,
            receipt,
            stored_ms,
            used,
            open_failure,
            unready,
            told,
            retelling,
            decided,
            left_over: false,
            forgotten: false,
        }
    }

    /// Makes a new session: records and stores its first assignment, then opens it. The row's revision is 0.
    pub(in crate::session) async fn create(
        shared: Arc<Shared>,
        row: SessionRow,
        first: Transition,
    ) -> Result<Self, Failure> {
        let mut owner = Self::of_row(shared, row);
        let taken = owner.take(first).await;
        if matches!(owner.session.state, SessionState::Ready { .. }) {
            return Ok(owner);
        }
        // Nobody has the handle of a session that never was ready.
        owner.happened(&Input::RetentionSweep { present: None }).await;
        taken.and_then(|()| Err(owner.open_failure.take().unwrap_or_else(|| gone(&owner.session.state))))
    }

    pub(in crate::session) fn snapshot(&self) -> Arc<SessionSnapshot> {
        let retention_ms = i64::try_from(self.shared.options.retention.as_millis()).unwrap_or(i64::MAX);
        Arc::new(SessionSnapshot {
            id: self.row.id,
            principal: self.row.principal.clone(),
            shares: self.row.shares.clone(),
            writer: self.writing(),
            name: self.row.name.clone(),
            metadata: self.row.metadata.clone(),
            network: self.row.network.clone(),
            key: self.row.key.clone().filter(|_| self.session.state.was_made()),
            state: self.session.state.name(),
            lease: self.session.state.lease().cloned(),
            isolation: self.row.isolation.clone(),
            ttl_ms: self.session.ttl_ms,
            created_ms: self.row.created_ms,
            last_used_ms: self.session.last_used_ms,
            closed_ms: if let SessionState::Closed { at, .. } = self.session.state { Some(at) } else { None },
            retained_until_ms: self.session.last_used_ms.saturating_add(retention_ms),
            running: self.session.running.iter().copied().collect(),
            tasks: self.session.tasks,
            workspace_bytes: self.row.workspace_bytes,
            receipt: Arc::clone(&self.receipt),
        })
    }

    /// Serves the session until it is forgotten or the server stops. What becomes of its worker is heard first: it may
    /// answer what waits in the mailbox.
    pub(in crate::session) async fn run(mut self, mut mailbox: mpsc::Receiver<Message>, news: Arc<OwnerNews>) {
        let stopping = self.shared.supervisor.token();
        while !self.forgotten {
            let (idle_at, retell_at) = (self.idle_at(), self.retelling.map(|retelling| retelling.at));
            let message = tokio::select! {
                // What was said before the process stops is still heard.
                biased;
                input = news.next() => Some(Message::Happened { input }),
                // No matter how much is asked of it meanwhile.
                () = self.decided.anew() => {
                    self.decided_anew().await;
                    continue;
                }
                () = sleep_until(retell_at) => {
                    self.retell().await;
                    continue;
                }
                message = mailbox.recv() => message,
                () = stopping.cancelled() => None,
                () = sleep_until(idle_at) => Some(Message::Happened { input: Input::IdleSweep }),
            };
            match message {
                None => break,
                Some(Message::Stop { done }) => {
                    self.happened(&Input::ServerStopping).await;
                    // The receiver may have lost its patience.
                    let _ = done.send(());
                }
                Some(message) => self.serve(message).await,
            }
        }
        self.shared.table.remove_if(self.forgotten, self.row.id);
    }

    async fn serve(&mut self, message: Message) {
        // A caller that is gone needs no answer.
        match message {
            Message::Begin { task, by, asked, reply } => drop(reply.send(self.begin(task, by, asked).await)),
            Message::Renew { task, lease, why, reply } => drop(reply.send(self.renew(task, &lease, why).await)),
            Message::Resume { task, lease, by, reply } => drop(reply.send(self.resume(task, lease, by).await)),
            Message::Ended { task, charge } => {
                if let Some(charge) = charge {
                    Arc::make_mut(&mut self.receipt).add(&charge);
                }
                self.writer.end(task, self.passed_ms(), self.shared.options.writer_lease_ms());
                self.happened(&Input::TaskEnded { task }).await;
                self.running.remove(&task);
                self.end_left().await;
            }
            Message::Charged { charge } => {
                Arc::make_mut(&mut self.receipt).add_late(&charge);
                self.shared.table.publish(self.snapshot());
            }
            Message::Update { update, reply } => drop(reply.send(self.update(update).await)),
            Message::Share { with, role, reply } => drop(reply.send(self.share(with, role).await)),
            Message::Unshare { with, reply } => drop(reply.send(self.unshare(with).await)),
            Message::Close { reply } => drop(reply.send(self.close().await)),
            Message::EndLeft => self.end_left().await,
            Message::Happened { input: Input::ProcessesLeft { at } } => {
                self.left_over |= self.session.state.lease().is_some_and(|lease| at.is_of(lease));
                self.end_left().await;
            }
            Message::Happened { input } => {
                self.happened(&input).await;
                // It may be told now what it was not told while it was away, or while this server was.
                if let Input::WorkerJoined { .. } = input {
                    self.retell().await;
                }
            }
            Message::Stop { .. } => {}
        }
    }

    /// When nothing but time will have made the session idle.
    fn idle_at(&mut self) -> Option<Instant> {
        if self.used.0 != self.session.last_used_ms {
            self.used = (self.session.last_used_ms, Instant::now());
        }
        if !matches!(self.session.state, SessionState::Ready { .. }) || !self.session.running.is_empty() {
            return None;
        }
        let ttl = Duration::from_millis(self.session.ttl_ms.saturating_add(1));
        self.used.1.checked_add(ttl)
    }

    /// Takes an input that nobody waits for.
    async fn happened(&mut self, input: &Input) {
        if let Ok(transition) = self.decide(input)
            && let Err(failure) = self.take(transition).await
        {
            tracing::error!(session = %self.row.id, ?input, %failure, "a step of a session could not be taken");
        }
    }

    fn decide(&self, input: &Input) -> Result<Transition, Refusal> {
        // A row of revision 0 is of a session that has not been made yet.
        let session = (self.row.revision > 0).then_some(&self.session);
        let now = match input {
            // Idle is who was not used while so much time passed, whatever the clock says.
            Input::IdleSweep => {
                let idle_ms = i64::try_from(self.used.1.elapsed().as_millis()).unwrap_or(i64::MAX);
                self.used.0.saturating_add(idle_ms)
            }
            _ => now_ms(),
        };
        step(session, input, now, &self.shared.options.rules())
    }

    /// Records, stores, publishes and carries out a step, and the steps that follow from it.
    async fn take(&mut self, first: Transition) -> Result<(), Failure> {
        let (mut next, mut unrecorded) = (Some(first), None);
        while let Some(Transition { next: session, event, effects }) = next.take() {
            let before = std::mem::replace(&mut self.session, session);
            self.follow_decision();
            match self.record(event).await {
                Ok(seq) => self.store(event, seq).await,
                Err(failure) => {
                    self.session = before;
                    self.follow_decision();
                    next = self.undone_opening();
                    unrecorded = Some(failure);
                    continue;
                }
            }
            self.shared.table.publish(self.snapshot());
            for effect in effects {
                if let Some(input) = self.carry_out(effect).await
                    && let Ok(transition) = self.decide(&input)
                {
                    next = Some(transition);
                }
            }
        }
        unrecorded.map_or(Ok(()), Err)
    }

    /// What was opened and cannot be put on record is ended again, which needs no log.
    fn undone_opening(&self) -> Option<Transition> {
        let SessionState::Opening { lease, .. } = &self.session.state else { return None };
        self.decide(&Input::OpenFailed { epoch: lease.epoch }).ok()
    }

    /// Copies into the row what was decided.
    fn follow_decision(&mut self) {
        self.row.state = self.session.state.clone();
        self.row.last_used_ms = self.session.last_used_ms;
        self.row.ttl_ms = self.session.ttl_ms;
        self.row.tasks = self.session.tasks;
    }

    /// Writes the step's record. What ends something is done without a log, too: its record is kept until the log can
    /// be written again.
    async fn record(&self, event: Option<SessionEvent>) -> Result<Option<LogSeq>, Failure> {
        let Some(event) = event else { return Ok(None) };
        let entry = record::of_step(&self.row, event, self.sharing.as_ref());
        if !record::ends(event) {
            return self.shared.audit.append(entry).await.map(Some).map_err(|error| unavailable(&error));
        }
        let recorded = self.shared.audit.queue(entry).await;
        Ok(recorded.inspect_err(|error| tracing::error!(session = %self.row.id, %error, "recorded late")).ok())
    }

    async fn store(&mut self, event: Option<SessionEvent>, seq: Option<LogSeq>) {
        if event.is_none() && (now_ms() - self.stored_ms).abs() < ACTIVITY_UNSTORED_MS {
            return;
        }
        self.row.audit_seq = seq.unwrap_or(self.row.audit_seq);
        self.write().await;
    }

    async fn write(&mut self) {
        let now = now_ms();
        let row = SessionRow { revision: self.row.revision + 1, ..self.row.clone() };
        // The log has it, which is the truth: the next write of the row, or the next start, brings it up to date.
        let written = match row.revision {
            1 => self.shared.sessions.insert_session(row).await,
            _ => self.shared.sessions.put_session(row).await,
        };
        match written {
            Ok(()) => (self.row.revision, self.stored_ms) = (self.row.revision + 1, now),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(session = %self.row.id, error, "a session could not be stored");
                self.row.revision = self.row.revision.max(1);
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
