//! The service by which workers join, live and leave.
//!
//! Everything a worker sends is hostile until it converted; before its token or worker session was found to be right,
//! it learns nothing but that it may not.

use std::sync::Arc;

use codegen_audit::{Entry, EventKind, Outcome};
use codegen_proto::status::{accept, from_failure};
use codegen_proto::v1::worker_lifecycle_server::WorkerLifecycle;
use codegen_proto::{DeregisterWorker, Heartbeat, HeartbeatAnswer, RegisterWorker, Registered, v1};
use codegen_types::{ErrorCode, Failure};
use serde_json::json;
use tonic::{Request, Response, Status};

use super::clock::since_boot;
use super::handle::Inner;
use super::registry::{Issued, WorkerRefused};
use super::secrets::{self, TokenRefused};
use super::socket::Peer;
use crate::refusals::Verdict;

/// The metadata key that carries the worker session.
const SESSION_KEY: &str = "codegen-worker-session";

/// Serves [`WorkerLifecycle`].
pub(crate) struct Lifecycle {
    inner: Arc<Inner>,
}

impl Lifecycle {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    async fn register(&self, request: v1::RegisterWorkerRequest) -> Result<Registered, Status> {
        let request: RegisterWorker = accept(request)?;
        if request.advertise.is_some() {
            let why = "workers are reached over the link that they open; leave `advertise` empty";
            return Err(from_failure(Failure::new(ErrorCode::InvalidArgument, why)));
        }
        let (worker, incarnation) = (request.worker.clone(), request.incarnation);
        let redeemed = self.inner.redeem(request.token.expose(), &worker, incarnation);
        let credential = redeemed.map_err(|refused| self.refuse(refused, Some(worker.as_str())))?;
        let issued = Issued {
            session: secrets::mint(),
            credential,
            ticket: secrets::mint(),
            ticket_until: since_boot() + self.inner.options.ticket_lifetime,
        };
        let joined = self.inner.change(|registry, now| registry.register(request, &issued, now)).await;
        joined.map_err(refused_status)?;
        tracing::info!(%worker, %incarnation, "worker joined");
        Ok(Registered {
            worker_session: issued.session,
            link_ticket: Some(issued.ticket),
            heartbeat_interval: self.inner.options.heartbeat_interval,
        })
    }

    fn heartbeat(&self, session: &str, request: v1::HeartbeatRequest) -> Result<HeartbeatAnswer, Status> {
        let Heartbeat { worker, incarnation, held, .. } = accept(request)?;
        let now = since_boot();
        let mut registry = self.inner.registry.write();
        let needs_ticket = registry.heartbeat(&worker, incarnation, session, &held, now).map_err(refused_status)?;
        let ticket = needs_ticket.then(secrets::mint);
        if let Some(ticket) = &ticket {
            registry.issue_ticket(&worker, incarnation, ticket, now + self.inner.options.ticket_lifetime);
        }
        Ok(HeartbeatAnswer { link_ticket: ticket })
    }

    async fn leave(&self, session: &str, request: v1::DeregisterWorkerRequest) -> Result<(), Status> {
        let DeregisterWorker { worker, incarnation, reason } = accept(request)?;
        let left = self.inner.change(|registry, now| {
            let left = registry.leave(&worker, incarnation, session, now)?;
            Ok(left.into_iter().collect())
        });
        left.await.map_err(refused_status)?;
        tracing::info!(%worker, %incarnation, reason = reason.escape_debug().to_string(), "worker left");
        Ok(())
    }

    /// Records a refused registration, unless there are too many of them, and says no.
    fn refuse(&self, refused: TokenRefused, worker: Option<&str>) -> Status {
        let Verdict::Record { suppressed } = self.inner.refusals.lock().count(since_boot()) else {
            let why = "too many refused registrations; try again later";
            return from_failure(Failure::new(ErrorCode::RateLimited, why));
        };
        let detail = json!({ "why": refused.to_string(), "worker": worker, "not_recorded_before": suppressed });
        // Nobody acts on this record, so nobody waits for it; the log keeps it also while it cannot be written.
        drop(self.inner.audit.queue(Entry {
            kind: EventKind::WorkerRefused,
            outcome: Some(Outcome::Refused),
            code: Some(ErrorCode::Unauthenticated),
            detail: Some(detail),
            ..Entry::default()
        }));
        tracing::warn!(%refused, "a worker's registration was refused");
        unauthenticated("this worker may not join; it needs a valid token")
    }
}

#[tonic::async_trait]
impl WorkerLifecycle for Lifecycle {
    async fn register_worker(
        &self,
        request: Request<v1::RegisterWorkerRequest>,
    ) -> Result<Response<v1::RegisterWorkerResponse>, Status> {
        let peer = request.extensions().get::<Peer>().copied();
        let request = request.into_inner();
        if let Err(refused) = self.inner.check_token(&request.token) {
            tracing::warn!(peer = ?peer, "a registration without a valid token");
            // The name is a stranger's and bounded by nothing yet.
            let named = request.worker_id.parse::<codegen_types::WorkerId>().ok();
            return Err(self.refuse(refused, named.as_ref().map(codegen_types::WorkerId::as_str)));
        }
        Ok(Response::new(self.register(request).await?.into()))
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

fn worker_session<T>(request: &Request<T>) -> Result<String, Status> {
    let value = request.metadata().get(SESSION_KEY).and_then(|value| value.to_str().ok());
    value.map(str::to_owned).ok_or_else(|| unauthenticated("the call carries no worker session; register first"))
}

fn unauthenticated(why: &str) -> Status {
    from_failure(Failure::new(ErrorCode::Unauthenticated, why))
}

fn refused_status(refused: WorkerRefused) -> Status {
    let code = match refused {
        WorkerRefused::TooMany => ErrorCode::QuotaExceeded,
        WorkerRefused::NotRegistered | WorkerRefused::CredentialOver | WorkerRefused::Ticket => {
            ErrorCode::Unauthenticated
        }
    };
    from_failure(Failure::new(code, refused.to_string()))
}
