//! The table of published snapshots, and the way to each session's owner.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use codegen_types::{ErrorCode, Failure, Principal, SessionId, WorkerId};
use coordinator_core::session::Need;
use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};

use super::access;
use super::call::SessionSnapshot;
use super::news::OwnerNews;
use super::owner::Message;

/// After how long a place may be free where no session is about to become idle.
const PLACE_MAY_BE_FREE: Duration = Duration::from_secs(10);

/// Every session, closed ones included until they are forgotten. Readers never wait for an owner.
#[derive(Default)]
pub(super) struct Table {
    inner: RwLock<Inner>,
    access_changes: watch::Sender<()>,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<SessionId, Entry>,
    /// Sessions that are being made, by principal: they count although they are not in the table yet.
    admitted: HashMap<Principal, usize>,
}

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) snapshot: Arc<SessionSnapshot>,
    pub(super) owner: mpsc::Sender<Message>,
    /// What its owner hears of its worker.
    pub(super) news: Arc<OwnerNews>,
}

/// A place for a session that is being made; given back when dropped.
pub(super) struct Admission {
    table: Arc<Table>,
    principal: Principal,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut inner = self.table.inner.write();
        if let Some(count) = inner.admitted.get_mut(&self.principal) {
            *count -= 1;
            if *count == 0 {
                inner.admitted.remove(&self.principal);
            }
        }
    }
}

impl Inner {
    fn open_of(&self, principal: &Principal) -> usize {
        let theirs = |entry: &&Entry| entry.snapshot.principal == *principal;
        self.entries.values().filter(is_open).filter(theirs).count()
            + self.admitted.get(principal).copied().unwrap_or_default()
    }

    /// When the next of these sessions will have been idle for so long that it gives its place back, if nobody uses it.
    fn next_place<'a>(&'a self, is_of: impl Fn(&'a Principal) -> bool) -> Duration {
        let now_ms = super::now_ms();
        let open = self.entries.values().filter(is_open).map(|entry| &entry.snapshot);
        let idle = open.filter(|session| is_of(&session.principal) && session.running.is_empty());
        let left = idle.map(|session| {
            let idle_ms = u64::try_from(now_ms.saturating_sub(session.last_used_ms)).unwrap_or_default();
            Duration::from_millis(session.ttl_ms.saturating_sub(idle_ms).max(1_000))
        });
        left.min().unwrap_or(PLACE_MAY_BE_FREE)
    }
}

/// Whether a session counts. What is suspended has no processes; retention bounds it.
fn is_open(entry: &&Entry) -> bool {
    matches!(entry.snapshot.state, "opening" | "ready" | "closing")
}

impl Table {
    /// How many sessions the principal has open, those included that are being made.
    pub(super) fn open_of(&self, principal: &Principal) -> usize {
        self.inner.read().open_of(principal)
    }

    /// Counts one more session of `principal`, unless there are as many as there may be.
    ///
    /// # Errors
    /// `SESSION_LIMIT`, `QUOTA_EXCEEDED`, with the time until a place will be free if nobody uses the session that has it.
    pub(super) fn admit(
        self: &Arc<Self>,
        principal: &Principal,
        sessions_max: usize,
        per_principal_max: usize,
    ) -> Result<Admission, Failure> {
        let mut inner = self.inner.write();
        let all = inner.entries.values().filter(is_open).count() + inner.admitted.values().sum::<usize>();
        if all >= sessions_max {
            let text = "this server has as many sessions open as there may be; close one, or try again later";
            return Err(Failure::new(ErrorCode::SessionLimit, text).retry_after(inner.next_place(|_| true)));
        }
        let theirs = inner.open_of(principal);
        if theirs >= per_principal_max {
            let text = format!("you have {theirs} sessions open, the most you may; close one with session_close first");
            let wait = inner.next_place(|owner| owner == principal);
            return Err(Failure::new(ErrorCode::QuotaExceeded, text).retry_after(wait));
        }
        *inner.admitted.entry(principal.clone()).or_default() += 1;
        drop(inner);
        Ok(Admission { table: Arc::clone(self), principal: principal.clone() })
    }

    /// The entry of a session, for a principal who does something there that needs this much. A foreign handle is told
    /// from an unknown one by nobody.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`, `PERMISSION_DENIED`.
    pub(super) fn of(&self, principal: &Principal, session: SessionId, need: Need) -> Result<Entry, Failure> {
        let entry = self.inner.read().entries.get(&session).cloned();
        access::check(entry.as_ref().and_then(|entry| entry.snapshot.access(principal)), need)?;
        entry.ok_or_else(access::unknown)
    }

    /// Told whenever a session's shares changed, or it was forgotten.
    pub(super) fn access_changes(&self) -> watch::Receiver<()> {
        self.access_changes.subscribe()
    }

    /// The snapshots that a principal may see, oldest first.
    pub(super) fn list(&self, principal: &Principal) -> Vec<Arc<SessionSnapshot>> {
        let inner = self.inner.read();
        let theirs = inner.entries.values().filter(|entry| entry.snapshot.access(principal).is_some());
        let mut rows: Vec<_> = theirs.map(|entry| Arc::clone(&entry.snapshot)).collect();
        drop(inner);
        rows.sort_by_key(|row| (row.created_ms, row.id));
        rows
    }

    /// The session that a principal made under this key since then, in milliseconds since the Unix epoch; the last one.
    pub(super) fn made_under(&self, principal: &Principal, key: &str, since_ms: i64) -> Option<Arc<SessionSnapshot>> {
        let inner = self.inner.read();
        let made = inner.entries.values().map(|entry| &entry.snapshot).filter(|made| {
            let its_key = made.key.as_ref().map(|made_under| made_under.key.as_str());
            its_key == Some(key) && made.principal == *principal && made.created_ms >= since_ms
        });
        made.max_by_key(|made| made.created_ms).cloned()
    }

    /// The entry of a session, whosever it is.
    pub(super) fn get(&self, session: SessionId) -> Option<Entry> {
        self.inner.read().entries.get(&session).cloned()
    }

    /// The sessions that a worker holds, or held last. No session ever goes to another.
    pub(super) fn of_worker(&self, worker: &WorkerId) -> Vec<Entry> {
        let is_its = |entry: &&Entry| entry.snapshot.lease.as_ref().is_some_and(|lease| lease.worker == *worker);
        self.inner.read().entries.values().filter(is_its).cloned().collect()
    }

    /// All entries.
    pub(super) fn all(&self) -> Vec<Entry> {
        self.inner.read().entries.values().cloned().collect()
    }

    pub(super) fn insert(&self, entry: Entry) {
        self.inner.write().entries.insert(entry.snapshot.id, entry);
    }

    pub(super) fn publish(&self, snapshot: Arc<SessionSnapshot>) {
        if let Some(entry) = self.inner.write().entries.get_mut(&snapshot.id) {
            let reshared = entry.snapshot.shares != snapshot.shares;
            entry.snapshot = snapshot;
            if reshared {
                self.access_changes.send_replace(());
            }
        }
    }

    pub(super) fn remove_if(&self, forgotten: bool, session: SessionId) {
        if forgotten {
            self.inner.write().entries.remove(&session);
            self.access_changes.send_replace(());
        }
    }
}
