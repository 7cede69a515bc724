//! The protocol over Streamable HTTP: sessions of the protocol for clients of 2025, single requests for those of 2026.
//!
//! rmcp reads requests and says which era they are of. What it keeps of sessions is ours: whose each is, how much of it
//! is kept, when it ends.

mod event_log;
mod handlers;
mod kept;
mod posts;
mod rooms;
mod session;
mod table;
mod visit;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use codegen_types::{ErrorCode, Failure};
use rmcp::model::ProtocolVersion;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::calls::Calls;
use super::{LINE_BYTES_MAX, unread};
use crate::byte_room::ByteRoom;
use crate::identity::Identity;

pub use handlers::{Handlers, Product};
use session::Refused;
use table::{Bounds, Table};
use visit::Visit;

/// How often idle sessions are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Serves the protocol over Streamable HTTP. Cheap to clone.
pub struct StreamableHttp<H = Product>(Arc<Shared<H>>);

impl<H> Clone for StreamableHttp<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Shared<H> {
    handlers: H,
    calls: Calls,
    table: Table,
    unread: ByteRoom,
    config: StreamableHttpServerConfig,
    streams_over: CancellationToken,
}

impl<H: Handlers> StreamableHttp<H> {
    /// Serves with these handlers. A stream that says nothing for so long as `keep_alive` sends a comment.
    pub fn new(handlers: H, keep_alive: Duration) -> Self {
        let streams_over = CancellationToken::new();
        // Host, Origin and the size of bodies were looked at before a request comes here. Events that begin a stream come
        // from its session, which knows whether the client understands them.
        let config = StreamableHttpServerConfig::default()
            .with_json_response(true)
            .with_sse_keep_alive(Some(keep_alive))
            .with_sse_retry(None)
            .with_max_request_body_bytes(LINE_BYTES_MAX)
            .disable_allowed_hosts()
            .with_cancellation_token(streams_over.clone());
        let unread = unread::room();
        let table = Table::new(Bounds::default(), unread.clone());
        Self(Arc::new(Shared { handlers, calls: Calls::default(), table, unread, config, streams_over }))
    }

    /// Serves one request on behalf of `identity`.
    ///
    /// # Errors
    /// There is no room for it.
    pub async fn serve(&self, identity: Identity, request: Request) -> Result<Response, Failure> {
        match *request.method() {
            Method::POST => self.posted(identity, request).await,
            _ => self.single(identity, request).await,
        }
    }

    /// Serves one request that brings one message, or none.
    async fn single(&self, identity: Identity, request: Request) -> Result<Response, Failure> {
        let ends_session = request.method() == Method::DELETE;
        let era = Era::of(request.headers());
        let unread = self.0.unread.of(&identity.principal);
        let visit = Visit::new(self.clone(), identity, era);
        let by = Arc::clone(&visit);
        // Boxed, since what serves a protocol session holds room for several of it while the session lives.
        let handler = move || by.handler().map(Box::new);
        let service = StreamableHttpService::new(handler, Arc::clone(&visit), self.0.config.clone());
        let Ok(response) = service.oneshot(request).await;
        if let Some(refused) = visit.refused() {
            return Err(refused.into());
        }
        let mut response = response.map(Body::new);
        if ends_session && response.status() == StatusCode::ACCEPTED {
            // Clients take 202 for a failure to end the session.
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        match era {
            Era::Requests => unread::response_with_room(response, unread, &self.0.calls),
            // What a session has not read is counted in its streams.
            Era::Sessions => Ok(response),
        }
    }

    /// Ends idle sessions from time to time, for ever.
    pub async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            self.0.table.sweep(Instant::now());
            self.0.handlers.sweep(Instant::now());
        }
    }

    /// Cancels running calls and waits until they have ended, but no longer than `deadline`; then ends every session and
    /// every stream that waits for something.
    pub async fn end(&self, deadline: Duration) {
        self.0.calls.end(deadline).await;
        self.0.table.end();
    }

    /// Ends every stream, also those with something left to say.
    pub fn cut(&self) {
        self.0.streams_over.cancel();
    }
}

/// What a client keeps between requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// A session of the protocol.
    Sessions,
    /// Nothing: since 2026-07-28 each request stands alone.
    Requests,
}

impl Era {
    /// The era as the client says it, which rmcp then holds the request to: its version, and of 2026-07-28 its method, too.
    fn of(headers: &HeaderMap) -> Self {
        let said = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let is_late = said("mcp-protocol-version").is_some_and(|said| said >= ProtocolVersion::V_2026_07_28.as_str());
        // A handshake begins a session whatever revision it names, and it alone need not say its method.
        let shakes_hands = matches!(said("mcp-method"), None | Some("initialize"));
        if is_late && !shakes_hands { Self::Requests } else { Self::Sessions }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let failure = |code| Self::new(code, refused.to_string());
        match refused {
            Refused::NoRoom => failure(ErrorCode::NoCapacity).retry_later(),
            Refused::TooManySessions => failure(ErrorCode::RateLimited).retry_later(),
            Refused::TooMany => failure(ErrorCode::RateLimited).retry_soon(),
            Refused::DuplicateId => failure(ErrorCode::InvalidArgument),
            Refused::Unknown | Refused::Ended | Refused::UnknownEvent(_) => failure(ErrorCode::NotFound),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_begins_a_session_whatever_revision_it_names() {
        let era = |version: Option<&'static str>, method: Option<&'static str>| {
            let said = [("mcp-protocol-version", version), ("mcp-method", method)];
            let said = said.into_iter().filter_map(|(name, value)| Some((name.parse().ok()?, value?.parse().ok()?)));
            Era::of(&said.collect())
        };
        assert_eq!(era(Some("2026-07-28"), Some("tools/list")), Era::Requests);
        for handshake in [None, Some("initialize")] {
            assert_eq!(era(Some("2026-07-28"), handshake), Era::Sessions);
        }
        assert_eq!(era(Some("2025-11-25"), Some("tools/list")), Era::Sessions);
        assert_eq!(era(None, None), Era::Sessions);
    }
}
