//! The one shape of what goes wrong: `{"error":{"code","message","details"}}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use codegen_types::{ErrorCode, Failure};
use serde_json::{Value, json};

/// The longest plain text that is repeated, in bytes.
const PLAIN_BYTES_MAX: usize = 4 << 10;

/// A refusal over HTTP.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    status: StatusCode,
    code: ErrorCode,
    message: String,
    details: Value,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: json!({}) }
    }

    /// The request is not understood.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidArgument, message)
    }

    /// The request is understood and not permitted.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorCode::PermissionDenied, message)
    }

    /// The body is of a kind that is not taken.
    pub(super) fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::InvalidArgument, message)
    }

    /// The path is there, and takes other methods.
    pub(super) fn method_not_allowed() -> Self {
        let message = "this path does not take that method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::InvalidArgument, message)
    }

    /// There is nothing at this path.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, "there is nothing at this path")
    }

    /// There is no room just now.
    pub(super) fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::RateLimited, message)
    }

    /// The same with a header that says how to ask for credentials.
    pub(super) fn challenging(self, challenge: &str) -> Response {
        let mut response = self.into_response();
        if let Ok(value) = HeaderValue::from_str(challenge) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        response
    }
}

/// Gives a refusal that is plain text, or nothing, the one shape; its status and headers stay.
pub(super) async fn in_one_shape(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("text/plain");
    let is_refusal = parts.status.is_client_error() || parts.status.is_server_error();
    if !is_refusal || !kind.starts_with("text/plain") {
        return Response::from_parts(parts, body);
    }
    let code = match parts.status {
        StatusCode::NOT_FOUND => ErrorCode::NotFound,
        StatusCode::FORBIDDEN => ErrorCode::PermissionDenied,
        status if status.is_server_error() => ErrorCode::Internal,
        _ => ErrorCode::InvalidArgument,
    };
    let said = axum::body::to_bytes(body, PLAIN_BYTES_MAX).await.unwrap_or_default();
    let message = match String::from_utf8_lossy(&said) {
        said if said.is_empty() => parts.status.canonical_reason().unwrap_or("refused").to_owned(),
        said => said.into_owned(),
    };
    let shaped = ApiError::new(parts.status, code, message).into_response();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(shaped.headers().clone());
    Response::from_parts(parts, shaped.into_body())
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let status = match failure.code {
            ErrorCode::NotFound | ErrorCode::SessionNotFound => StatusCode::NOT_FOUND,
            ErrorCode::PermissionDenied => StatusCode::FORBIDDEN,
            ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
            ErrorCode::RateLimited | ErrorCode::NoCapacity => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::InvalidArgument => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, failure.code, failure.message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, code, message, details } = self;
        let body = json!({"error": {"code": code, "message": message, "details": details}});
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
