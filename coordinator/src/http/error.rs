//! The one shape of what goes wrong: `{"error":{"code","message","details"}}`.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use codegen_types::{ErrorCode, Failure};
use serde_json::{Value, json};

use crate::identity::{InsufficientScope, Scope};

/// The longest plain text that is repeated, in bytes.
const PLAIN_BYTES_MAX: usize = 4 << 10;

/// A refusal over HTTP.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    status: StatusCode,
    code: ErrorCode,
    message: String,
    /// Boxed, since most have nothing here.
    more: Option<Box<More>>,
}

/// What some refusals say beside.
#[derive(Debug, Clone, Default)]
struct More {
    /// Facts for programs, an object.
    details: Option<Value>,
    /// How to ask for other credentials.
    challenge: Option<String>,
    /// After how many seconds it may be tried again.
    retry_after_seconds: Option<u64>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), more: None }
    }

    /// The request is not understood.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidArgument, message)
    }

    /// The request is understood and not permitted.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorCode::PermissionDenied, message)
    }

    /// The body is too large.
    pub(super) fn too_large(bytes_max: usize) -> Self {
        let message = format!("the body has more than {bytes_max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::InvalidArgument, message)
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
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::NoCapacity, message)
    }

    /// A fault of ours, of which the client learns nothing more.
    pub(super) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "a request could not be answered");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal, "the request could not be answered")
    }

    /// Credentials permit too little. `metadata`: where the client learns whom to ask for more.
    pub(super) fn step_up(why: InsufficientScope, metadata: Option<&str>) -> Self {
        let scopes: Vec<&str> = why.needed.iter().map(Scope::as_str).collect();
        let challenge = why.challenge(metadata);
        Self::forbidden(why.to_string()).with_details(json!({"needed_scopes": scopes})).challenging(challenge)
    }

    /// What is wrong.
    pub(super) const fn code(&self) -> ErrorCode {
        self.code
    }

    /// After how long it may be tried again.
    pub(super) fn retry_after(&self) -> Duration {
        let seconds = self.more.as_ref().and_then(|more| more.retry_after_seconds);
        Duration::from_secs(seconds.unwrap_or(1))
    }

    /// The same with another status.
    #[must_use]
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The same with more facts for programs, an object.
    #[must_use]
    pub(super) fn with_details(mut self, facts: Value) -> Self {
        match (&mut self.more.get_or_insert_default().details, facts) {
            (Some(Value::Object(details)), Value::Object(facts)) => details.extend(facts),
            (details, facts) => *details = Some(facts),
        }
        self
    }

    /// The same, said of one thing among others.
    #[must_use]
    pub(super) fn about(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The same with a header that says how to ask for credentials.
    #[must_use]
    pub(super) fn challenging(mut self, challenge: String) -> Self {
        self.more.get_or_insert_default().challenge = Some(challenge);
        self
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
        let status = status_of(failure.code);
        let mut error = Self::new(status, failure.code, failure.message);
        if let Some(millis) = failure.retry_after_ms {
            error = error.with_details(json!({"retry_after_ms": millis}));
            error.more.get_or_insert_default().retry_after_seconds = Some(millis.div_ceil(1_000).max(1));
        }
        error
    }
}

/// The status that goes with a code.
const fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidArgument | ErrorCode::PathViolation => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorCode::PermissionDenied | ErrorCode::ApprovalRequired => StatusCode::FORBIDDEN,
        ErrorCode::NotFound | ErrorCode::SessionNotFound => StatusCode::NOT_FOUND,
        ErrorCode::NotAFile
        | ErrorCode::NotADirectory
        | ErrorCode::AlreadyExists
        | ErrorCode::TaskCancelled
        | ErrorCode::NoWorkerFits
        | ErrorCode::IsolationUnavailable => StatusCode::CONFLICT,
        ErrorCode::SessionClosed | ErrorCode::SessionLost => StatusCode::GONE,
        ErrorCode::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        ErrorCode::FileTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::OutputLimit | ErrorCode::MemoryLimit | ErrorCode::ProcessLimit => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::SessionLimit | ErrorCode::RateLimited | ErrorCode::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::TaskOutcomeUnknown => StatusCode::BAD_GATEWAY,
        ErrorCode::NoCapacity | ErrorCode::WorkerUnavailable | ErrorCode::AuditUnavailable => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorCode::TaskTimeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::DiskLimit => StatusCode::INSUFFICIENT_STORAGE,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, code, message, more } = self;
        let More { details, challenge, retry_after_seconds } = more.map(|more| *more).unwrap_or_default();
        let details = details.unwrap_or_else(|| json!({}));
        let body = json!({"error": {"code": code, "message": message, "details": details}});
        let mut response = (status, Json(body)).into_response();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            let seconds = retry_after_seconds.unwrap_or(1);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(value) = challenge.and_then(|challenge| HeaderValue::from_str(&challenge).ok()) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_status_and_says_when_to_try_again_where_that_helps() {
        const STATUSES: &[(u16, &[&str])] = &[
            (400, &["INVALID_ARGUMENT", "PATH_VIOLATION"]),
            (401, &["UNAUTHENTICATED"]),
            (403, &["PERMISSION_DENIED", "APPROVAL_REQUIRED"]),
            (404, &["NOT_FOUND", "SESSION_NOT_FOUND"]),
            (
                409,
                &[
                    "NOT_A_FILE",
                    "NOT_A_DIRECTORY",
                    "ALREADY_EXISTS",
                    "TASK_CANCELLED",
                    "NO_WORKER_FITS",
                    "ISOLATION_UNAVAILABLE",
                ],
            ),
            (410, &["SESSION_CLOSED", "SESSION_LOST"]),
            (412, &["PRECONDITION_FAILED"]),
            (413, &["FILE_TOO_LARGE"]),
            (422, &["OUTPUT_LIMIT", "MEMORY_LIMIT", "PROCESS_LIMIT"]),
            (429, &["SESSION_LIMIT", "RATE_LIMITED", "QUOTA_EXCEEDED"]),
            (500, &["INTERNAL"]),
            (502, &["TASK_OUTCOME_UNKNOWN"]),
            (503, &["NO_CAPACITY", "WORKER_UNAVAILABLE", "AUDIT_UNAVAILABLE"]),
            (504, &["TASK_TIMEOUT"]),
            (507, &["DISK_LIMIT"]),
        ];
        for code in ErrorCode::ALL {
            let response = ApiError::from(Failure::new(*code, "x")).into_response();
            let status = response.status().as_u16();
            let listed = STATUSES.iter().find(|(listed, _)| *listed == status);
            assert!(listed.is_some_and(|(_, codes)| codes.contains(&code.as_str())), "{code}: {status}");
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), matches!(status, 429 | 503), "{code}");
        }
        let late = Failure::new(ErrorCode::RateLimited, "x").retry_after(Duration::from_millis(2_500));
        assert_eq!(ApiError::from(late).into_response().headers()[header::RETRY_AFTER], "3");
    }
}
