//! The reversed link: a connection that the worker opens and on which it then is the server.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use codegen_proto::Secret;
use codegen_proto::v1::worker_server::WorkerServer;
use codegen_types::Incarnation;
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::address::{Purpose, Route, Socket};
use crate::service::Service;

/// How long the coordinator may take to answer the preamble.
const PREAMBLE_DEADLINE: Duration = Duration::from_secs(5);
/// How long the coordinator may take to read what is left.
const FINISH_DEADLINE: Duration = Duration::from_secs(2);
/// The longest answer to a preamble, in bytes.
const ANSWER_BYTES_MAX: usize = 256;
/// What the coordinator may send on one stream before it is read, in bytes.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// Streams at once.
const STREAMS_MAX: u32 = 256;
/// With room for every stream's window, a stream that is not read never holds up another.
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * STREAMS_MAX;
/// A burst of cancellations must not look like an attack: that would end the connection and every task's stream on it.
const PENDING_RESETS_MAX: usize = 1_024;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_DEADLINE: Duration = Duration::from_secs(10);
/// The largest message either way, in bytes; a file has at most 64 MiB.
const MESSAGE_BYTES_MAX: usize = 80 << 20;

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The connection failed.
    #[error("the link could not be opened")]
    Io(#[from] io::Error),
    /// The coordinator refused the ticket.
    #[error("the coordinator refused the link: {0}")]
    Refused(String),
}

/// An open link. Dropping it makes its socket fail, so that no stream of it lives on.
#[derive(Debug)]
pub(crate) struct Link {
    gone: CancellationToken,
    finish: CancellationToken,
    _fence: DropGuard,
}

impl Link {
    /// Dials, shows the ticket, and serves from then on.
    pub async fn open(
        route: &Route,
        ticket: &Secret,
        incarnation: Incarnation,
        service: Service,
    ) -> Result<Self, LinkError> {
        let mut socket = route.connect(Purpose::Link).await?;
        let preamble = format!("codegen-link/1 {} {incarnation}\n", ticket.expose());
        let answer = async {
            socket.write_all(preamble.as_bytes()).await?;
            read_line(&mut socket).await
        };
        let answer = tokio::time::timeout(PREAMBLE_DEADLINE, answer).await.map_err(io::Error::from)??;
        match answer.strip_prefix("no ") {
            None if answer == "ok" => {}
            None => return Err(LinkError::Refused("it does not speak this protocol".to_owned())),
            Some(why) => return Err(LinkError::Refused(why.to_owned())),
        }
        Ok(Self::serve(socket, service))
    }

    /// Serves on a connection whose other side was found to be the coordinator.
    pub fn serve(socket: Socket, service: Service) -> Self {
        let gone = CancellationToken::new();
        let fence = CancellationToken::new();
        let io = LinkIo { socket, fenced: Box::pin(fence.clone().cancelled_owned()), _gone: gone.clone().drop_guard() };
        let finish = fence.child_token();
        tokio::spawn(serve(io, service, finish.clone()));
        Self { gone, finish, _fence: fence.drop_guard() }
    }

    /// Waits until the socket is gone.
    pub async fn closed(&self) {
        self.gone.cancelled().await;
    }

    /// Takes no new call, lets what is being answered be read to its end, and closes.
    pub async fn finish(self) {
        self.finish.cancel();
        if tokio::time::timeout(FINISH_DEADLINE, self.closed()).await.is_err() {
            tracing::info!("the coordinator did not read every answer in time");
        }
    }
}

async fn serve(io: LinkIo, service: Service, finish: CancellationToken) {
    let worker = WorkerServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    // A server whose incoming connections end would end itself; this one has exactly one.
    let one = futures::stream::once(futures::future::ready(Ok::<_, io::Error>(io))).chain(futures::stream::pending());
    let served = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_DEADLINE))
        .add_service(worker)
        .serve_with_incoming_shutdown(one, finish.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::warn!(error = &error as &dyn std::error::Error, "the link's server failed");
    }
}

/// Reads byte by byte, since what follows the line belongs to HTTP/2.
pub(super) async fn read_line(socket: &mut Socket) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        match socket.read_u8().await? {
            b'\n' => return String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into()),
            _ if line.len() == ANSWER_BYTES_MAX => return Err(io::ErrorKind::InvalidData.into()),
            byte => line.push(byte),
        }
    }
}

/// The socket of a link: fails once it is fenced, and says when it is gone.
struct LinkIo {
    socket: Socket,
    fenced: Pin<Box<WaitForCancellationFutureOwned>>,
    _gone: DropGuard,
}

impl Connected for LinkIo {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl LinkIo {
    fn poll_fenced(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.fenced.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for LinkIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_fenced(context)?;
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for LinkIo {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_fenced(context)?;
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_fenced(context)?;
        Pin::new(&mut self.socket).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
