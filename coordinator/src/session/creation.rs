//! Making sessions, each once: a call that is repeated under its idempotency key gets the session that the first one made,
//! also from the next server. The key is in the record of the creation and in the session's row, before any worker is asked.

use std::sync::Arc;

use codegen_types::{ErrorCode, Failure, LogSeq, Principal, SessionId};
use coordinator_core::idempotency::ArgumentDigest;
use coordinator_core::placement::Requirements;
use coordinator_core::session::{Assignment, Input, SessionState, Shares, step};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{oneshot, watch};

use super::call::{CreateSession, Leave, SessionSnapshot};
use super::news::OwnerNews;
use super::owner::Owner;
use super::receipt::Receipt;
use super::repeat::{DIGEST_LOST, forgotten};
use super::service::{Sessions, stopping};
use super::waiting::Wants;
use super::{now_ms, update};
use crate::store::SessionRow;
use crate::supervisor::OnEnd;

/// An idempotency key under which a session is made, and what it was used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreationKey {
    /// The client's key.
    pub key: String,
    /// Of the call's arguments.
    pub digest: ArgumentDigest,
}

impl CreationKey {
    /// Whether a call with this digest is the same; any is, where the digest was lost.
    fn check(&self, other: &Self) -> Result<(), Failure> {
        if self.digest == other.digest || self.digest == DIGEST_LOST {
            return Ok(());
        }
        let message = "`idempotency_key`: this key was used with other arguments within the last 24 hours";
        Err(Failure::new(ErrorCode::InvalidArgument, message))
    }
}

/// Sessions that are being made under keys, by principal and key: as many as there are calls.
pub(super) type Creations = Arc<DashMap<(Principal, String), Making>>;

/// A session that is being made under a key.
pub(super) struct Making {
    key: CreationKey,
    /// Ends when it is made, or could not be.
    over: watch::Receiver<()>,
}

/// The right to make a session under a key; given up when dropped.
struct Claimed {
    creations: Creations,
    place: (Principal, String),
    /// Those that wait are told by its end.
    _over: watch::Sender<()>,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.creations.remove(&self.place);
    }
}

/// What a call under a key is.
enum Claim {
    /// One that is to make a session.
    First(Claimed),
    /// The same as one that made this.
    Made(Arc<SessionSnapshot>),
}

impl Sessions {
    /// Makes a session and opens it, or gives the one that was made under the same key.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `PERMISSION_DENIED` for a host that the operator does not permit, `SESSION_LIMIT`, `NO_CAPACITY`, `WORKER_UNAVAILABLE`, `ISOLATION_UNAVAILABLE`,
    /// `AUDIT_UNAVAILABLE`; `PRECONDITION_FAILED` when it was let in as a repetition, and there is nothing to repeat.
    pub async fn create(&self, principal: &Principal, create: CreateSession) -> Result<Arc<SessionSnapshot>, Failure> {
        let claimed = match &create.key {
            None => None,
            Some(key) => match self.claim_creation(principal, key).await? {
                Claim::Made(made) => return Ok(made),
                Claim::First(_) if create.leave == Leave::OfEarlier => return Err(forgotten()),
                Claim::First(claimed) => Some(claimed),
            },
        };
        let shared = &self.shared;
        self.check_creation(principal, &create).await?;
        let options = &shared.options;
        let ttl_ms = update::ttl_ms(Some(create.ttl.unwrap_or(options.ttl_default)))?.unwrap_or_default();
        let admission = shared.table.admit(principal, options.sessions_max, options.quotas.sessions as usize)?;
        let requirements = Requirements { labels: create.labels.clone(), ..options.requirements(&create.network) };
        let slot = shared.reserve(principal, Wants { requirements, prefer: None }, create.wait).await?;
        let (worker, incarnation) = slot.worker();
        let at = Assignment { worker: worker.clone(), incarnation };
        let now = now_ms();
        let first = step(None, &Input::Create { at, ttl_ms }, now, &options.rules());
        let first = first.map_err(|refusal| Failure::new(ErrorCode::Internal, refusal.to_string()))?;
        let row = new_row(principal, create, ttl_ms, now, first.next.state.clone());
        // In a task of its own: a client that vanishes must not leave a session half made.
        let (reply, made) = oneshot::channel();
        let this = self.clone();
        let making = Owner::create(Arc::clone(shared), row, first);
        shared.supervisor.spawn("session creation", OnEnd::Ignore, async move {
            let made = making.await.map(|owner| {
                let snapshot = owner.snapshot();
                this.adopt(owner, OwnerNews::default());
                this.tell_if_over(&snapshot);
                snapshot
            });
            drop((slot, admission, claimed));
            // A caller that is gone finds the session in its list, or by its key.
            let _ = reply.send(made);
        });
        made.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Whether a principal used an idempotency key for a session that is being made or was.
    pub fn knows_creation(&self, principal: &Principal, key: &str) -> bool {
        self.shared.creations.contains_key(&(principal.clone(), key.to_owned()))
            || self.made_under(principal, key).is_some()
    }

    fn made_under(&self, principal: &Principal, key: &str) -> Option<Arc<SessionSnapshot>> {
        let kept_ms = i64::try_from(self.shared.options.outcome_retention.as_millis()).unwrap_or(i64::MAX);
        self.shared.table.made_under(principal, key, self.shared.believed_ms().saturating_sub(kept_ms))
    }

    /// Claims a key, once nobody else is making a session under it.
    async fn claim_creation(&self, principal: &Principal, key: &CreationKey) -> Result<Claim, Failure> {
        let place = (principal.clone(), key.key.clone());
        loop {
            let mut over = match self.shared.creations.entry(place.clone()) {
                Entry::Occupied(making) => {
                    making.get().key.check(key)?;
                    making.get().over.clone()
                }
                Entry::Vacant(vacant) => {
                    let (sender, over) = watch::channel(());
                    vacant.insert(Making { key: key.clone(), over });
                    let creations = Arc::clone(&self.shared.creations);
                    let claimed = Claimed { creations, place, _over: sender };
                    // Looked for with the key claimed: a session is in the table before its claim is given up.
                    let Some(made) = self.made_under(principal, &key.key) else { return Ok(Claim::First(claimed)) };
                    if let Some(made_under) = &made.key {
                        made_under.check(key)?;
                    }
                    return Ok(Claim::Made(made));
                }
            };
            // An error says that the claim was given up, which is what is waited for.
            while over.changed().await.is_ok() {}
        }
    }

    /// Whether a session may be made so.
    async fn check_creation(&self, principal: &Principal, create: &CreateSession) -> Result<(), Failure> {
        let options = &self.shared.options;
        update::check(create.name.as_deref(), &create.metadata)?;
        options
            .egress
            .check(&create.network)
            .map_err(|refused| Failure::new(ErrorCode::PermissionDenied, format!("{refused}; nothing was made")))?;
        let missing = options.secrets.of(principal, &create.network).await?.missing;
        if missing.is_empty() {
            return Ok(());
        }
        let message = format!(
            "no such secret is for you and a host on the session's list: {}; nothing was made",
            missing.join(", ")
        );
        Err(Failure::new(ErrorCode::PermissionDenied, message))
    }
}

fn new_row(principal: &Principal, create: CreateSession, ttl_ms: u64, now: i64, state: SessionState) -> SessionRow {
    SessionRow {
        id: SessionId::mint(),
        principal: principal.clone(),
        shares: Shares::default(),
        name: create.name,
        metadata: create.metadata,
        network: create.network,
        key: create.key,
        ttl_ms,
        created_ms: now,
        last_used_ms: now,
        isolation: None,
        tasks: 0,
        workspace_bytes: None,
        receipt: Receipt::default(),
        state,
        revision: 0,
        audit_seq: LogSeq::default(),
    }
}
