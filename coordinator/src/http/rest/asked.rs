//! Who asks for an operation, and how.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use codegen_types::{ErrorCode, Failure, TraceContext};

use super::idempotency::{self, InFlight};
use crate::http::authentication::ResourceMetadata;
use crate::http::bodies::Room;
use crate::http::error::ApiError;
use crate::identity::{self, Identity, InsufficientScope};

/// How much of a client's name is recorded, in bytes.
const CLIENT_BYTES_MAX: usize = 128;
/// Where W3C trace context is.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Who asks, and what is said of it in records.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) identity: Identity,
    /// The program, as it names itself.
    pub(super) client: Option<String>,
    /// W3C trace context.
    pub(super) trace: Option<TraceContext>,
    /// Under which key the request may be repeated.
    pub(super) key: Option<String>,
    /// Where clients learn whom to ask for more.
    metadata: Option<String>,
    /// What the request has while it is carried out.
    pub(super) held: Held,
}

/// What a request has while it is carried out, whether its client still waits or not. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    /// Its key's place.
    in_flight: Option<Arc<InFlight>>,
    /// The room of its body.
    _body: Option<Arc<Room>>,
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let identity = parts.extensions.get::<Identity>().cloned();
        let identity = identity.ok_or_else(|| Failure::new(ErrorCode::Unauthenticated, "nobody said who asks"))?;
        let metadata = parts.extensions.get::<ResourceMetadata>().and_then(|known| known.0.clone());
        let client =
            text(&parts.headers, &header::USER_AGENT).map(|name| name.chars().take(CLIENT_BYTES_MAX).collect());
        let trace = text(&parts.headers, &TRACEPARENT);
        let trace = trace.and_then(|parent| TraceContext::parse(parent, text(&parts.headers, &TRACESTATE)));
        let key = idempotency::key(&parts.headers)?;
        let held = Held { in_flight: parts.extensions.get().cloned(), _body: parts.extensions.get().cloned() };
        Ok(Self { identity, client, trace, key, metadata, held })
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

impl Held {
    /// The request was carried out: its key stays.
    pub(super) fn carried_out(&self) {
        self.in_flight.iter().for_each(|in_flight| in_flight.carried_out());
    }
}

impl Asked {
    /// The same, of one of the calls that a request consists of: with a key of its own, and with this room.
    pub(super) fn part(&self, number: usize, room: Arc<Room>) -> Self {
        let key = self.key.as_ref().map(|key| idempotency::key_of_part(key, number));
        let held = Held { _body: Some(room), ..self.held.clone() };
        Self { key, held, ..self.clone() }
    }

    /// Refuses a key where nothing remembers what it did: what operators do.
    pub(super) fn takes_no_key(&self) -> Result<(), ApiError> {
        match self.key {
            Some(_) => Err(ApiError::bad_request("this takes no Idempotency-Key: what it did is not given again")),
            None => Ok(()),
        }
    }

    /// The refusal of a tool's call, with how to get further where credentials permit too little.
    pub(super) fn refused(&self, tool: &str, failure: Failure) -> ApiError {
        // Only the tools remember a key from before a restart.
        if self.key.is_some() && failure.message.contains("`idempotency_key`") {
            return ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, failure.code, failure.message);
        }
        let permitted = identity::permit(self.identity.scopes, identity::needed_scopes(tool));
        match permitted {
            Err(insufficient) if failure.code == ErrorCode::PermissionDenied => self.insufficient(insufficient),
            _ => failure.into(),
        }
    }

    /// The refusal of credentials that permit too little.
    pub(super) fn insufficient(&self, insufficient: InsufficientScope) -> ApiError {
        ApiError::step_up(insufficient, self.metadata.as_deref())
    }
}
