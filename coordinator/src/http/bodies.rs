//! Bodies of requests, read whole before anybody looks at them: bounded each, bounded together, and in time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use codegen_types::ErrorCode;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::error::ApiError;
use crate::mcp::LINE_BYTES_MAX;

/// The largest body, in bytes: as much as a line may have over stdio.
pub(super) const BODY_BYTES_MAX: usize = LINE_BYTES_MAX;
/// Bytes of all bodies that are being read or served. Full means that a request is refused and may be repeated.
const TOGETHER_BYTES_MAX: usize = 8 * BODY_BYTES_MAX;
/// How long a body may take that comes as slowly as it may.
const WHOLE: Duration = Duration::from_secs(120);
/// Room for bodies is counted in pieces of so many bytes.
const PIECE_BYTES: usize = 4 << 10;

/// Room for bodies. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Bodies {
    room: Arc<Semaphore>,
    silence: Duration,
    /// The largest, in bytes.
    most: usize,
}

impl Bodies {
    /// Room for bodies of which nothing may come for so long.
    pub(super) fn new(silence: Duration) -> Self {
        Self { room: Arc::new(Semaphore::new(TOGETHER_BYTES_MAX / PIECE_BYTES)), silence, most: BODY_BYTES_MAX }
    }

    /// The same room, for bodies of at most so many bytes.
    pub(super) fn of_at_most(&self, most: usize) -> Self {
        Self { most, ..self.clone() }
    }
}

/// A body that was read, with its share of the room.
struct Whole {
    bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    async fn read(&self, mut body: Body) -> Result<Whole, ApiError> {
        if body.size_hint().lower() > self.most as u64 {
            return Err(ApiError::too_large(self.most));
        }
        let deadline = Instant::now() + WHOLE;
        let (mut whole, mut share) = (Vec::new(), None);
        loop {
            let until = deadline.min(Instant::now() + self.silence);
            let frame = match tokio::time::timeout_at(until, body.frame()).await {
                Err(_elapsed) => return Err(too_slow()),
                Ok(None) => break,
                Ok(Some(Err(error))) => return Err(ApiError::bad_request(format!("the body broke off: {error}"))),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            if data.len() > self.most - whole.len() {
                return Err(ApiError::too_large(self.most));
            }
            self.grow(&mut share, whole.len() + data.len())?;
            whole.extend_from_slice(&data);
        }
        Ok(Whole { bytes: whole.into(), _share: share })
    }

    /// Takes room for a body that has grown to so many bytes.
    fn grow(&self, share: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), ApiError> {
        let held = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(more) = bytes.div_ceil(PIECE_BYTES).checked_sub(held).filter(|more| *more > 0) else { return Ok(()) };
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.room).try_acquire_many_owned(more);
        let permit = permit.map_err(|_| ApiError::busy("too many large requests at once"))?;
        match share {
            Some(share) => share.merge(permit),
            None => *share = Some(permit),
        }
        Ok(())
    }
}

fn too_slow() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::InvalidArgument, "the body came too slowly")
}

/// Reads the body and hands the request on with all of it.
pub(super) async fn read(State(bodies): State<Bodies>, request: Request, next: Next) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let Whole { bytes, _share } = bodies.read(body).await?;
    Ok(next.run(Request::from_parts(parts, Body::from(bytes))).await)
}
