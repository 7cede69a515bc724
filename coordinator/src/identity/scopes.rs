//! What credentials permit, in four words.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What scopes of ours are called by an issuer begins so: `codegen:tools`.
pub const SCOPE_PREFIX: &str = "codegen:";

/// One thing that credentials permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// To run code, edit files and install packages in sessions, and to read what is there.
    Tools,
    /// To make, list, change and close sessions.
    Sessions,
    /// To see and change what belongs to others: approvals, usage, the audit log, tokens.
    Admin,
    /// To join as a worker.
    Worker,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Tools, Self::Sessions, Self::Admin, Self::Worker];

    /// The scope as it is written here.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Sessions => "sessions",
            Self::Admin => "admin",
            Self::Worker => "worker",
        }
    }

    /// The scope as an issuer of JSON Web Tokens and a challenge write it.
    pub const fn prefixed(self) -> &'static str {
        match self {
            Self::Tools => "codegen:tools",
            Self::Sessions => "codegen:sessions",
            Self::Admin => "codegen:admin",
            Self::Worker => "codegen:worker",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A text that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no such scope; scopes are tools, sessions, admin and worker")]
pub struct InvalidScope;

impl FromStr for Scope {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(InvalidScope)
    }
}

/// A set of scopes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// No scope: nothing is permitted.
    pub const NONE: Self = Self(0);
    /// What a user needs, and what tokens have unless they are made with others: tools and sessions.
    pub const USER: Self = Self(Scope::Tools.bit() | Scope::Sessions.bit());
    /// All of them, which is what the user has who runs the server.
    pub const ALL: Self = Self(Self::USER.0 | Scope::Admin.bit() | Scope::Worker.bit());

    /// Whether a scope is among them.
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether all of these are among them.
    pub const fn covers(self, needed: Self) -> bool {
        self.0 & needed.0 == needed.0
    }

    /// The same set with one scope more.
    #[must_use]
    pub const fn with(self, scope: Scope) -> Self {
        Self(self.0 | scope.bit())
    }

    /// What is in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The scopes, in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }

    /// The scopes of ours among those that an issuer's token carries (`codegen:tools`), whatever else it carries.
    pub fn of_issuer<'a>(scopes: impl IntoIterator<Item = &'a str>) -> Self {
        scopes.into_iter().filter_map(|text| text.strip_prefix(SCOPE_PREFIX)?.parse().ok()).collect()
    }

    /// The scopes as a challenge writes them: with their prefix, separated by spaces.
    pub fn prefixed(self) -> String {
        self.iter().map(Scope::prefixed).collect::<Vec<_>>().join(" ")
    }
}

impl From<Scope> for Scopes {
    fn from(scope: Scope) -> Self {
        Self(scope.bit())
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        scopes.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iter().map(Scope::as_str).collect::<Vec<_>>().join(","))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scopes({self})")
    }
}

impl FromStr for Scopes {
    type Err = InvalidScope;

    /// Reads names separated by commas.
    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::parse).collect()
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Scope::as_str))
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names.iter().map(|name| name.parse::<Scope>()).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_reads_back_as_it_is_written() {
        for bits in 0..16 {
            let scopes = Scopes(bits);
            assert_eq!(scopes.to_string().parse(), Ok(scopes));
            assert_eq!(serde_json::from_value::<Scopes>(serde_json::to_value(scopes).unwrap()).unwrap(), scopes);
            assert_eq!(Scopes::of_issuer(scopes.prefixed().split(' ')), scopes);
        }
        assert_eq!("tools,root".parse::<Scopes>(), Err(InvalidScope));
    }

    #[test]
    fn an_issuers_other_scopes_permit_nothing() {
        let others = ["openid", "tools", "codegen:", "codegen:root", "CODEGEN:tools", "xcodegen:admin"];
        assert_eq!(Scopes::of_issuer(others), Scopes::NONE);
    }

    #[test]
    fn a_set_covers_what_it_has_and_nothing_else() {
        assert!(Scopes::ALL.covers(Scopes::USER) && Scopes::USER.covers(Scopes::NONE));
        assert!(!Scopes::USER.covers(Scope::Admin.into()) && !Scopes::NONE.covers(Scope::Tools.into()));
        assert!(Scope::ALL.into_iter().all(|scope| Scopes::ALL.has(scope)));
    }
}
