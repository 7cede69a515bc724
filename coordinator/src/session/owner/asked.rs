//! What callers ask of a session: to be ready for a task, to change, to end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use codegen_types::{ErrorCode, Failure, Lease, TaskId};
use coordinator_core::session::{Assignment, Input, LostWhy, Need, Refusal, SessionState, Tie};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Begun, By, Owner, Running};
use crate::session::call::{SessionSnapshot, UpdateSession};
use crate::session::recovery::tie;
use crate::session::update;
use crate::session::waiting::Wants;

impl Owner {
    pub(super) async fn begin(&mut self, task: TaskId, by: By, asked: Instant) -> Result<Begun, Failure> {
        self.admit(&by)?;
        self.make_ready_for(asked).await?;
        let transition = self.decide(&Input::TaskStarted { task }).map_err(|refusal| self.refused(refusal))?;
        self.take(transition).await?;
        self.enter(task, by);
        self.begun(task)
    }

    /// A task of an earlier server goes on, under the lease that it was sent with.
    pub(super) async fn resume(&mut self, task: TaskId, lease: Lease, by: By) -> Result<Begun, Failure> {
        let transition = self.decide(&Input::TaskResumed { task, lease }).map_err(|refusal| self.refused(refusal))?;
        self.take(transition).await?;
        self.enter(task, by);
        self.begun(task)
    }

    fn enter(&mut self, task: TaskId, by: By) {
        if by.need == Need::Act {
            self.writer.begin(&by.principal, task);
            self.shared.table.publish(self.snapshot());
        }
        let overlapped = Arc::new(Mutex::new(self.running.keys().copied().collect::<BTreeSet<_>>()));
        for other in self.running.values() {
            other.overlapped.lock().insert(task);
        }
        self.running.insert(task, Running { by, cancel: CancellationToken::new(), overlapped });
    }

    pub(super) async fn renew(&mut self, task: TaskId, lease: &Lease, why: ErrorCode) -> Result<Begun, Failure> {
        // A worker that runs by itself and cannot be reached has everything that it had: the task is sent once more, and
        // nothing in the session is ended for its sake.
        let is_away = why == ErrorCode::WorkerUnavailable && tie(&lease.worker) == Tie::Apart;
        if is_away && self.session.state.lease() == Some(lease) {
            return self.begun(task);
        }
        if self.session.state.lease() == Some(lease) {
            // A worker that is there runs the other tasks; it must not be made to end them for the sake of one.
            if self.running.len() > 1 && self.shared.present(&lease.worker) == Some(lease.incarnation) {
                return Err(gone(&self.session.state));
            }
            let at = Assignment { worker: lease.worker.clone(), incarnation: lease.incarnation };
            self.happened(&Input::Misplaced { at }).await;
            // It may have the session all the same; one that is opened again now replaces that.
            self.left_over = true;
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

    /// Makes the session ready for a call that came then. Those that came while it could not be done have waited as long
    /// as the one that it was tried for, and get its answer: a worker that is away costs them its patience once.
    async fn make_ready_for(&mut self, asked: Instant) -> Result<(), Failure> {
        if let Some((since, failure)) = &self.unready
            && asked < *since
            && !matches!(self.session.state, SessionState::Ready { .. })
        {
            return Err(failure.clone());
        }
        let ready = self.make_ready().await;
        self.unready = ready.as_ref().err().map(|failure| (Instant::now(), failure.clone()));
        ready
    }

    /// Opens the session again if it has no processes.
    pub(super) async fn make_ready(&mut self) -> Result<(), Failure> {
        if let SessionState::Suspended { lease } = &self.session.state {
            let prefer = Some((lease.worker.clone(), self.row.id));
            let wants = Wants { requirements: self.shared.options.requirements(&self.row.network), prefer };
            let slot = self.shared.reserve(&self.row.principal, wants, Duration::ZERO).await?;
            let (worker, incarnation) = slot.worker();
            let at = Assignment { worker: worker.clone(), incarnation };
            let transition = self.decide(&Input::Reopen { at }).map_err(|refusal| self.refused(refusal))?;
            self.take(transition).await?;
            drop(slot);
        }
        self.renew_reach().await?;
        match &self.session.state {
            SessionState::Ready { .. } => Ok(()),
            state => Err(self.open_failure.take().unwrap_or_else(|| gone(state))),
        }
    }

    pub(super) async fn update(&mut self, update: UpdateSession) -> Result<Arc<SessionSnapshot>, Failure> {
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

    pub(super) async fn close(&mut self) -> Result<Arc<SessionSnapshot>, Failure> {
        let worker = self.session.state.lease().map(|lease| lease.worker.clone());
        let present = worker.and_then(|worker| self.shared.present(&worker));
        match self.decide(&Input::CloseRequested { present }) {
            Ok(transition) => self.take(transition).await?,
            Err(refusal) => return Err(self.refused(refusal)),
        }
        Ok(self.snapshot())
    }

    /// What a caller is told when the session does not take an input.
    pub(super) fn refused(&self, refusal: Refusal) -> Failure {
        match refusal {
            Refusal::TooManyTasks => {
                let count = self.session.running.len();
                let text =
                    format!("{count} tasks run or wait in this session, the most there may be; wait for one to end");
                Failure::new(ErrorCode::RateLimited, text).retry_soon()
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
pub(super) fn gone(state: &SessionState) -> Failure {
    let (code, text) = match state {
        SessionState::Closing { .. } | SessionState::Closed { .. } => return gone_for_good(),
        SessionState::Lost { why: LostWhy::FilesMissing, .. } => {
            (ErrorCode::SessionLost, "the session's worker no longer has its files; session_create makes a new one")
        }
        SessionState::Lost { why: LostWhy::WorkerGone, .. } => (
            ErrorCode::SessionLost,
            "the session's worker is gone, and its files with it; should that worker come back with them, this handle \
             works again; session_create makes a new session",
        ),
        SessionState::Opening { .. } | SessionState::Ready { .. } | SessionState::Suspended { .. } => {
            (ErrorCode::WorkerUnavailable, "the session's worker cannot be reached just now; try again shortly")
        }
    };
    Failure::new(code, text)
}

/// What a caller is told about a session that was closed.
pub(in crate::session) fn gone_for_good() -> Failure {
    Failure::new(ErrorCode::SessionClosed, "the session was closed for good")
}
