//! What the registry says: of a change, of a heartbeat, to a worker that it refuses.

use std::time::Duration;

use codegen_proto::Secret;
use codegen_types::{ErrorCode, Failure, HeldSession, Incarnation, WorkerId};
use coordinator_core::worker::GoneWhy;

use super::dialling::Target;
use super::fleet::WorkerEvent;
use super::joining::Credential;

/// What is new after a change.
#[derive(Debug)]
pub(crate) enum Change {
    /// A life of a worker joined, or joined again.
    Joined { worker: WorkerId, incarnation: Incarnation, held: Vec<HeldSession>, held_is_partial: bool },
    /// A life of a worker is over.
    Gone { worker: WorkerId, incarnation: Incarnation, why: GoneWhy },
}

impl From<Change> for WorkerEvent {
    fn from(change: Change) -> Self {
        match change {
            Change::Joined { worker, incarnation, held, held_is_partial } => {
                Self::Joined { worker, incarnation, held, held_is_partial }
            }
            Change::Gone { worker, incarnation, why: _ } => Self::Gone { worker, incarnation },
        }
    }
}

/// Why a message of a worker is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WorkerRefused {
    #[error("there are as many workers as there may be")]
    TooMany,
    #[error(
        "a worker of this name has joined and is there, or may come back; give each worker a name, and a token, of its own"
    )]
    NameTaken,
    #[error(
        "two workers have this name and the same token: each took over from the other; give each worker a name, and a token, of its own"
    )]
    Doubled,
    #[error("this worker calls too often; try again later")]
    TooOften,
    #[error("no such life of a worker is known, or its worker session is another one; register first")]
    NotRegistered,
    #[error("what the worker joined with has expired or was revoked; join with another token")]
    CredentialOver,
    #[error("the ticket is not valid")]
    Ticket,
}

impl WorkerRefused {
    /// What the worker is told.
    pub(crate) fn failure(self) -> Failure {
        let code = match self {
            Self::TooMany => ErrorCode::QuotaExceeded,
            Self::NameTaken => ErrorCode::AlreadyExists,
            Self::Doubled | Self::TooOften => ErrorCode::RateLimited,
            Self::NotRegistered | Self::CredentialOver | Self::Ticket => ErrorCode::Unauthenticated,
        };
        Failure::new(code, self.to_string())
    }
}

/// What a heartbeat told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The worker's link is up.
    Linked,
    /// It is down, so that the worker needs a ticket.
    LinkDown {
        /// Where it is dialled, if it asked for that.
        target: Option<Target>,
    },
}

/// The secrets of a registration; the registry keeps their fingerprints only.
pub(crate) struct Issued {
    pub session: Secret,
    /// What the worker was let in by.
    pub credential: Credential,
    /// Where it is dialled, if it asked for that.
    pub target: Option<Target>,
    pub ticket: Secret,
    /// When the ticket ends.
    pub ticket_until: Duration,
}
