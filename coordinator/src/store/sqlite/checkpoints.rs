//! Copying the WAL into the file, beside the writes and not within one of them, since it waits for the disk twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};

/// Writes between two checkpoints; each adds some 20 KiB to the WAL.
const WRITES: u64 = 256;
/// How long the connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(30);

/// Counts writes and makes checkpoints.
#[derive(Debug, Clone)]
pub(super) struct Checkpoints {
    connection: SqlitePool,
    writes: Arc<AtomicU64>,
}

impl Checkpoints {
    /// Over a connection of its own, opened when it is needed.
    pub(super) fn new(options: SqliteConnectOptions) -> Self {
        let pool = SqlitePoolOptions::new().max_connections(1).idle_timeout(IDLE);
        Self { connection: pool.connect_lazy_with(options), writes: Arc::default() }
    }

    /// Counts a write. Must be called on a tokio runtime.
    pub(super) fn count_write(&self) {
        if self.writes.fetch_add(1, Ordering::Relaxed) % WRITES == WRITES - 1 {
            let connection = self.connection.clone();
            tokio::spawn(async move {
                // A passive one waits for no reader and keeps no writer waiting; what it leaves, the next one takes.
                if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&connection).await {
                    tracing::warn!(%error, "the store's WAL could not be copied into its file; it is tried again");
                }
            });
        }
    }

    pub(super) async fn close(&self) {
        self.connection.close().await;
    }
}
