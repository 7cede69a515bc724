//! What is read of a request, refused in the one shape.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;

use super::JSON_BYTES_MAX;
use crate::http::error::ApiError;

/// The longest fault that is repeated, in characters.
const FAULT_CHARS_MAX: usize = 300;

/// Parts of the path.
pub(super) struct InPath<T>(pub(super) T);

/// Parameters after the path.
pub(super) struct InQuery<T>(pub(super) T);

/// A body in JSON.
pub(super) struct InBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, state).await;
        read.map(|Path(read)| Self(read)).map_err(|why| refused(&why.body_text()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for InQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        read.map(|Query(read)| Self(read)).map_err(|why| refused(&why.body_text()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for InBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        if !is_json(&parts.headers) {
            return Err(ApiError::unsupported_media_type("the body must be application/json"));
        }
        let body = axum::body::to_bytes(body, JSON_BYTES_MAX).await;
        let body = body.map_err(|_| ApiError::too_large(JSON_BYTES_MAX))?;
        let mut text = serde_json::Deserializer::from_slice(&body);
        let read: T = serde_path_to_error::deserialize(&mut text).map_err(|error| {
            let place = error.path().to_string();
            let fault = error.into_inner();
            refused(&if place == "." { fault.to_string() } else { format!("`{place}`: {fault}") })
        })?;
        text.end().map_err(|error| refused(&error.to_string()))?;
        Ok(Self(read))
    }
}

fn refused(fault: &str) -> ApiError {
    ApiError::bad_request(fault.chars().take(FAULT_CHARS_MAX).collect::<String>())
}

/// A page may send a form anywhere without asking first, and JSON not.
pub(in crate::http) fn is_json(headers: &HeaderMap) -> bool {
    let named = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    named.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}
