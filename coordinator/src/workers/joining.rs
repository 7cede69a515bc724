//! Who may join: a one-time token of this process, or a static token with the scope `worker`.

use codegen_types::{Incarnation, WorkerId};

use super::handle::{EMBEDDED_WORKER, Inner};
use super::secrets::TokenRefused;
use crate::identity::{Identity, Scope, Unauthenticated, Validity};

/// What the principal of a token begins with that is for one worker alone; the worker's name follows.
pub(crate) const BOUND_PREFIX: &str = "worker:";

/// What a registration was let in by.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    /// A token of this process, for one life of one worker.
    Once,
    /// A static token, good as long as it is.
    Token(Validity),
}

impl Credential {
    /// Whether a worker that was let in by it may stay no longer.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Once => false,
            Self::Token(validity) => validity.is_over(),
        }
    }
}

impl Inner {
    /// Whether the token of a registration is known at all, before anything else in its message is read.
    pub(crate) fn check_token(&self, text: &str) -> Result<(), TokenRefused> {
        if self.is_static(text) { self.static_token(text).map(drop) } else { self.tokens.lock().check(text) }
    }

    /// Lets a life of a worker in by its token.
    pub(crate) fn redeem(
        &self,
        text: &str,
        worker: &WorkerId,
        incarnation: Incarnation,
    ) -> Result<Credential, TokenRefused> {
        if !self.is_static(text) {
            self.tokens.lock().redeem(text, worker, incarnation)?;
            return Ok(Credential::Once);
        }
        let Identity { principal, validity, .. } = self.static_token(text)?;
        let bound = principal.as_str().strip_prefix(BOUND_PREFIX);
        if worker.as_str() == EMBEDDED_WORKER || bound.is_some_and(|name| name != worker.as_str()) {
            return Err(TokenRefused::OtherWorker);
        }
        Ok(Credential::Token(validity))
    }

    fn is_static(&self, text: &str) -> bool {
        self.static_tokens.get().is_some() && crate::identity::is_static(text)
    }

    fn static_token(&self, text: &str) -> Result<Identity, TokenRefused> {
        let tokens = self.static_tokens.get().ok_or(TokenRefused::Unknown)?;
        let identity = tokens.check(text).0.map_err(|refused| match refused {
            Unauthenticated::Expired => TokenRefused::Expired,
            Unauthenticated::Revoked => TokenRefused::Revoked,
            Unauthenticated::Missing
            | Unauthenticated::Invalid
            | Unauthenticated::WrongAudience
            | Unauthenticated::KeysUnavailable => TokenRefused::Unknown,
        })?;
        if identity.scopes.has(Scope::Worker) { Ok(identity) } else { Err(TokenRefused::Scope) }
    }
}
