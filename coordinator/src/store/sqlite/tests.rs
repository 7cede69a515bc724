//! What is particular to SQLite; the rest is in the conformance suite.

use std::os::unix::fs::PermissionsExt as _;

use sqlx::{Executor as _, SqlSafeStr as _};

use super::*;

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
