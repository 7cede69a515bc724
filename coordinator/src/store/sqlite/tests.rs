//! What is particular to SQLite; the rest is in the conformance suite.

use std::os::unix::fs::PermissionsExt as _;

use codegen_types::LogSeq;
use sqlx::{Executor as _, Row as _, SqlSafeStr as _};

use super::*;
use crate::store::SessionStore;

#[tokio::test]
async fn every_statement_prepares() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&dir.path().join("state.db")).await.unwrap();
    for statement in statements::ALL {
        let mut connection = store.writer.acquire().await.unwrap();
        connection.prepare((*statement).into_sql_str()).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

#[tokio::test]
async fn its_files_are_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let _store = Sqlite::open(&dir.path().join("state.db")).await.unwrap();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
        names.push(entry.file_name().into_string().unwrap());
    }
    assert!(names.contains(&"state.db".to_owned()) && names.contains(&"state.db-wal".to_owned()), "{names:?}");
}

#[tokio::test]
async fn a_file_of_a_later_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let store = Sqlite::open(&path).await.unwrap();
    sqlx::query("PRAGMA user_version = 99").execute(&store.writer).await.unwrap();
    store.close().await;
    assert!(matches!(Sqlite::open(&path).await, Err(StoreError::TooNew { found: 99, .. })));
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_a_new_one_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    std::fs::write(&path, b"this is no database, whatever its name says".repeat(100)).unwrap();
    assert!(Sqlite::open(&path).await.is_err());
    let (store, aside) = Sqlite::open_or_replace(&path).await.unwrap();
    assert!(aside.is_some_and(|aside| std::fs::read(aside).unwrap().starts_with(b"this is no database")));
    store.close().await;
    assert!(Sqlite::open_or_replace(&path).await.unwrap().1.is_none(), "a whole one is opened as it is");
}

#[tokio::test]
async fn a_file_that_did_not_follow_the_log_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let store = Sqlite::open(&path).await.unwrap();
    let earlier = "DROP TRIGGER session_inserted; DROP TRIGGER session_updated; DROP TRIGGER task_inserted; \
        DROP TRIGGER task_updated; DROP TABLE tokens; DROP TABLE cordons; \
        ALTER TABLE sessions DROP COLUMN shares; ALTER TABLE sessions DROP COLUMN network; \
        ALTER TABLE sessions DROP COLUMN key; ALTER TABLE sessions DROP COLUMN key_digest; DROP INDEX tasks_by_session; PRAGMA user_version = 2";
    sqlx::raw_sql(earlier).execute(&store.writer).await.unwrap();
    store.close().await;
    let store = Sqlite::open(&path).await.unwrap();
    let row = "INSERT INTO sessions (id, principal, metadata, state, ttl_ms, created_ms, last_used_ms, tasks, revision, \
        audit_seq) VALUES ('s', 'p', '{}', '{}', 1, 1, 1, 0, 1, 12)";
    sqlx::query(row).execute(&store.writer).await.unwrap();
    sqlx::query("UPDATE sessions SET audit_seq = 7").execute(&store.writer).await.unwrap();
    assert_eq!(SessionStore::progress(&store).await.unwrap().applied, LogSeq(12), "it never goes back");
}

#[tokio::test]
async fn the_wal_does_not_grow_with_the_number_of_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let store = Sqlite::open(&path).await.unwrap();
    let large = || sqlx::query("INSERT OR REPLACE INTO meta (key, value) VALUES ('x', hex(randomblob(20000)))");
    let until = std::time::Instant::now() + Duration::from_secs(30);
    // Some 10 MiB for each checkpoint; they run beside the writes, so that a few may pass before the first is done.
    let size = || std::fs::metadata(dir.path().join("state.db")).unwrap().len();
    while size() < 30_000 {
        assert!(std::time::Instant::now() < until, "what is in the WAL reaches the file");
        store.write(large()).await.unwrap();
    }
    let whole: String = sqlx::query("PRAGMA integrity_check").fetch_one(&store.readers).await.unwrap().get(0);
    assert_eq!(whole, "ok");
}
