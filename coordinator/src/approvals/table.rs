//! The table of requests: bounded, without a clock of its own and without waiting.

use std::collections::HashMap;
use std::time::Duration;

use codegen_types::{ApprovalId, ErrorCode, Failure, LogSeq, Principal};
use coordinator_core::idempotency::ArgumentDigest;
use coordinator_core::policy::Approvers;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::orphans::Orphan;
use super::shown::{ApprovalState, ApprovalView, ApprovalWhole, Rest};

/// Requests that there can be at once, of all principals. One more call is refused.
pub const PENDING_MAX: usize = 1_000;
/// Requests that there can be at once of one principal, but for those that are denied. One more call of it is refused.
pub const PENDING_PER_PRINCIPAL_MAX: usize = 32;
/// How long an approval is good for, and a denial is remembered for whoever has not heard of it.
pub(super) const DECIDED_KEPT: Duration = Duration::from_secs(600);

/// Bytes of arguments that are kept whole, of all requests together. What comes then is shown in part alone.
const WHOLE_BYTES_OF_ALL: usize = 16 << 20;

/// All requests.
#[derive(Default)]
pub(super) struct Table {
    requests: HashMap<ApprovalId, Entry>,
    /// Those of an earlier server that nobody was told of yet.
    pub(super) orphans: Vec<Orphan>,
}

pub(super) struct Entry {
    pub(super) view: ApprovalView,
    /// The arguments whole, as JSON, where the view has less.
    whole: Option<String>,
    digest: ArgumentDigest,
    stage: Stage,
    /// When it is over: denied by silence, or no longer good.
    expires: Instant,
    waiting: usize,
    changed: watch::Sender<()>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// Its record is being written; nobody else sees it.
    Recording,
    Pending(LogSeq),
    /// The record of a decision is being written.
    Deciding(LogSeq),
    Approved(LogSeq),
    Denied(String),
}

/// Where a call stands.
pub(super) enum Standing {
    /// It was approved; the approval is used up.
    Granted(ApprovalId),
    /// It was denied, for this reason.
    Denied(String),
    /// Another one that is the same is just being recorded.
    Recording(ApprovalId, watch::Receiver<()>),
    /// It waits, like others that are the same.
    Waits(ApprovalId, watch::Receiver<()>, Instant),
    /// Nobody has asked for it.
    Unknown,
}

/// A request that is to be decided, and what the record of it needs.
pub(super) struct Undecided {
    pub(super) view: ApprovalView,
    pub(super) requested: LogSeq,
}

impl Entry {
    const fn is_denied(&self) -> bool {
        matches!(self.stage, Stage::Denied(_))
    }
}

impl Table {
    /// Where a call stands; an approval that is found is used up, and a denial that is told is forgotten. A call that has
    /// to wait is counted as one that waits, in the same step: what is decided from now on, it hears.
    pub(super) fn join(&mut self, digest: &ArgumentDigest, now: Instant) -> Standing {
        let Some((id, entry)) = self.requests.iter_mut().find(|(_, entry)| entry.digest == *digest) else {
            return Standing::Unknown;
        };
        let id = *id;
        match &entry.stage {
            Stage::Approved(_) if entry.expires > now => {
                self.requests.remove(&id);
                Standing::Granted(id)
            }
            Stage::Denied(why) => {
                let why = why.clone();
                // Others that wait hear of it, too.
                if entry.waiting == 0 {
                    self.requests.remove(&id);
                }
                Standing::Denied(why)
            }
            Stage::Recording => {
                entry.waiting += 1;
                Standing::Recording(id, entry.changed.subscribe())
            }
            Stage::Approved(_) | Stage::Pending(_) | Stage::Deciding(_) => {
                entry.waiting += 1;
                Standing::Waits(id, entry.changed.subscribe(), entry.expires)
            }
        }
    }

    /// Takes a new request in, for which one call waits; it is seen by others once it is recorded.
    ///
    /// # Errors
    /// `QUOTA_EXCEEDED`: there are too many; with the time until silence decides the next of them.
    pub(super) fn insert(
        &mut self,
        mut view: ApprovalView,
        whole: Option<String>,
        digest: ArgumentDigest,
        expires: Instant,
    ) -> Result<(), Failure> {
        let is_own = |entry: &&Entry| entry.view.principal == view.principal && !entry.is_denied();
        let is_one_too_many = self.requests.values().filter(is_own).count() >= PENDING_PER_PRINCIPAL_MAX;
        if is_one_too_many || self.requests.len() >= PENDING_MAX {
            let whose = if is_one_too_many { "of yours " } else { "" };
            let message = format!("too many calls {whose}wait for approval; nothing was done");
            let in_the_way = self.requests.values().filter(|entry| !is_one_too_many || is_own(entry));
            let next = in_the_way.map(|entry| entry.expires).min().unwrap_or(expires);
            let wait = next.saturating_duration_since(Instant::now());
            return Err(Failure::new(ErrorCode::QuotaExceeded, message).retry_after(wait));
        }
        self.forget_oldest_denial(&view.principal);
        let kept: usize = self.requests.values().filter_map(|entry| entry.whole.as_ref()).map(String::len).sum();
        let whole = whole.filter(|whole| kept + whole.len() <= WHOLE_BYTES_OF_ALL);
        if whole.is_none() && view.rest == Rest::Kept {
            view.rest = Rest::NotKept;
        }
        let changed = watch::Sender::new(());
        let entry = Entry { view, whole, digest, stage: Stage::Recording, expires, waiting: 1, changed };
        self.requests.insert(entry.view.id, entry);
        Ok(())
    }

    /// Bounds the denials that are remembered of one principal, but for those that somebody is just being told.
    fn forget_oldest_denial(&mut self, principal: &Principal) {
        let told = |entry: &&Entry| entry.is_denied() && entry.waiting == 0 && entry.view.principal == *principal;
        let denials = self.requests.values().filter(told);
        let (count, oldest) = (denials.clone().count(), denials.min_by_key(|entry| entry.expires));
        if let Some(id) = oldest.map(|entry| entry.view.id).filter(|_| count >= PENDING_PER_PRINCIPAL_MAX) {
            self.requests.remove(&id);
        }
    }

    /// The record of a request is durable.
    pub(super) fn recorded(&mut self, id: ApprovalId, seq: LogSeq) {
        if let Some(entry) = self.requests.get_mut(&id) {
            entry.stage = Stage::Pending(seq);
            entry.changed.send_replace(());
        }
    }

    /// Forgets a request.
    pub(super) fn remove(&mut self, id: ApprovalId) {
        if let Some(entry) = self.requests.remove(&id) {
            entry.changed.send_replace(());
        }
    }

    /// A call waits no more; how many still do.
    pub(super) fn unwait(&mut self, id: ApprovalId) -> usize {
        let Some(entry) = self.requests.get_mut(&id) else { return 0 };
        entry.waiting = entry.waiting.saturating_sub(1);
        entry.waiting
    }

    /// Begins to decide a request; nobody else does from now on.
    ///
    /// # Errors
    /// `NOT_FOUND`: there is none that is shown. `PRECONDITION_FAILED`: it is decided.
    pub(super) fn begin(&mut self, id: ApprovalId) -> Result<Undecided, Failure> {
        let entry =
            self.requests.get_mut(&id).filter(|entry| entry.stage != Stage::Recording).ok_or_else(no_such_request)?;
        let Stage::Pending(requested) = entry.stage else {
            let message = format!("{id} is decided already; a decision is final");
            return Err(Failure::new(ErrorCode::PreconditionFailed, message));
        };
        entry.stage = Stage::Deciding(requested);
        Ok(Undecided { view: entry.view.clone(), requested })
    }

    /// The decision could not be recorded, and there is none.
    pub(super) fn undo(&mut self, id: ApprovalId) {
        if let Some(entry) = self.requests.get_mut(&id)
            && let Stage::Deciding(requested) = entry.stage
        {
            entry.stage = Stage::Pending(requested);
        }
    }

    /// The record of a decision is durable; `why` when it is a denial.
    pub(super) fn decided(&mut self, id: ApprovalId, denied: Option<String>, now: Instant) -> Option<ApprovalView> {
        let entry = self.requests.get_mut(&id)?;
        let Stage::Deciding(requested) = entry.stage else { return None };
        entry.view.state = if denied.is_some() { ApprovalState::Denied } else { ApprovalState::Approved };
        entry.stage = denied.map_or(Stage::Approved(requested), Stage::Denied);
        entry.expires = now + DECIDED_KEPT;
        entry.view.expires = Timestamp::now() + DECIDED_KEPT;
        entry.changed.send_replace(());
        Some(entry.view.clone())
    }

    /// What is over by now: the pending requests among it, and the approvals that nobody used. Denials are forgotten.
    pub(super) fn overdue(&mut self, now: Instant) -> (Vec<ApprovalId>, Vec<Undecided>) {
        let mut lapsed = Vec::new();
        let mut silent = Vec::new();
        self.requests.retain(|id, entry| match &entry.stage {
            _ if entry.expires > now => true,
            Stage::Pending(_) => {
                silent.push(*id);
                true
            }
            Stage::Approved(requested) => {
                lapsed.push(Undecided { view: entry.view.clone(), requested: *requested });
                false
            }
            Stage::Denied(_) => false,
            Stage::Recording | Stage::Deciding(_) => true,
        });
        (silent, lapsed)
    }

    /// When the next request is over.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = |entry: &&Entry| !matches!(entry.stage, Stage::Recording | Stage::Deciding(_));
        self.requests.values().filter(due).map(|entry| entry.expires).min()
    }

    /// Every request that is pending.
    pub(super) fn pending(&self) -> Vec<ApprovalId> {
        self.requests
            .values()
            .filter(|entry| matches!(entry.stage, Stage::Pending(_)))
            .map(|entry| entry.view.id)
            .collect()
    }

    /// Every request that is shown, the oldest first.
    pub(super) fn views(&self) -> Vec<ApprovalView> {
        let shown = self.requests.values().filter(|entry| entry.stage != Stage::Recording);
        let mut views: Vec<ApprovalView> = shown.map(|entry| entry.view.clone()).collect();
        views.sort_by_key(|view| (view.created, view.id));
        views
    }

    /// A request that is shown, with all there is of its arguments.
    pub(super) fn whole(&self, id: ApprovalId) -> Option<ApprovalWhole> {
        let entry = self.requests.get(&id).filter(|entry| entry.stage != Stage::Recording)?;
        let view = entry.view.clone();
        let whole = match (&entry.whole, view.rest) {
            (Some(text), _) => serde_json::from_str(text).ok(),
            (None, Rest::Nothing) => Some(view.arguments.clone()),
            (None, Rest::Kept | Rest::NotKept) => None,
        };
        Some(ApprovalWhole { view, whole })
    }

    /// What of the arguments of a request is not shown.
    pub(super) fn rest(&self, id: ApprovalId) -> Rest {
        self.requests.get(&id).map_or(Rest::NotKept, |entry| entry.view.rest)
    }

    /// Who made the call, and who may approve of it, when the request is there.
    pub(super) fn of(&self, id: ApprovalId) -> Option<(Principal, ArgumentDigest, Approvers)> {
        let entry = self.requests.get(&id)?;
        Some((entry.view.principal.clone(), entry.digest, entry.view.approvers))
    }
}

pub(crate) fn no_such_request() -> Failure {
    Failure::new(ErrorCode::NotFound, "there is no such request for approval, or it is over")
}

#[cfg(test)]
mod tests {
    use super::super::shown::WHOLE_BYTES_MAX;
    use super::*;
    use serde_json::Value;

    fn pending(table: &mut Table, digest: ArgumentDigest) -> ApprovalId {
        pending_of(table, digest, "ann", None)
    }

    fn pending_of(table: &mut Table, digest: ArgumentDigest, user: &str, whole: Option<String>) -> ApprovalId {
        let id = try_pending_of(table, digest, user, whole).unwrap();
        table.recorded(id, LogSeq(1));
        id
    }

    fn try_pending_of(
        table: &mut Table,
        digest: ArgumentDigest,
        user: &str,
        whole: Option<String>,
    ) -> Result<ApprovalId, Failure> {
        let (id, now) = (ApprovalId::mint(), Timestamp::now());
        let view = ApprovalView {
            id,
            state: ApprovalState::Pending,
            principal: Principal::os_user(user),
            tool: "fs_write".to_owned(),
            arguments: Value::Null,
            rest: Rest::Kept,
            session: None,
            client: None,
            rule: "r".to_owned(),
            reason: None,
            approvers: Approvers::Operator,
            created: now,
            expires: now + DECIDED_KEPT,
        };
        table.insert(view, whole, digest, Instant::now() + DECIDED_KEPT).map(|()| id)
    }

    fn deny(table: &mut Table, id: ApprovalId) {
        table.begin(id).unwrap();
        table.decided(id, Some("no".to_owned()), Instant::now()).unwrap();
    }

    #[tokio::test]
    async fn whoever_joined_before_a_denial_hears_it_however_late() {
        let (mut table, digest, now) = (Table::default(), [1; 32], Instant::now());
        let id = pending(&mut table, digest);
        let second = table.join(&digest, now);
        assert!(matches!(second, Standing::Waits(joined, ..) if joined == id));
        deny(&mut table, id);
        // The first one hears of it before the second one looks again.
        for _ in 0..2 {
            table.unwait(id);
            assert!(matches!(table.join(&digest, now), Standing::Denied(why) if why == "no"));
        }
        assert!(matches!(table.join(&digest, now), Standing::Unknown));
    }

    #[tokio::test]
    async fn arguments_are_kept_within_bounds_and_what_is_not_kept_is_said() {
        let (mut table, mut digest) = (Table::default(), [0; 32]);
        let kept: Vec<bool> = (0..WHOLE_BYTES_OF_ALL / WHOLE_BYTES_MAX + 1)
            .map(|n| {
                digest[..8].copy_from_slice(&n.to_be_bytes());
                let text = format!("{:?}", "x".repeat(WHOLE_BYTES_MAX - 2));
                let id = pending_of(&mut table, digest, &(n / PENDING_PER_PRINCIPAL_MAX).to_string(), Some(text));
                let shown = table.whole(id).unwrap();
                assert_eq!(shown.whole.is_some(), shown.view.rest == Rest::Kept);
                shown.whole.is_some()
            })
            .collect();
        let (last, others) = kept.split_last().unwrap();
        assert!(!last && others.iter().all(|kept| *kept));
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_too_many_is_told_when_silence_will_have_decided_the_oldest() {
        let (mut table, wait) = (Table::default(), Duration::from_secs(7));
        for n in 0..PENDING_PER_PRINCIPAL_MAX {
            pending(&mut table, [u8::try_from(n).unwrap(); 32]);
            tokio::time::advance(if n == 0 { wait } else { Duration::ZERO }).await;
        }
        let refused = try_pending_of(&mut table, [255; 32], "ann", None).unwrap_err();
        let left = u64::try_from((DECIDED_KEPT - wait).as_millis()).unwrap();
        assert_eq!((refused.code, refused.retry_after_ms), (ErrorCode::QuotaExceeded, Some(left)));
        assert!(try_pending_of(&mut table, [255; 32], "bob", None).is_ok());
    }

    #[tokio::test]
    async fn a_call_that_looks_again_goes_on_waiting_in_the_same_step() {
        let (mut table, digest, now) = (Table::default(), [1; 32], Instant::now());
        let id = pending(&mut table, digest);
        table.unwait(id);
        assert!(matches!(table.join(&digest, now), Standing::Waits(..)));
        deny(&mut table, id);
        // Another one that comes just then is told, and leaves the denial to the one that waits.
        assert!(matches!(table.join(&digest, now), Standing::Denied(_)));
        table.unwait(id);
        assert!(matches!(table.join(&digest, now), Standing::Denied(_)));
    }
}
