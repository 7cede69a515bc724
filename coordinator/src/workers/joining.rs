//! Who may join: with a one-time token of this process, a static token with the scope `worker`, or a certificate.

use codegen_types::{ErrorCode, Failure, Incarnation, WorkerId};
use coordinator_core::placement::Trust;
use coordinator_core::release::Release;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;

use super::dialling::AdvertiseRefused;
use super::handle::{EMBEDDED_WORKER, Inner};
use super::said::WorkerRefused;
use super::secrets::TokenRefused;
use super::socket::{Certificate, Peer};
use crate::config::SecretsWorkers;
use crate::identity::{Identity, Scope, Unauthenticated, Validity};

/// What the principal of a token begins with that is for one worker alone; the worker's name follows.
pub(crate) const BOUND_PREFIX: &str = "worker:";

/// What a registration was let in by.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    /// A token of this process, for one life of one worker.
    Once,
    /// A static token, good as long as it is.
    Token {
        validity: Validity,
        /// Whose it is.
        principal: String,
        /// Whether it is for this one worker, so that nobody else has it.
        bound: bool,
    },
    /// A certificate that names the worker, good as long as it is trusted.
    Certificate(Certificate),
}

impl Credential {
    /// Whether a worker that was let in by it may stay no longer.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Once => false,
            Self::Token { validity, .. } => validity.is_over(),
            Self::Certificate(certificate) => !certificate.is_trusted(),
        }
    }

    /// Whose it is, if several workers may share it.
    pub(crate) fn shared_by(&self) -> Option<&str> {
        match self {
            Self::Token { principal, bound: false, .. } => Some(principal),
            Self::Token { bound: true, .. } | Self::Once | Self::Certificate(_) => None,
        }
    }

    /// What a worker of this name is trusted with that was let in by it.
    pub(crate) fn trust(&self, worker: &WorkerId, secrets: SecretsWorkers) -> Trust {
        let is_told = match secrets {
            // The name is let in by a token of this process alone, which only that worker was given.
            SecretsWorkers::Embedded => worker.as_str() == EMBEDDED_WORKER,
            SecretsWorkers::Named => self.names_its_worker(),
            SecretsWorkers::All => true,
        };
        if is_told { Trust::Secrets } else { Trust::Sessions }
    }

    /// Whether it proves which worker it is, and not only that it is one: what shares a token with others does not.
    pub(crate) const fn names_its_worker(&self) -> bool {
        match self {
            Self::Once | Self::Certificate(_) => true,
            Self::Token { bound, .. } => *bound,
        }
    }
}

/// Why a registration is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinRefused {
    /// It does not prove that it may join.
    #[error(transparent)]
    Token(#[from] TokenRefused),
    /// Its release and ours do not know enough of each other.
    #[error(
        "the worker's release is {theirs}, the coordinator's is {ours}: they work together when they are at most one minor \
         release apart"
    )]
    Release { theirs: String, ours: Release },
    /// It would have the coordinator dial where that may not.
    #[error(transparent)]
    Advertise(#[from] AdvertiseRefused),
    /// There is no place for it.
    #[error(transparent)]
    Registry(#[from] WorkerRefused),
}

impl JoinRefused {
    /// What the worker is told. Of its token it learns nothing but that it is none.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Token(_) => Failure::new(
                ErrorCode::Unauthenticated,
                "this worker may not join; it needs a valid token or certificate",
            ),
            Self::Release { .. } => Failure::new(ErrorCode::PreconditionFailed, self.to_string()),
            Self::Advertise(AdvertiseRefused::Busy) => {
                Failure::new(ErrorCode::RateLimited, AdvertiseRefused::Busy.to_string())
            }
            Self::Advertise(refused) => Failure::new(ErrorCode::InvalidArgument, refused.to_string()),
            Self::Registry(refused) => refused.failure(),
        }
    }
}

/// Whether a worker of that release may join.
pub(crate) fn check_release(theirs: &str) -> Result<(), JoinRefused> {
    let ours: Release = env!("CARGO_PKG_VERSION").parse().expect("our own release is well formed");
    match theirs.parse::<Release>() {
        Ok(release) if release.works_with(ours) => Ok(()),
        Ok(_) | Err(_) => Err(JoinRefused::Release { theirs: theirs.escape_debug().to_string(), ours }),
    }
}

impl Inner {
    /// Whether what a registration shows is known at all, before anything else in its message is read.
    pub(crate) fn check_token(&self, text: &str, peer: &Peer) -> Result<(), TokenRefused> {
        match peer.certificate() {
            Some(certificate) if text.is_empty() => check_certificate(certificate),
            Some(_) | None if self.is_static(text) => self.static_token(text).map(drop),
            Some(_) | None => self.tokens.lock().check(text),
        }
    }

    /// Lets a life of a worker in by its token, or by its certificate when it shows no token.
    pub(crate) fn redeem(
        &self,
        text: &str,
        peer: &Peer,
        worker: &WorkerId,
        incarnation: Incarnation,
    ) -> Result<Credential, TokenRefused> {
        if text.is_empty()
            && let Some(certificate) = peer.certificate()
        {
            return by_certificate(certificate, worker);
        }
        if !self.is_static(text) {
            self.tokens.lock().redeem(text, worker, incarnation)?;
            return Ok(Credential::Once);
        }
        let Identity { principal, validity, .. } = self.static_token(text)?;
        let bound_to = principal.as_str().strip_prefix(BOUND_PREFIX);
        if worker.as_str() == EMBEDDED_WORKER || bound_to.is_some_and(|name| name != worker.as_str()) {
            return Err(TokenRefused::OtherWorker);
        }
        if bound_to.is_none() && self.has_token_of_its_own(worker) {
            return Err(TokenRefused::OwnToken);
        }
        let bound = bound_to.is_some();
        Ok(Credential::Token { validity, principal: principal.as_str().to_owned(), bound })
    }

    /// Whether a worker of this name is known by a token that is for it alone.
    fn has_token_of_its_own(&self, worker: &WorkerId) -> bool {
        self.static_tokens.get().is_some_and(|tokens| tokens.has(&format!("{BOUND_PREFIX}{worker}")))
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

/// The handshake has checked the certificate, perhaps long ago.
fn check_certificate(certificate: &Certificate) -> Result<(), TokenRefused> {
    if certificate.is_trusted() { Ok(()) } else { Err(TokenRefused::UntrustedCertificate) }
}

/// A certificate must name the worker, among its DNS names.
fn by_certificate(certificate: &Certificate, worker: &WorkerId) -> Result<Credential, TokenRefused> {
    check_certificate(certificate)?;
    let parsed = ParsedCertificate::try_from(certificate.own()).map_err(|_| TokenRefused::OtherCertificate)?;
    let name = ServerName::try_from(worker.as_str()).ok().filter(|name| matches!(name, ServerName::DnsName(_)));
    let name = name.filter(|_| worker.as_str() != EMBEDDED_WORKER).ok_or(TokenRefused::OtherCertificate)?;
    let named = rustls::client::verify_server_name(&parsed, &name);
    named.map(|()| Credential::Certificate(certificate.clone())).map_err(|_| TokenRefused::OtherCertificate)
}
