//! What sessions reach outside: the hosts that they name, those that an operator permits, and what became of each contact.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::packages::{HostPort, InvalidUrl};

/// The most hosts that one session may name.
pub const SESSION_HOSTS_MAX: usize = 64;
/// The most secrets that one session may name.
pub const SESSION_SECRETS_MAX: usize = 16;
/// The most contacts that one task tells of: every host of a list with each outcome, and some that are not on it.
pub const CONTACTS_MAX: usize = SESSION_HOSTS_MAX * ContactOutcome::NAMES.len() + STRANGERS_MAX;
/// The most contacts with hosts that are not on the list; further ones are counted under [`Contact::OTHERS`].
pub const STRANGERS_MAX: usize = 64;

/// What a session reaches outside. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionNetwork {
    /// The hosts, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<HostPort>,
    /// The names of secrets that the worker puts into requests, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Whether somebody approved of the call that asked for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub approved: bool,
}

impl SessionNetwork {
    /// Whether nothing is reached.
    pub fn is_none(&self) -> bool {
        self.allow.is_empty()
    }
}

/// Hosts that an operator permits: one by its name, or all below a domain, as `*.example.com`; each with its port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum HostPattern {
    /// This one.
    Exact(HostPort),
    /// Every name that ends so, at this port; the domain itself is none of them.
    Below {
        /// The domain.
        domain: String,
        /// The port.
        port: u16,
    },
}

impl HostPattern {
    /// Whether it is about a host.
    pub fn covers(&self, host: &HostPort) -> bool {
        match self {
            Self::Exact(exact) => exact == host,
            Self::Below { domain, port } => {
                let above = host.name.strip_suffix(domain.as_str()).and_then(|rest| rest.strip_suffix('.'));
                host.port == *port && above.is_some_and(|label| !label.is_empty())
            }
        }
    }
}

impl FromStr for HostPattern {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let Some(domain) = text.strip_prefix("*.") else { return HostPort::parse(text, 443).map(Self::Exact) };
        let HostPort { name, port } = HostPort::parse(domain, 443)?;
        // Nothing lies below an address.
        let is_domain = name.contains(|c: char| c.is_ascii_alphabetic()) && !name.contains(':');
        if is_domain { Ok(Self::Below { domain: name, port }) } else { Err(InvalidUrl::Host) }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::Below { domain, port } => write!(f, "*.{domain}:{port}"),
        }
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

impl TryFrom<String> for HostPattern {
    type Error = InvalidUrl;

    fn try_from(text: String) -> Result<Self, InvalidUrl> {
        text.parse()
    }
}

/// What became of an attempt to reach a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContactOutcome {
    /// There was a connection.
    Reached,
    /// It was not permitted.
    Refused,
    /// It was permitted, and there was none.
    Failed,
}

impl ContactOutcome {
    /// Every outcome with its name.
    pub const NAMES: [(&str, Self); 3] =
        [("reached", Self::Reached), ("refused", Self::Refused), ("failed", Self::Failed)];
}

/// How often a host was asked for with one outcome, and what was carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// `name:port`.
    pub host: String,
    /// What became of it.
    pub outcome: ContactOutcome,
    /// Connections that were made or refused since it was last told of.
    pub connections: u32,
    /// Bytes that left the session.
    pub sent_bytes: u64,
    /// Bytes that came in.
    pub received_bytes: u64,
}

impl Contact {
    /// What stands for hosts of which there were too many to name.
    pub const OTHERS: &str = "others";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_about_what_it_says_and_nothing_else() {
        let covers = |pattern: &str, host: &str| {
            pattern.parse::<HostPattern>().unwrap().covers(&HostPort::parse(host, 443).unwrap())
        };
        assert!(covers("api.example.com", "API.example.com:443") && covers("*.example.com", "a.b.example.com"));
        assert!(covers("localhost:8443", "localhost:8443") && covers("[::1]:1", "[::1]:1"));
        for (pattern, host) in [
            ("api.example.com", "api.example.com:80"),
            ("*.example.com", "example.com"),
            ("*.example.com", "evilexample.com"),
            ("*.example.com", "example.com.evil.org"),
            ("*.example.com:8443", "a.example.com"),
            ("api.example.com", "xapi.example.com"),
        ] {
            assert!(!covers(pattern, host), "{pattern} {host}");
        }
        for bad in ["", "*", "*.", "*.1.2.3", "*.[::1]", "a.*.example", "https://a", "a:0", "a:x", "*.a.", "a b"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
        assert_eq!("*.Example.com".parse::<HostPattern>().unwrap().to_string(), "*.example.com:443");
    }
}
