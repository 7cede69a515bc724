//! Where packages come from: the URL of an index, the name and port of a host.

use std::fmt;
use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

/// The longest URL, in bytes.
const URL_BYTES_MAX: usize = 1_024;
/// The longest name of a host, in bytes: with its port it is a text that records keep as it is (RFC 1035 would have 253).
const HOST_BYTES_MAX: usize = 250;

/// The URL of a package index (PEP 503): `http` or `https`, without credentials, query or fragment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct IndexUrl {
    text: String,
    host: HostPort,
    encrypted: bool,
}

/// A host by name or address, in lower case, and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct HostPort {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub name: String,
    /// The port.
    pub port: u16,
}

/// Why a text is no URL of an index, or no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// It does not begin as it must.
    #[error("it must begin with https:// or http://")]
    Scheme,
    /// It has a user name or password.
    #[error("credentials in it are refused")]
    Credentials,
    /// The host is none.
    #[error("the host is not a name or an address, with or without a port")]
    Host,
    /// The rest is not plain.
    #[error("its path has characters that must be left out, or a query or fragment, or it is too long")]
    Path,
}

impl IndexUrl {
    /// Reads a URL; a slash at its end makes no difference.
    pub fn parse(text: &str) -> Result<Self, InvalidUrl> {
        let text = text.trim_end_matches('/');
        let (encrypted, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(InvalidUrl::Scheme),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(InvalidUrl::Credentials);
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._~+-".contains(&byte);
        if !path.bytes().all(plain) || path.split('/').any(|part| part == "..") || text.len() > URL_BYTES_MAX {
            return Err(InvalidUrl::Path);
        }
        let host = HostPort::parse(authority, if encrypted { 443 } else { 80 })?;
        let text = text.replacen(authority, &authority.to_ascii_lowercase(), 1);
        Ok(Self { text, host, encrypted })
    }

    /// The URL, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host that serves it.
    pub const fn host(&self) -> &HostPort {
        &self.host
    }

    /// Whether it is reached through TLS.
    pub const fn is_encrypted(&self) -> bool {
        self.encrypted
    }
}

impl HostPort {
    /// Reads `name`, `name:port`, or the same of an address (IPv6 in brackets).
    pub fn parse(text: &str, default_port: u16) -> Result<Self, InvalidUrl> {
        let (name, port) = match text.strip_prefix('[') {
            Some(inside) => {
                let (address, rest) = inside.split_once(']').ok_or(InvalidUrl::Host)?;
                let address: Ipv6Addr = address.parse().map_err(|_| InvalidUrl::Host)?;
                (address.to_string(), rest)
            }
            None => {
                let (name, rest) = text.find(':').map_or((text, ""), |at| text.split_at(at));
                (name.to_ascii_lowercase(), rest)
            }
        };
        let port = match port.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| InvalidUrl::Host)?
            }
            Some(_) => return Err(InvalidUrl::Host),
            None if port.is_empty() => default_port,
            None => return Err(InvalidUrl::Host),
        };
        Self::new(&name, port).ok_or(InvalidUrl::Host)
    }

    /// A host by its name or address and its port; `None` when the name is none or the port is zero.
    pub fn new(name: &str, port: u16) -> Option<Self> {
        let label = |label: &str| {
            let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            inner && !label.is_empty() && label.len() <= 63 && !label.starts_with('-')
        };
        let named = name.len() <= HOST_BYTES_MAX && name.split('.').all(label);
        let usable = (named || name.parse::<Ipv6Addr>().is_ok()) && port != 0;
        usable.then(|| Self { name: name.to_ascii_lowercase(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

impl From<IndexUrl> for String {
    fn from(url: IndexUrl) -> String {
        url.text
    }
}

impl TryFrom<String> for IndexUrl {
    type Error = InvalidUrl;

    fn try_from(text: String) -> Result<Self, InvalidUrl> {
        Self::parse(&text)
    }
}

impl From<HostPort> for String {
    fn from(host: HostPort) -> String {
        host.to_string()
    }
}

impl TryFrom<String> for HostPort {
    type Error = InvalidUrl;

    fn try_from(text: String) -> Result<Self, InvalidUrl> {
        Self::parse(&text, 443)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_read_with_its_host() {
        let index = IndexUrl::parse("https://Example.org/simple/").unwrap();
        assert_eq!(
            (index.as_str(), index.host().to_string().as_str()),
            ("https://example.org/simple", "example.org:443")
        );
        assert!(index.is_encrypted());
        let local = IndexUrl::parse("http://[::1]:8080/a/b").unwrap();
        assert_eq!((local.host().name.as_str(), local.host().port, local.is_encrypted()), ("::1", 8080, false));
        assert_eq!(IndexUrl::parse("http://10.0.0.1").unwrap().host().to_string(), "10.0.0.1:80");
    }

    #[test]
    fn what_is_no_plain_index_is_refused() {
        for bad in [
            "",
            "example.org",
            "ftp://h/simple",
            "file:///etc",
            "https://",
            "https://u:p@h/simple",
            "https://h:0/",
            "https://h:x/",
            "https://h/simple?x=1",
            "https://h/#x",
            "https://h/a b",
            "https://h/a\n",
            "https://h/../x",
            "https://-h/",
            "https://h..x/",
            "https://[::g]/",
            "https://h:+1/",
            "--index-url",
            "https://h%2e/",
            "https://ä/",
        ] {
            assert!(IndexUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
