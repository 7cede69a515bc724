//! One session of the protocol, for a client of the older era: which answer belongs on which stream.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use codegen_types::Principal;
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, GetExtensions as _, GetMeta as _, JsonRpcMessage, ProgressToken,
    ProtocolVersion, RequestId, ServerJsonRpcMessage, ServerNotification, ServerResult,
};
use rmcp::service::OriginatingRequestId;
use rmcp::transport::Transport;
use rmcp::transport::streamable_http_server::session::ServerSseMessage;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::event_log::{Begin, EventId, EventLog, UnknownEvent};
use super::kept::Kept;
use crate::arrivals::Arrivals;
use crate::byte_room::Share;
use crate::mcp::calls::Calls;
use crate::mcp::order;
use crate::mcp::unread::with_room;

/// Messages that wait to be handled. Full means that the request that brings one more waits.
const INBOX: usize = 32;
/// Requests of one session that are being served.
const REQUESTS_MAX: usize = 256;
/// The stream that belongs to no request.
const STANDALONE: u64 = 0;
/// After how long a client should resume a stream that broke off.
const RETRY: Duration = Duration::from_secs(1);

/// How long the head of a response waits for the first message, so that a quick answer is one write and not two.
const HEAD_WAITS: Duration = Duration::from_millis(10);

/// Why a session does not take a message.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// There is no such session, or it is somebody else's.
    #[error("there is no such session")]
    Unknown,
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
    /// A request with this id is being served.
    #[error("a request with that id is being served")]
    DuplicateId,
    /// Too many requests of the session are being served.
    #[error("{REQUESTS_MAX} requests of this session are being served, the most there may be")]
    TooMany,
    /// The principal has too many sessions, and uses each.
    #[error("you have as many sessions as one user may have, and use each of them")]
    TooManySessions,
    /// There is no room for another session.
    #[error("there is no room for another session")]
    NoRoom,
    /// What was asked for is not kept.
    #[error(transparent)]
    UnknownEvent(#[from] UnknownEvent),
}

/// One session.
#[derive(Debug)]
pub(super) struct ProtocolSession {
    pub(super) principal: Principal,
    /// Absent once the session has ended. A channel has room for 32 messages from the beginning, so they are boxed.
    inbox: Mutex<Option<mpsc::Sender<Box<ClientJsonRpcMessage>>>>,
    routes: Mutex<Routes>,
    kept: Arc<Kept>,
    unread: Share,
}

#[derive(Debug)]
struct Routes {
    streams: HashMap<u64, Arc<EventLog>>,
    requests: HashMap<RequestId, Route>,
    tokens: HashMap<ProgressToken, u64>,
    last_stream: u64,
    /// Whether the client knows events without a message.
    primes: bool,
    /// Whether it may send several messages at once.
    takes_batches: bool,
    used: Instant,
}

#[derive(Debug)]
struct Route {
    stream: u64,
    token: Option<ProgressToken>,
}

impl ProtocolSession {
    /// A session and what rmcp reads from and writes to. The session's `calls` end with the latter.
    pub(super) fn new(
        principal: Principal,
        kept: Arc<Kept>,
        unread: Share,
        calls: Calls,
    ) -> (Arc<Self>, SessionTransport) {
        let (sender, inbox) = mpsc::channel(INBOX);
        let routes = Routes {
            streams: HashMap::from([(STANDALONE, EventLog::new(STANDALONE))]),
            requests: HashMap::new(),
            tokens: HashMap::new(),
            last_stream: STANDALONE,
            primes: false,
            takes_batches: false,
            used: Instant::now(),
        };
        let (inbox_of, routes) = (Mutex::new(Some(sender)), Mutex::new(routes));
        let session = Arc::new(Self { principal, inbox: inbox_of, routes, kept, unread });
        let transport = SessionTransport { session: Arc::clone(&session), inbox, calls, arrivals: Arrivals::default() };
        (session, transport)
    }

    /// Takes nothing any more and cancels what is served, which is still answered; then the session ends.
    pub(super) fn retire(&self) {
        drop(self.inbox.lock().take());
        if let Some(standalone) = self.routes.lock().streams.get(&STANDALONE) {
            standalone.end();
        }
    }

    /// Ends the session: its streams end, and nothing is taken any more.
    fn end(&self) {
        drop(self.inbox.lock().take());
        let mut routes = self.routes.lock();
        routes.requests.clear();
        routes.tokens.clear();
        routes.streams.drain().for_each(|(_, log)| log.end());
    }

    /// Notes that the session is used.
    pub(super) fn touch(&self) {
        self.routes.lock().used = Instant::now();
    }

    /// Whether the client may send several messages at once.
    pub(super) fn takes_batches(&self) -> bool {
        self.routes.lock().takes_batches
    }

    /// Since when nobody uses the session; `None` while a request is served or a connection waits for notices.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let routes = self.routes.lock();
        let is_read = routes.streams.get(&STANDALONE).is_some_and(|log| log.is_read());
        (routes.requests.is_empty() && !is_read).then_some(routes.used)
    }

    /// Serves the first request, and gives its answer.
    pub(super) async fn initialize(
        self: &Arc<Self>,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Refused> {
        let answer = std::pin::pin!(self.request(message).await?).next().await.ok_or(Refused::Ended)?;
        let answer = answer.message.ok_or(Refused::Ended)?;
        if let JsonRpcMessage::Response(response) = answer.as_ref()
            && let ServerResult::InitializeResult(hello) = &response.result
        {
            let mut routes = self.routes.lock();
            routes.primes = hello.protocol_version >= ProtocolVersion::V_2025_11_25;
            // The revision before is not of this transport, and the one after has them no more.
            routes.takes_batches = hello.protocol_version == ProtocolVersion::V_2025_03_26;
        }
        Ok(Arc::unwrap_or_clone(answer))
    }

    /// Serves a request, and gives the stream of its answer.
    pub(super) async fn request(
        self: &Arc<Self>,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + use<>, Refused> {
        // A client that goes away while it waits for room leaves nothing behind.
        let place = self.place().await?;
        let log = self.routes.lock().open(&message)?;
        let stream = log.read(Begin::WhereOthersEnd);
        place.send(Box::new(message));
        // Whether there was something to say in time or not, the client hears it from the stream.
        let _in_time = tokio::time::timeout(HEAD_WAITS, log.spoken()).await;
        Ok(stream)
    }

    /// Takes a message that gets no answer.
    pub(super) async fn accept(&self, message: ClientJsonRpcMessage) -> Result<(), Refused> {
        let cancelled = match &message {
            JsonRpcMessage::Notification(notification) => match &notification.notification {
                ClientNotification::CancelledNotification(cancelled) => cancelled.params.request_id.clone(),
                _ => None,
            },
            _ => None,
        };
        self.place().await?.send(Box::new(message));
        // A request that was cancelled is not answered, and nobody resumes it.
        if let Some(id) = cancelled {
            let mut routes = self.routes.lock();
            if let Some((stream, log)) = routes.close(&id) {
                routes.streams.remove(&stream);
                log.end();
            }
        }
        Ok(())
    }

    /// A place in the inbox.
    async fn place(&self) -> Result<mpsc::OwnedPermit<Box<ClientJsonRpcMessage>>, Refused> {
        let inbox = self.inbox.lock().clone().ok_or(Refused::Ended)?;
        inbox.reserve_owned().await.map_err(|_| Refused::Ended)
    }

    /// The stream that belongs to no request.
    pub(super) fn standalone(&self) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + use<>, Refused> {
        let routes = self.routes.lock();
        let log = routes.streams.get(&STANDALONE).ok_or(Refused::Ended)?;
        if routes.primes {
            log.prime(RETRY);
        }
        Ok(log.read(Begin::WhereOthersEnd))
    }

    /// What came after an event on its stream.
    pub(super) fn resume(
        &self,
        last: &str,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + use<>, Refused> {
        let EventId { stream, index } = last.parse()?;
        let routes = self.routes.lock();
        let log = routes.streams.get(&stream).ok_or(UnknownEvent)?;
        let next = index.checked_add(1).filter(|next| *next <= log.next_index()).ok_or(UnknownEvent)?;
        Ok(log.read(Begin::At(next)))
    }

    /// Puts a message on the stream where it belongs.
    fn route(self: &Arc<Self>, message: ServerJsonRpcMessage) {
        let mut routes = self.routes.lock();
        let answered = match &message {
            JsonRpcMessage::Response(response) => Some(response.id.clone()),
            JsonRpcMessage::Error(error) => error.id.clone(),
            JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
        };
        if let Some(id) = answered {
            let Some((stream, log)) = routes.close(&id) else { return };
            drop(routes);
            let (answer, room) = with_room(&self.unread, &id, message);
            let bytes = log.finish(answer, room);
            self.kept.keep(self, stream, bytes);
            return;
        }
        let stream = routes.stream_of(&message);
        if let Some(log) = routes.streams.get(&stream) {
            log.push(message);
        }
    }

    /// Forgets a stream that has ended.
    pub(super) fn forget(&self, stream: u64) {
        self.routes.lock().streams.remove(&stream);
    }
}

impl Routes {
    /// Opens the stream of a request.
    fn open(&mut self, message: &ClientJsonRpcMessage) -> Result<Arc<EventLog>, Refused> {
        let JsonRpcMessage::Request(request) = message else { return Err(Refused::Ended) };
        if self.requests.contains_key(&request.id) {
            return Err(Refused::DuplicateId);
        }
        if self.requests.len() >= REQUESTS_MAX {
            return Err(Refused::TooMany);
        }
        self.last_stream += 1;
        self.used = Instant::now();
        let stream = self.last_stream;
        let log = EventLog::new(stream);
        if self.primes {
            log.prime(RETRY);
        }
        let token = request.request.get_meta().get_progress_token();
        if let Some(token) = &token {
            self.tokens.insert(token.clone(), stream);
        }
        self.streams.insert(stream, Arc::clone(&log));
        self.requests.insert(request.id.clone(), Route { stream, token });
        Ok(log)
    }

    /// Ends the route of a request, and gives its stream.
    fn close(&mut self, id: &RequestId) -> Option<(u64, Arc<EventLog>)> {
        let Route { stream, token } = self.requests.remove(id)?;
        self.used = Instant::now();
        if let Some(token) = token
            && self.tokens.get(&token) == Some(&stream)
        {
            self.tokens.remove(&token);
        }
        self.streams.get(&stream).map(|log| (stream, Arc::clone(log)))
    }

    /// The stream of a message that is no answer.
    fn stream_of(&self, message: &ServerJsonRpcMessage) -> u64 {
        let stream = match message {
            JsonRpcMessage::Notification(notification) => match &notification.notification {
                ServerNotification::ProgressNotification(progress) => {
                    self.tokens.get(&progress.params.progress_token).copied()
                }
                _ => None,
            },
            JsonRpcMessage::Request(request) => {
                let cause = request.request.extensions().get::<OriginatingRequestId>();
                cause.and_then(|cause| self.requests.get(&cause.0)).map(|route| route.stream)
            }
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => None,
        };
        stream.unwrap_or(STANDALONE)
    }
}

/// What rmcp reads from and writes to. Its end is the session's, and cancels the calls.
pub(super) struct SessionTransport {
    session: Arc<ProtocolSession>,
    inbox: mpsc::Receiver<Box<ClientJsonRpcMessage>>,
    calls: Calls,
    arrivals: Arrivals,
}

impl Transport<RoleServer> for SessionTransport {
    type Error = std::convert::Infallible;

    /// Nothing waits for a client: what it does not fetch is bounded where it is kept.
    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        self.session.route(message);
        std::future::ready(Ok(()))
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        let message = self.inbox.recv().await;
        if message.is_none() {
            self.calls.end_streams();
            self.calls.cancel();
        }
        let mut message = *message?;
        order::mark(&mut self.arrivals, &mut message);
        Some(message)
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.session.end();
        Ok(())
    }
}

impl Drop for SessionTransport {
    fn drop(&mut self) {
        self.calls.end_streams();
        self.calls.cancel();
        self.session.end();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use serde_json::json;

    use super::*;

    fn begun() -> (Arc<ProtocolSession>, SessionTransport) {
        let ann = Principal::os_user("ann");
        let unread = crate::mcp::unread::room().of(&ann);
        ProtocolSession::new(ann, Arc::default(), unread, Calls::default())
    }

    fn request(id: usize) -> ClientJsonRpcMessage {
        serde_json::from_value(json!({"jsonrpc": "2.0", "id": id, "method": "ping"})).unwrap()
    }

    #[tokio::test]
    async fn requests_that_were_cancelled_leave_nothing_behind() {
        let (session, mut transport) = begun();
        for id in 0..3 * REQUESTS_MAX {
            let _stream = session.request(request(id)).await.unwrap();
            let params = json!({"requestId": id});
            let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
            session.accept(serde_json::from_value(cancel).unwrap()).await.unwrap();
            assert!(transport.receive().await.is_some() && transport.receive().await.is_some());
        }
        let routes = session.routes.lock();
        assert_eq!((routes.streams.len(), routes.requests.len()), (1, 0), "the stream of no request stays");
    }

    #[tokio::test]
    async fn a_client_that_goes_away_while_the_inbox_is_full_leaves_nothing_behind() {
        let (session, _transport) = begun();
        for id in 0..INBOX {
            drop(session.request(request(id)).await.unwrap());
        }
        assert!(session.request(request(INBOX)).now_or_never().is_none(), "it waits, and goes away");
        assert_eq!(session.routes.lock().requests.len(), INBOX);
    }

    #[tokio::test]
    async fn a_session_serves_a_bounded_number_of_requests_at_once() {
        let (session, mut transport) = begun();
        for id in 0..REQUESTS_MAX {
            drop(session.request(request(id)).await.unwrap());
            assert!(transport.receive().await.is_some());
        }
        assert!(matches!(session.request(request(REQUESTS_MAX)).await.err(), Some(Refused::TooMany)));
    }
}
