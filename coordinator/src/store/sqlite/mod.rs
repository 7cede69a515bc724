//! Sessions and tasks in one SQLite file, the default.
//!
//! The file is in WAL mode with `synchronous = NORMAL`: a power cut may take the last writes with it, never the file's
//! integrity. That is enough, because the log is the truth and a start puts right what the store has missed.

mod checkpoints;
mod cordons;
mod migrate;
mod sessions;
mod statements;
mod tasks;
#[cfg(test)]
mod tests;
mod tokens;

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::query::Query;
use sqlx::sqlite::{
    Sqlite as Engine, SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteQueryResult, SqliteSynchronous,
};

use super::{StoreError, StoreResult};
use checkpoints::Checkpoints;

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
    checkpoints: Checkpoints,
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
            .pragma("wal_autocheckpoint", "0")
            .foreign_keys(true);
        // A connection within this process needs no test, which would be one more change of threads.
        let pool = || SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT).test_before_acquire(false);
        let writer = pool().min_connections(1).max_connections(1).connect_with(options.clone()).await?;
        migrate::migrate(&writer).await?;
        let checkpoints = Checkpoints::new(options.clone());
        let readers = pool().max_connections(READERS).connect_lazy_with(options.read_only(true));
        Ok(Self { writer, readers, checkpoints })
    }

    /// Opens the file as [`open`](Self::open) does. One that is damaged is set aside under another name, which is given,
    /// and a new one is made: what it knew is in the log, but for the results of tasks.
    ///
    /// # Errors
    /// [`StoreError`] when neither can be opened, or a later version of this program wrote it.
    pub async fn open_or_replace(path: &Path) -> StoreResult<(Self, Option<PathBuf>)> {
        match Self::open(path).await {
            Err(StoreError::Database(error)) if is_damage(&error) => {
                let aside = set_aside(path)?;
                Ok((Self::open(path).await?, Some(aside)))
            }
            opened => opened.map(|store| (store, None)),
        }
    }

    /// Executes a statement that changes rows, as one transaction and in one turn of the writer.
    async fn write(&self, query: Query<'static, Engine, SqliteArguments>) -> Result<SqliteQueryResult, sqlx::Error> {
        let result = query.execute(&self.writer).await;
        self.checkpoints.count_write();
        result
    }

    /// Writes what is in the WAL into the file and lets go of it.
    pub async fn close(&self) {
        self.readers.close().await;
        self.checkpoints.close().await;
        self.writer.close().await;
    }
}

/// Whether SQLite says that the file is damaged, or no database at all (`SQLITE_CORRUPT`, `SQLITE_NOTADB`).
fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    // The low byte is the kind, the rest says more about it.
    code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

/// Renames the file and its companions to names that are free.
fn set_aside(path: &Path) -> StoreResult<PathBuf> {
    let named = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let free = (1..).map(|n| named(&format!(".damaged-{n}"))).find(|aside| !aside.exists());
    let aside = free.expect("the numbers do not end");
    std::fs::rename(path, &aside)?;
    for companion in ["-wal", "-shm"] {
        match std::fs::remove_file(named(companion)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(aside)
}

/// A count as SQLite keeps it; what does not fit is kept as the largest that does.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A row that was written, or the reason why it was not.
fn inserted(result: Result<SqliteQueryResult, sqlx::Error>) -> StoreResult<()> {
    match result {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Err(StoreError::Exists),
        Err(error) => Err(error.into()),
    }
}

/// A compare-and-set that found its row, or not.
fn replaced(result: &SqliteQueryResult) -> StoreResult<()> {
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
