//! What is remembered of sessions, tasks, tokens and cordons: four traits, in memory and in SQLite.
//!
//! The log is the truth and the store a view of it that is quick to read: every write carries the number of the record
//! that it follows, so that a start can tell which of the two is behind.

#[cfg(test)]
mod conformance;
mod cordons;
pub mod memory;
mod rows;
pub mod sqlite;
mod tokens;

pub use cordons::{CordonRow, CordonStore};
pub use memory::Memory;
pub use rows::{OUTCOME_BYTES_MAX, SessionRow, StoredOutcome, TaskRow};
pub use sqlite::Sqlite;
pub use tokens::{TokenRow, TokenStore};

use codegen_types::{LogSeq, Principal, SessionId, TaskId};
use futures::future::BoxFuture;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is a row with that id, or with that key in that session.
    #[error("the row exists already")]
    Exists,
    /// The row was changed, or is gone, since the caller read it.
    #[error("the row is not at the revision that the caller expected")]
    Conflict,
    /// A row does not say what it should.
    #[error("the row `{id}` cannot be read: {why}")]
    Malformed {
        /// Which row.
        id: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file was written by a later version of this program.
    #[error("the store has schema version {found}, this program knows versions up to {known}")]
    TooNew {
        /// The file's version.
        found: i64,
        /// The newest version that is known here.
        known: i64,
    },
    /// The database refused.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// The file cannot be made or opened.
    #[error("the store's file cannot be used")]
    Io(#[from] std::io::Error),
}

/// The answer of a store.
pub type StoreResult<T> = Result<T, StoreError>;

/// How far the store follows the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The log that it follows; `None` in a new store.
    pub log_id: Option<String>,
    /// The highest record that a row follows.
    pub applied: LogSeq,
    /// Every attempt before this record has its outcome on record.
    pub settled_before: LogSeq,
}

/// Sessions at rest.
pub trait SessionStore: Send + Sync + 'static {
    /// Adds a row.
    fn insert_session(&self, row: SessionRow) -> BoxFuture<'_, StoreResult<()>>;

    /// Replaces the row whose revision is one less than that of `row`.
    fn put_session(&self, row: SessionRow) -> BoxFuture<'_, StoreResult<()>>;

    /// Removes the row, if it is at this revision.
    fn remove_session(&self, session: SessionId, revision: u64) -> BoxFuture<'_, StoreResult<()>>;

    /// Every row, oldest first.
    fn sessions(&self) -> BoxFuture<'_, StoreResult<Vec<SessionRow>>>;

    /// How far this store follows the log.
    fn progress(&self) -> BoxFuture<'_, StoreResult<Progress>>;

    /// Says that every attempt before `settled_before` in the log `log_id` is settled.
    fn settle(&self, log_id: String, settled_before: LogSeq) -> BoxFuture<'_, StoreResult<()>>;
}

/// Which tasks are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TasksOf {
    /// Those of one principal, in all sessions.
    Principal(Principal),
    /// Those of one session, whoever began them.
    Session(SessionId),
    /// All of them.
    Everybody,
}

/// Tasks at rest, for as long as their results are kept.
pub trait TaskStore: Send + Sync + 'static {
    /// Adds a row. [`StoreError::Exists`] also when its principal has a task with that key in the session.
    fn insert_task(&self, row: TaskRow) -> BoxFuture<'_, StoreResult<()>>;

    /// Replaces the row whose revision is one less than that of `row`.
    fn put_task(&self, row: TaskRow) -> BoxFuture<'_, StoreResult<()>>;

    /// One row.
    fn task(&self, task: TaskId) -> BoxFuture<'_, StoreResult<Option<TaskRow>>>;

    /// The row of this principal's call with this idempotency key.
    fn task_by_key(
        &self,
        session: SessionId,
        principal: Principal,
        key: String,
    ) -> BoxFuture<'_, StoreResult<Option<TaskRow>>>;

    /// Rows of tasks that are not over, oldest first.
    fn unfinished_tasks(&self) -> BoxFuture<'_, StoreResult<Vec<TaskRow>>>;

    /// Some rows, the newest first, at most so many, without their outcomes.
    fn recent_tasks(&self, of: TasksOf, limit: u32) -> BoxFuture<'_, StoreResult<Vec<TaskRow>>>;

    /// Removes tasks that ended before this time and then, while the outcomes of the rest take more than `bytes_max`,
    /// the ones that ended first; those without an idempotency key before those with one, of which the row stays without
    /// its outcome, lest the call be run again under its key. Returns how many were touched.
    fn prune_tasks(&self, ended_before_ms: i64, bytes_max: u64) -> BoxFuture<'_, StoreResult<u64>>;
}
