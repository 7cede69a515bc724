//! Bodies of requests: bounded each, bounded together, and in time. They are read whole before anybody looks at them, but
//! for those that are taken piece by piece.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use codegen_types::{ErrorCode, Failure, Principal};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::error::ApiError;
use crate::byte_room::{ByteRoom, Full, Held};
use crate::config::HttpBounds as Bounds;
use crate::identity::Identity;
use crate::mcp::LINE_BYTES_MAX;

/// The largest body, in bytes: as much as a line may have over stdio.
pub(super) const BODY_BYTES_MAX: usize = LINE_BYTES_MAX;
/// How many bytes of a body are small.
const SMALL_BYTES: usize = 1 << 20;
/// How long a body may take that comes as slowly as it may.
const WHOLE: Duration = Duration::from_secs(120);
/// How long a body may be on its way that is taken piece by piece.
const INFLOW: Duration = Duration::from_secs(1_800);

/// Room for bodies that are being read or served. Full means that a request is refused and may be repeated. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub(super) struct Bodies {
    /// For the first [`SMALL_BYTES`] of each, which large bodies leave alone.
    small: ByteRoom,
    /// For the rest.
    large: ByteRoom,
    silence: Duration,
    /// The largest, in bytes.
    most: usize,
}

impl Bodies {
    /// Room for bodies of which nothing may come for so long.
    pub(super) fn new(silence: Duration, bounds: &Bounds) -> Self {
        let (all, of_one) = (bounds.bodies_bytes, bounds.bodies_of_one_bytes);
        // A quarter for small ones: many users have one each, and few have large ones.
        let small = ByteRoom::new(all / 4, of_one / 4);
        let large = ByteRoom::new(all - all / 4, of_one);
        Self { small, large, silence, most: BODY_BYTES_MAX }
    }

    /// The same room, for bodies of at most so many bytes.
    pub(super) fn of_at_most(&self, most: usize) -> Self {
        Self { most, ..self.clone() }
    }

    /// Room for something of a principal's that has no bytes yet.
    pub(super) fn nothing_of(&self, principal: &Principal) -> Room {
        Room { small: self.small.of(principal).nothing(), large: self.large.of(principal).nothing() }
    }
}

/// The room of one body, taken until it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    small: Held,
    large: Held,
}

impl Room {
    /// Takes room for so many bytes altogether.
    ///
    /// # Errors
    /// `RATE_LIMITED` when the principal has all that one may have; `NO_CAPACITY` when all is taken.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.small.grow_to(bytes.min(SMALL_BYTES)).map_err(no_room)?;
        self.large.grow_to(bytes.saturating_sub(SMALL_BYTES)).map_err(no_room)
    }
}

/// A body that comes piece by piece. The client is held back by whoever asks for no more.
pub(super) struct Inflow {
    body: Body,
    silence: Duration,
    deadline: Instant,
}

impl Inflow {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// It is too slow, or broke off.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let until = self.deadline.min(Instant::now() + self.silence);
            let frame = match tokio::time::timeout_at(until, self.body.frame()).await {
                Err(_elapsed) => return Err(too_slow()),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(ApiError::bad_request(format!("the body broke off: {error}"))),
                Ok(Some(Ok(frame))) => frame,
            };
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

/// A body that was read, with its room.
struct Whole {
    bytes: Bytes,
    room: Room,
}

impl Bodies {
    /// A body that is taken piece by piece.
    pub(super) fn inflow(&self, body: Body) -> Inflow {
        Inflow { body, silence: self.silence, deadline: Instant::now() + INFLOW }
    }

    async fn read(&self, principal: &Principal, body: Body) -> Result<Whole, ApiError> {
        if body.size_hint().lower() > self.most as u64 {
            return Err(ApiError::too_large(self.most));
        }
        let mut inflow = Inflow { body, silence: self.silence, deadline: Instant::now() + WHOLE };
        let (mut whole, mut room) = (Vec::new(), self.nothing_of(principal));
        while let Some(data) = inflow.next().await? {
            if data.len() > self.most - whole.len() {
                return Err(ApiError::too_large(self.most));
            }
            room.grow_to(whole.len() + data.len())?;
            whole.extend_from_slice(&data);
        }
        Ok(Whole { bytes: whole.into(), room })
    }
}

fn no_room(full: Full) -> ApiError {
    Failure::from(full).into()
}

fn too_slow() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::InvalidArgument, "the body came too slowly")
}

impl Bodies {
    /// The request with all of its body. Its room is taken until the call that it brings is over.
    ///
    /// # Errors
    /// It is too large, too slow, or there is no room for it.
    pub(super) async fn gather(&self, principal: &Principal, request: Request) -> Result<Request, ApiError> {
        let (mut parts, body) = request.into_parts();
        let Whole { bytes, room } = self.read(principal, body).await?;
        parts.extensions.insert(Arc::new(room));
        Ok(Request::from_parts(parts, Body::from(bytes)))
    }
}

/// [`Bodies::gather`] as a layer.
pub(super) async fn read(
    State(bodies): State<Bodies>,
    Extension(identity): Extension<Identity>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let whole = bodies.gather(&identity.principal, request).await?;
    Ok(next.run(whole).await)
}
