//! Whether tokens are gone with the store that had them: a server that asked for credentials goes on asking.

use std::path::PathBuf;

use codegen_audit::{EventKind, records};

use crate::store::sqlite::Sqlite;
use crate::store::{SessionStore as _, StoreError};

/// Whether the log tells of tokens, and the store, which has none, is a new one. Only then is all of the log read.
///
/// # Errors
/// [`StoreError`]: the store cannot be read.
pub(super) async fn are_lost(store: &Sqlite, audit_dir: PathBuf) -> Result<bool, StoreError> {
    if store.progress().await?.log_id.is_some() {
        return Ok(false);
    }
    let read = move || {
        let mut kinds = records(&audit_dir, None).filter_map(Result::ok).map(|record| record.kind);
        kinds.any(|kind| kind == EventKind::TokenCreated)
    };
    // Whoever cannot know asks for credentials.
    Ok(tokio::task::spawn_blocking(read).await.unwrap_or(true))
}
