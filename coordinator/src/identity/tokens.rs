//! Static tokens: made, listed, revoked and checked.
//!
//! The one process that holds the state directory has all of them in memory, so that a check asks no disk and a
//! revocation holds for the next request. What changes them is in the log before it is in the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use codegen_audit::{Audit, Entry, EventKind, Outcome};
use codegen_types::{ErrorCode, Failure, Principal};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::authenticator::Identity;
use super::refusal::Unauthenticated;
use super::scopes::{Scope, Scopes};
use super::token::{self, TokenDigest, TokenId, TokenText};
use super::validity::Validity;
use crate::store::{StoreError, StoreResult, TokenRow, TokenStore};

/// Tokens that are kept, dead ones included; the oldest dead one makes room.
pub const TOKENS_MAX: usize = 1_000;
/// The longest note, in bytes.
const NOTE_BYTES_MAX: usize = 200;
/// The longest lifetime that can be asked for, in seconds: ten years.
const LIFETIME_SECONDS_MAX: u64 = 10 * 365 * 24 * 3600;

/// Makes, lists, revokes and checks tokens. Cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    store: Arc<dyn TokenStore>,
    audit: Audit,
    table: RwLock<HashMap<TokenId, Known>>,
    /// Held through each change, so that store and table agree.
    changing: tokio::sync::Mutex<()>,
}

/// A token, and who waits for its end.
struct Known {
    row: TokenRow,
    /// Cancelled when the token is revoked.
    revoked: CancellationToken,
}

impl Known {
    fn new(row: TokenRow) -> Self {
        Self { row, revoked: CancellationToken::new() }
    }
}

/// A token to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// On whose behalf it is to be used.
    pub principal: String,
    /// What it is to permit.
    pub scopes: Scopes,
    /// After how many seconds it expires; never when absent.
    pub lifetime_seconds: Option<u64>,
    /// What it is for.
    pub note: Option<String>,
}

/// A token as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// Its name.
    pub id: TokenId,
    /// On whose behalf it is used.
    pub principal: Principal,
    /// What it permits.
    pub scopes: Scopes,
    /// `active`, `expired` or `revoked`.
    pub state: TokenState,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// When it expires.
    pub expires: Option<jiff::Timestamp>,
    /// When it was revoked.
    pub revoked: Option<jiff::Timestamp>,
    /// What it is for.
    pub note: Option<String>,
}

/// Whether a token is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// It is.
    Active,
    /// It is too old.
    Expired,
    /// It was withdrawn.
    Revoked,
}

impl TokenState {
    /// The state as it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl Tokens {
    /// The tokens of a store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn load(store: Arc<dyn TokenStore>, audit: Audit) -> StoreResult<Self> {
        let table = store.tokens().await?.into_iter().map(|row| (row.id.clone(), Known::new(row))).collect();
        Ok(Self(Arc::new(Inner { store, audit, table: RwLock::new(table), changing: tokio::sync::Mutex::default() })))
    }

    /// Whether a token was ever made here, good or not.
    pub fn any(&self) -> bool {
        !self.0.table.read().is_empty()
    }

    /// Whether a good token permits this.
    pub fn any_permits(&self, scope: Scope) -> bool {
        let (table, now) = (self.0.table.read(), now_ms());
        let mut rows = table.values().map(|known| &known.row);
        rows.any(|row| row.scopes.has(scope) && state(row, now) == TokenState::Active)
    }

    /// Makes a token. Its text is in the answer and nowhere else.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`; `QUOTA_EXCEEDED` when there are too many good ones; `AUDIT_UNAVAILABLE`; `INTERNAL` when the
    /// store fails.
    pub async fn create(&self, new: NewToken, by: &Principal) -> Result<(TokenView, TokenText), Failure> {
        let _turn = self.0.changing.lock().await;
        let now = now_ms();
        let (row, text) = mint(new, now)?;
        self.make_room(now, by).await?;
        let detail = json!({
            "id": row.id, "for": row.principal, "scopes": row.scopes, "expires_ms": row.expires_ms, "note": row.note,
        });
        let entry = self.record(EventKind::TokenCreated, by, detail).await?;
        if let Err(error) = self.0.store.insert_token(row.clone()).await {
            return Err(self.failed(entry, &error).await);
        }
        let view = view(&row, now);
        self.0.table.write().insert(row.id.clone(), Known::new(row));
        Ok((view, text))
    }

    /// Revokes a token. The next request with it is refused, its open streams end, and it stays listed.
    ///
    /// # Errors
    /// `NOT_FOUND`; `AUDIT_UNAVAILABLE`; `INTERNAL` when the store fails.
    pub async fn revoke(&self, id: &TokenId, by: &Principal) -> Result<TokenView, Failure> {
        let _turn = self.0.changing.lock().await;
        let now = now_ms();
        let found = self.0.table.read().get(id).map(|known| known.row.clone());
        let row = found.ok_or_else(|| Failure::new(ErrorCode::NotFound, format!("there is no token {id}")))?;
        if row.revoked_ms.is_some() {
            return Ok(view(&row, now));
        }
        let detail = json!({"id": id, "for": row.principal});
        let entry = self.record(EventKind::TokenRevoked, by, detail).await?;
        if let Err(error) = self.0.store.revoke_token(id.clone(), now).await {
            return Err(self.failed(entry, &error).await);
        }
        let row = TokenRow { revoked_ms: Some(now), ..row };
        let view = view(&row, now);
        if let Some(known) = self.0.table.write().get_mut(id) {
            known.row = row;
            known.revoked.cancel();
        }
        Ok(view)
    }

    /// Every token, oldest first.
    pub fn list(&self) -> Vec<TokenView> {
        let now = now_ms();
        let mut rows: Vec<TokenRow> = self.0.table.read().values().map(|known| known.row.clone()).collect();
        rows.sort_by(|one, other| (one.created_ms, &one.id).cmp(&(other.created_ms, &other.id)));
        rows.iter().map(|row| view(row, now)).collect()
    }

    /// Says in the store that it was lost and begun anew, so that a server that asked for credentials goes on asking.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE`; `INTERNAL` when the store fails.
    pub async fn note_loss(&self, by: &Principal) -> Result<(), Failure> {
        let note = "no token: the store was lost or damaged and begun anew, and the tokens in it are lost".to_owned();
        let (principal, scopes, note) = ("nobody".to_owned(), Scopes::NONE, Some(note));
        let (view, _unused) = self.create(NewToken { principal, scopes, lifetime_seconds: None, note }, by).await?;
        self.revoke(&view.id, by).await.map(drop)
    }

    /// Whether there is a good token of this principal.
    pub(crate) fn has(&self, principal: &str) -> bool {
        let (table, now) = (self.0.table.read(), now_ms());
        let mut rows = table.values().map(|known| &known.row);
        rows.any(|row| row.principal.as_str() == principal && state(row, now) == TokenState::Active)
    }

    /// Who uses a token, and the token's id as far as the text names one that there is.
    pub(crate) fn check(&self, text: &str) -> (Result<Identity, Unauthenticated>, Option<TokenId>) {
        let table = self.0.table.read();
        let Some(Known { row, revoked }) = token::id_in(text).and_then(|id| table.get(&id)) else {
            return (Err(Unauthenticated::Invalid), None);
        };
        if !row.digest.matches(text) {
            return (Err(Unauthenticated::Invalid), Some(row.id.clone()));
        }
        let checked = match state(row, now_ms()) {
            TokenState::Active => {
                let validity = Validity { expires_ms: row.expires_ms, revoked: Some(revoked.clone()) };
                Ok(Identity { principal: row.principal.clone(), scopes: row.scopes, validity })
            }
            TokenState::Expired => Err(Unauthenticated::Expired),
            TokenState::Revoked => Err(Unauthenticated::Revoked),
        };
        (checked, Some(row.id.clone()))
    }

    /// Removes the oldest dead token when there is no room for another. Whoever uses it then is told that it is no token.
    async fn make_room(&self, now: i64, by: &Principal) -> Result<(), Failure> {
        let oldest = {
            let table = self.0.table.read();
            if table.len() < TOKENS_MAX {
                return Ok(());
            }
            let dead = table.values().map(|known| &known.row).filter(|row| state(row, now) != TokenState::Active);
            dead.min_by_key(|row| row.created_ms).cloned()
        };
        let Some(row) = oldest else {
            let message = format!("there are {TOKENS_MAX} good tokens already; revoke one that is not needed");
            return Err(Failure::new(ErrorCode::QuotaExceeded, message));
        };
        let detail = json!({"id": row.id, "for": row.principal, "was": state(&row, now)});
        let entry = self.record(EventKind::TokenForgotten, by, detail).await?;
        if let Err(error) = self.0.store.remove_token(row.id.clone()).await {
            return Err(self.failed(entry, &error).await);
        }
        self.0.table.write().remove(&row.id);
        Ok(())
    }

    async fn record(&self, kind: EventKind, by: &Principal, detail: serde_json::Value) -> Result<Entry, Failure> {
        let principal = Some(by.clone());
        let entry = Entry { kind, principal, outcome: Some(Outcome::Ok), detail: Some(detail), ..Entry::default() };
        self.0.audit.append(entry.clone()).await?;
        Ok(entry)
    }

    /// Records that what was recorded was not done after all.
    async fn failed(&self, entry: Entry, error: &StoreError) -> Failure {
        let entry = Entry { outcome: Some(Outcome::Failed), ..entry };
        if let Err(error) = self.0.audit.append(entry).await {
            tracing::error!(%error, "that a change of tokens failed is not in the log");
        }
        store_failed(error)
    }
}

fn store_failed(error: &StoreError) -> Failure {
    let error: &dyn std::error::Error = error;
    tracing::error!(error, "the store did not take a change of tokens");
    Failure::new(ErrorCode::Internal, "the store of tokens failed; nothing was changed")
}

fn mint(new: NewToken, now: i64) -> Result<(TokenRow, TokenText), Failure> {
    let invalid = |why: String| Failure::new(ErrorCode::InvalidArgument, why);
    let principal = new.principal.parse::<Principal>().map_err(|error| invalid(error.to_string()))?;
    let lifetime_ms = new.lifetime_seconds.map(lifetime_ms).transpose().map_err(invalid)?;
    let harmless = |note: &String| note.len() <= NOTE_BYTES_MAX && !note.chars().any(char::is_control);
    if !new.note.as_ref().is_none_or(harmless) {
        return Err(invalid(format!("a note is one line of at most {NOTE_BYTES_MAX} bytes")));
    }
    let id = TokenId::mint();
    let text = TokenText::mint(&id);
    let digest = TokenDigest::of(text.expose());
    let expires_ms = lifetime_ms.map(|lifetime| now + lifetime);
    let (scopes, note) = (new.scopes, new.note);
    Ok((TokenRow { id, digest, principal, scopes, note, created_ms: now, expires_ms, revoked_ms: None }, text))
}

fn lifetime_ms(seconds: u64) -> Result<i64, String> {
    let allowed = (1..=LIFETIME_SECONDS_MAX).contains(&seconds);
    let lifetime = Duration::from_secs(if allowed { seconds } else { 0 });
    match i64::try_from(lifetime.as_millis()) {
        Ok(lifetime) if allowed => Ok(lifetime),
        _ => Err("a token lives from one second to ten years, or for ever".to_owned()),
    }
}

fn state(row: &TokenRow, now: i64) -> TokenState {
    match (row.revoked_ms, row.expires_ms) {
        (Some(_), _) => TokenState::Revoked,
        (None, Some(expires)) if expires <= now => TokenState::Expired,
        (None, _) => TokenState::Active,
    }
}

fn view(row: &TokenRow, now: i64) -> TokenView {
    TokenView {
        id: row.id.clone(),
        principal: row.principal.clone(),
        scopes: row.scopes,
        state: state(row, now),
        created: time(row.created_ms),
        expires: row.expires_ms.map(time),
        revoked: row.revoked_ms.map(time),
        note: row.note.clone(),
    }
}

fn time(ms: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX)
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
