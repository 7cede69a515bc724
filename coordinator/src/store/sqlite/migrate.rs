//! Bringing a file's schema up to date. Its version is SQLite's own `user_version`.

use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, Row as _};

use crate::store::{StoreError, StoreResult};

/// What leads from each version to the next. Published ones are never changed.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/0001_sessions_and_tasks.sql"),
    include_str!("../../../migrations/0002_output_and_receipts.sql"),
    include_str!("../../../migrations/0003_follow_the_log.sql"),
    include_str!("../../../migrations/0004_tokens.sql"),
    include_str!("../../../migrations/0005_sharing.sql"),
    include_str!("../../../migrations/0006_cordons.sql"),
    include_str!("../../../migrations/0007_network.sql"),
    include_str!("../../../migrations/0008_creation_keys.sql"),
];

pub(super) async fn migrate(writer: &SqlitePool) -> StoreResult<()> {
    let known = i64::try_from(MIGRATIONS.len()).expect("a handful");
    let found: i64 = sqlx::query("PRAGMA user_version").fetch_one(writer).await?.try_get(0)?;
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    let done = usize::try_from(found).map_err(|_| StoreError::TooNew { found, known })?;
    for (at, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        let mut transaction = writer.begin().await?;
        sqlx::raw_sql(*migration).execute(&mut *transaction).await?;
        // A pragma takes no parameters; the version is a number of ours.
        let version = format!("PRAGMA user_version = {}", at + 1);
        sqlx::raw_sql(AssertSqlSafe(version)).execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
    Ok(())
}
