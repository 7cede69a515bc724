//! One HTTP request, as rmcp's service sees it: a handler for whoever asks, and the sessions of that principal alone.

use std::sync::Arc;

use futures::Stream;
use parking_lot::Mutex;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::ServerSseMessage;
use rmcp::transport::streamable_http_server::{SessionId, SessionManager};

use super::session::{Refused, SessionTransport};
use super::{Era, Handlers, StreamableHttp};
use crate::identity::Identity;
use crate::mcp::calls::Calls;

/// One request.
pub(super) struct Visit<H> {
    pub(super) server: StreamableHttp<H>,
    pub(super) identity: Identity,
    era: Era,
    /// The calls of the handler that was made for a session that is not made yet.
    calls: Mutex<Option<Calls>>,
    /// Why the request was refused, where rmcp would speak of a fault of the server's.
    refused: Mutex<Option<Refused>>,
}

impl<H: Handlers> Visit<H> {
    pub(super) fn new(server: StreamableHttp<H>, identity: Identity, era: Era) -> Arc<Self> {
        Arc::new(Self { server, identity, era, calls: Mutex::default(), refused: Mutex::default() })
    }

    /// A handler for this request, or for the session that it begins.
    pub(super) fn handler(&self) -> Result<H::Handler, std::io::Error> {
        let calls = self.server.0.calls.part();
        *self.calls.lock() = Some(calls.clone());
        Ok(self.server.0.handlers.handler(&self.identity, self.era, calls))
    }

    /// Why the request was refused.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.refused.lock().take()
    }

    /// Remembers why a request is refused, and gives the error on.
    fn noting<T>(&self, result: Result<T, Refused>) -> Result<T, NotedRefusal> {
        result.map_err(|refused| {
            let said = refused.to_string();
            *self.refused.lock() = Some(refused);
            NotedRefusal(said)
        })
    }
}

/// A refusal that [`Visit::refused`] tells of.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotedRefusal(String);

impl<H: Handlers> SessionManager for Visit<H> {
    type Error = NotedRefusal;
    type Transport = SessionTransport;

    async fn create_session(&self) -> Result<(SessionId, SessionTransport), NotedRefusal> {
        let calls = self.calls.lock().take().unwrap_or_default();
        self.noting(self.server.0.table.create(&self.identity.principal, calls))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, NotedRefusal> {
        let session = self.noting(self.server.0.table.get(&self.identity.principal, id))?;
        self.noting(session.initialize(message).await)
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, NotedRefusal> {
        let session = self.server.0.table.get(&self.identity.principal, id);
        Ok(session.is_ok_and(|session| {
            session.touch();
            true
        }))
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), NotedRefusal> {
        self.noting(self.server.0.table.close(&self.identity.principal, id))
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, NotedRefusal> {
        let session = self.noting(self.server.0.table.get(&self.identity.principal, id))?;
        self.noting(session.request(message).await)
    }

    async fn accept_message(&self, id: &SessionId, message: ClientJsonRpcMessage) -> Result<(), NotedRefusal> {
        let session = self.noting(self.server.0.table.get(&self.identity.principal, id))?;
        self.noting(session.accept(message).await)
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, NotedRefusal> {
        let session = self.noting(self.server.0.table.get(&self.identity.principal, id))?;
        self.noting(session.standalone())
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, NotedRefusal> {
        let session = self.noting(self.server.0.table.get(&self.identity.principal, id))?;
        // rmcp answers with a stream that ends at once, so that a browser does not ask again and again.
        session.resume(&last_event_id).map_err(|refused| NotedRefusal(refused.to_string()))
    }
}
