//! Who asks, and on whose behalf.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who asks: over stdio the operating-system user, written `os:NAME` or, when the id has no name, `os:UID`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Principal(String);

impl Principal {
    /// The principal of an operating-system user.
    pub fn os_user(name: &str) -> Self {
        Self(format!("os:{name}"))
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
