//! Why a request is not let in, or not that far, and how RFC 6750 has it said.

use super::scopes::Scopes;

/// Why a request has no identity. Never holds the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unauthenticated {
    /// There are no credentials.
    #[error("credentials are needed: a bearer token in the Authorization header")]
    Missing,
    /// The credentials are none of ours, nor of the issuer's.
    #[error("the token is not valid")]
    Invalid,
    /// The credentials are too old.
    #[error("the token has expired")]
    Expired,
    /// The credentials were withdrawn.
    #[error("the token was revoked")]
    Revoked,
    /// The credentials are for another service.
    #[error("the token is for another audience")]
    WrongAudience,
    /// The credentials may be good, and the issuer's keys are not to be had just now. No fault of the client's: over
    /// HTTP a 503.
    #[error("the token cannot be checked just now, because the issuer's keys cannot be fetched")]
    KeysUnavailable,
}

impl Unauthenticated {
    /// The word for records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::WrongAudience => "wrong_audience",
            Self::KeysUnavailable => "keys_unavailable",
        }
    }

    /// The value of the `WWW-Authenticate` header (RFC 6750 §3, RFC 9728 §5.1). `metadata` is the address of the
    /// metadata of the protected resource, where there is an issuer.
    pub fn challenge(self, metadata: Option<&str>) -> String {
        let error = match self {
            // Whoever sent no credentials is told what is needed, and of no error.
            Self::Missing => String::new(),
            Self::Invalid | Self::Expired | Self::Revoked | Self::WrongAudience | Self::KeysUnavailable => {
                format!(", error=\"invalid_token\", error_description=\"{self}\"")
            }
        };
        // Where there is an issuer, clients are told what to ask it for.
        let scope = metadata.map(|_| format!(", scope=\"{}\"", Scopes::USER.prefixed())).unwrap_or_default();
        challenge(&format!("{error}{scope}"), metadata)
    }
}

/// The credentials are good and permit too little: over HTTP a 403 with [`challenge`](Self::challenge).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this needs the scope {}, which the credentials do not have", needed.prefixed())]
pub struct InsufficientScope {
    /// What the credentials have.
    pub given: Scopes,
    /// What the request needs.
    pub needed: Scopes,
}

impl InsufficientScope {
    /// The value of the `WWW-Authenticate` header, which says which scopes to ask the issuer for: those that are needed and
    /// those that the credentials have, since a client that asked for the former alone would lose the latter.
    pub fn challenge(self, metadata: Option<&str>) -> String {
        let scope = self.given.union(self.needed).prefixed();
        challenge(&format!(", error=\"insufficient_scope\", scope=\"{scope}\", error_description=\"{self}\""), metadata)
    }
}

fn challenge(error: &str, metadata: Option<&str>) -> String {
    let metadata = metadata.map(|url| format!(", resource_metadata=\"{url}\"")).unwrap_or_default();
    format!("Bearer realm=\"codegen-mcp\"{error}{metadata}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Scope;

    #[test]
    fn a_challenge_says_what_is_wrong_and_where_to_ask() {
        let url = "https://host/.well-known/oauth-protected-resource";
        assert_eq!(
            Unauthenticated::Missing.challenge(Some(url)),
            format!(
                "Bearer realm=\"codegen-mcp\", scope=\"codegen:tools codegen:sessions\", resource_metadata=\"{url}\""
            )
        );
        assert_eq!(
            Unauthenticated::Expired.challenge(None),
            "Bearer realm=\"codegen-mcp\", error=\"invalid_token\", error_description=\"the token has expired\""
        );
    }

    #[test]
    fn a_client_that_needs_more_is_told_to_ask_for_it_beside_what_it_has() {
        let told = |given| InsufficientScope { given, needed: Scope::Sessions.into() }.challenge(None);
        for (given, scope) in [
            (Scopes::NONE, "codegen:sessions"),
            (Scope::Tools.into(), "codegen:tools codegen:sessions"),
            (Scope::Admin.into(), "codegen:sessions codegen:admin"),
        ] {
            let told = told(given);
            assert!(told.contains(&format!("error=\"insufficient_scope\", scope=\"{scope}\"")), "{told}");
            assert!(told.contains("this needs the scope codegen:sessions,"), "{told}");
        }
    }
}
