//! Addresses that are asked over TLS, or on this machine.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hyper::Uri;

/// The address of an issuer or of its keys: `https`, or `http` on the loopback interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    text: String,
    uri: Uri,
}

/// Why a text is no such address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// It is no URL with a host, or names a user or a part of a page.
    #[error("not a URL of a host")]
    NotAUrl,
    /// Somebody on the way could change what is said there.
    #[error("not https, and not on the loopback interface")]
    NotSafe,
}

impl Endpoint {
    /// The address as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Scheme and host, without a slash at the end, and the path, without one either.
    pub(super) fn parts(&self) -> (&str, &str) {
        let after_scheme = self.text.find("://").map_or(0, |at| at + 3);
        let host_end = self.text[after_scheme..].find('/').map_or(self.text.len(), |at| after_scheme + at);
        let (base, path) = self.text.split_at(host_end);
        (base, path.trim_end_matches('/'))
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let uri: Uri = text.parse().map_err(|_| InvalidEndpoint::NotAUrl)?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(InvalidEndpoint::NotAUrl)?;
        let names_more = text.contains(['#', '@']) || !text.is_ascii();
        if names_more || !text.contains("://") {
            return Err(InvalidEndpoint::NotAUrl);
        }
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_loopback(host) => {}
            _ => return Err(InvalidEndpoint::NotSafe),
        }
        Ok(Self { text: text.to_owned(), uri })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tls_and_this_machine_are_asked() {
        for good in [
            "https://id.example",
            "https://id.example/a/",
            "http://127.0.0.1:80/a",
            "http://[::1]/",
            "http://localhost:1",
        ] {
            assert_eq!(good.parse::<Endpoint>().map(|endpoint| endpoint.to_string()), Ok(good.to_owned()));
        }
        for bad in ["http://id.example", "http://localhost.example/", "http://127.0.0.1.example", "ftp://127.0.0.1"] {
            assert_eq!(bad.parse::<Endpoint>(), Err(InvalidEndpoint::NotSafe), "{bad}");
        }
        for bad in ["", "id.example", "/a", "https://", "https://u@id.example", "https://id.example/#a", "https:id"] {
            assert_eq!(bad.parse::<Endpoint>(), Err(InvalidEndpoint::NotAUrl), "{bad}");
        }
    }

    #[test]
    fn an_address_parts_into_host_and_path() {
        let parts = |text: &str| {
            let endpoint: Endpoint = text.parse().unwrap();
            let (base, path) = endpoint.parts();
            (base.to_owned(), path.to_owned())
        };
        assert_eq!(parts("https://a.b"), ("https://a.b".to_owned(), String::new()));
        assert_eq!(parts("https://a.b:1/c/d/"), ("https://a.b:1".to_owned(), "/c/d".to_owned()));
    }
}
