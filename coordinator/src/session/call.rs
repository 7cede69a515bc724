//! What the session layer is asked, and what it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use codegen_types::{
    ApprovalId, Display, Failure, IsolationReport, Lease, LogSeq, Operation, OperationResult, Principal, SessionId,
    SessionNetwork, TaskId, TraceContext,
};
use coordinator_core::session::{Shares, Writing};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::creation::CreationKey;
use super::receipt::Receipt;
use crate::arrivals::Arrival;

/// A new session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateSession {
    /// A name for people; not unique.
    pub name: Option<String>,
    /// The caller's own notes, at most 16 KiB as JSON.
    pub metadata: BTreeMap<String, Value>,
    /// Idle time after which its processes are ended; the server's default when absent.
    pub ttl: Option<Duration>,
    /// Labels that its worker must carry.
    pub labels: BTreeMap<String, String>,
    /// What it reaches outside its sandbox.
    pub network: SessionNetwork,
    /// How long it waits for a slot when there is none.
    pub wait: Duration,
    /// The same key and arguments give the same session.
    pub key: Option<CreationKey>,
    /// On what ground the call was let in.
    pub leave: Leave,
}

/// A change of a session's description.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdateSession {
    /// A new name.
    pub name: Option<String>,
    /// Metadata to set; a null removes its key when merging.
    pub metadata: Option<BTreeMap<String, Value>>,
    /// Replaces all metadata instead of merging.
    pub replace_metadata: bool,
    /// A new idle time.
    pub ttl: Option<Duration>,
}

/// A session as it was last published. Readers hold it without any lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSnapshot {
    /// The handle.
    pub id: SessionId,
    /// Whose it is.
    pub principal: Principal,
    /// With whom it is shared.
    pub shares: Shares,
    /// Who acts in it at present, or did just now; nobody when it is not shared for writing.
    pub writer: Option<Writing>,
    /// A name for people.
    pub name: Option<String>,
    /// The caller's own notes.
    pub metadata: BTreeMap<String, Value>,
    /// What it may reach outside its sandbox.
    pub network: SessionNetwork,
    /// Under which idempotency key it was made; none of one that never was ready.
    pub key: Option<CreationKey>,
    /// `opening`, `ready`, `suspended`, `lost`, `closing`, `closed`.
    pub state: &'static str,
    /// Who holds it, or held it last.
    pub lease: Option<Lease>,
    /// What its sandbox has, or had last.
    pub isolation: Option<IsolationReport>,
    /// Idle time after which its processes are ended, in milliseconds.
    pub ttl_ms: u64,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// When it was last used, in milliseconds since the Unix epoch.
    pub last_used_ms: i64,
    /// When it was over, in milliseconds since the Unix epoch; none of one that is not.
    pub closed_ms: Option<i64>,
    /// When its files will be deleted at the latest if nobody uses it, in milliseconds since the Unix epoch.
    pub retained_until_ms: i64,
    /// Tasks that run at present.
    pub running: Vec<TaskId>,
    /// Tasks that were ever started in it.
    pub tasks: u64,
    /// Bytes that its workspace took when its processes were last ended, when that is known.
    pub workspace_bytes: Option<u64>,
    /// What its tasks used.
    pub receipt: Arc<Receipt>,
}

/// One tool call that acts in a session.
#[derive(Debug, Clone)]
pub struct TaskCall {
    /// Whose call.
    pub principal: Principal,
    /// In which session.
    pub session: SessionId,
    /// Its id, minted by the caller of this layer.
    pub task: TaskId,
    /// The tool by its listed name.
    pub tool: &'static str,
    /// The name that the client used.
    pub called_as: String,
    /// The client's arguments as sent, for the log (which shortens them) and for the argument digest.
    pub args: Value,
    /// The path it is about, when it is about one.
    pub path: Option<String>,
    /// What to do.
    pub operation: Operation,
    /// Whether it changes nothing, so that its two records may be written together.
    pub read_only: bool,
    /// Wall time; the session's default when absent.
    pub timeout: Option<Duration>,
    /// At most 128 bytes; the same key and arguments give the same outcome.
    pub idempotency_key: Option<String>,
    /// The client program, as it names itself; for records only.
    pub client: Option<String>,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
    /// Its place among the calls on its kernel: it begins when those before it are with their worker.
    pub arrival: Option<Arrival>,
    /// On what ground it was let in.
    pub leave: Leave,
}

/// On what ground a call was let in.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Nobody had to approve of it.
    #[default]
    Free,
    /// It was approved, once.
    Approved(ApprovalId),
    /// It is the repetition of an earlier call under its idempotency key, which had leave. It gets what that one gives,
    /// and begins nothing.
    OfEarlier,
}

impl Leave {
    /// The request that was approved, if one was.
    pub const fn approval(self) -> Option<ApprovalId> {
        match self {
            Self::Approved(approval) => Some(approval),
            Self::Free | Self::OfEarlier => None,
        }
    }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskOutcome {
    /// Its task; that of the first call when an idempotency key joined them.
    pub task: TaskId,
    /// What it gave, or why it did not.
    pub result: Result<Completed, Failure>,
    /// What had been written and used when it did not complete.
    pub partial: Option<Completed>,
    /// The record of its outcome.
    pub audit_seq: Option<LogSeq>,
    /// Whether this is the stored outcome of an earlier call with the same idempotency key.
    pub replayed: bool,
}

/// What a task gave, bounded.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    /// The operation's result; absent only in a partial one of a program that was ended.
    pub result: Option<OperationResult>,
    /// Standard output.
    pub stdout: Captured,
    /// Standard error.
    pub stderr: Captured,
    /// Both in the order of arrival, when it wrote to both; see [`log`](Self::log).
    #[serde(default)]
    pub both: Captured,
    /// What it showed.
    pub displays: Vec<Display>,
    /// Tasks that ran in the session meanwhile, to which `files_changed` may be due as well.
    pub overlapped: Vec<TaskId>,
}

impl Completed {
    /// Everything that was written, in the order of arrival.
    pub fn log(&self) -> &Captured {
        match (self.both.written(), self.stdout.written()) {
            (0, 0) => &self.stderr,
            (0, _) => &self.stdout,
            _ => &self.both,
        }
    }
}

/// Output of one stream, kept within bounds: its head and its tail.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// The first bytes.
    #[serde(with = "codegen_types::base64_bytes")]
    pub head: Vec<u8>,
    /// The last bytes, when there were more than fit in `head`.
    #[serde(with = "codegen_types::base64_bytes")]
    pub tail: Vec<u8>,
    /// How many bytes between the two were not kept.
    pub omitted: u64,
}
