//! Whether a request is meant for this server and comes from a page that may make it: `Host` and `Origin`, each on its
//! own, and what pages of permitted origins may do (CORS).
//!
//! A page that a user visits can make the browser send requests to an address of the user's own machine, under a name
//! that its author chose (DNS rebinding). Such a request names a foreign host, or a foreign origin, or both. The loopback
//! interface is no origin of its own: what listens at another port of it is another server, with pages of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::error::ApiError;
use crate::config::{AllowedHost, AllowedOrigin, HttpConfig};

/// The names of the loopback interface, as they stand in `Host`; with any port.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Which hosts and origins are permitted. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    hosts: Arc<[AllowedHost]>,
    origins: Arc<[AllowedOrigin]>,
    /// How this server is spoken to: `http` or `https`.
    scheme: &'static str,
    /// Where it listens.
    port: u16,
}

impl Guard {
    /// The guard of a server that listens at `address`.
    pub(super) fn new(config: &HttpConfig, address: SocketAddr) -> Self {
        Self {
            hosts: config.allowed_hosts.clone().into(),
            origins: config.allowed_origins.clone().into(),
            scheme: if config.tls.is_some() { "https" } else { "http" },
            port: address.port(),
        }
    }

    fn permits_host(&self, host: &str) -> bool {
        let Ok(authority) = Authority::try_from(host) else { return false };
        let plain = !host.contains('@');
        plain && (is_loopback(authority.host()) || self.hosts.iter().any(|allowed| allowed.permits(&authority)))
    }

    /// Whether pages of an origin may make requests to `host`, under which the server is permitted to be reached.
    fn permits_origin(&self, origin: &HeaderValue, host: &str) -> bool {
        let Some(uri) = origin.to_str().ok().and_then(|text| Uri::try_from(text).ok()) else { return false };
        self.is_own(&uri, host) || self.origins.iter().any(|allowed| allowed.permits(&uri))
    }

    /// Whether an origin is this server's: as the request reached it, or by a name of the loopback interface at its port.
    fn is_own(&self, origin: &Uri, host: &str) -> bool {
        let default = if self.scheme == "https" { 443 } else { 80 };
        let port_of = |authority: &Authority| authority.port_u16().unwrap_or(default);
        let Some(from) = origin.authority().filter(|_| origin.scheme_str() == Some(self.scheme)) else { return false };
        let as_reached = Authority::try_from(host).is_ok_and(|reached| {
            reached.host().eq_ignore_ascii_case(from.host()) && port_of(&reached) == port_of(from)
        });
        as_reached || (is_loopback(from.host()) && port_of(from) == self.port)
    }

    /// Looks at both headers.
    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let host = host_of(uri, headers).ok_or_else(|| ApiError::bad_request("the request must name one host"))?;
        if !self.permits_host(host) {
            tracing::warn!(host, "a request for a foreign host is refused");
            return Err(ApiError::forbidden(
                "this server does not answer to that host; --http-allowed-host permits it",
            ));
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match origins.find(|origin| !self.permits_origin(origin, host)) {
            Some(origin) => {
                tracing::warn!(?origin, "a request of a foreign origin is refused");
                let message = "pages of that origin may not make requests; --http-allowed-origin permits it";
                Err(ApiError::forbidden(message))
            }
            None => Ok(()),
        }
    }

    /// What browsers are told about requests of pages. Credentials of the browser's own (cookies) play no part.
    pub(super) fn cors(&self) -> CorsLayer {
        let guard = self.clone();
        let exposed = [
            "mcp-session-id",
            "www-authenticate",
            "retry-after",
            "location",
            "link",
            "etag",
            "content-range",
            "x-next-cursor",
        ]
        .map(HeaderName::from_static);
        let is_permitted = move |origin: &HeaderValue, request: &Parts| {
            host_of(&request.uri, &request.headers).is_some_and(|host| guard.permits_origin(origin, host))
        };
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(is_permitted))
            .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(exposed)
            .max_age(Duration::from_secs(600))
    }
}

/// The host that a request names, when it names one and the same.
fn host_of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let mut named = headers.get_all(header::HOST).iter();
    let host = named.next()?.to_str().ok()?;
    let agrees = uri.authority().is_none_or(|authority| authority.as_str().eq_ignore_ascii_case(host));
    (named.next().is_none() && agrees).then_some(host)
}

fn is_loopback(host: &str) -> bool {
    LOOPBACK.iter().any(|name| name.eq_ignore_ascii_case(host))
}

/// Refuses what is not meant for this server or not permitted to ask it.
pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Result<Response, ApiError> {
    guard.check(request.uri(), request.headers())?;
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TlsFiles;

    fn guard(tls: Option<TlsFiles>) -> Guard {
        let address = SocketAddr::from(([127, 0, 0, 1], 8080));
        Guard::new(&HttpConfig { tls, ..HttpConfig::at(address) }, address)
    }

    #[test]
    fn an_origin_is_the_server_s_own_by_scheme_host_and_port() {
        let files = TlsFiles { certificate: "cert.pem".into(), key: "key.pem".into() };
        let (plain, encrypted) = (guard(None), guard(Some(files)));
        let permits = |guard: &Guard, origin: &str, host| guard.permits_origin(&origin.parse().unwrap(), host);
        assert!(permits(&plain, "http://localhost:8080", "127.0.0.1:8080"));
        assert!(permits(&encrypted, "https://localhost:8080", "127.0.0.1:8080"));
        assert!(!permits(&plain, "https://localhost:8080", "localhost:8080"));
        assert!(!permits(&encrypted, "http://localhost:8080", "localhost:8080"));
        assert!(permits(&plain, "http://code.example", "code.example:80"));
        assert!(permits(&encrypted, "https://code.example:443", "CODE.example"));
        assert!(!permits(&encrypted, "https://code.example", "code.example:8443"));
        assert!(!permits(&plain, "http://code.example:8080", "localhost:8080"));
    }
}
