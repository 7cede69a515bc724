//! Sessions and tasks in memory, for tests and for a server that is to leave nothing behind.

use std::collections::{BTreeMap, HashMap};

use codegen_types::{LogSeq, Principal, SessionId, TaskId, WorkerId};
use futures::future::{BoxFuture, FutureExt as _, ready};
use parking_lot::Mutex;

use super::{
    CordonRow, CordonStore, Progress, SessionRow, SessionStore, StoreError, StoreResult, TaskRow, TaskStore, TasksOf,
    TokenRow, TokenStore,
};
use crate::identity::TokenId;

/// A store that is gone when the process ends.
#[derive(Debug, Default)]
pub struct Memory {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    progress: Progress,
    sessions: HashMap<SessionId, SessionRow>,
    tasks: HashMap<TaskId, TaskRow>,
    by_key: HashMap<(SessionId, Principal, String), TaskId>,
    tokens: HashMap<TokenId, TokenRow>,
    cordons: BTreeMap<WorkerId, CordonRow>,
}

impl Tables {
    fn follow(&mut self, seq: LogSeq) {
        self.progress.applied = self.progress.applied.max(seq);
    }

    fn insert_task(&mut self, row: TaskRow) -> StoreResult<()> {
        let key = row.key.clone().map(|key| (row.session, row.principal.clone(), key));
        if self.tasks.contains_key(&row.id) || key.as_ref().is_some_and(|key| self.by_key.contains_key(key)) {
            return Err(StoreError::Exists);
        }
        self.follow(row.attempt);
        if let Some(key) = key {
            self.by_key.insert(key, row.id);
        }
        self.tasks.insert(row.id, row);
        Ok(())
    }

    fn remove_task(&mut self, task: TaskId) {
        if let Some(row) = self.tasks.remove(&task)
            && let Some(key) = row.key
        {
            self.by_key.remove(&(row.session, row.principal, key));
        }
    }

    fn prune(&mut self, ended_before_ms: i64, bytes_max: u64) -> u64 {
        let size = |row: &TaskRow| row.outcome.as_ref().map_or(0, super::StoredOutcome::bytes);
        let mut over: Vec<(bool, i64, TaskId, u64)> =
            self.tasks.values().filter_map(|row| Some((row.key.is_some(), row.ended_ms?, row.id, size(row)))).collect();
        over.sort_unstable();
        let mut bytes: u64 = over.iter().filter(|(_, ended, ..)| *ended >= ended_before_ms).map(|row| row.3).sum();
        let mut removed = 0;
        for (_, ended, task, size) in over {
            let is_old = ended < ended_before_ms;
            if is_old || (bytes > bytes_max && size > 0) {
                bytes -= if is_old { 0 } else { size };
                match self.tasks.get_mut(&task).filter(|row| row.key.is_some() && !is_old) {
                    Some(keyed) => keyed.outcome = None,
                    None => self.remove_task(task),
                }
                removed += 1;
            }
        }
        removed
    }
}

/// Does it now: nothing here waits.
fn done<T: Send + 'static>(result: StoreResult<T>) -> BoxFuture<'static, StoreResult<T>> {
    ready(result).boxed()
}

impl SessionStore for Memory {
    fn insert_session(&self, row: SessionRow) -> BoxFuture<'_, StoreResult<()>> {
        let mut tables = self.tables.lock();
        if tables.sessions.contains_key(&row.id) {
            return done(Err(StoreError::Exists));
        }
        tables.follow(row.audit_seq);
        tables.sessions.insert(row.id, row);
        done(Ok(()))
    }

    fn put_session(&self, row: SessionRow) -> BoxFuture<'_, StoreResult<()>> {
        let mut tables = self.tables.lock();
        if tables.sessions.get(&row.id).is_none_or(|stored| stored.revision + 1 != row.revision) {
            return done(Err(StoreError::Conflict));
        }
        tables.follow(row.audit_seq);
        tables.sessions.insert(row.id, row);
        done(Ok(()))
    }

    fn remove_session(&self, session: SessionId, revision: u64) -> BoxFuture<'_, StoreResult<()>> {
        let mut tables = self.tables.lock();
        if tables.sessions.get(&session).is_none_or(|stored| stored.revision != revision) {
            return done(Err(StoreError::Conflict));
        }
        tables.sessions.remove(&session);
        done(Ok(()))
    }

    fn sessions(&self) -> BoxFuture<'_, StoreResult<Vec<SessionRow>>> {
        let mut rows: Vec<SessionRow> = self.tables.lock().sessions.values().cloned().collect();
        rows.sort_by_key(|row| (row.created_ms, row.id));
        done(Ok(rows))
    }

    fn progress(&self) -> BoxFuture<'_, StoreResult<Progress>> {
        done(Ok(self.tables.lock().progress.clone()))
    }

    fn settle(&self, log_id: String, settled_before: LogSeq) -> BoxFuture<'_, StoreResult<()>> {
        let mut tables = self.tables.lock();
        tables.progress.log_id = Some(log_id);
        tables.progress.settled_before = settled_before;
        done(Ok(()))
    }
}

impl TaskStore for Memory {
    fn insert_task(&self, row: TaskRow) -> BoxFuture<'_, StoreResult<()>> {
        done(self.tables.lock().insert_task(row))
    }

    fn put_task(&self, row: TaskRow) -> BoxFuture<'_, StoreResult<()>> {
        let mut tables = self.tables.lock();
        if tables.tasks.get(&row.id).is_none_or(|stored| stored.revision + 1 != row.revision) {
            return done(Err(StoreError::Conflict));
        }
        tables.follow(row.outcome_seq.unwrap_or(row.attempt));
        tables.tasks.insert(row.id, row);
        done(Ok(()))
    }

    fn task(&self, task: TaskId) -> BoxFuture<'_, StoreResult<Option<TaskRow>>> {
        done(Ok(self.tables.lock().tasks.get(&task).cloned()))
    }

    fn task_by_key(
        &self,
        session: SessionId,
        principal: Principal,
        key: String,
    ) -> BoxFuture<'_, StoreResult<Option<TaskRow>>> {
        let tables = self.tables.lock();
        done(Ok(tables.by_key.get(&(session, principal, key)).and_then(|task| tables.tasks.get(task)).cloned()))
    }

    fn unfinished_tasks(&self) -> BoxFuture<'_, StoreResult<Vec<TaskRow>>> {
        let mut rows: Vec<TaskRow> =
            self.tables.lock().tasks.values().filter(|row| row.ended_ms.is_none()).cloned().collect();
        rows.sort_by_key(|row| row.id);
        done(Ok(rows))
    }

    fn recent_tasks(&self, of: TasksOf, limit: u32) -> BoxFuture<'_, StoreResult<Vec<TaskRow>>> {
        let tables = self.tables.lock();
        let wanted = |row: &&TaskRow| match &of {
            TasksOf::Principal(principal) => row.principal == *principal,
            TasksOf::Session(session) => row.session == *session,
            TasksOf::Everybody => true,
        };
        let mut rows: Vec<&TaskRow> = tables.tasks.values().filter(wanted).collect();
        rows.sort_by_key(|row| std::cmp::Reverse((row.begun_ms, row.id.to_string())));
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        done(Ok(rows.into_iter().map(|row| TaskRow { outcome: None, ..row.clone() }).collect()))
    }

    fn prune_tasks(&self, ended_before_ms: i64, bytes_max: u64) -> BoxFuture<'_, StoreResult<u64>> {
        done(Ok(self.tables.lock().prune(ended_before_ms, bytes_max)))
    }
}

impl TokenStore for Memory {
    fn insert_token(&self, row: TokenRow) -> BoxFuture<'_, StoreResult<()>> {
        let mut tables = self.tables.lock();
        if tables.tokens.contains_key(&row.id) {
            return ready(Err(StoreError::Exists)).boxed();
        }
        tables.tokens.insert(row.id.clone(), row);
        ready(Ok(())).boxed()
    }

    fn revoke_token(&self, token: TokenId, revoked_ms: i64) -> BoxFuture<'_, StoreResult<()>> {
        let mut tables = self.tables.lock();
        let row = tables.tokens.get_mut(&token).filter(|row| row.revoked_ms.is_none());
        ready(row.map(|row| row.revoked_ms = Some(revoked_ms)).ok_or(StoreError::Conflict)).boxed()
    }

    fn remove_token(&self, token: TokenId) -> BoxFuture<'_, StoreResult<()>> {
        ready(self.tables.lock().tokens.remove(&token).map(drop).ok_or(StoreError::Conflict)).boxed()
    }

    fn tokens(&self) -> BoxFuture<'_, StoreResult<Vec<TokenRow>>> {
        let mut rows: Vec<TokenRow> = self.tables.lock().tokens.values().cloned().collect();
        rows.sort_by_key(|row| (row.created_ms, row.id.clone()));
        ready(Ok(rows)).boxed()
    }
}

impl CordonStore for Memory {
    fn put_cordon(&self, row: CordonRow) -> BoxFuture<'_, StoreResult<()>> {
        self.tables.lock().cordons.insert(row.worker.clone(), row);
        done(Ok(()))
    }

    fn remove_cordon(&self, worker: WorkerId) -> BoxFuture<'_, StoreResult<()>> {
        self.tables.lock().cordons.remove(&worker);
        done(Ok(()))
    }

    fn cordons(&self) -> BoxFuture<'_, StoreResult<Vec<CordonRow>>> {
        done(Ok(self.tables.lock().cordons.values().cloned().collect()))
    }
}
