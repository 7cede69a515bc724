//! The service by which workers join, live and leave.
//!
//! Everything a worker sends is hostile until it converted. What comes here has passed the [gate](super::gate), so that
//! somebody sent it who may join or has joined; who that is, is seen here.

use std::sync::Arc;
use std::time::Duration;

use codegen_proto::metadata::{JOIN_TOKEN_KEY, WORKER_SESSION_KEY, secret_of};
use codegen_proto::status::{accept, from_failure};
use codegen_proto::v1::worker_lifecycle_server::WorkerLifecycle;
use codegen_proto::{DeregisterWorker, Heartbeat, HeartbeatAnswer, RegisterWorker, Registered, v1};
use codegen_types::{ErrorCode, Failure, Incarnation, WorkerId};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::dialling::{self, AdvertiseRefused, Dialler, Errand, Target};
use super::gate::{Joining, make_member};
use super::handle::Inner;
use super::joining::{JoinRefused, check_release};
use super::link::LinkState;
use super::said::{Heard, Issued, WorkerRefused};
use super::secrets;
use super::socket::Peer;
use super::standing::Standing;

/// How long the last answers of a worker that leaves are waited for.
const LAST_ANSWERS_LIMIT: Duration = Duration::from_secs(2);

/// Serves [`WorkerLifecycle`].
pub(crate) struct Lifecycle {
    inner: Arc<Inner>,
}

impl Lifecycle {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    async fn register(
        &self,
        peer: &Peer,
        token: &str,
        request: v1::RegisterWorkerRequest,
    ) -> Result<Registered, Status> {
        let request: RegisterWorker = accept(request)?;
        let (worker, incarnation) = (request.worker.clone(), request.incarnation);
        let admitted = self.admit(peer, token, request).await;
        let Admitted { issued, target } =
            admitted.map_err(|refused| self.inner.refuse_joining(peer, &refused, Some(&worker)))?;
        tracing::info!(%worker, %incarnation, %peer, "worker joined");
        if let Some(target) = target {
            let void = self.inner.registry.read().ticket_void(&worker, incarnation);
            let (ticket, void) = (issued.ticket.clone(), void.unwrap_or_else(voided));
            dialling::start(&self.inner, Errand { worker, incarnation, target, ticket, void });
        }
        Ok(Registered {
            worker_session: issued.session,
            link_ticket: Some(issued.ticket),
            heartbeat_interval: self.inner.options.heartbeat_interval,
        })
    }

    /// Everything that a registration must pass, its token first.
    async fn admit(&self, peer: &Peer, token: &str, request: RegisterWorker) -> Result<Admitted, JoinRefused> {
        let (worker, incarnation) = (&request.worker, request.incarnation);
        let credential = self.inner.redeem(token, peer, worker, incarnation)?;
        check_release(&request.version)?;
        let target = match &request.advertise {
            Some(advertised) => Some(self.dialler()?.resolve(worker, advertised).await?),
            None => None,
        };
        let issued = Issued {
            session: secrets::mint(),
            credential,
            target: target.clone(),
            ticket: secrets::mint(),
            ticket_until: self.inner.now() + self.inner.options.ticket_lifetime,
        };
        self.inner.change(|registry, now| registry.register(request, &issued, now)).await?;
        Ok(Admitted { issued, target })
    }

    fn dialler(&self) -> Result<&Dialler, AdvertiseRefused> {
        self.inner.dialler.get().ok_or(AdvertiseRefused::Off)
    }

    fn heartbeat(&self, session: &str, request: v1::HeartbeatRequest) -> Result<HeartbeatAnswer, Status> {
        let beat: Heartbeat = accept(request)?;
        let now = self.inner.now();
        let mut registry = self.inner.registry.write();
        let before = registry.room(&beat.worker);
        let heard = registry.heartbeat(&beat, session, now).map_err(refused_status)?;
        let is_news = registry.room(&beat.worker) != before;
        let ticket = match &heard {
            Heard::Linked => None,
            Heard::LinkDown { .. } => Some(secrets::mint()),
        };
        if let Some(ticket) = &ticket {
            let until = now + self.inner.options.ticket_lifetime;
            registry.issue_ticket(&beat.worker, beat.incarnation, ticket, until);
        }
        let void = registry.ticket_void(&beat.worker, beat.incarnation);
        drop(registry);
        if let (Some(ticket), Heard::LinkDown { target: Some(target) }) = (&ticket, heard) {
            let Heartbeat { worker, incarnation, .. } = beat;
            let (ticket, void) = (ticket.clone(), void.unwrap_or_else(voided));
            dialling::start(&self.inner, Errand { worker, incarnation, target, ticket, void });
        }
        // Everybody who waits for room looks at all workers then.
        if is_news {
            self.inner.tell_changed();
        }
        Ok(HeartbeatAnswer { link_ticket: ticket })
    }

    async fn leave(&self, session: &str, request: v1::DeregisterWorkerRequest) -> Result<(), Status> {
        let DeregisterWorker { worker, incarnation, reason } = accept(request)?;
        self.link_closed(&worker, incarnation).await;
        let left = self.inner.change(|registry, now| {
            let left = registry.leave(&worker, incarnation, session, now)?;
            Ok(left.into_iter().collect())
        });
        left.await.map_err(refused_status)?;
        tracing::info!(%worker, %incarnation, reason = reason.escape_debug().to_string(), "worker left");
        Ok(())
    }

    /// Waits until a worker that leaves has closed its link, for a while: its last answers may not have been read yet, and
    /// when its life is over nothing that still comes is believed. Whoever is not that worker waits as well.
    async fn link_closed(&self, worker: &WorkerId, incarnation: Incarnation) {
        let Some(mut states) = self.inner.registry.read().link(worker, incarnation) else { return };
        let closed = states.wait_for(|state| !matches!(state, LinkState::Up(_)));
        if tokio::time::timeout(LAST_ANSWERS_LIMIT, closed).await.is_err() {
            tracing::info!(%worker, %incarnation, "a worker leaves without closing its link");
        }
    }
}

/// A registration that passed.
struct Admitted {
    issued: Issued,
    /// Where the worker is to be dialled, if it asked for that.
    target: Option<Target>,
}

#[tonic::async_trait]
impl WorkerLifecycle for Lifecycle {
    async fn register_worker(
        &self,
        request: Request<v1::RegisterWorkerRequest>,
    ) -> Result<Response<v1::RegisterWorkerResponse>, Status> {
        let standing = request.extensions().get::<Arc<Standing>>().cloned();
        let standing = standing.ok_or_else(|| Status::internal("a call came by no connection of ours"))?;
        let token = secret_of(request.metadata(), JOIN_TOKEN_KEY).unwrap_or_default().to_owned();
        let place = request.extensions().get::<Joining>().cloned();
        let registered = self.register(&standing.peer, &token, request.into_inner()).await?;
        drop(place);
        make_member(&standing)?;
        Ok(Response::new(registered.into()))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let session = worker_session(&request)?;
        Ok(Response::new(Self::heartbeat(self, &session, request.into_inner())?.into()))
    }

    async fn deregister_worker(
        &self,
        request: Request<v1::DeregisterWorkerRequest>,
    ) -> Result<Response<v1::DeregisterWorkerResponse>, Status> {
        let session = worker_session(&request)?;
        self.leave(&session, request.into_inner()).await?;
        Ok(Response::new(v1::DeregisterWorkerResponse {}))
    }
}

/// What a ticket has that another one has replaced already.
fn voided() -> CancellationToken {
    let void = CancellationToken::new();
    void.cancel();
    void
}

fn worker_session<T>(request: &Request<T>) -> Result<String, Status> {
    let session = secret_of(request.metadata(), WORKER_SESSION_KEY);
    session.map(str::to_owned).ok_or_else(|| unauthenticated("the call carries no worker session; register first"))
}

fn unauthenticated(why: &str) -> Status {
    from_failure(Failure::new(ErrorCode::Unauthenticated, why))
}

fn refused_status(refused: WorkerRefused) -> Status {
    from_failure(refused.failure())
}
