//! Static tokens at rest.

use codegen_types::Principal;
use futures::future::BoxFuture;

use super::StoreResult;
use crate::identity::{Scopes, TokenDigest, TokenId};

/// One token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its name.
    pub id: TokenId,
    /// The SHA-256 digest of its text.
    pub digest: TokenDigest,
    /// On whose behalf it is used.
    pub principal: Principal,
    /// What it permits.
    pub scopes: Scopes,
    /// What it is for, in its maker's words.
    pub note: Option<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// From when on it is no longer good, in milliseconds since 1970.
    pub expires_ms: Option<i64>,
    /// When it was revoked, in milliseconds since 1970.
    pub revoked_ms: Option<i64>,
}

/// Tokens at rest. What was written is on disk when the answer comes: a power cut makes no revoked token good again.
pub trait TokenStore: Send + Sync + 'static {
    /// Adds a row. [`StoreError::Exists`](super::StoreError::Exists) when there is one with that id.
    fn insert_token(&self, row: TokenRow) -> BoxFuture<'_, StoreResult<()>>;

    /// Says when a token was revoked. [`StoreError::Conflict`](super::StoreError::Conflict) when there is no such token,
    /// or it was revoked before.
    fn revoke_token(&self, token: TokenId, revoked_ms: i64) -> BoxFuture<'_, StoreResult<()>>;

    /// Removes a row. [`StoreError::Conflict`](super::StoreError::Conflict) when there is none.
    fn remove_token(&self, token: TokenId) -> BoxFuture<'_, StoreResult<()>>;

    /// Every row, oldest first.
    fn tokens(&self) -> BoxFuture<'_, StoreResult<Vec<TokenRow>>>;
}
