//! The protocol over HTTP+SSE, the transport of 2024-11-05: one stream of events per client, and messages posted beside
//! it. Deprecated since 2025-03-26; there are clients that know no other.
//!
//! A connection is the stream: its end is the connection's, as it is over stdio.

mod transport;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use codegen_types::{ErrorCode, Failure, Principal};
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use rmcp::model::{ClientJsonRpcMessage, GetExtensions as _, JsonRpcMessage};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::calls::Calls;
use super::handler::{Handler, Room};
use super::{Services, unread};
use crate::arrivals::Arrivals;
use crate::byte_room::ByteRoom;
use crate::caller::Caller;
use crate::identity::Identity;
use crate::tools::Handles;
use transport::{Outgoing, Owed, SseTransport};

/// Messages of a client that wait to be handled. Full means that the request that posts one more waits.
const INBOX: usize = 32;
/// Messages that wait to be sent. Full means that calls wait for their client.
const OUTBOX: usize = 64;
/// How long posting a message may wait for room.
const INBOX_PATIENCE: Duration = Duration::from_secs(10);
/// Connections of one principal: as many as it may have sessions over Streamable HTTP. One more is refused.
const OF_ONE_MAX: usize = 1_024;
/// Connections of everybody. One more is refused.
const OF_ALL_MAX: usize = 4_096;

/// Serves the protocol over HTTP+SSE. Cheap to clone.
#[derive(Clone)]
pub struct LegacySse {
    services: Services,
    calls: Calls,
    connections: Connections,
    unread: ByteRoom,
}

type Connections = Arc<Mutex<HashMap<String, Connected>>>;

/// One connection, as requests that post to it see it.
struct Connected {
    principal: Principal,
    inbox: mpsc::Sender<Box<ClientJsonRpcMessage>>,
    owed: Owed,
}

/// A connection that was begun.
pub struct Begun<S> {
    /// What messages to it must name. Nobody can guess it.
    pub id: String,
    /// The messages to the client, each a JSON text. The connection ends when this is dropped.
    pub messages: S,
}

impl LegacySse {
    /// Serves with these services.
    pub fn new(services: Services) -> Self {
        let (calls, connections) = Default::default();
        Self { services, calls, connections, unread: unread::room() }
    }

    /// Begins a connection on behalf of `identity`.
    ///
    /// # Errors
    /// `RATE_LIMITED` when the principal has too many, `NO_CAPACITY` when there is no room for one more.
    pub fn begin(&self, identity: Identity) -> Result<Begun<impl Stream<Item = String> + Send + use<>>, Failure> {
        let (inbox, received) = mpsc::channel(INBOX);
        let (outbox, messages) = mpsc::channel::<Outgoing>(OUTBOX);
        let (calls, owed) = (self.calls.part(), Owed::default());
        let id = self.enter(Connected { principal: identity.principal.clone(), inbox, owed: owed.clone() })?;
        let end = End { id: id.clone(), connections: Arc::clone(&self.connections), calls: calls.clone() };
        let unread = self.unread.of(&identity.principal);
        let handler = self.handler(identity, calls);
        let transport = SseTransport { inbox: received, outbox, owed, unread, arrivals: Arrivals::default() };
        self.calls.spawn(async move {
            // What the beginning takes room for is given back before the long rest of the connection.
            let begun = Box::pin(rmcp::service::serve_server_with_ct(handler, transport, CancellationToken::new()));
            match begun.await {
                // The connection ends with its input, which gives calls the time to be answered.
                Ok(running) => drop(running.waiting().await),
                Err(error) => tracing::debug!(%error, "a connection over HTTP+SSE was not begun"),
            }
        });
        let messages = ReceiverStream::new(messages).filter_map(move |outgoing| {
            let _until_the_stream_is_dropped = &end;
            let (message, _room) = &*outgoing;
            std::future::ready(serde_json::to_string(message).ok())
        });
        Ok(Begun { id, messages })
    }

    fn enter(&self, connected: Connected) -> Result<String, Failure> {
        let mut connections = self.connections.lock();
        let of_one = connections.values().filter(|other| other.principal == connected.principal).count();
        if of_one >= OF_ONE_MAX || connections.len() >= OF_ALL_MAX {
            let code = if of_one >= OF_ONE_MAX { ErrorCode::RateLimited } else { ErrorCode::NoCapacity };
            return Err(Failure::new(code, "there is no room for another connection").retry_later());
        }
        let id = uuid::Uuid::new_v4().simple().to_string();
        connections.insert(id.clone(), connected);
        Ok(id)
    }

    fn handler(&self, identity: Identity, calls: Calls) -> Handler {
        let options = self.services.options();
        let connection = self.services.connection(&identity.principal).with_handles(Handles::Required);
        let caller = Caller { principal: identity.principal, scopes: identity.scopes, client: None, trace: None };
        Handler::new(Room::new(connection, calls, options.calls_max), caller, options, self.services.states())
    }

    /// Takes a message for a connection. `parts` are those of the request that posts it.
    ///
    /// # Errors
    /// `NOT_FOUND` when there is no such connection of this principal, `INVALID_ARGUMENT` when it is no message,
    /// `RATE_LIMITED` when too many wait already.
    pub async fn post(&self, identity: &Identity, id: &str, parts: Parts, message: &[u8]) -> Result<(), Failure> {
        let (inbox, owed) = self.ways(identity, id)?;
        let message = serde_json::from_slice(message).map_err(|error| {
            Failure::new(ErrorCode::InvalidArgument, format!("the body is no JSON-RPC message: {error}"))
        })?;
        let message = Box::new(with_parts(message, parts));
        match tokio::time::timeout(INBOX_PATIENCE, inbox.reserve()).await {
            Ok(Ok(place)) => {
                owed.take(&message)?;
                place.send(message);
                Ok(())
            }
            Ok(Err(_closed)) => Err(unknown()),
            Err(_elapsed) => {
                Err(Failure::new(ErrorCode::RateLimited, "too many messages wait to be handled").retry_soon())
            }
        }
    }

    fn ways(&self, identity: &Identity, id: &str) -> Result<(mpsc::Sender<Box<ClientJsonRpcMessage>>, Owed), Failure> {
        let connections = self.connections.lock();
        let own = connections.get(id).filter(|connected| connected.principal == identity.principal);
        own.map(|connected| (connected.inbox.clone(), connected.owed.clone())).ok_or_else(unknown)
    }

    /// Cancels running calls, waits until they have ended, but no longer than `deadline`, and ends every connection when
    /// it has its answers.
    pub async fn end(&self, deadline: Duration) {
        self.connections.lock().clear();
        self.calls.end(deadline).await;
    }
}

/// A connection of somebody else is as unknown as one that never was.
fn unknown() -> Failure {
    Failure::new(ErrorCode::NotFound, "there is no such connection; open one at /sse")
}

/// The message with what the handler asks of its request: who makes it.
fn with_parts(mut message: ClientJsonRpcMessage, parts: Parts) -> ClientJsonRpcMessage {
    match &mut message {
        JsonRpcMessage::Request(request) => {
            request.request.extensions_mut().insert(parts);
        }
        JsonRpcMessage::Notification(notification) => {
            notification.notification.extensions_mut().insert(parts);
        }
        JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => {}
    }
    message
}

/// Ends a connection whose client is gone.
struct End {
    id: String,
    connections: Connections,
    calls: Calls,
}

impl Drop for End {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.id);
        self.calls.end_streams();
        self.calls.cancel();
    }
}
