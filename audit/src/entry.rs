//! What a caller hands to the log: one event and what is known about it.

use std::fmt;
use std::str::FromStr;

use codegen_types::{ErrorCode, IsolationLevel, Lease, LogSeq, Principal, SessionId, TaskId};
use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$type_doc:meta])* $type:ident, $invalid:ident, $what:literal { $($(#[$doc:meta])* $name:ident = $text:literal,)* }) => {
        $(#[$type_doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $type {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl $type {
            /// Every word of this vocabulary.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word as records carry it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        #[doc = concat!("A text that is no ", $what, ".")]
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[error("not a known {}", $what)]
        pub struct $invalid;

        impl FromStr for $type {
            type Err = $invalid;

            fn from_str(text: &str) -> Result<Self, $invalid> {
                Self::ALL.iter().copied().find(|word| word.as_str() == text).ok_or($invalid)
            }
        }
    };
}

words! {
    /// What happened. The closed vocabulary of the field `type`.
    EventKind, InvalidEventKind, "record type" {
        /// A writer took the log up.
        LogOpened = "log.opened",
        /// The log had been damaged or could not be written for a while; `detail` says what was found and done.
        LogRecovered = "log.recovered",
        /// The writer let go of the log in good order.
        LogClosed = "log.closed",
        /// The record that `cites` names became durable after its caller had been told that it did not; nothing was done.
        LogWithdrawn = "log.withdrawn",
        /// The clock was set since the record before; `detail` says by how much.
        LogClockSet = "log.clock_set",
        /// The server is up.
        ServerStarted = "server.started",
        /// The server goes down in good order.
        ServerStopped = "server.stopped",
        /// A worker registered.
        WorkerJoined = "worker.joined",
        /// A worker left or was given up.
        WorkerGone = "worker.gone",
        /// A worker's registration was refused.
        WorkerRefused = "worker.refused",
        /// A session was created.
        SessionCreated = "session.created",
        /// A session is being opened again, under a new lease.
        SessionOpening = "session.opening",
        /// A session is ready on a worker.
        SessionOpened = "session.opened",
        /// A session has no processes any more and keeps its files.
        SessionSuspended = "session.suspended",
        /// A session's worker is gone.
        SessionLost = "session.lost",
        /// A session's name, metadata or lifetime changed.
        SessionUpdated = "session.updated",
        /// A session was shared with a principal, or its role there changed.
        SessionShared = "session.shared",
        /// A session is shared with a principal no longer.
        SessionUnshared = "session.unshared",
        /// What a session reaches is other than it was told, or it is told whom it reached after its last program; `detail`
        /// says which.
        SessionNetwork = "session.network",
        /// A session is being closed.
        SessionClosing = "session.closing",
        /// A session is closed for good.
        SessionClosed = "session.closed",
        /// A session's workspace was deleted because its retention ended.
        SessionExpired = "session.expired",
        /// A task is about to be dispatched.
        TaskAttempt = "task.attempt",
        /// A task ended; `cites` names its attempt.
        TaskOutcome = "task.outcome",
        /// How the task of the attempt that `cites` names ended cannot be known.
        TaskUnknown = "task.unknown",
        /// A result came after `task.unknown`; `cites` names the attempt.
        TaskResolved = "task.resolved",
        /// The coordinator answered a call by itself.
        CallServed = "call.served",
        /// A call was refused before it became a task.
        CallRefused = "call.refused",
        /// A message of a lower lease epoch was rejected.
        LeaseStale = "lease.stale",
        /// A static token is about to be made; `detail` says for whom and what for.
        TokenCreated = "token.created",
        /// A static token is about to be revoked.
        TokenRevoked = "token.revoked",
        /// A dead static token is about to leave the list, to make room; `detail` says which.
        TokenForgotten = "token.forgotten",
        /// A secret for requests of sessions is about to be kept; `detail` says for which host and whom.
        SecretSet = "secret.set",
        /// Such a secret is about to be forgotten.
        SecretRemoved = "secret.removed",
        /// The rules of the policy were read, at the start or again; `detail` names the file and its SHA-256.
        PolicyLoaded = "policy.loaded",
        /// A call waits for somebody's approval; `detail` says by which rule.
        ApprovalRequested = "approval.requested",
        /// The request that `cites` names was decided or is over; `detail` says how, by whom and why.
        ApprovalDecided = "approval.decided",
        /// An operator is about to do something to a worker, a session or a task; `tool` says what, `detail` to which and by
        /// which way.
        OperatorActed = "operator.acted",
        /// A request was not let in for its credentials, or for having none; `detail` says why.
        AuthenticationRefused = "authentication.refused",
    }
}

words! {
    /// How a call or task ended.
    Outcome, InvalidOutcome, "outcome" {
        /// It did what was asked for.
        Ok = "ok",
        /// It was carried out and failed.
        Failed = "failed",
        /// It was not carried out.
        Refused = "refused",
        /// It cannot be known.
        Unknown = "unknown",
    }
}

#[expect(clippy::derivable_impls, reason = "the enum is written by a macro that knows no default")]
impl Default for EventKind {
    fn default() -> Self {
        Self::LogOpened
    }
}

/// One event for the log. Everything but the kind may be left out; the log adds its place, time and chain.
///
/// `args` and `detail` may be of any size and may hold secrets: what is long, and what stands under a key that looks
/// like a secret's, is written as length and digest only.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Entry {
    /// What happened.
    pub kind: EventKind,
    /// Who asked.
    pub principal: Option<Principal>,
    /// In which session.
    pub session: Option<SessionId>,
    /// Which task.
    pub task: Option<TaskId>,
    /// Who held the session.
    pub lease: Option<Lease>,
    /// How well the session was isolated.
    pub level: Option<IsolationLevel>,
    /// The tool's listed name.
    pub tool: Option<String>,
    /// The name by which the client called it, when it is another one.
    pub called_as: Option<String>,
    /// The call's arguments.
    pub args: Option<serde_json::Value>,
    /// The path it was about.
    pub path: Option<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why it ended so.
    pub code: Option<ErrorCode>,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<u64>,
    /// How many bytes it read or wrote.
    pub bytes: Option<u64>,
    /// The client's trace id.
    pub trace: Option<String>,
    /// The earlier record that this one is about.
    pub cites: Option<LogSeq>,
    /// What else there is to say.
    pub detail: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back_as_it_is_written() {
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        for outcome in Outcome::ALL {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
    }
}
