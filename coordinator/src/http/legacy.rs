//! `/sse` and `/messages`: the deprecated transport of 2024-11-05.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use serde::Deserialize;

use super::bodies::BODY_BYTES_MAX;
use super::error::ApiError;
use crate::identity::Identity;
use crate::mcp::LegacySse;

/// Since when the transport is deprecated: 2025-03-26, as RFC 9745 writes it.
const DEPRECATED_SINCE: HeaderValue = HeaderValue::from_static("@1742947200");
/// What to use instead.
const SUCCESSOR: HeaderValue = HeaderValue::from_static("</mcp>; rel=\"successor-version\"");

/// What serves it, and how often a stream that has nothing to say sends a comment.
#[derive(Clone)]
pub(super) struct Legacy {
    pub(super) sse: LegacySse,
    pub(super) keep_alive: Duration,
}

/// Which connection a message is for.
#[derive(Debug, Deserialize)]
pub(super) struct Address {
    session_id: String,
}

/// Opens the stream of events, of which the first says where to post messages.
pub(super) async fn events(State(legacy): State<Legacy>, Extension(identity): Extension<Identity>) -> Response {
    let begun = match legacy.sse.begin(identity) {
        Ok(begun) => begun,
        Err(failure) => return deprecated(ApiError::from(failure).into_response()),
    };
    let endpoint = Event::default().event("endpoint").data(format!("/messages?session_id={}", begun.id));
    let messages = begun.messages.map(|message| Event::default().event("message").data(message));
    let events = futures::stream::once(std::future::ready(endpoint)).chain(messages).map(Ok::<_, Infallible>);
    let keep_alive = KeepAlive::new().interval(legacy.keep_alive);
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    deprecated(response)
}

/// Takes a message, whose answer comes on the stream.
pub(super) async fn message(
    State(legacy): State<Legacy>,
    Extension(identity): Extension<Identity>,
    address: Result<Query<Address>, QueryRejection>,
    request: Request,
) -> Response {
    let Ok(Query(Address { session_id })) = address else {
        return deprecated(ApiError::bad_request("session_id is missing; /sse says where to post").into_response());
    };
    let (parts, body) = request.into_parts();
    if !is_json(&parts.headers) {
        let message = "messages are application/json";
        return deprecated(ApiError::unsupported_media_type(message).into_response());
    }
    let Ok(body) = whole(body).await else {
        return deprecated(ApiError::bad_request("the body cannot be read").into_response());
    };
    deprecated(match legacy.sse.post(&identity, &session_id, parts, &body).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(failure) => ApiError::from(failure).into_response(),
    })
}

/// The body, which is whole already.
async fn whole(body: Body) -> Result<Bytes, axum::Error> {
    axum::body::to_bytes(body, BODY_BYTES_MAX).await
}

/// A page may send a form anywhere without asking first, and JSON not.
fn is_json(headers: &HeaderMap) -> bool {
    let named = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    named.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

fn deprecated(mut response: Response) -> Response {
    response.headers_mut().insert("deprecation", DEPRECATED_SINCE);
    response.headers_mut().insert(header::LINK, SUCCESSOR);
    response
}
