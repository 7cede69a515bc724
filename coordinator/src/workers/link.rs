//! One link: the connection that a worker opened and on which the coordinator calls it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use codegen_proto::v1;
use codegen_proto::v1::worker_client::WorkerClient;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};
use tower::service_fn;

use super::options::WorkersOptions;
use super::socket::Socket;

/// The largest message on a link, in bytes: a file of the largest size and what goes with it.
pub(crate) const MESSAGE_BYTES_MAX: usize = 80 << 20;
/// What one stalled stream may hold, in bytes.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// What all stalled streams together may hold, in bytes: a stream's window for each of 256 streams, so that no number
/// of stalled tasks stops the others.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Calls that wait to be written; when full, callers wait.
const CALLS_QUEUED_MAX: usize = 1_024;
/// Streams that were reset here and on which the worker may still be sending.
const RESET_STREAMS_MAX: usize = 1_024;
/// The headers of one answer, in bytes.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// Messages of one request: a task, and the word that it begins.
const MESSAGES: usize = 2;

/// A request whose messages are still to come.
pub(crate) struct TaskRequests {
    /// Takes the messages; they end when it is dropped.
    pub(crate) messages: mpsc::Sender<v1::TaskRequest>,
    /// What the worker answers.
    pub(crate) answer: BoxFuture<'static, Result<Response<Streaming<v1::TaskEvent>>, Status>>,
}

/// Where the link of one life of a worker stands.
#[derive(Clone)]
pub(crate) enum LinkState {
    /// There is none just now.
    Down,
    /// The worker can be called.
    Up(Arc<Link>),
    /// That life of the worker is over; there will be none.
    Over,
}

/// A link that was established. It ends when its socket fails, or when it is [cut](Self::cut).
pub(crate) struct Link {
    number: u64,
    channel: Channel,
    fence: CancellationToken,
    gone: CancellationToken,
    /// Streams of tasks; short calls take none, so that a task can always be cancelled.
    streams: Arc<Semaphore>,
}

impl Link {
    /// Speaks HTTP/2 as the client on a socket whose worker serves; `place` is free again when the socket is dropped.
    /// `on_gone` runs then, for whatever reason it is.
    ///
    /// # Errors
    /// Those of the HTTP/2 handshake.
    pub(crate) async fn establish(
        number: u64,
        socket: Socket,
        place: Option<OwnedSemaphorePermit>,
        options: &WorkersOptions,
        on_gone: impl FnOnce() + Send + 'static,
    ) -> Result<Self, tonic::transport::Error> {
        let (fence, gone) = (CancellationToken::new(), CancellationToken::new());
        let guard = GoneGuard { gone: gone.clone(), on_gone: Some(Box::new(on_gone)) };
        let io = LinkIo::new(socket, fence.clone(), guard, place);
        // The channel asks again after a loss and must be refused then: the link is this one socket.
        let mut once = Some(TokioIo::new(io));
        let connector = service_fn(move |_| {
            let io = once.take().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the link is gone"));
            async move { io }
        });
        let channel = endpoint(options.keep_alive_interval).connect_with_connector(connector).await?;
        let streams = Arc::new(Semaphore::new(options.tasks_per_link_max));
        Ok(Self { number, channel, fence, gone, streams })
    }

    /// Which link it is, counted over all links of this process.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn client(&self) -> WorkerClient<Channel> {
        WorkerClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Begins a request for a task that may follow. Its head is written when the answer is first polled; the worker hears
    /// of a task when that is sent.
    pub(crate) fn execute_later(&self) -> TaskRequests {
        let (messages, mut sent) = mpsc::channel(MESSAGES);
        let sent = futures::stream::poll_fn(move |cx| sent.poll_recv(cx));
        let mut client = self.client();
        TaskRequests { messages, answer: Box::pin(async move { client.execute_task(sent).await }) }
    }

    pub(crate) fn streams(&self) -> Arc<Semaphore> {
        Arc::clone(&self.streams)
    }

    /// Fails the socket, and with it every stream at once.
    pub(crate) fn cut(&self) {
        self.fence.cancel();
    }

    /// Resolves when the link was cut: nothing that still comes out of it may be believed.
    pub(crate) async fn fenced(&self) {
        self.fence.cancelled().await;
    }

    /// Whether it was cut.
    pub(crate) fn is_fenced(&self) -> bool {
        self.fence.is_cancelled()
    }

    /// Whether nothing can be sent on it any more. What the worker had sent before its socket broke is still good.
    pub(crate) fn is_over(&self) -> bool {
        self.fence.is_cancelled() || self.gone.is_cancelled()
    }
}

fn endpoint(keep_alive: Duration) -> Endpoint {
    // The authority is never dialled.
    Endpoint::from_static("http://worker")
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(keep_alive)
        .keep_alive_timeout(keep_alive)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_max_concurrent_reset_streams(RESET_STREAMS_MAX)
        .buffer_size(CALLS_QUEUED_MAX)
}

/// Announces the end of a link once, when its socket is dropped.
struct GoneGuard {
    gone: CancellationToken,
    on_gone: Option<Box<dyn FnOnce() + Send>>,
}

impl Drop for GoneGuard {
    fn drop(&mut self) {
        self.gone.cancel();
        if let Some(announce) = self.on_gone.take() {
            announce();
        }
    }
}

/// The socket of a link. The fence makes it fail in both directions: aborting the connection's task instead would leave
/// open streams behind.
struct LinkIo {
    socket: Socket,
    fence: CancellationToken,
    fenced: Pin<Box<WaitForCancellationFutureOwned>>,
    _guard: GoneGuard,
    _place: Option<OwnedSemaphorePermit>,
}

impl LinkIo {
    fn new(socket: Socket, fence: CancellationToken, guard: GoneGuard, place: Option<OwnedSemaphorePermit>) -> Self {
        let fenced = Box::pin(fence.clone().cancelled_owned());
        Self { socket, fence, fenced, _guard: guard, _place: place }
    }

    fn check(&self) -> io::Result<()> {
        if self.fence.is_cancelled() { Err(io::Error::new(io::ErrorKind::ConnectionAborted, "fenced")) } else { Ok(()) }
    }
}

impl AsyncRead for LinkIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // The connection always has a read pending, so waking that one is enough for the fence to be felt.
        if self.fenced.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "fenced")));
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for LinkIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
