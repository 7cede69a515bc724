//! Idempotency keys: a call under a known key joins the first one, or gets its outcome.

use std::sync::Arc;

use codegen_types::{ErrorCode, Failure, Principal, SessionId, TaskId};
use coordinator_core::idempotency::{ArgumentDigest, Earlier, Verdict, judge};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::call::{TaskCall, TaskOutcome};
use crate::store::TaskRow;

/// Running calls by principal, session and key; the keys are independent of each other.
pub(super) type Repeats = Arc<DashMap<Key, Running>>;

/// A key, and whose it is in which session.
type Key = (Principal, SessionId, String);

/// Stands for the digest of a call whose row was made again from the log, which does not have it: a digest of arguments
/// would give short secrets away. Whatever comes under the key is then taken for the same call, and not run.
pub(super) const DIGEST_LOST: ArgumentDigest = [0; 32];

/// A call that runs under a key.
pub(super) struct Running {
    task: TaskId,
    digest: ArgumentDigest,
    outcome: watch::Receiver<Option<TaskOutcome>>,
}

/// What a call under a key is.
pub(super) enum Claim {
    /// The first: it runs, and tells its outcome to those that join.
    First(Claimed),
    /// The same as one that runs.
    Join(TaskId, watch::Receiver<Option<TaskOutcome>>),
}

/// The right to run under a key; given up when dropped.
pub(super) struct Claimed {
    repeats: Repeats,
    key: Key,
    outcome: watch::Sender<Option<TaskOutcome>>,
}

impl Claimed {
    /// Tells those that joined.
    pub(super) fn tell(&self, outcome: &TaskOutcome) {
        self.outcome.send_replace(Some(outcome.clone()));
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.repeats.remove(&self.key);
    }
}

/// Claims a key for a call.
pub(super) fn claim(repeats: &Repeats, call: &TaskCall, key: &str, digest: ArgumentDigest) -> Result<Claim, Failure> {
    let task = call.task;
    let key = (call.principal.clone(), call.session, key.to_owned());
    match repeats.entry(key.clone()) {
        Entry::Occupied(running) => {
            let known = running.get().digest;
            let earlier = Earlier { digest: if known == DIGEST_LOST { digest } else { known }, is_over: false };
            match judge(Some(&earlier), &digest) {
                Verdict::Conflict => Err(conflict()),
                Verdict::Run | Verdict::Join | Verdict::Replay => {
                    Ok(Claim::Join(running.get().task, running.get().outcome.clone()))
                }
            }
        }
        Entry::Vacant(vacant) => {
            let (sender, outcome) = watch::channel(None);
            vacant.insert(Running { task, digest, outcome });
            Ok(Claim::First(Claimed { repeats: Arc::clone(repeats), key, outcome: sender }))
        }
    }
}

/// Claims the key again of a call that an earlier server had begun; nothing when it has none.
pub(super) fn claim_again(repeats: &Repeats, row: &TaskRow) -> Option<Claimed> {
    let key = (row.principal.clone(), row.session, row.key.clone()?);
    let (sender, outcome) = watch::channel(None);
    repeats.insert(key.clone(), Running { task: row.id, digest: row.digest, outcome });
    Some(Claimed { repeats: Arc::clone(repeats), key, outcome: sender })
}

/// The outcome of an earlier call under the same key, from the store; `None` when the call is to be run.
pub(super) fn replay(
    earlier: Option<TaskRow>,
    digest: &ArgumentDigest,
    log_is_writable: bool,
) -> Result<Option<TaskOutcome>, Failure> {
    let digest_of = |row: &TaskRow| if row.digest == DIGEST_LOST { *digest } else { row.digest };
    let known = earlier.as_ref().map(|row| Earlier { digest: digest_of(row), is_over: row.state.is_over() });
    match (judge(known.as_ref(), digest), earlier) {
        (Verdict::Run, _) | (_, None) => Ok(None),
        (Verdict::Conflict, _) => Err(conflict()),
        (Verdict::Replay | Verdict::Join, Some(row)) if row.outcome_seq.is_none() && !log_is_writable => {
            Err(kept_back())
        }
        (Verdict::Replay | Verdict::Join, Some(row)) => Ok(Some(stored(row))),
    }
}

/// What is said while the record of an outcome cannot be written.
pub(super) fn kept_back() -> Failure {
    let text = "the result of this task is kept back until the audit log can be written again; ask again shortly";
    Failure::new(ErrorCode::AuditUnavailable, text)
}

/// The outcome that a row keeps.
pub(super) fn stored(row: TaskRow) -> TaskOutcome {
    let (result, partial) = match row.outcome {
        Some(outcome) => (outcome.result, outcome.partial),
        None => {
            let text = format!("{} was started, and its result is not known or no longer kept", row.id);
            (Err(Failure::new(ErrorCode::TaskOutcomeUnknown, text)), None)
        }
    };
    TaskOutcome { task: row.id, result, partial, audit_seq: row.outcome_seq.or(Some(row.attempt)), replayed: true }
}

/// What is said when an earlier call is gone just as its repetition comes.
pub(super) fn forgotten() -> Failure {
    let text = "what was done under this `idempotency_key` was forgotten just now; nothing was done again. Made once more, \
                the call counts as a new one";
    Failure::new(ErrorCode::PreconditionFailed, text)
}

fn conflict() -> Failure {
    let text = "this `idempotency_key` was used for another call in this session; use a new key for a new call";
    Failure::new(ErrorCode::InvalidArgument, text)
}

/// SHA-256 over the tool and its arguments, keys in order, but for those that only say how the call is made.
pub(super) fn digest(call: &TaskCall) -> ArgumentDigest {
    let mut arguments = sorted(&call.args);
    if let Value::Object(fields) = &mut arguments {
        for name in ["idempotency_key", "session_id"] {
            fields.remove(name);
        }
    }
    let mut hash = Sha256::new();
    hash.update(call.tool.as_bytes());
    hash.update([0]);
    hash.update(arguments.to_string().as_bytes());
    hash.finalize().into()
}

/// The value with the keys of its objects in order.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort();
            Value::Object(names.into_iter().map(|name| (name.clone(), sorted(&fields[name]))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
