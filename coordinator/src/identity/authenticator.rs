//! From the credentials of a request to an identity.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use codegen_audit::{Audit, Entry, EventKind, Outcome};
use codegen_types::{ErrorCode, Principal};
use parking_lot::Mutex;
use serde_json::json;

use super::issuer::{Issuer, Refused};
use super::refusal::{InsufficientScope, Unauthenticated};
use super::resource::ProtectedResourceMetadata;
use super::scopes::Scopes;
use super::token::{self, TokenId};
use super::tokens::Tokens;
use super::validity::Validity;
use crate::refusals::{Refusals, Verdict};

/// The longest credentials that are looked at, in bytes.
const CREDENTIALS_BYTES_MAX: usize = 8 << 10;

/// Who makes a request and what the request may do. Two are equal when both of that are, whatever shows it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// On whose behalf.
    pub principal: Principal,
    /// What the credentials permit.
    pub scopes: Scopes,
    /// How long they do, for what outlives the request.
    pub validity: Validity,
}

impl Identity {
    /// An identity that lasts.
    pub fn new(principal: Principal, scopes: Scopes) -> Self {
        Self { principal, scopes, validity: Validity::default() }
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        (&self.principal, self.scopes) == (&other.principal, other.scopes)
    }
}

impl Eq for Identity {}

/// What a request shows of who makes it.
#[derive(Debug, Clone, Copy)]
pub enum Credentials<'a> {
    /// Nothing.
    None,
    /// The credentials of an `Authorization: Bearer` header, without the scheme.
    Bearer(&'a str),
    /// Something else; what is wrong with it, in a word of ours.
    Other(&'static str),
}

/// Whether requests need credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// They do once a token was made or an issuer is configured; until then whoever reaches the port is let in.
    Auto,
    /// They do.
    Required,
    /// They do not.
    Open,
}

/// Says who makes a request. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator(Arc<Inner>);

struct Inner {
    tokens: Tokens,
    issuer: Option<Issuer>,
    requirement: Requirement,
    audit: Audit,
    refusals: Mutex<Refusals>,
    insufficient: Mutex<Refusals>,
    began: Instant,
}

/// What is recorded of a refusal.
struct Evidence {
    why: Unauthenticated,
    /// What was wrong with a token, in a word of ours.
    about: Option<&'static str>,
    /// Which static token it was, as far as that is known.
    token: Option<TokenId>,
}

impl Authenticator {
    /// Checks against these tokens, and those of the issuer if there is one. Refusals are recorded in `audit`, a flood
    /// of them in part.
    pub fn new(tokens: Tokens, issuer: Option<Issuer>, requirement: Requirement, audit: Audit) -> Self {
        let (refusals, insufficient, began) = (Mutex::default(), Mutex::default(), Instant::now());
        Self(Arc::new(Inner { tokens, issuer, requirement, audit, refusals, insufficient, began }))
    }

    /// Whether requests without credentials are let in (as the principal `http:local`). Only ever on the loopback
    /// interface: whoever binds another address asks first. Once false, it stays so, unless the operator said otherwise.
    pub fn is_open(&self) -> bool {
        match self.0.requirement {
            Requirement::Auto => self.0.issuer.is_none() && !self.0.tokens.any(),
            Requirement::Required => false,
            Requirement::Open => true,
        }
    }

    /// What clients are told of the issuer (RFC 9728), when there is one.
    pub fn metadata(&self) -> Option<ProtectedResourceMetadata> {
        let issuer = self.0.issuer.as_ref()?;
        Some(ProtectedResourceMetadata::new(issuer.config()))
    }

    /// The static tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    /// Records that good credentials permit too little, unless there were too many such just now. `tool`: the one that
    /// was called, if one was.
    pub async fn insufficient(
        &self,
        identity: &Identity,
        why: InsufficientScope,
        tool: Option<&'static str>,
        peer: Option<IpAddr>,
    ) {
        let Verdict::Record { suppressed } = self.0.insufficient.lock().count(self.0.began.elapsed()) else {
            return;
        };
        let kind = if tool.is_some() { EventKind::CallRefused } else { EventKind::AuthenticationRefused };
        let entry = Entry {
            kind,
            principal: Some(identity.principal.clone()),
            tool: tool.map(str::to_owned),
            outcome: Some(Outcome::Refused),
            code: Some(ErrorCode::PermissionDenied),
            detail: Some(json!({"needed_scopes": why.needed, "peer": peer, "suppressed": suppressed})),
            ..Entry::default()
        };
        // The request is refused in any case.
        if let Err(error) = self.0.audit.append(entry).await {
            tracing::warn!(%error, "a request with too narrow a scope is not in the log");
        }
    }

    /// Who makes a request. `bearer`: the credentials of an `Authorization: Bearer` header, without the scheme.
    ///
    /// # Errors
    /// Why the request is not let in.
    pub async fn authenticate(&self, bearer: Option<&str>) -> Result<Identity, Unauthenticated> {
        self.authenticate_from(bearer.map_or(Credentials::None, Credentials::Bearer), None).await
    }

    /// The same, with the address that the request came from, for the record of a refusal.
    ///
    /// # Errors
    /// Why the request is not let in.
    pub async fn authenticate_from(
        &self,
        credentials: Credentials<'_>,
        peer: Option<IpAddr>,
    ) -> Result<Identity, Unauthenticated> {
        let refused = match credentials {
            Credentials::None if self.is_open() => {
                return Ok(Identity::new(Principal::http_local(), Scopes::USER));
            }
            Credentials::None => Evidence { why: Unauthenticated::Missing, about: None, token: None },
            Credentials::Other(about) => Evidence { why: Unauthenticated::Invalid, about: Some(about), token: None },
            Credentials::Bearer(credentials) => match self.check(credentials).await {
                Ok(identity) => return Ok(identity),
                Err(refused) => refused,
            },
        };
        let why = refused.why;
        self.record(refused, peer).await;
        Err(why)
    }

    async fn check(&self, credentials: &str) -> Result<Identity, Evidence> {
        let invalid = |about| Evidence { why: Unauthenticated::Invalid, about: Some(about), token: None };
        if credentials.len() > CREDENTIALS_BYTES_MAX {
            return Err(invalid("length"));
        }
        if token::is_static(credentials) {
            let (checked, token) = self.0.tokens.check(credentials);
            return checked.map_err(|why| Evidence { why, about: None, token });
        }
        let Some(issuer) = &self.0.issuer else { return Err(invalid("form")) };
        let checked = issuer.check(credentials).await;
        checked.map_err(|Refused { why, about }| Evidence { why, about: Some(about), token: None })
    }

    /// Records a refusal, unless there were too many just now.
    async fn record(&self, refused: Evidence, peer: Option<IpAddr>) {
        let Verdict::Record { suppressed } = self.0.refusals.lock().count(self.0.began.elapsed()) else {
            return;
        };
        let entry = Entry {
            kind: EventKind::AuthenticationRefused,
            outcome: Some(Outcome::Refused),
            code: Some(ErrorCode::Unauthenticated),
            detail: Some(json!({
                "why": refused.why.as_str(), "about": refused.about, "id": refused.token, "peer": peer,
                "suppressed": suppressed,
            })),
            ..Entry::default()
        };
        // The request is refused in any case.
        if let Err(error) = self.0.audit.append(entry).await {
            tracing::warn!(%error, "a refused authentication is not in the log");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{NewToken, Scope};
    use crate::store::{Memory, TokenRow, TokenStore as _};

    struct Bench {
        authenticator: Authenticator,
        audit: Audit,
        operator: Principal,
    }

    impl Bench {
        async fn new(requirement: Requirement) -> Self {
            let audit = Audit::in_memory();
            let tokens = Tokens::load(Arc::new(Memory::default()), audit.clone()).await.unwrap();
            let authenticator = Authenticator::new(tokens, None, requirement, audit.clone());
            Self { authenticator, audit, operator: Principal::os_user("op") }
        }

        async fn token(&self, principal: &str) -> (TokenId, String) {
            let new = NewToken {
                principal: principal.to_owned(),
                scopes: Scope::Tools.into(),
                lifetime_seconds: None,
                note: None,
            };
            let (view, text) = self.authenticator.tokens().create(new, &self.operator).await.unwrap();
            (view.id, text.expose().to_owned())
        }
    }

    #[tokio::test]
    async fn a_token_lets_its_principal_in_until_it_is_revoked() {
        let bench = Bench::new(Requirement::Auto).await;
        let ((id, text), (_, other)) = (bench.token("alice").await, bench.token("alice").await);
        let identity = Identity::new("alice".parse().unwrap(), Scope::Tools.into());
        assert_eq!(bench.authenticator.authenticate(Some(&text)).await, Ok(identity.clone()));
        bench.authenticator.tokens().revoke(&id, &bench.operator).await.unwrap();
        assert_eq!(bench.authenticator.authenticate(Some(&text)).await, Err(Unauthenticated::Revoked));
        assert_eq!(bench.authenticator.authenticate(Some(&other)).await, Ok(identity));
    }

    #[tokio::test]
    async fn an_expired_token_and_a_changed_one_are_refused() {
        let (store, audit) = (Memory::default(), Audit::in_memory());
        let id = TokenId::mint();
        let text = crate::identity::TokenText::mint(&id);
        let (digest, principal) = (crate::identity::TokenDigest::of(text.expose()), "alice".parse().unwrap());
        let (scopes, note, revoked_ms) = (Scopes::USER, None, None);
        let row = TokenRow { id, digest, principal, scopes, note, created_ms: 1, expires_ms: Some(2), revoked_ms };
        store.insert_token(row.clone()).await.unwrap();
        let tokens = Tokens::load(Arc::new(store), audit.clone()).await.unwrap();
        let authenticator = Authenticator::new(tokens, None, Requirement::Auto, audit);
        assert_eq!(authenticator.authenticate(Some(text.expose())).await, Err(Unauthenticated::Expired));
        let forged = crate::identity::TokenText::mint(&row.id);
        for bad in [forged.expose(), "cgm_", "", "Bearer", &"x".repeat(CREDENTIALS_BYTES_MAX + 1)] {
            assert_eq!(authenticator.authenticate(Some(bad)).await, Err(Unauthenticated::Invalid), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_server_is_open_until_it_has_a_token_and_stays_closed_then() {
        let bench = Bench::new(Requirement::Auto).await;
        let local = bench.authenticator.authenticate(None).await.unwrap();
        assert_eq!((local.principal.as_str(), local.scopes), ("http:local", Scopes::USER));
        let (id, _) = bench.token("alice").await;
        assert_eq!(bench.authenticator.authenticate(None).await, Err(Unauthenticated::Missing));
        bench.authenticator.tokens().revoke(&id, &bench.operator).await.unwrap();
        assert!(!bench.authenticator.is_open());
        assert!(!Bench::new(Requirement::Required).await.authenticator.is_open());
    }

    #[tokio::test]
    async fn a_lost_store_leaves_a_server_closed_and_nobody_a_token() {
        let bench = Bench::new(Requirement::Auto).await;
        bench.authenticator.tokens().note_loss(&bench.operator).await.unwrap();
        assert!(!bench.authenticator.is_open());
        assert!(bench.authenticator.tokens().list().iter().all(|token| token.revoked.is_some()));
    }

    #[tokio::test]
    async fn a_dead_token_that_makes_room_for_another_is_in_the_log() {
        let bench = Bench::new(Requirement::Auto).await;
        let (oldest, _) = bench.token("alice").await;
        bench.authenticator.tokens().revoke(&oldest, &bench.operator).await.unwrap();
        for _ in 1..crate::identity::TOKENS_MAX {
            bench.token("bob").await;
        }
        let forgotten = |records: Vec<codegen_audit::Record>| {
            let forgotten = records.into_iter().filter(|record| record.kind == EventKind::TokenForgotten);
            forgotten.map(|record| record.detail.unwrap()).collect::<Vec<_>>()
        };
        assert!(forgotten(bench.audit.memory_records()).is_empty());
        bench.token("bob").await;
        let details = forgotten(bench.audit.memory_records());
        assert_eq!((details.len(), &details[0]["id"], &details[0]["was"]), (1, &json!(oldest), &json!("revoked")));
    }

    #[tokio::test]
    async fn refusals_are_recorded_in_part_and_no_record_has_a_tokens_text() {
        let bench = Bench::new(Requirement::Required).await;
        let (id, text) = bench.token("alice").await;
        bench.authenticator.tokens().revoke(&id, &bench.operator).await.unwrap();
        for _ in 0..100 {
            bench.authenticator.authenticate(Some(&text)).await.unwrap_err();
        }
        let records = bench.audit.memory_records();
        let refused = records.iter().filter(|record| record.kind == EventKind::AuthenticationRefused);
        let details: Vec<_> = refused.map(|record| record.detail.clone().unwrap()).collect();
        assert_eq!(details.len(), 10);
        assert_eq!((&details[0]["why"], &details[0]["id"]), (&json!("revoked"), &json!(id)));
        let secret = text.rsplit('_').next().unwrap();
        assert!(records.iter().all(|record| !record.line.contains(secret)));
        for kind in [EventKind::TokenCreated, EventKind::TokenRevoked] {
            assert!(
                records.iter().any(|record| record.kind == kind && record.principal == Some(bench.operator.clone()))
            );
        }
    }
}
