//! Tokens, tickets and worker sessions: 256 random bits that are kept as a digest and compared in constant time.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use codegen_proto::Secret;
use codegen_types::{Incarnation, WorkerId};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// A new secret from the operating system's random source.
pub(crate) fn mint() -> Secret {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).expect("the operating system has a random source");
    Secret::new(URL_SAFE_NO_PAD.encode(bits))
}

/// What is kept of a secret: enough to know it again, not enough to use it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(crate) fn of(secret: &Secret) -> Self {
        Self::of_text(secret.expose())
    }

    pub(crate) fn of_text(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        self.0.ct_eq(&Self::of_text(text).0).into()
    }
}

/// The tokens with which workers may join. Each belongs to one worker's name and serves one life of it: the first
/// incarnation that uses a token keeps it, so that it can register again after a lost connection.
#[derive(Default)]
pub(crate) struct Tokens {
    issued: Vec<Token>,
}

struct Token {
    fingerprint: Fingerprint,
    worker: WorkerId,
    used_by: Option<Incarnation>,
}

/// Why a token does not let a worker join. For the operator; the peer is told nothing but that it may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenRefused {
    #[error("no token was sent")]
    Missing,
    #[error("the token is not known")]
    Unknown,
    #[error("the token belongs to a worker of another name")]
    OtherWorker,
    #[error("the token was used by an earlier life of the worker")]
    Used,
    #[error("the token has expired")]
    Expired,
    #[error("the token was revoked")]
    Revoked,
    #[error("the token lacks the scope `worker`")]
    Scope,
    #[error("the worker of this name has a token of its own")]
    OwnToken,
    #[error("the certificate does not name the worker")]
    OtherCertificate,
    #[error("the certificate has expired, or its authority is none any more")]
    UntrustedCertificate,
}

impl Tokens {
    /// A new token; what was issued for the same name before is void.
    pub(crate) fn issue(&mut self, worker: &WorkerId) -> Secret {
        let secret = mint();
        self.issued.retain(|token| token.worker != *worker);
        self.issued.push(Token { fingerprint: Fingerprint::of(&secret), worker: worker.clone(), used_by: None });
        secret
    }

    /// Lets this life of a worker in, once, and again only the same life.
    pub(crate) fn redeem(
        &mut self,
        text: &str,
        worker: &WorkerId,
        incarnation: Incarnation,
    ) -> Result<(), TokenRefused> {
        let token = self.find(text)?;
        if token.worker != *worker {
            return Err(TokenRefused::OtherWorker);
        }
        match token.used_by {
            Some(first) if first != incarnation => Err(TokenRefused::Used),
            Some(_) => Ok(()),
            None => {
                token.used_by = Some(incarnation);
                Ok(())
            }
        }
    }

    /// Whether the token was issued at all, before anything else in its message is read.
    pub(crate) fn check(&mut self, text: &str) -> Result<(), TokenRefused> {
        self.find(text).map(drop)
    }

    /// The life that used the token of this name, if one did.
    pub(crate) fn life_of(&self, worker: &WorkerId) -> Option<Incarnation> {
        self.issued.iter().find(|token| token.worker == *worker)?.used_by
    }

    fn find(&mut self, text: &str) -> Result<&mut Token, TokenRefused> {
        if text.is_empty() {
            return Err(TokenRefused::Missing);
        }
        // Every token is compared, so that the time taken does not tell which one came close.
        let mut found = None;
        for token in &mut self.issued {
            if token.fingerprint.matches(text) {
                found = Some(token);
            }
        }
        found.ok_or(TokenRefused::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(name: &str) -> WorkerId {
        name.parse().unwrap()
    }

    #[test]
    fn a_token_lets_one_life_of_one_worker_in() {
        let mut tokens = Tokens::default();
        let secret = tokens.issue(&worker("a"));
        let (first, second) = (Incarnation::mint(), Incarnation::mint());
        assert_eq!(tokens.redeem(secret.expose(), &worker("b"), first), Err(TokenRefused::OtherWorker));
        assert_eq!(tokens.redeem("", &worker("a"), first), Err(TokenRefused::Missing));
        assert_eq!(tokens.redeem("guess", &worker("a"), first), Err(TokenRefused::Unknown));
        assert_eq!(tokens.redeem(secret.expose(), &worker("a"), first), Ok(()));
        assert_eq!(tokens.redeem(secret.expose(), &worker("a"), first), Ok(()));
        assert_eq!(tokens.redeem(secret.expose(), &worker("a"), second), Err(TokenRefused::Used));
        assert_eq!(tokens.life_of(&worker("a")), Some(first));
    }

    #[test]
    fn a_new_token_voids_the_one_before_it() {
        let mut tokens = Tokens::default();
        let first = tokens.issue(&worker("a"));
        let second = tokens.issue(&worker("a"));
        let life = Incarnation::mint();
        assert_eq!(tokens.redeem(first.expose(), &worker("a"), life), Err(TokenRefused::Unknown));
        assert_eq!(tokens.redeem(second.expose(), &worker("a"), life), Ok(()));
        assert_ne!(first.expose(), second.expose());
        assert!(second.expose().len() >= 43, "256 bits in base64");
    }
}
