//! Credentials that permit too little are told so before anything is done, and which scope to ask for.

use std::borrow::Cow;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::authentication::Authentication;
use super::bodies::BODY_BYTES_MAX;
use super::error::ApiError;
use crate::identity::{Identity, InsufficientScope, Scope, Scopes, needed_scopes, permit};

/// What of a message says which tool it calls. Everything else is skipped; whether it is a message is said elsewhere.
#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: Named<'a>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

/// The tool that a message calls.
fn called(message: &[u8]) -> Option<&'static str> {
    let call = serde_json::from_slice::<Call<'_>>(message).ok()?;
    let tool = crate::tools::find(&call.params.name)?;
    (call.method == "tools/call").then_some(tool.name)
}

fn check(identity: &Identity, message: &[u8]) -> Result<(), InsufficientScope> {
    let speaks = identity.scopes.has(Scope::Tools) || identity.scopes.has(Scope::Sessions);
    if !speaks {
        return Err(InsufficientScope { given: identity.scopes, needed: Scope::Tools.into() });
    }
    if identity.scopes.covers(Scopes::USER) {
        // No tool needs more.
        return Ok(());
    }
    called(message).map_or(Ok(()), |tool| permit(identity.scopes, needed_scopes(tool)))
}

/// The request with a message whose credentials permit what it asks for; else the refusal.
pub(super) async fn permitted(
    authentication: &Authentication,
    identity: &Identity,
    request: Request,
) -> Result<Request, Response> {
    let (parts, body) = request.into_parts();
    // It is whole already, so that this neither waits nor copies.
    let Ok(message): Result<Bytes, _> = axum::body::to_bytes(body, BODY_BYTES_MAX).await else {
        return Err(ApiError::bad_request("the body cannot be read").into_response());
    };
    match check(identity, &message) {
        Ok(()) => Ok(Request::from_parts(parts, Body::from(message))),
        Err(insufficient) => Err(authentication.step_up(insufficient, called(&message), &parts.extensions).await),
    }
}

/// [`permitted`] as a layer.
pub(super) async fn step_up(
    State(authentication): State<Authentication>,
    Extension(identity): Extension<Identity>,
    request: Request,
    next: Next,
) -> Response {
    match permitted(&authentication, &identity, request).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_of_tools_need_something_of_their_own() {
        let call = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"arguments":{"a":[1]},"name":"session\u005fclose"}}"#;
        assert_eq!(called(call), Some("session_close"));
        let dotted = br#"{"method":"tools/call","params":{"name":"run.python"}}"#;
        assert_eq!(called(dotted), Some("run_python"));
        for other in [
            &br#"{"method":"prompts/get","params":{"name":"session_close"}}"#[..],
            br#"{"method":"tools/call","params":{"name":"no_such_tool"}}"#,
            br#"[{"method":"tools/call","params":{"name":"session_close"}}]"#,
            b"no JSON",
        ] {
            assert_eq!(called(other), None);
        }
    }
}
