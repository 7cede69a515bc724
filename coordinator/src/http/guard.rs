//! Whether a request is meant for this server and comes from a page that may make it: `Host` and `Origin`, each on its
//! own, and what pages of permitted origins may do (CORS).
//!
//! A page that a user visits can make the browser send requests to an address of the user's own machine, under a name
//! that its author chose (DNS rebinding). Such a request names a foreign host, or a foreign origin, or both.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
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
}

impl Guard {
    pub(super) fn new(config: &HttpConfig) -> Self {
        Self { hosts: config.allowed_hosts.clone().into(), origins: config.allowed_origins.clone().into() }
    }

    fn permits_host(&self, host: &str) -> bool {
        let Ok(authority) = Authority::try_from(host) else { return false };
        let plain = !host.contains('@');
        plain && (is_loopback(authority.host()) || self.hosts.iter().any(|allowed| allowed.permits(&authority)))
    }

    fn permits_origin(&self, origin: &HeaderValue) -> bool {
        let Some(uri) = origin.to_str().ok().and_then(|text| Uri::try_from(text).ok()) else { return false };
        let of_web = matches!(uri.scheme_str(), Some("http" | "https"));
        of_web && (uri.host().is_some_and(is_loopback) || self.origins.iter().any(|allowed| allowed.permits(&uri)))
    }

    /// Looks at both headers.
    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        match host_of(uri, headers) {
            None => return Err(ApiError::bad_request("the request must name one host")),
            Some(host) if !self.permits_host(host) => {
                tracing::warn!(host, "a request for a foreign host is refused");
                return Err(ApiError::forbidden(
                    "this server does not answer to that host; --http-allowed-host permits it",
                ));
            }
            Some(_) => {}
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match origins.find(|origin| !self.permits_origin(origin)) {
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
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(move |origin, _| guard.permits_origin(origin)))
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
