//! Sessions and tasks in one SQLite file, the default.
//!
//! The file is in WAL mode with `synchronous = NORMAL`: a power cut may take the last writes with it, never the file's
//! integrity. That is enough, because the log is the truth and a start puts right what the store has missed.

mod migrate;
mod sessions;
mod statements;
mod tasks;
#[cfg(test)]
mod tests;

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use super::{StoreError, StoreResult};

/// How long a connection waits for another one's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a caller waits for a connection; more callers than that many seconds' work are refused.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
const READERS: u32 = 2;

/// A store in a file that this process alone writes.
#[derive(Debug, Clone)]
pub struct Sqlite {
    /// One connection, so that writers queue here and not on the file's lock.
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Sqlite {
    /// Opens the file, makes it if there is none (mode 0600), and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be opened or made, or a later version of this program wrote it.
    pub async fn open(path: &Path) -> StoreResult<Self> {
        std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true);
        let pool = || SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT);
        let writer = pool().min_connections(1).max_connections(1).connect_with(options.clone()).await?;
        migrate::migrate(&writer).await?;
        let readers = pool().max_connections(READERS).connect_lazy_with(options.read_only(true));
        Ok(Self { writer, readers })
    }

    /// Writes what is in the WAL into the file and lets go of it.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A count as SQLite keeps it; what does not fit is kept as the largest that does.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A row that was written, or the reason why it was not.
fn inserted(result: Result<sqlx::sqlite::SqliteQueryResult, sqlx::Error>) -> StoreResult<()> {
    match result {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Err(StoreError::Exists),
        Err(error) => Err(error.into()),
    }
}

/// A compare-and-set that found its row, or not.
fn replaced(result: &sqlx::sqlite::SqliteQueryResult) -> StoreResult<()> {
    if result.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

fn malformed(id: &str, why: impl std::fmt::Display) -> StoreError {
    StoreError::Malformed { id: id.to_owned(), why: why.to_string() }
}

fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("rows hold nothing but strings, numbers and maps with string keys")
}

fn from_json<T: serde::de::DeserializeOwned>(id: &str, text: &str) -> StoreResult<T> {
    serde_json::from_str(text).map_err(|error| malformed(id, error))
}
