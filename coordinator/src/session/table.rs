//! The table of published snapshots, and the way to each session's owner.

use std::collections::HashMap;
use std::sync::Arc;

use codegen_types::{ErrorCode, Failure, Principal, SessionId};
use parking_lot::RwLock;
use tokio::sync::mpsc;

use super::call::SessionSnapshot;
use super::owner::Message;

/// Every session, closed ones included until they are forgotten. Readers never wait for an owner.
#[derive(Default)]
pub(super) struct Table {
    inner: RwLock<Inner>,
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

impl Table {
    /// Counts one more session of `principal`, unless there are as many as there may be.
    pub(super) fn admit(
        self: &Arc<Self>,
        principal: &Principal,
        sessions_max: usize,
        per_principal_max: usize,
    ) -> Result<Admission, Failure> {
        let mut inner = self.inner.write();
        // What is suspended has no processes; retention bounds it.
        let open = |entry: &&Entry| matches!(entry.snapshot.state, "opening" | "ready" | "closing");
        let all = inner.entries.values().filter(open).count() + inner.admitted.values().sum::<usize>();
        let theirs = inner.entries.values().filter(open).filter(|entry| entry.snapshot.principal == *principal).count()
            + inner.admitted.get(principal).copied().unwrap_or_default();
        for (count, max, whose) in [(all, sessions_max, "this server"), (theirs, per_principal_max, "you")] {
            if count >= max {
                let text =
                    format!("{whose} already have {count} sessions open, the most there may be; close one first");
                return Err(Failure::new(ErrorCode::SessionLimit, text));
            }
        }
        *inner.admitted.entry(principal.clone()).or_default() += 1;
        drop(inner);
        Ok(Admission { table: Arc::clone(self), principal: principal.clone() })
    }

    /// The entry of a session, if it is this principal's. A foreign handle is told from an unknown one by nobody.
    pub(super) fn of(&self, principal: &Principal, session: SessionId) -> Result<Entry, Failure> {
        let inner = self.inner.read();
        let entry = inner.entries.get(&session).filter(|entry| entry.snapshot.principal == *principal);
        entry.cloned().ok_or_else(|| {
            let text = "there is no such session of yours";
            Failure::new(ErrorCode::SessionNotFound, text)
        })
    }

    /// The snapshots that a principal may see, oldest first.
    pub(super) fn list(&self, principal: &Principal) -> Vec<Arc<SessionSnapshot>> {
        let inner = self.inner.read();
        let theirs = inner.entries.values().filter(|entry| entry.snapshot.principal == *principal);
        let mut rows: Vec<_> = theirs.map(|entry| Arc::clone(&entry.snapshot)).collect();
        drop(inner);
        rows.sort_by_key(|row| (row.created_ms, row.id));
        rows
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
            entry.snapshot = snapshot;
        }
    }

    pub(super) fn remove_if(&self, forgotten: bool, session: SessionId) {
        if forgotten {
            self.inner.write().entries.remove(&session);
        }
    }
}
