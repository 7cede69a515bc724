//! What stands before the lifecycle service: a call whose sender is not known is refused before its message is read, as
//! what is read takes many times the memory that it took to send it.

use std::sync::Arc;

use codegen_audit::{Entry, EventKind, Outcome};
use codegen_proto::metadata::{JOIN_TOKEN_KEY, WORKER_SESSION_KEY, secret_of};
use codegen_proto::status::from_failure;
use codegen_types::{ErrorCode, Failure, WorkerId};
use serde_json::json;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::handle::Inner;
use super::joining::JoinRefused;
use super::said::WorkerRefused;
use super::socket::Peer;
use super::standing::Standing;
use crate::refusals::Verdict;
use crate::room::{Place, Room};

/// Registrations that are read or answered at once on one listener; further ones are told to come again.
const JOINING_MAX: u32 = 64;
/// As many of them may be from one address.
const JOINING_PER_ADDRESS_MAX: u32 = 16;

/// Lets calls in by what goes beside their messages.
#[derive(Clone)]
pub(crate) struct Gate {
    inner: Arc<Inner>,
    joining: Room,
}

/// The place of a registration, until it is answered.
#[derive(Clone)]
pub(crate) struct Joining {
    _place: Arc<Place>,
}

impl Gate {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, joining: Room::new(JOINING_MAX, JOINING_PER_ADDRESS_MAX) }
    }

    fn may_join(&self, token: &str, peer: &Peer) -> Result<Joining, Status> {
        if let Err(refused) = self.inner.check_token(token, peer) {
            return Err(self.inner.refuse_joining(peer, &refused.into(), None));
        }
        let place = self.joining.enter(peer.address()).ok_or_else(|| busy("too many workers join at once"))?;
        Ok(Joining { _place: Arc::new(place) })
    }

    fn lives(&self, session: &str, peer: &Peer) -> Result<(), Status> {
        let known = self.inner.registry.read().hear(session, self.inner.now());
        known.map_err(|refused| {
            if refused == WorkerRefused::NotRegistered {
                // Always the same answer: a worker that outlived its coordinator joins again by it.
                self.inner.note_refusal(peer, &refused, None, refused.failure().code);
            }
            from_failure(refused.failure())
        })
    }
}

impl Interceptor for Gate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let standing = request.extensions().get::<Arc<Standing>>().cloned();
        let standing = standing.ok_or_else(|| Status::internal("a call came by no connection of ours"))?;
        match secret_of(request.metadata(), WORKER_SESSION_KEY) {
            Some(session) => {
                self.lives(session, &standing.peer)?;
                make_member(&standing)?;
            }
            None => {
                let token = secret_of(request.metadata(), JOIN_TOKEN_KEY).unwrap_or_default();
                let joining = self.may_join(token, &standing.peer)?;
                request.extensions_mut().insert(joining);
            }
        }
        Ok(request)
    }
}

/// Gives a connection one of the places of workers: who has one has joined, and not only a token.
pub(crate) fn make_member(standing: &Standing) -> Result<(), Status> {
    let has_place = standing.let_in();
    has_place.then_some(()).ok_or_else(|| busy("there are as many connections of workers as there may be"))
}

fn busy(why: &str) -> Status {
    from_failure(Failure::new(ErrorCode::RateLimited, format!("{why}; try again later")))
}

impl Inner {
    /// Says no to a registration; of too many, that they are.
    pub(crate) fn refuse_joining(&self, peer: &Peer, refused: &JoinRefused, worker: Option<&WorkerId>) -> Status {
        let failure = refused.failure();
        match self.note_refusal(peer, refused, worker, failure.code) {
            Verdict::Record { .. } => from_failure(failure),
            Verdict::Suppress => busy("too many refused registrations"),
        }
    }

    /// Records that a worker was refused, unless there are too many of them.
    fn note_refusal(
        &self,
        peer: &Peer,
        refused: &dyn std::error::Error,
        worker: Option<&WorkerId>,
        code: ErrorCode,
    ) -> Verdict {
        let verdict = self.refusals.lock().count(peer.address(), self.now());
        let Verdict::Record { suppressed } = verdict else { return verdict };
        let detail = json!({
            "why": refused.to_string(), "worker": worker, "from": peer.to_string(), "not_recorded_before": suppressed,
        });
        // Nobody acts on this record, so nobody waits for it; the log keeps it also while it cannot be written.
        drop(self.audit.queue(Entry {
            kind: EventKind::WorkerRefused,
            outcome: Some(Outcome::Refused),
            code: Some(code),
            detail: Some(detail),
            ..Entry::default()
        }));
        tracing::warn!(%refused, %peer, "a worker was refused");
        verdict
    }
}
