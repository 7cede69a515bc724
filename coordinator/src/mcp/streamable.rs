//! The protocol over Streamable HTTP: sessions of the protocol for clients of 2025, single requests for those of 2026.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::calls::Calls;
use super::handler::{Handler, Room};
use super::{LINE_BYTES_MAX, Services};
use crate::caller::Caller;
use crate::identity::Identity;
use crate::tools::Handles;

/// How often a stream that has nothing to say sends a comment, so that nobody on its way takes it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Serves the protocol over Streamable HTTP. Cheap to clone.
#[derive(Clone)]
pub struct StreamableHttp {
    services: Services,
    calls: Calls,
    sessions: Arc<LocalSessionManager>,
    config: StreamableHttpServerConfig,
    streams_over: CancellationToken,
}

impl StreamableHttp {
    /// Serves with these services.
    pub fn new(services: Services) -> Self {
        let streams_over = CancellationToken::new();
        // Host, Origin and the size of bodies were looked at before a request comes here.
        let config = StreamableHttpServerConfig::default()
            .with_json_response(true)
            .with_sse_keep_alive(Some(KEEP_ALIVE))
            .with_max_request_body_bytes(LINE_BYTES_MAX)
            .disable_allowed_hosts()
            .with_cancellation_token(streams_over.clone());
        Self { services, calls: Calls::default(), sessions: Arc::default(), config, streams_over }
    }

    /// Serves one request on behalf of `identity`.
    pub async fn serve(&self, identity: Identity, request: Request) -> Response {
        let made = self.clone();
        let make = move || Ok(made.handler(&identity));
        let service = StreamableHttpService::new(make, Arc::clone(&self.sessions), self.config.clone());
        match service.oneshot(request).await {
            Ok(response) => response.map(Body::new).into_response(),
            Err(never) => match never {},
        }
    }

    fn handler(&self, Identity { principal, scopes }: &Identity) -> Handler {
        let connection = self.services.connection(principal).with_handles(Handles::Required);
        let options = self.services.options();
        let caller = Caller { principal: principal.clone(), scopes: *scopes, client: None, trace: None };
        Handler::new(Room::new(connection, self.calls.part(), options.calls_max), caller, options)
    }

    /// Cancels running calls, waits until they have ended, but no longer than `deadline`, and ends every stream.
    pub async fn end(&self, deadline: Duration) {
        self.calls.end(deadline).await;
        self.streams_over.cancel();
    }
}
