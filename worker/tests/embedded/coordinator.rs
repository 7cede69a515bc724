//! The coordinator's end of the protocol: one socket, told apart by its first bytes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use codegen_proto::metadata::{JOIN_TOKEN_KEY, WORKER_SESSION_KEY, secret_of};
use codegen_proto::v1::worker_client::WorkerClient;
use codegen_proto::v1::worker_lifecycle_server::{WorkerLifecycle, WorkerLifecycleServer};
use codegen_proto::v1::{
    DeregisterWorkerRequest, DeregisterWorkerResponse, HeartbeatRequest, HeartbeatResponse, RegisterWorkerRequest,
    RegisterWorkerResponse,
};
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

const PREAMBLE: &[u8] = b"codegen-link/1 ";
const MESSAGE_BYTES_MAX: usize = 80 << 20;

/// What a worker said so far.
#[derive(Clone)]
pub struct Coordinator {
    pub registered: watch::Receiver<Vec<RegisterWorkerRequest>>,
    pub left: watch::Receiver<bool>,
    links: Arc<tokio::sync::Mutex<mpsc::Receiver<UnixStream>>>,
}

struct Lifecycle {
    registered: watch::Sender<Vec<RegisterWorkerRequest>>,
    left: watch::Sender<bool>,
    tickets: AtomicU64,
}

#[tonic::async_trait]
impl WorkerLifecycle for Lifecycle {
    async fn register_worker(
        &self,
        request: Request<RegisterWorkerRequest>,
    ) -> Result<Response<RegisterWorkerResponse>, Status> {
        if secret_of(request.metadata(), JOIN_TOKEN_KEY) != Some("token") {
            return Err(Status::unauthenticated("no token"));
        }
        self.registered.send_modify(|all| all.push(request.into_inner()));
        Ok(Response::new(RegisterWorkerResponse {
            worker_session: "the-secret".to_owned(),
            link_ticket: format!("ticket-{}", self.tickets.fetch_add(1, Ordering::SeqCst)),
            heartbeat_interval_ms: 200,
        }))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        if secret_of(request.metadata(), WORKER_SESSION_KEY) != Some("the-secret") {
            return Err(Status::unauthenticated("no secret"));
        }
        Ok(Response::new(HeartbeatResponse { link_ticket: String::new() }))
    }

    async fn deregister_worker(
        &self,
        _: Request<DeregisterWorkerRequest>,
    ) -> Result<Response<DeregisterWorkerResponse>, Status> {
        self.left.send_replace(true);
        Ok(Response::new(DeregisterWorkerResponse {}))
    }
}

impl Coordinator {
    /// Serves on a socket until the test's runtime ends.
    pub fn serve(listener: UnixListener) -> Self {
        let (registered, registrations) = watch::channel(Vec::new());
        let (left, leaving) = watch::channel(false);
        let (link, links) = mpsc::channel(4);
        let (plain, plain_connections) = mpsc::channel(4);
        let lifecycle = Lifecycle { registered, left, tickets: AtomicU64::new(0) };
        tokio::spawn(
            Server::builder()
                .add_service(WorkerLifecycleServer::new(lifecycle))
                .serve_with_incoming(ReceiverStream::new(plain_connections).map(Ok::<_, std::io::Error>)),
        );
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(sort_out(stream, link.clone(), plain.clone()));
            }
        });
        Self { registered: registrations, left: leaving, links: Arc::new(tokio::sync::Mutex::new(links)) }
    }

    /// The client on the next link that the worker opens.
    pub async fn link(&self) -> WorkerClient<Channel> {
        let next = async { self.links.lock().await.recv().await };
        let stream =
            tokio::time::timeout(Duration::from_secs(30), next).await.expect("a link in time").expect("a link");
        let mut once = Some(stream);
        let connector = tower::service_fn(move |_| {
            let stream = once.take().ok_or_else(|| std::io::Error::other("the link is gone"));
            async move { stream.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://worker")
            .initial_stream_window_size(256 << 10)
            .initial_connection_window_size(64 << 20)
            .connect_with_connector(connector)
            .await
            .expect("the worker serves");
        WorkerClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

async fn sort_out(mut stream: UnixStream, links: mpsc::Sender<UnixStream>, plain: mpsc::Sender<Prefixed>) {
    let mut first = [0; PREAMBLE.len()];
    if stream.read_exact(&mut first).await.is_err() {
        return;
    }
    if first != PREAMBLE {
        let _ = plain.send(Prefixed { prefix: first.to_vec(), stream }).await;
        return;
    }
    let mut line = String::new();
    // The worker sends nothing after the line before it is answered.
    BufReader::new(&mut stream).read_line(&mut line).await.expect("the rest of the preamble");
    assert!(line.starts_with("ticket-") && line.contains(" inc_"), "{line}");
    stream.write_all(b"ok\n").await.expect("an answer to the preamble");
    let _ = links.send(stream).await;
}

/// A connection of which some bytes were read already.
struct Prefixed {
    prefix: Vec<u8>,
    stream: UnixStream,
}

impl Connected for Prefixed {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(&self.prefix[..count]);
        self.prefix.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
