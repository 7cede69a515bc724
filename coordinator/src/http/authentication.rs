//! Who makes a request: the `Authorization` header, looked at before anything else of the request is.

use std::net::IpAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use codegen_types::ErrorCode;
use futures::StreamExt as _;

use super::error::ApiError;
use super::listener::Peer;
use super::metadata::Metadata;
use crate::identity::{Authenticator, Credentials, Identity, InsufficientScope, Unauthenticated, Validity};
use crate::telemetry;

/// The method of a client of 2026-07-28 that follows changes.
const LISTEN: &str = "subscriptions/listen";

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
        self.authenticator.authenticate_from(shown(headers), peer).await
    }

    /// Hands a request to `next` with its identity, which its extensions have as well, and without its credentials: nothing
    /// further in needs them.
    pub(super) async fn let_in<F>(&self, request: Request, next: impl FnOnce(Identity, Request) -> F) -> Response
    where
        F: Future<Output = Response>,
    {
        let (mut parts, body) = request.into_parts();
        match self.identify(&parts.headers, peer_in(&parts.extensions)).await {
            Ok(identity) => {
                parts.headers.remove(header::AUTHORIZATION);
                let validity = listens(&parts).then(|| identity.validity.clone());
                parts.extensions.insert(ResourceMetadata(self.metadata.address()));
                parts.extensions.insert(identity.clone());
                let response = next(identity, Request::from_parts(parts, body)).await;
                match validity {
                    Some(validity) if is_stream(&response) => while_valid(response, validity),
                    _ => response,
                }
            }
            Err(why) => self.refuse(why),
        }
    }

    fn refuse(&self, why: Unauthenticated) -> Response {
        tracing::info!(why = why.as_str(), "a request is not let in");
        if why == Unauthenticated::KeysUnavailable {
            return ApiError::busy(why.to_string()).into_response();
        }
        let error = ApiError::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthenticated, why.to_string());
        error.challenging(why.challenge(self.metadata.address().as_deref())).into_response()
    }

    /// The refusal of a request whose credentials permit too little, which is recorded. `tool`: the one that it calls.
    pub(super) async fn step_up(
        &self,
        why: InsufficientScope,
        tool: Option<&'static str>,
        extensions: &Extensions,
    ) -> Response {
        if let Some(identity) = extensions.get::<Identity>() {
            self.authenticator.insufficient(identity, why, tool, peer_in(extensions)).await;
        }
        if let Some(tool) = tool {
            telemetry::call_ended(tool, ErrorCode::PermissionDenied.to_string(), Duration::ZERO);
        }
        ApiError::step_up(why, self.metadata.address().as_deref()).into_response()
    }
}

fn peer_in(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<Peer>().map(|peer| peer.0)
}

/// What a request shows. Any other scheme than a bearer's, or more than one header, is none of ours.
fn shown(headers: &HeaderMap) -> Credentials<'_> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(first) = given.next() else { return Credentials::None };
    if given.next().is_some() {
        return Credentials::Other("two headers");
    }
    let Ok(text) = first.to_str() else { return Credentials::Other("form") };
    let (scheme, credentials) = text.split_once(' ').unwrap_or((text, ""));
    match credentials.trim() {
        _ if !scheme.eq_ignore_ascii_case("bearer") => Credentials::Other("scheme"),
        "" => Credentials::Other("empty"),
        credentials => Credentials::Bearer(credentials),
    }
}

/// [`Authentication::let_in`] as a layer.
pub(super) async fn authenticate(State(by): State<Authentication>, request: Request, next: Next) -> Response {
    by.let_in(request, |_, request| next.run(request)).await
}

/// Whether a request asks for what comes from now on, for as long as there is something. An answer that takes its time
/// is not cut off when its token expires: its client could not know.
fn listens(parts: &Parts) -> bool {
    parts.method == Method::GET || parts.headers.get("mcp-method").is_some_and(|method| method == LISTEN)
}

fn is_stream(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
}

/// Ends a stream when the credentials that it was opened with are good no more.
fn while_valid(response: Response, validity: Validity) -> Response {
    response.map(|body| {
        let over = async move { validity.over().await };
        Body::from_stream(body.into_data_stream().take_until(Box::pin(over)))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use codegen_audit::Audit;
    use codegen_types::Principal;

    use super::*;
    use crate::identity::{NewToken, Requirement, Scopes, Tokens};
    use crate::store::Memory;

    #[tokio::test]
    async fn what_is_further_in_learns_who_asks_and_not_with_which_credentials() {
        let audit = Audit::in_memory();
        let tokens = Tokens::load(Arc::new(Memory::default()), audit.clone()).await.unwrap();
        let new = NewToken { principal: "ann".to_owned(), scopes: Scopes::USER, lifetime_seconds: None, note: None };
        let (_, token) = tokens.create(new, &Principal::os_user("op")).await.unwrap();
        let authenticator = Authenticator::new(tokens, None, Requirement::Required, audit);
        let authentication = Authentication::new(authenticator.clone(), Metadata::new(authenticator));
        let shown = format!("Bearer {}", token.expose());
        let request = Request::builder().header("authorization", &shown).header("x-other", "kept");
        let request = request.body(Body::empty()).unwrap();
        let look = async |identity: Identity, request: Request| {
            assert_eq!(identity.principal, request.extensions().get::<Identity>().unwrap().principal);
            assert!(!request.headers().contains_key(header::AUTHORIZATION));
            assert_eq!(request.headers()["x-other"], "kept");
            StatusCode::IM_A_TEAPOT.into_response()
        };
        assert_eq!(authentication.let_in(request, look).await.status(), StatusCode::IM_A_TEAPOT);
    }
}
