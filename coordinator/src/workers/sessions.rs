//! [`Fleet`] on the real workers: reserving slots, opening and closing sessions.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use codegen_proto::v1::worker_client::WorkerClient;
use codegen_proto::{CloseSession, ExecuteTask, OpenSession, SessionClosed, SessionOpened, status, v1};
use codegen_types::{ErrorCode, EventBody, Failure, Incarnation, IsolationLevel, Lease, Runtime, SessionId, WorkerId};
use coordinator_core::placement::{Missing, Requirements, Trust, Unfit, Unplaced};
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::fleet::{Closed, DispatchEnd, Fleet, Opened, Reservation, TaskAttach, TaskDispatch};
use super::handle::{Inner, LinkWait, Workers};
use super::options::Growth;
use super::slots::SlotBook;
use crate::dispatch::{self, Ahead};

/// Tries on one link that holds while calls on it fail.
const TRIES_MAX: u32 = 3;
/// The rest between two such tries.
const TRY_REST: Duration = Duration::from_millis(50);
/// When to ask again for a worker that is just not there.
const AGAIN_SHORTLY: Duration = Duration::from_secs(1);
/// When to ask again for room.
const AGAIN_SOON: Duration = Duration::from_secs(5);
/// When to ask again for what only an operator can add.
const AGAIN_LATER: Duration = Duration::from_secs(60);

impl Fleet for Workers {
    fn reserve(
        &self,
        requirements: &Requirements,
        prefer: Option<(&WorkerId, SessionId)>,
    ) -> Result<Box<dyn Reservation>, Failure> {
        let reserved = self.inner.registry.write().reserve(requirements, prefer);
        let (worker, incarnation) = reserved.map_err(|unplaced| self.inner.no_place(&unplaced, prefer.is_some()))?;
        let again = prefer.map(|(_, session)| session);
        Ok(Box::new(Slot { inner: Arc::clone(&self.inner), worker, incarnation, again }))
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.inner.changes()
    }

    fn runtimes(&self, worker: &WorkerId) -> Vec<Runtime> {
        self.inner.registry.read().runtimes(worker)
    }

    fn open(&self, open: OpenSession) -> BoxFuture<'_, Result<Opened, Failure>> {
        Box::pin(self.inner.open(open))
    }

    fn close(
        &self,
        session: SessionId,
        lease: Lease,
        delete_workspace: bool,
    ) -> BoxFuture<'_, Result<Closed, Failure>> {
        Box::pin(self.inner.close(CloseSession { session, lease, delete_workspace }))
    }

    fn go_ahead(&self, lease: &Lease, held: Option<ExecuteTask>) -> Option<Ahead> {
        Ahead::to(&self.inner, lease, held)
    }

    fn execute(
        &self,
        task: TaskDispatch,
        events: mpsc::Sender<EventBody>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, DispatchEnd> {
        Box::pin(dispatch::execute(Arc::clone(&self.inner), task, events, cancel))
    }

    fn attach(
        &self,
        task: TaskAttach,
        events: mpsc::Sender<EventBody>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, DispatchEnd> {
        Box::pin(dispatch::attach(Arc::clone(&self.inner), task, events, cancel))
    }

    fn expect(&self, lives: Vec<(WorkerId, Incarnation)>) {
        let until = self.inner.now() + self.inner.options.timing.reconnect_grace;
        let awaited = &mut self.inner.registry.write().awaited;
        lives.into_iter().for_each(|(worker, incarnation)| awaited.expect(worker, incarnation, until));
    }
}

/// A promised slot.
struct Slot {
    inner: Arc<Inner>,
    worker: WorkerId,
    incarnation: Incarnation,
    /// The session that may have had it before.
    again: Option<SessionId>,
}

impl Reservation for Slot {
    fn worker(&self) -> (&WorkerId, Incarnation) {
        (&self.worker, self.incarnation)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let release = |slots: &mut SlotBook| slots.release(self.again);
        self.inner.registry.write().slots(&self.worker, self.incarnation, release);
        self.inner.tell_changed();
    }
}

/// Why a call that may be repeated gave nothing.
enum CallFailed {
    /// The worker refused, or was never asked.
    Refused(Failure),
    /// It was asked, and what it did is not known.
    Unsure(Failure),
}

impl From<CallFailed> for Failure {
    fn from(failed: CallFailed) -> Self {
        match failed {
            CallFailed::Refused(failure) | CallFailed::Unsure(failure) => failure,
        }
    }
}

impl Inner {
    async fn open(&self, request: OpenSession) -> Result<Opened, Failure> {
        let (session, lease, minimum) = (request.session, request.lease.clone(), request.isolation_minimum);
        let held = HeldSlot::opening(self, session, &lease);
        let wire = v1::OpenSessionRequest::from(request);
        let answer = self.call(&lease, |mut client| {
            let (wire, trusted) = (wire.clone(), self.check_trust(&lease.worker, &wire));
            async move {
                trusted.map_err(status::from_failure)?;
                client.open_session(wire).await
            }
        });
        let opened: SessionOpened = match answer.await {
            Ok(answer) => answer.try_into().map_err(|invalid| misunderstood(&lease, &invalid))?,
            Err(CallFailed::Refused(failure)) => {
                held.settle(SlotBook::closed);
                return Err(failure);
            }
            Err(CallFailed::Unsure(failure)) => return Err(failure),
        };
        held.settle(SlotBook::opened);
        let level = opened.isolation.level;
        if level < minimum {
            let close = CloseSession { session, lease, delete_workspace: opened.workspace_created };
            if let Err(failure) = self.close(close).await {
                tracing::warn!(%session, %failure, "a session that is isolated too weakly could not be closed");
            }
            let why =
                format!("its worker isolates the session at level {level}, {minimum} is required; nothing was run");
            return Err(Failure::new(ErrorCode::IsolationUnavailable, why));
        }
        Ok(Opened { isolation: opened.isolation, workspace_created: opened.workspace_created })
    }

    /// The one place through which secrets leave: whatever was decided before, a worker that is not to have them gets none.
    fn check_trust(&self, worker: &WorkerId, request: &v1::OpenSessionRequest) -> Result<(), Failure> {
        let has_secrets = request.egress.as_ref().is_some_and(|egress| !egress.secrets.is_empty());
        if has_secrets && self.registry.read().trust(worker) < Trust::Secrets {
            let why = "the session's worker is not told secrets (SECRETS_WORKERS); nothing was run";
            return Err(Failure::new(ErrorCode::PermissionDenied, why));
        }
        Ok(())
    }

    async fn close(&self, request: CloseSession) -> Result<Closed, Failure> {
        let (session, lease) = (request.session, request.lease.clone());
        let held = HeldSlot::closing(self, session, &lease);
        let wire = v1::CloseSessionRequest::from(request);
        let answer = self.call(&lease, |mut client| {
            let wire = wire.clone();
            async move { client.close_session(wire).await }
        });
        let closed = answer.await?;
        held.settle(SlotBook::closed);
        let workspace_bytes = closed.workspace_bytes;
        let contacts = match SessionClosed::try_from(closed) {
            Ok(closed) => closed.contacts,
            // It is closed all the same.
            Err(invalid) => {
                tracing::error!(worker = %lease.worker, %invalid, "what a worker says of contacts is malformed");
                Vec::new()
            }
        };
        Ok(Closed { workspace_bytes, contacts })
    }

    /// Makes a call that may be repeated, over reconnects, until it is answered or its deadline has passed.
    async fn call<T, F>(&self, lease: &Lease, call: impl Fn(WorkerClient<Channel>) -> F) -> Result<T, CallFailed>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.options.session_deadline;
        let mut failed_with: Option<Failure> = None;
        let mut tries = 0;
        loop {
            let wait = deadline.min(Instant::now() + self.options.link_wait);
            let link = match (self.link(&lease.worker, lease.incarnation, wait).await, &failed_with) {
                (Ok(link), _) => link,
                (Err(wait), None) => return Err(CallFailed::Refused(self.no_link(&lease.worker, wait))),
                (Err(wait), Some(_)) => return Err(CallFailed::Unsure(self.no_link(&lease.worker, wait))),
            };
            let answer = tokio::time::timeout_at(deadline, call(link.client())).await;
            let status = match answer {
                // An answer that comes through a link that was cut is one of the past.
                Ok(Ok(answer)) if !link.is_fenced() => return Ok(answer.into_inner()),
                Ok(Ok(_)) => Status::unavailable("the link was cut"),
                Ok(Err(status)) if status::stated_code(&status).is_some() => {
                    return Err(CallFailed::Refused(status::to_failure(&status)));
                }
                Ok(Err(status)) => status,
                Err(_) => return Err(CallFailed::Unsure(slow(&lease.worker))),
            };
            tracing::debug!(worker = %lease.worker, %status, "a call broke");
            let failure = status::to_failure(&status);
            if !link.is_over() {
                tries += 1;
                if tries == TRIES_MAX || failure.code != ErrorCode::WorkerUnavailable {
                    return Err(CallFailed::Unsure(failure));
                }
                tokio::time::sleep(TRY_REST).await;
            }
            failed_with = Some(failure);
        }
    }

    pub(crate) fn no_link(&self, worker: &WorkerId, wait: LinkWait) -> Failure {
        let why = match wait {
            LinkWait::Over => format!("the worker `{worker}` that held the session is gone; try again"),
            LinkWait::TimedOut => format!("the worker `{worker}` cannot be reached just now; try again"),
        };
        Failure::new(ErrorCode::WorkerUnavailable, self.explain(why))
    }

    fn no_place(&self, unplaced: &Unplaced, is_again: bool) -> Failure {
        let why = match (is_again, unplaced.reasons.first()) {
            (true, None) => "the worker that has the session's files has not joined".to_owned(),
            (true, Some((_, Unfit::Admittance(_)))) => {
                "the worker that has the session's files is being drained; they are kept there".to_owned()
            }
            (true, Some(_)) => format!("the session's files are on one worker, and it has no place: {unplaced}"),
            (false, _) => unplaced.to_string(),
        };
        let (code, next, again) = match unplaced.missing() {
            Missing::Isolation | Missing::Admittance | Missing::Capability if !is_again && self.may_come_back() => {
                let next = "a worker that was there before the server began again may come back; try again shortly";
                (ErrorCode::WorkerUnavailable, next, AGAIN_SHORTLY)
            }
            Missing::Isolation => return self.too_weak(unplaced),
            Missing::Workers => (ErrorCode::WorkerUnavailable, "try again shortly", AGAIN_SHORTLY),
            Missing::Admittance | Missing::Capability if is_again => {
                (ErrorCode::WorkerUnavailable, "the operator has to say when it is back", AGAIN_LATER)
            }
            Missing::Capability if self.options.growth == Growth::ByHand => {
                let why = format!("{}; the operator has to add a worker that fits", self.explain(why));
                return Failure::new(ErrorCode::NoWorkerFits, why);
            }
            Missing::Admittance | Missing::Capability => {
                (ErrorCode::NoCapacity, "a worker that fits has to come, or to take sessions again", AGAIN_LATER)
            }
            Missing::Room => {
                let next = "close a session that is no longer needed, or try again later";
                (ErrorCode::NoCapacity, next, AGAIN_SOON)
            }
        };
        Failure::new(code, format!("{}; {next}", self.explain(why))).retry_after(again)
    }

    /// Whether workers may come without anybody's doing that an earlier server had.
    fn may_come_back(&self) -> bool {
        self.registry.read().awaited.may_come(self.now())
    }

    /// The refusal where isolation is what stands in the way: what each worker lacks, and the remedy.
    fn too_weak(&self, unplaced: &Unplaced) -> Failure {
        let workers = self.registry.read().snapshot(self.now());
        let lacking = workers.iter().filter(|worker| unplaced.reasons.iter().any(|(id, _)| *id == worker.id));
        let best = lacking.clone().map(|worker| worker.isolation.level).max();
        let missing: BTreeSet<String> =
            lacking.map(|worker| worker.isolation.missing()).filter(|missing| !missing.is_empty()).collect();
        let missing: Vec<String> = missing.into_iter().collect();
        let best = best.filter(|level| *level > IsolationLevel::None);
        let instead = best.map(|level| format!("; or the operator permits less with ISOLATION_MINIMUM={level}"));
        let why = format!("{unplaced}; {}{}; nothing was run", missing.join("; "), instead.unwrap_or_default());
        Failure::new(ErrorCode::IsolationUnavailable, why)
    }
}

/// A session's slot while the worker is asked about it. Whatever is not settled in the end stays unsure, also when the
/// caller gives up waiting.
struct HeldSlot<'a> {
    inner: &'a Inner,
    session: SessionId,
    lease: Lease,
    settled: bool,
}

impl<'a> HeldSlot<'a> {
    fn opening(inner: &'a Inner, session: SessionId, lease: &Lease) -> Self {
        let held = Self::closing(inner, session, lease);
        held.change(SlotBook::opening);
        held
    }

    fn closing(inner: &'a Inner, session: SessionId, lease: &Lease) -> Self {
        Self { inner, session, lease: lease.clone(), settled: false }
    }

    fn settle(mut self, change: fn(&mut SlotBook, SessionId)) {
        self.change(change);
        self.settled = true;
    }

    fn change(&self, change: fn(&mut SlotBook, SessionId)) {
        let mut registry = self.inner.registry.write();
        registry.slots(&self.lease.worker, self.lease.incarnation, |slots| change(slots, self.session));
        drop(registry);
        self.inner.tell_changed();
    }
}

impl Drop for HeldSlot<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.change(SlotBook::unsure);
        }
    }
}

fn slow(worker: &WorkerId) -> Failure {
    Failure::new(ErrorCode::WorkerUnavailable, format!("the worker `{worker}` did not answer in time; try again"))
}

fn misunderstood(lease: &Lease, invalid: &codegen_proto::InvalidMessage) -> Failure {
    tracing::error!(worker = %lease.worker, %invalid, "a worker's answer is malformed");
    Failure::new(ErrorCode::Internal, "the worker's answer is malformed; see the operator's log")
}
