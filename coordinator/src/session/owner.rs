//! One owner task per session: it alone changes the session, one input after the other.
//!
//! Each input is decided purely; then the step is recorded, stored, published, and carried out, in that order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use codegen_types::{ErrorCode, Failure, IsolationLevel, Lease, LogSeq, TaskId};
use coordinator_core::session::{
    Assignment, Effect, Files, Input, Refusal, Session, SessionEvent, SessionState, Transition, step,
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::call::{SessionSnapshot, UpdateSession};
use super::record;
use super::{Shared, now_ms, update};
use crate::store::SessionRow;
use crate::supervisor::OnEnd;

/// Messages that wait for one owner. When they are that many, senders wait: each is a call of one client.
pub(super) const MAILBOX: usize = 64;
/// How long activity alone may go unstored; it only matters to retention, which counts days.
const ACTIVITY_UNSTORED_MS: i64 = 60_000;
/// How often a worker that is not there is asked for again.
const PATIENCE_STEP: Duration = Duration::from_millis(50);

type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// What an owner is asked.
pub(super) enum Message {
    /// A task begins: make the session ready for it.
    Begin { task: TaskId, reply: Reply<Begun> },
    /// A task that began did not reach its worker: make the session ready once more.
    Renew { task: TaskId, lease: Lease, reply: Reply<Begun> },
    /// A task is over.
    Ended { task: TaskId },
    /// The description changes.
    Update { update: UpdateSession, reply: Reply<Arc<SessionSnapshot>> },
    /// End it for good.
    Close { reply: Reply<Arc<SessionSnapshot>> },
    /// Something else happened to it.
    Happened { input: Input },
    /// The server goes down: end its processes, then say so.
    Stop { done: oneshot::Sender<()> },
}

/// A session that is ready for a task.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    pub(super) lease: Lease,
    pub(super) level: Option<IsolationLevel>,
    /// Cancelled when the session ends.
    pub(super) cancel: CancellationToken,
    /// Tasks that ran meanwhile; grows until the task ends.
    pub(super) overlapped: Arc<Mutex<BTreeSet<TaskId>>>,
}

struct Running {
    cancel: CancellationToken,
    overlapped: Arc<Mutex<BTreeSet<TaskId>>>,
}

/// Owns one session.
pub(super) struct Owner {
    shared: Arc<Shared>,
    /// What is stored of it; `session` is what is decided about.
    row: SessionRow,
    session: Session,
    running: BTreeMap<TaskId, Running>,
    stored_ms: i64,
    /// Why it could not be opened last.
    open_failure: Option<Failure>,
    forgotten: bool,
}

impl Owner {
    /// The owner of a session that is in the store.
    pub(super) fn of_row(shared: Arc<Shared>, row: SessionRow) -> Self {
        let session = Session {
            state: row.state.clone(),
            running: BTreeSet::new(),
            last_used_ms: row.last_used_ms,
            ttl_ms: row.ttl_ms,
            tasks: row.tasks,
        };
        let (running, open_failure) = Default::default();
        Self { shared, stored_ms: row.last_used_ms, row, session, running, open_failure, forgotten: false }
    }

    /// Makes a new session: records and stores its first assignment, then opens it. The row's revision is 0.
    pub(super) async fn create(shared: Arc<Shared>, row: SessionRow, first: Transition) -> Result<Self, Failure> {
        let mut owner = Self::of_row(shared, row);
        owner.take(first).await?;
        match &owner.session.state {
            SessionState::Ready { .. } => Ok(owner),
            _ => Err(owner.open_failure.take().unwrap_or_else(|| gone(&owner.session.state))),
        }
    }

    pub(super) fn snapshot(&self) -> Arc<SessionSnapshot> {
        let retention_ms = i64::try_from(self.shared.options.retention.as_millis()).unwrap_or(i64::MAX);
        Arc::new(SessionSnapshot {
            id: self.row.id,
            principal: self.row.principal.clone(),
            name: self.row.name.clone(),
            metadata: self.row.metadata.clone(),
            state: self.session.state.name(),
            lease: self.session.state.lease().cloned(),
            isolation: self.row.isolation.clone(),
            ttl_ms: self.session.ttl_ms,
            created_ms: self.row.created_ms,
            last_used_ms: self.session.last_used_ms,
            retained_until_ms: self.session.last_used_ms.saturating_add(retention_ms),
            running: self.session.running.iter().copied().collect(),
            tasks: self.session.tasks,
        })
    }

    /// Serves the session until it is forgotten or the server stops.
    pub(super) async fn run(mut self, mut mailbox: mpsc::Receiver<Message>) {
        let stop = self.shared.supervisor.token();
        while !self.forgotten {
            let idle_at = self.idle_at();
            let message = tokio::select! {
                // What was said before the process stops is still heard.
                biased;
                message = mailbox.recv() => message,
                () = stop.cancelled() => None,
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
            Message::Begin { task, reply } => drop(reply.send(self.begin(task).await)),
            Message::Renew { task, lease, reply } => drop(reply.send(self.renew(task, &lease).await)),
            Message::Ended { task } => {
                self.happened(&Input::TaskEnded { task }).await;
                self.running.remove(&task);
            }
            Message::Update { update, reply } => drop(reply.send(self.update(update).await)),
            Message::Close { reply } => drop(reply.send(self.close().await)),
            Message::Happened { input } => self.happened(&input).await,
            Message::Stop { .. } => {}
        }
    }

    /// When nothing but time will have made the session idle.
    fn idle_at(&self) -> Option<Instant> {
        if !matches!(self.session.state, SessionState::Ready { .. }) || !self.session.running.is_empty() {
            return None;
        }
        let idle_ms = u64::try_from(now_ms() - self.session.last_used_ms).unwrap_or_default();
        Some(Instant::now() + Duration::from_millis(self.session.ttl_ms.saturating_sub(idle_ms) + 1))
    }

    async fn begin(&mut self, task: TaskId) -> Result<Begun, Failure> {
        self.make_ready().await?;
        let transition = self.decide(&Input::TaskStarted { task }).map_err(|refusal| self.refused(refusal))?;
        self.take(transition).await?;
        let overlapped = Arc::new(Mutex::new(self.running.keys().copied().collect::<BTreeSet<_>>()));
        for other in self.running.values() {
            other.overlapped.lock().insert(task);
        }
        self.running.insert(task, Running { cancel: CancellationToken::new(), overlapped });
        self.begun(task)
    }

    async fn renew(&mut self, task: TaskId, lease: &Lease) -> Result<Begun, Failure> {
        if self.session.state.lease() == Some(lease) {
            let at = Assignment { worker: lease.worker.clone(), incarnation: lease.incarnation };
            self.happened(&Input::WorkerGone { at }).await;
        }
        self.make_ready().await?;
        self.begun(task)
    }

    fn begun(&self, task: TaskId) -> Result<Begun, Failure> {
        let (SessionState::Ready { lease }, Some(running)) = (&self.session.state, self.running.get(&task)) else {
            return Err(gone(&self.session.state));
        };
        Ok(Begun {
            lease: lease.clone(),
            level: self.row.isolation.as_ref().map(|report| report.level),
            cancel: running.cancel.clone(),
            overlapped: Arc::clone(&running.overlapped),
        })
    }

    /// Opens the session again if it has no processes.
    async fn make_ready(&mut self) -> Result<(), Failure> {
        if let SessionState::Suspended { lease } = &self.session.state {
            let prefer = lease.worker.clone();
            let slot = self.shared.reserve(Some(&prefer)).await?;
            let (worker, incarnation) = slot.worker();
            let at = Assignment { worker: worker.clone(), incarnation };
            let transition = self.decide(&Input::Reopen { at }).map_err(|refusal| self.refused(refusal))?;
            self.take(transition).await?;
            drop(slot);
        }
        match &self.session.state {
            SessionState::Ready { .. } => Ok(()),
            state => Err(self.open_failure.take().unwrap_or_else(|| gone(state))),
        }
    }

    async fn update(&mut self, update: UpdateSession) -> Result<Arc<SessionSnapshot>, Failure> {
        let described = update::apply(&self.row, &update)?;
        let ttl_ms = update::ttl_ms(update.ttl)?;
        let transition = self.decide(&Input::Update { ttl_ms }).map_err(|refusal| self.refused(refusal))?;
        let before = (self.row.name.clone(), self.row.metadata.clone());
        (self.row.name, self.row.metadata) = described;
        if let Err(failure) = self.take(transition).await {
            (self.row.name, self.row.metadata) = before;
            return Err(failure);
        }
        Ok(self.snapshot())
    }

    async fn close(&mut self) -> Result<Arc<SessionSnapshot>, Failure> {
        let worker = self.session.state.lease().map(|lease| lease.worker.clone());
        let present = worker.and_then(|worker| self.shared.present(&worker));
        match self.decide(&Input::CloseRequested { present }) {
            Ok(transition) => self.take(transition).await?,
            Err(refusal) => return Err(self.refused(refusal)),
        }
        Ok(self.snapshot())
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
        step(session, input, now_ms(), &self.shared.options.rules())
    }

    /// Records, stores, publishes and carries out a step, and the steps that follow from it.
    async fn take(&mut self, first: Transition) -> Result<(), Failure> {
        let mut next = Some(first);
        while let Some(Transition { next: session, event, effects }) = next.take() {
            let before = std::mem::replace(&mut self.session, session);
            self.follow_decision();
            match self.record(event).await {
                Ok(seq) => self.store(event, seq).await,
                Err(failure) => {
                    self.session = before;
                    self.follow_decision();
                    return Err(failure);
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
        Ok(())
    }

    /// Copies into the row what was decided.
    fn follow_decision(&mut self) {
        self.row.state = self.session.state.clone();
        self.row.last_used_ms = self.session.last_used_ms;
        self.row.ttl_ms = self.session.ttl_ms;
        self.row.tasks = self.session.tasks;
    }

    /// Writes the step's record. What ends something is done without a log, too; its record then follows.
    async fn record(&self, event: Option<SessionEvent>) -> Result<Option<LogSeq>, Failure> {
        let Some(event) = event else { return Ok(None) };
        let entry = record::of_step(&self.row, event);
        match self.shared.audit.append(entry.clone()).await {
            Ok(seq) => Ok(Some(seq)),
            Err(error) if record::ends(event) => {
                tracing::error!(session = %self.row.id, ?event, %error, "recorded when the log can be written again");
                let late = record::eventually(self.shared.audit.clone(), entry);
                self.shared.supervisor.spawn("late record", OnEnd::Ignore, async move {
                    late.await;
                });
                Ok(None)
            }
            Err(error) => Err(super::unavailable(&error)),
        }
    }

    async fn store(&mut self, event: Option<SessionEvent>, seq: Option<LogSeq>) {
        let now = now_ms();
        if event.is_none() && now - self.stored_ms < ACTIVITY_UNSTORED_MS {
            return;
        }
        self.row.audit_seq = seq.unwrap_or(self.row.audit_seq);
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

    /// Does what a step asks for; gives what then happened to the session.
    async fn carry_out(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Open { lease } => Some(self.open(lease).await),
            Effect::EndProcesses { lease } => {
                self.ask_to_close(lease, false).await;
                None
            }
            Effect::DeleteWorkspace { lease } => {
                let done = self.ask_to_close(lease, true).await;
                Some(if done { Input::CloseDone } else { Input::CloseFailed })
            }
            Effect::CancelTasks => {
                self.running.values().for_each(|running| running.cancel.cancel());
                None
            }
            Effect::Forget => {
                self.forget().await;
                None
            }
        }
    }

    async fn open(&mut self, lease: Lease) -> Input {
        let epoch = lease.epoch;
        let options = &self.shared.options;
        match self.shared.fleet.open(self.row.id, lease, options.limits, options.isolation_minimum).await {
            Ok(opened) => {
                self.row.isolation = Some(opened.isolation);
                self.open_failure = None;
                let files = if opened.workspace_created { Files::Missing } else { Files::Kept };
                Input::Opened { epoch, files }
            }
            Err(failure) => {
                tracing::warn!(session = %self.row.id, %failure, "a session could not be opened");
                self.open_failure = Some(failure);
                Input::OpenFailed { epoch }
            }
        }
    }

    async fn ask_to_close(&self, lease: Lease, delete_workspace: bool) -> bool {
        match self.shared.fleet.close(self.row.id, lease, delete_workspace).await {
            Ok(()) => true,
            Err(failure) => {
                tracing::warn!(session = %self.row.id, delete_workspace, %failure, "a session could not be closed on its worker");
                false
            }
        }
    }

    async fn forget(&mut self) {
        match self.shared.sessions.remove_session(self.row.id, self.row.revision).await {
            Ok(()) => self.forgotten = true,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(session = %self.row.id, error, "a session could not be forgotten");
            }
        }
    }

    /// What a caller is told when the session does not take an input.
    fn refused(&self, refusal: Refusal) -> Failure {
        match refusal {
            Refusal::TooManyTasks => {
                let count = self.session.running.len();
                let text = format!("{count} tasks run in this session, the most there may be; wait for one to end");
                Failure::new(ErrorCode::RateLimited, text)
            }
            Refusal::Absent
            | Refusal::Exists
            | Refusal::NotReady
            | Refusal::WrongTask
            | Refusal::Lost
            | Refusal::Closed
            | Refusal::Stale
            | Refusal::NotDue => gone(&self.session.state),
        }
    }
}

/// What a caller is told about a session that takes no task.
fn gone(state: &SessionState) -> Failure {
    let (code, text) = match state {
        SessionState::Closing { .. } | SessionState::Closed { .. } => {
            (ErrorCode::SessionClosed, "the session was closed for good; session_create makes a new one")
        }
        SessionState::Lost { .. } => {
            (ErrorCode::SessionLost, "the session's worker came back without its files; session_create makes a new one")
        }
        SessionState::Opening { .. } | SessionState::Ready { .. } | SessionState::Suspended { .. } => {
            (ErrorCode::WorkerUnavailable, "the session's worker cannot be reached just now; try again shortly")
        }
    };
    Failure::new(code, text)
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

impl Shared {
    /// Reserves a slot, waiting a while for a worker that is just not there.
    pub(super) async fn reserve(
        &self,
        prefer: Option<&codegen_types::WorkerId>,
    ) -> Result<Box<dyn crate::workers::Reservation>, Failure> {
        let deadline = Instant::now() + self.options.worker_patience;
        loop {
            match self.fleet.reserve(&self.options.requirements(), prefer) {
                Err(failure) if failure.code == ErrorCode::WorkerUnavailable && Instant::now() < deadline => {
                    tokio::time::sleep(PATIENCE_STEP).await;
                }
                result => return result,
            }
        }
    }
}
