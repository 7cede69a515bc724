//! What a client posts: one message, a batch of them in the one revision that knows such, or nothing that is a message.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use codegen_types::{ErrorCode, Failure};
use futures::stream::select_all;
use rmcp::model::{ErrorData, RequestId};
use serde::Deserialize as _;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Handlers, StreamableHttp};
use crate::identity::Identity;
use crate::mcp::LINE_BYTES_MAX;
use crate::mcp::stdio::BATCH_MAX;

impl<H: Handlers> StreamableHttp<H> {
    /// Serves what was posted.
    pub(super) async fn posted(&self, identity: Identity, request: Request<Body>) -> Result<Response, Failure> {
        let (parts, body) = request.into_parts();
        let invalid = |why: String| Failure::new(ErrorCode::InvalidArgument, why);
        let body = axum::body::to_bytes(body, LINE_BYTES_MAX).await;
        // It was read whole before, so that this neither waits nor copies.
        let body = body.map_err(|error| invalid(format!("the body cannot be read: {error}")))?;
        if body.trim_ascii_start().starts_with(b"[") {
            return self.batch(&identity, &parts, &body).await;
        }
        let is_json = is_json(&parts.headers);
        let response = self.single(identity, Request::from_parts(parts, Body::from(body.clone()))).await?;
        // rmcp blames the kind of the body for what is in it.
        if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE && is_json {
            return Ok(no_message(&body));
        }
        Ok(response)
    }

    /// Serves each message of a batch, and answers with one stream of what belongs to any of them.
    async fn batch(&self, identity: &Identity, parts: &Parts, body: &Bytes) -> Result<Response, Failure> {
        let invalid = |why: &str| Failure::new(ErrorCode::InvalidArgument, why);
        if !self.takes_batches(identity, &parts.headers) {
            return Err(invalid("batches are for sessions of the revision 2025-03-26; send one message at a time"));
        }
        let Ok(messages) = serde_json::from_slice::<Vec<&RawValue>>(body) else { return Ok(no_message(body)) };
        if messages.is_empty() || messages.len() > BATCH_MAX {
            return Err(invalid(&format!("a batch has from 1 to {BATCH_MAX} messages")));
        }
        let mut streams = Vec::new();
        let mut head = None;
        for message in messages {
            let message = Body::from(message.get().to_owned());
            let response = self.single(identity.clone(), Request::from_parts(parts.clone(), message)).await?;
            if !response.status().is_success() {
                return Ok(response);
            }
            let (answer, body) = response.into_parts();
            if answer.status != StatusCode::ACCEPTED {
                streams.push(body.into_data_stream());
                head.get_or_insert(answer);
            }
        }
        Ok(match head {
            Some(head) => Response::from_parts(head, Body::from_stream(select_all(streams))),
            None => StatusCode::ACCEPTED.into_response(),
        })
    }

    fn takes_batches(&self, identity: &Identity, headers: &HeaderMap) -> bool {
        let id = headers.get("mcp-session-id").and_then(|id| id.to_str().ok());
        let session = id.and_then(|id| self.0.table.get(&identity.principal, &id.into()).ok());
        session.is_some_and(|session| session.takes_batches())
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/json"))
}

/// The answer to what is no message, in the protocol's own terms.
fn no_message(body: &[u8]) -> Response {
    let (id, error) = match serde_json::from_slice::<Value>(body) {
        Err(error) => (None, ErrorData::parse_error(format!("not JSON: {error}"), None)),
        Ok(value) => {
            let id = value.get("id").and_then(|id| RequestId::deserialize(id).ok());
            (id, ErrorData::invalid_request("not a JSON-RPC 2.0 message", None))
        }
    };
    (StatusCode::BAD_REQUEST, Json(json!({"jsonrpc": "2.0", "id": id, "error": error}))).into_response()
}
