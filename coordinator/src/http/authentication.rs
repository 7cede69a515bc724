//! Who makes a request: the `Authorization` header, looked at before anything else of the request is.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use codegen_types::ErrorCode;

use super::error::ApiError;
use super::listener::Peer;
use super::metadata::Metadata;
use crate::identity::{Authenticator, Identity, InsufficientScope, Unauthenticated};

/// How requests are authenticated. Cheap to clone.
#[derive(Clone)]
pub(super) struct Authentication {
    authenticator: Authenticator,
    metadata: Metadata,
}

/// Where a client learns whom to ask for a token, in the extensions of its request.
#[derive(Debug, Clone)]
pub(super) struct ResourceMetadata(pub(super) Option<String>);

impl Authentication {
    pub(super) fn new(authenticator: Authenticator, metadata: Metadata) -> Self {
        Self { authenticator, metadata }
    }

    /// Whether nobody is asked who they are.
    pub(super) fn is_open(&self) -> bool {
        self.authenticator.is_open()
    }

    async fn identify(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<Identity, Unauthenticated> {
        self.authenticator.authenticate_from(bearer(headers)?, peer).await
    }

    fn refuse(&self, why: Unauthenticated, headers: &HeaderMap) -> Response {
        tracing::info!(why = why.as_str(), "a request is not let in");
        if why == Unauthenticated::KeysUnavailable {
            return ApiError::busy(why.to_string()).into_response();
        }
        let error = ApiError::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthenticated, why.to_string());
        error.challenging(why.challenge(self.metadata.address(headers).as_deref())).into_response()
    }

    /// The refusal of a request whose credentials permit too little.
    pub(super) fn step_up(&self, why: InsufficientScope, headers: &HeaderMap) -> Response {
        ApiError::step_up(why, self.metadata.address(headers).as_deref()).into_response()
    }
}

/// The credentials of a bearer. Any other scheme, or more than one header, is none of ours.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Unauthenticated> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(first) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(Unauthenticated::Invalid);
    }
    let text = first.to_str().map_err(|_| Unauthenticated::Invalid)?;
    let (scheme, credentials) = text.split_once(' ').ok_or(Unauthenticated::Invalid)?;
    let credentials = credentials.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !credentials.is_empty() {
        Ok(Some(credentials))
    } else {
        Err(Unauthenticated::Invalid)
    }
}

/// Lets a request through with its identity, and without its credentials: nothing further in needs them.
pub(super) async fn authenticate(State(by): State<Authentication>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let peer = parts.extensions.get::<Peer>().map(|peer| peer.0);
    match by.identify(&parts.headers, peer).await {
        Ok(identity) => {
            parts.headers.remove(header::AUTHORIZATION);
            parts.extensions.insert(ResourceMetadata(by.metadata.address(&parts.headers)));
            parts.extensions.insert(identity);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(why) => by.refuse(why, &parts.headers),
    }
}
