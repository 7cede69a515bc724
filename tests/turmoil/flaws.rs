//! Mistakes that are built in, to show that they would be found.

use std::sync::Arc;

use codegen_proto::{ExecuteTask, OpenSession};
use codegen_types::{ErrorCode, EventBody, Failure, Incarnation, Lease, Runtime, SessionId, WorkerId};
use coordinator::dispatch::Ahead;
use coordinator::workers::{Closed, DispatchEnd, Fleet, Opened, Reservation, TaskAttach, TaskDispatch, Workers};
use coordinator_core::placement::Requirements;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// A task whose outcome is lost is said not to have been sent.
    CallsUnknownNotSent,
    /// A worker that starts again says that it is the life before.
    KeepsItsIncarnation,
    /// A session is opened on another worker besides, by the same lease.
    OpensTwice,
    /// Placement does not count what is promised.
    ForgetsReservations,
    /// The coordinator starts again with a log and a store of some time ago.
    ForgetsWhatItTold,
}

impl Flaw {
    pub const ALL: [Self; 5] = [
        Self::CallsUnknownNotSent,
        Self::KeepsItsIncarnation,
        Self::OpensTwice,
        Self::ForgetsReservations,
        Self::ForgetsWhatItTold,
    ];
}

/// The real workers, with the mistakes that can be made between them and the sessions.
pub struct Flawed {
    pub workers: Workers,
    pub flaw: Option<Flaw>,
}

/// A promise that nobody keeps.
struct Hollow(WorkerId, Incarnation);

impl Reservation for Hollow {
    fn worker(&self) -> (&WorkerId, Incarnation) {
        (&self.0, self.1)
    }
}

impl Flawed {
    /// Opens the session on some other worker, too.
    async fn open_elsewhere(&self, open: OpenSession) {
        let holder = &open.lease.worker;
        let other = self.workers.snapshot().into_iter().find(|other| other.id != *holder && other.link_up);
        if let Some(other) = other {
            let lease = Lease { worker: other.id, incarnation: other.incarnation, epoch: open.lease.epoch };
            let _opened = self.workers.open(OpenSession { lease, ..open }).await;
        }
    }
}

impl Fleet for Flawed {
    fn reserve(
        &self,
        requirements: &Requirements,
        prefer: Option<(&WorkerId, SessionId)>,
    ) -> Result<Box<dyn Reservation>, Failure> {
        let reserved = self.workers.reserve(requirements, prefer)?;
        if self.flaw != Some(Flaw::ForgetsReservations) {
            return Ok(reserved);
        }
        let (worker, incarnation) = reserved.worker();
        Ok(Box::new(Hollow(worker.clone(), incarnation)))
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.workers.changes()
    }

    fn runtimes(&self, worker: &WorkerId) -> Vec<Runtime> {
        self.workers.runtimes(worker)
    }

    fn open(&self, open: OpenSession) -> BoxFuture<'_, Result<Opened, Failure>> {
        Box::pin(async move {
            if self.flaw == Some(Flaw::OpensTwice) {
                self.open_elsewhere(open.clone()).await;
            }
            self.workers.open(open).await
        })
    }

    fn close(
        &self,
        session: SessionId,
        lease: Lease,
        delete_workspace: bool,
    ) -> BoxFuture<'_, Result<Closed, Failure>> {
        self.workers.close(session, lease, delete_workspace)
    }

    fn go_ahead(&self, lease: &Lease, held: Option<ExecuteTask>) -> Option<Ahead> {
        self.workers.go_ahead(lease, held)
    }

    fn execute(
        &self,
        task: TaskDispatch,
        events: mpsc::Sender<EventBody>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, DispatchEnd> {
        Box::pin(async move {
            match self.workers.execute(task, events, cancel).await {
                DispatchEnd::Unknown(_) if self.flaw == Some(Flaw::CallsUnknownNotSent) => {
                    DispatchEnd::NotStarted(Failure::new(ErrorCode::WorkerUnavailable, "it was not sent"))
                }
                end => end,
            }
        })
    }

    fn attach(
        &self,
        task: TaskAttach,
        events: mpsc::Sender<EventBody>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, DispatchEnd> {
        self.workers.attach(task, events, cancel)
    }

    fn expect(&self, lives: Vec<(WorkerId, Incarnation)>) {
        self.workers.expect(lives);
    }
}

/// As the sessions take it.
pub fn fleet(workers: &Workers, flaw: Option<Flaw>) -> Arc<dyn Fleet> {
    Arc::new(Flawed { workers: workers.clone(), flaw })
}
