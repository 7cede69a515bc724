//! Who asks, and on whose behalf.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest principal that is read from text, in bytes.
const BYTES_MAX: usize = 256;

/// Who asks: over stdio the operating-system user, written `os:NAME` or, when the id has no name, `os:UID`; over HTTP the
/// one that a token was made for, `oidc:ISSUER/SUBJECT`, or `http:local` where no credentials are asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Principal(String);

impl Principal {
    /// The principal of an operating-system user.
    pub fn os_user(name: &str) -> Self {
        Self(format!("os:{name}"))
    }

    /// Whoever reaches a server on the loopback interface that asks for no credentials.
    pub fn http_local() -> Self {
        Self("http:local".to_owned())
    }

    /// A principal read back from a place that only ever held well-formed ones.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The principal as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that can be no principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a principal has 1 to {BYTES_MAX} ASCII letters, digits or characters of `._-+@:/|%=~`")]
pub struct InvalidPrincipal;

impl FromStr for Principal {
    type Err = InvalidPrincipal;

    fn from_str(text: &str) -> Result<Self, InvalidPrincipal> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+@:/|%=~".contains(&byte);
        let fits = !text.is_empty() && text.len() <= BYTES_MAX && text.bytes().all(allowed);
        if fits { Ok(Self(text.to_owned())) } else { Err(InvalidPrincipal) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_short_and_harmless_text() {
        for good in ["alice", "os:root", "team/ci@example.com", "oidc:id.example/auth0%7C1"] {
            assert_eq!(good.parse::<Principal>().map(|principal| principal.to_string()), Ok(good.to_owned()));
        }
        let long = "a".repeat(BYTES_MAX + 1);
        for bad in ["", " ", "a b", "a\n", "a\"", "\u{e9}ve", "\u{1b}[2J", long.as_str()] {
            assert_eq!(bad.parse::<Principal>(), Err(InvalidPrincipal), "{bad:?}");
        }
    }
}
