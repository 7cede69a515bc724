//! Tokens of an OAuth 2.1 authorization server: this server is the resource that they are for, and never passes one on.
//!
//! A token is let in when its signature is by one of the issuer's keys, under one of three algorithms, and issuer,
//! audience and times are right. The keys are fetched when they are first needed, and again when they are old or a token
//! names one that is not known, within bounds that no flood of tokens can move.

mod cache;
mod endpoint;
mod fetch;
mod keys;
mod verify;

use codegen_types::Principal;

use super::authenticator::Identity;
use super::refusal::Unauthenticated;
use cache::Cache;
pub use endpoint::{Endpoint, InvalidEndpoint};
use fetch::Fetcher;
pub use fetch::NoTrustedRoots;
use verify::Expected;

/// Who issues tokens, and for whom they must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// The issuer, exactly as its tokens name it.
    pub issuer: Endpoint,
    /// What tokens must name as their audience: the URL of this server, which clients ask for (RFC 8707).
    pub audience: String,
    /// Where the issuer's keys are; by default its own metadata say.
    pub jwks_url: Option<Endpoint>,
    /// The claim that names the user.
    pub principal_claim: String,
}

/// Checks the tokens of one issuer.
pub struct Issuer {
    config: IssuerConfig,
    expected: Expected,
    keys: Cache,
}

/// Why a token of an issuer is refused: for the client, and in a word for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) why: Unauthenticated,
    pub(super) about: &'static str,
}

impl Refused {
    const fn invalid(about: &'static str) -> Self {
        Self { why: Unauthenticated::Invalid, about }
    }
}

impl Issuer {
    /// Trusts an issuer. Asks it for nothing yet.
    ///
    /// # Errors
    /// The machine has no certificates by which the issuer could be known.
    pub fn new(config: IssuerConfig) -> Result<Self, NoTrustedRoots> {
        let expected = Expected::of(&config);
        let keys = Cache::new(Fetcher::new()?, config.issuer.clone(), config.jwks_url.clone());
        Ok(Self { config, expected, keys })
    }

    /// How it is configured.
    pub fn config(&self) -> &IssuerConfig {
        &self.config
    }

    /// Who a token speaks for.
    pub(super) async fn check(&self, token: &str) -> Result<Identity, Refused> {
        let header = verify::header(token)?;
        let key = self.keys.find(header.kid.as_deref(), header.alg).await?;
        self.expected.identity(token, header.alg, &key)
    }
}

/// The principal of a user: the issuer without its scheme, and the user's name in characters that a principal may have.
fn principal(issuer: &Endpoint, user: &str) -> Option<Principal> {
    const PLAIN: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
        .remove(b'.')
        .remove(b'_')
        .remove(b'-')
        .remove(b'@')
        .remove(b'+')
        .remove(b'~');
    let (_, place) = issuer.as_str().split_once("://")?;
    let user = percent_encoding::utf8_percent_encode(user, PLAIN);
    format!("oidc:{}/{user}", place.trim_end_matches('/')).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_name_cannot_leave_its_issuer() {
        let issuer: Endpoint = "https://id.example/tenant/".parse().unwrap();
        let name = |user: &str| principal(&issuer, user).map(|principal| principal.to_string());
        assert_eq!(name("auth0|7"), Some("oidc:id.example/tenant/auth0%7C7".to_owned()));
        assert_eq!(name("../x/é\n"), Some("oidc:id.example/tenant/..%2Fx%2F%C3%A9%0A".to_owned()));
        assert_eq!(name(&"x".repeat(300)), None);
    }
}
