//! From the credentials of a request to an identity.

use std::collections::HashMap;
use std::sync::Arc;

use codegen_types::Principal;
use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};

use super::refusal::Unauthenticated;
use super::scopes::Scopes;

/// Who makes a request and what the request may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// On whose behalf.
    pub principal: Principal,
    /// What the credentials permit.
    pub scopes: Scopes,
}

/// Says who makes a request. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Authenticator {
    open: bool,
    tokens: Arc<RwLock<HashMap<[u8; 32], Identity>>>,
}

impl Authenticator {
    /// Lets everybody in, as one principal. Only ever for the loopback interface.
    pub fn open() -> Self {
        Self { open: true, tokens: Arc::default() }
    }

    /// Lets in whoever has one of these tokens.
    pub fn with_tokens<'a>(tokens: impl IntoIterator<Item = (&'a str, Identity)>) -> Self {
        let by_digest = tokens.into_iter().map(|(token, identity)| (Sha256::digest(token).into(), identity)).collect();
        Self { open: false, tokens: Arc::new(RwLock::new(by_digest)) }
    }

    /// Whether requests without credentials are let in (as the principal `http:local`).
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Who makes a request. `bearer`: the credentials of an `Authorization: Bearer` header, without the scheme.
    ///
    /// # Errors
    /// Why the request is not let in.
    pub async fn authenticate(&self, bearer: Option<&str>) -> Result<Identity, Unauthenticated> {
        match bearer {
            None if self.open => Ok(Identity { principal: Principal::http_local(), scopes: Scopes::USER }),
            None => Err(Unauthenticated::Missing),
            Some(token) => {
                let digest: [u8; 32] = Sha256::digest(token).into();
                self.tokens.read().get(&digest).cloned().ok_or(Unauthenticated::Invalid)
            }
        }
    }
}
