//! The handle of the session layer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use codegen_types::{ErrorCode, Failure, Lease, Principal, Runtime, SessionId, WorkerId};
use coordinator_core::egress::InForce;
use coordinator_core::quota::Standing;
use coordinator_core::session::{Input, Need, Role, SessionState, Tie};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::call::{SessionSnapshot, UpdateSession};
use super::changes::ChangesFollower;
use super::ledger::Ledger;
use super::news::OwnerNews;
use super::options::SessionsDeps;
use super::owner::{MAILBOX, Message, Owner};
use super::reconcile::{self, ReconcileError, Reconciled};
use super::recovery::{self, Left, WAITING_MAX};
use super::table::Entry;
use super::{Shared, now_ms, reaper};
use crate::store::SessionRow;
use crate::supervisor::OnEnd;

/// The session layer. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    pub(super) shared: Arc<Shared>,
}

/// Why the session layer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store could not be brought up to what the log says.
    #[error("the store cannot be reconciled with the log")]
    Reconcile(#[from] ReconcileError),
}

impl Sessions {
    /// Brings the store up to what the log says, and takes up every session that is in it.
    ///
    /// # Errors
    /// [`StartError`] when the log or the store cannot be read, or the log cannot be written.
    pub async fn start(deps: SessionsDeps) -> Result<Self, StartError> {
        let SessionsDeps { audit, audit_dir, sessions, tasks, fleet, supervisor, options } = deps;
        let Reconciled { rows, left } =
            reconcile::run(&audit, audit_dir.clone(), sessions.as_ref(), tasks.as_ref(), options.outcome_retention)
                .await?;
        let ledger = Ledger::new(options.quotas);
        if let Some(dir) = audit_dir.clone() {
            let restored = ledger.clone();
            let reading = tokio::task::spawn_blocking(move || restored.restore(&dir));
            reading.await.map_err(|_| ReconcileError::CutOff)?.map_err(ReconcileError::Read)?;
        }
        let (table, workers, waiting, repeats, running, changes, live) = Default::default();
        let (resolving, joining, ended, creations) = Default::default();
        let shared = Arc::new(Shared {
            audit,
            audit_dir,
            sessions,
            tasks,
            fleet,
            supervisor,
            options,
            table,
            workers,
            waiting,
            repeats,
            creations,
            running,
            changes,
            live,
            ledger,
            late: Arc::new(Semaphore::new(WAITING_MAX)),
            resolving,
            joining,
            ended,
            began: (now_ms(), Instant::now()),
        });
        let this = Self { shared };
        this.expect_workers(&rows, &left);
        for row in rows {
            // A session without a worker has nothing that could end with one.
            let tie = row.state.lease().map_or(Tie::Child, |lease| recovery::tie(&lease.worker));
            let news = OwnerNews::default();
            // Before anything that becomes of its worker from now on.
            news.tell(Input::ServerStarted { tie });
            this.adopt(Owner::of_row(Arc::clone(&this.shared), row), news);
        }
        for task in left {
            recovery::resume(&this.shared, task);
        }
        let shared = Arc::clone(&this.shared);
        this.shared.supervisor.spawn("session reaper", OnEnd::Shutdown, reaper::run(shared));
        Ok(this)
    }

    /// Says which workers may have gone on with what the last server had given them.
    fn expect_workers(&self, rows: &[SessionRow], left: &[Left]) {
        let is_apart = |lease: &&Lease| recovery::tie(&lease.worker) == Tie::Apart;
        let life = |lease: &Lease| (lease.worker.clone(), lease.incarnation);
        let ready = rows.iter().filter_map(|row| match &row.state {
            SessionState::Ready { lease } => Some(lease),
            SessionState::Opening { .. }
            | SessionState::Suspended { .. }
            | SessionState::Lost { .. }
            | SessionState::Closing { .. }
            | SessionState::Closed { .. } => None,
        });
        let mut lives: BTreeSet<_> =
            left.iter().map(|task| &task.lease).chain(ready).filter(is_apart).map(life).collect();
        let mut at_rest: Vec<_> = rows.iter().filter_map(|row| Some((row.last_used_ms, at_rest(row)?))).collect();
        // To files at rest any life of their worker will do: the one that was used last stands for all.
        at_rest.sort_unstable_by_key(|(used_ms, _)| std::cmp::Reverse(*used_ms));
        for (_, lease) in at_rest.iter().filter(|(_, lease)| is_apart(lease)) {
            if lives.iter().all(|(worker, _)| *worker != lease.worker) {
                lives.insert(life(lease));
            }
        }
        self.shared.fleet.expect(lives.into_iter().collect());
    }

    pub(super) fn adopt(&self, owner: Owner, news: OwnerNews) {
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let news = Arc::new(news);
        self.shared.table.insert(Entry { snapshot: owner.snapshot(), owner: sender, news: Arc::clone(&news) });
        self.shared.supervisor.spawn("session owner", OnEnd::Ignore, owner.run(mailbox, news));
    }

    /// The session as it was last published.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`, for a foreign handle as for an unknown one.
    pub fn get(&self, principal: &Principal, session: SessionId) -> Result<Arc<SessionSnapshot>, Failure> {
        self.shared.table.of(principal, session, Need::Read).map(|entry| entry.snapshot)
    }

    /// What the worker that holds a session, or held it last, runs programs with; nothing while it is away.
    pub fn runtimes(&self, session: &SessionSnapshot) -> Vec<Runtime> {
        let lease = session.lease.as_ref();
        lease.map(|lease| self.shared.fleet.runtimes(&lease.worker)).unwrap_or_default()
    }

    /// What a session reaches today of what it asked for.
    pub fn in_force(&self, session: &SessionSnapshot) -> InForce {
        self.shared.options.in_force(&session.principal, &session.network)
    }

    /// The sessions that a principal may see, oldest first.
    pub fn list(&self, principal: &Principal, include_closed: bool) -> Vec<Arc<SessionSnapshot>> {
        let mut rows = self.shared.table.list(principal);
        rows.retain(|row| include_closed || row.state != "closed");
        rows
    }

    /// What a principal may use, uses and has used today.
    pub fn standing(&self, principal: &Principal) -> Standing {
        self.shared.ledger.standing(principal, self.shared.table.open_of(principal))
    }

    /// Changes a session's description.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`, `PERMISSION_DENIED`, `SESSION_CLOSED`, `SESSION_LOST`, `INVALID_ARGUMENT`,
    /// `AUDIT_UNAVAILABLE`.
    pub async fn update(
        &self,
        principal: &Principal,
        session: SessionId,
        update: UpdateSession,
    ) -> Result<Arc<SessionSnapshot>, Failure> {
        self.ask(principal, session, |reply| Message::Update { update, reply }).await
    }

    /// Shares a session with another principal, or changes what it was shared with it for. A writer that becomes an
    /// observer stops: its acting tasks are cancelled.
    ///
    /// # Errors
    /// As of [`update`](Self::update).
    pub async fn share(
        &self,
        principal: &Principal,
        session: SessionId,
        with: Principal,
        role: Role,
    ) -> Result<Arc<SessionSnapshot>, Failure> {
        self.ask(principal, session, |reply| Message::Share { with, role, reply }).await
    }

    /// Shares a session with a principal no longer: whatever it does there ends.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`, `PERMISSION_DENIED`.
    pub async fn unshare(
        &self,
        principal: &Principal,
        session: SessionId,
        with: Principal,
    ) -> Result<Arc<SessionSnapshot>, Failure> {
        let unshared = self.ask(principal, session, |reply| Message::Unshare { with, reply }).await;
        if unshared.is_ok() {
            // Whoever follows its files looks whether it still may.
            self.shared.changes.tell(session, None);
        }
        unshared
    }

    /// Ends a session for good: its tasks, its processes, its files.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`, `PERMISSION_DENIED`, `SESSION_CLOSED`.
    pub async fn close(&self, principal: &Principal, session: SessionId) -> Result<Arc<SessionSnapshot>, Failure> {
        let closed = self.ask(principal, session, |reply| Message::Close { reply }).await;
        if closed.is_ok() {
            self.tell_closed(session);
        }
        closed
    }

    /// Nobody hears any more of a session that was closed.
    pub(super) fn tell_closed(&self, session: SessionId) {
        self.shared.live.end(session);
        self.shared.changes.tell(session, None);
    }

    /// Asks a session's owner task for what only its owner may ask.
    async fn ask(
        &self,
        principal: &Principal,
        session: SessionId,
        message: impl FnOnce(oneshot::Sender<Result<Arc<SessionSnapshot>, Failure>>) -> Message,
    ) -> Result<Arc<SessionSnapshot>, Failure> {
        ask_owner(&self.shared.table.of(principal, session, Need::Own)?, message).await
    }

    /// Follows what changes in workspaces from now on.
    pub fn changes(&self) -> ChangesFollower {
        self.shared.changes.follow()
    }

    /// How many sessions are in each state.
    pub fn count_by_state(&self) -> BTreeMap<&'static str, usize> {
        self.shared.table.all().iter().fold(BTreeMap::new(), |mut counts, entry| {
            *counts.entry(entry.snapshot.state).or_default() += 1;
            counts
        })
    }

    /// The workers that have files of a session which is not over.
    pub fn workers_with_files(&self) -> BTreeSet<WorkerId> {
        let leases = self.shared.table.all().into_iter().filter_map(|entry| entry.snapshot.lease.clone());
        leases.map(|lease| lease.worker).collect()
    }

    /// Tasks that run at present.
    pub fn running_tasks(&self) -> usize {
        self.shared.table.all().iter().map(|entry| entry.snapshot.running.len()).sum()
    }

    /// Ends the processes of all sessions in good order; files and handles stay.
    pub async fn shutdown(&self) {
        let mut stopped = Vec::new();
        for entry in self.shared.table.all() {
            let (done, is_done) = oneshot::channel();
            if entry.snapshot.state != "closed" && entry.owner.send(Message::Stop { done }).await.is_ok() {
                stopped.push(is_done);
            }
        }
        for is_done in stopped {
            // An owner that is gone has stopped.
            let _ = is_done.await;
        }
    }
}

/// Who has the files of a session that has no processes, or will have none once the server has started.
const fn at_rest(row: &SessionRow) -> Option<&Lease> {
    match &row.state {
        SessionState::Opening { lease, .. } | SessionState::Suspended { lease } => Some(lease),
        SessionState::Ready { .. }
        | SessionState::Lost { .. }
        | SessionState::Closing { .. }
        | SessionState::Closed { .. } => None,
    }
}

/// Asks a session's owner task.
pub(super) async fn ask_owner(
    entry: &Entry,
    message: impl FnOnce(oneshot::Sender<Result<Arc<SessionSnapshot>, Failure>>) -> Message,
) -> Result<Arc<SessionSnapshot>, Failure> {
    let (reply, answer) = oneshot::channel();
    entry.owner.send(message(reply)).await.map_err(|_| stopping())?;
    answer.await.unwrap_or_else(|_| Err(stopping()))
}

pub(super) fn stopping() -> Failure {
    Failure::new(ErrorCode::WorkerUnavailable, "the server is stopping; try again when it is back")
}
