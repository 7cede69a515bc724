//! One accept loop for each listener: tells links from gRPC connections and hands each to its own.

use std::sync::Arc;
use std::time::Duration;

use codegen_proto::Secret;
use codegen_proto::v1::worker_lifecycle_server::WorkerLifecycleServer;
use codegen_types::Incarnation;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

use super::gate::Gate;
use super::handle::Inner;
use super::lifecycle::Lifecycle;
use super::link::Link;
use super::opening::{self, Opening, OpeningRefused};
use super::socket::{Listener, Peer, Socket, secured};
use super::standing::{GrpcIo, Standing};
use crate::config::Reflection;
use crate::room::{Place, Room};
use crate::supervisor::OnEnd;
use crate::tls::Tls;

/// Connections told apart and not yet taken by the gRPC server; when full, their handshakes wait.
const GRPC_QUEUED_MAX: usize = 16;
/// Calls at once on one lifecycle connection.
const LIFECYCLE_STREAMS_MAX: u32 = 4;
/// What may be sent on one of its streams before it is read, in bytes: nothing of a stranger's is.
const LIFECYCLE_STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// What may be sent on all of them before it is read, in bytes.
const LIFECYCLE_WINDOW_BYTES: u32 = LIFECYCLE_STREAM_WINDOW_BYTES * LIFECYCLE_STREAMS_MAX;
/// The largest registration, in bytes: all sessions that one may name fit. What is decoded takes many times as much.
const LIFECYCLE_MESSAGE_BYTES_MAX: usize = 2 << 20;
/// The largest message of those who ask how the services are and what there is, which anybody may.
const PROBE_BYTES_MAX: usize = 4 << 10;
/// The headers of one lifecycle call, in bytes.
const LIFECYCLE_HEADER_BYTES_MAX: u32 = 16 << 10;
/// One lifecycle call may take so long; a worker waits no longer either.
const LIFECYCLE_DEADLINE: Duration = Duration::from_secs(10);
/// How long accepting rests after it failed, as it does when descriptors run out.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Why a connection is closed.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("it did not say in time what it is for")]
    TimedOut,
    #[error(transparent)]
    Refused(#[from] OpeningRefused),
    #[error("it broke")]
    Io(#[from] std::io::Error),
    #[error("its ticket is not valid")]
    Ticket,
    #[error("its HTTP/2 handshake failed")]
    Link(#[from] tonic::transport::Error),
    #[error("the coordinator stops")]
    Stopping,
}

/// Serves a listener in tasks of its own. Its budgets are its own as well, so that a flood over TCP does not shut the
/// embedded worker out.
pub(crate) fn start(inner: &Arc<Inner>, listener: Listener) {
    let (grpc, incoming) = mpsc::channel(GRPC_QUEUED_MAX);
    let options = &inner.options;
    let acceptor = Acceptor {
        inner: Arc::clone(inner),
        grpc,
        strangers: Room::new(options.strangers_max, options.strangers_per_address_max),
        members: Room::new(options.connections_max, options.connections_per_address_max),
        tls: listener.tls(),
    };
    inner.supervisor.spawn("worker acceptor", OnEnd::Shutdown, acceptor.run(listener));
    inner.supervisor.spawn("worker lifecycle", OnEnd::Shutdown, serve_grpc(Arc::clone(inner), incoming));
}

async fn serve_grpc(inner: Arc<Inner>, incoming: mpsc::Receiver<GrpcIo>) {
    let keep_alive = Some(inner.options.keep_alive_interval);
    let stop = inner.supervisor.token();
    let reflection = match inner.options.reflection {
        Reflection::On => reflected(),
        Reflection::Off => None,
    };
    let gate = Gate::new(Arc::clone(&inner));
    let service = WorkerLifecycleServer::new(Lifecycle::new(inner))
        .max_decoding_message_size(LIFECYCLE_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(LIFECYCLE_MESSAGE_BYTES_MAX);
    let service = InterceptedService::new(service, gate);
    // Open to whoever connects, as a probe has no token: it says that registrations are taken, and nothing more.
    let (reporter, health) = tonic_health::server::health_reporter();
    let health = health.max_decoding_message_size(PROBE_BYTES_MAX);
    reporter.set_serving::<WorkerLifecycleServer<Lifecycle>>().await;
    let connections = ReceiverStream::new(incoming).map(Ok::<_, std::io::Error>);
    let served = Server::builder()
        .http2_keepalive_interval(keep_alive)
        .http2_keepalive_timeout(keep_alive)
        .initial_stream_window_size(LIFECYCLE_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(LIFECYCLE_WINDOW_BYTES)
        .max_concurrent_streams(LIFECYCLE_STREAMS_MAX)
        .http2_max_header_list_size(LIFECYCLE_HEADER_BYTES_MAX)
        .timeout(LIFECYCLE_DEADLINE)
        .add_service(service)
        .add_service(health)
        .add_optional_service(reflection)
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the lifecycle service ended");
    }
}

/// The services as tools ask for them.
fn reflected() -> Option<ServerReflectionServer<impl ServerReflection>> {
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(codegen_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("codegen.v1.WorkerLifecycle")
        .with_service_name("grpc.health.v1.Health");
    let built = builder.build_v1();
    let built = built.inspect_err(|error| tracing::error!(%error, "the services cannot be described")).ok()?;
    Some(built.max_decoding_message_size(PROBE_BYTES_MAX))
}

struct Acceptor {
    inner: Arc<Inner>,
    grpc: mpsc::Sender<GrpcIo>,
    /// The places of connections until it is known whose they are.
    strangers: Room,
    /// The places of gRPC connections of those that have joined.
    members: Room,
    tls: Option<Tls>,
}

impl Acceptor {
    async fn run(self, listener: Listener) {
        let stop = self.inner.supervisor.token();
        stop.run_until_cancelled(self.accept(listener)).await;
    }

    async fn accept(&self, listener: Listener) {
        loop {
            match listener.accept().await {
                Ok((socket, peer)) => self.admit(socket, peer),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    fn admit(&self, socket: Socket, peer: Peer) {
        let Some(place) = self.strangers.enter(peer.address()) else {
            tracing::debug!(%peer, "a connection is closed: there are as many of strangers as there may be");
            return;
        };
        let (inner, grpc, tls) = (Arc::clone(&self.inner), self.grpc.clone(), self.tls.clone());
        let members = self.members.clone();
        self.inner.supervisor.spawn("worker handshake", OnEnd::Ignore, async move {
            let limit = inner.options.handshake_limit;
            let from = peer.clone();
            let shaken = async {
                let (socket, peer) = secured(tls.as_ref(), socket, from).await?;
                shake(&inner, &grpc, socket, Stranger { peer, place, members }).await
            };
            let done = tokio::time::timeout(limit, shaken).await;
            if let Err(closed) = done.unwrap_or(Err(Closed::TimedOut)) {
                tracing::info!(%peer, error = &closed as &dyn std::error::Error, "a connection is closed");
            }
        });
    }
}

/// Who connected, and the places that it has and may come to have.
struct Stranger {
    peer: Peer,
    place: Place,
    members: Room,
}

async fn shake(
    inner: &Arc<Inner>,
    grpc: &mpsc::Sender<GrpcIo>,
    mut socket: Socket,
    stranger: Stranger,
) -> Result<(), Closed> {
    match opening::read(&mut socket).await? {
        Opening::Grpc(read_already) => {
            let Stranger { peer, place, members } = stranger;
            let standing = Standing::stranger(peer, place, members);
            let io = GrpcIo::new(read_already, socket, standing, inner.options.stranger_limit);
            grpc.send(io).await.map_err(|_| Closed::Stopping)
        }
        // Who shows a ticket needs no other place than this until its link is up: each worker has one link.
        Opening::Link { ticket, incarnation } => link(inner, socket, &ticket, incarnation).await,
    }
}

async fn link(inner: &Arc<Inner>, mut socket: Socket, ticket: &Secret, incarnation: Incarnation) -> Result<(), Closed> {
    let redeemed = inner.registry.write().redeem_ticket(incarnation, ticket.expose(), inner.now());
    let Ok(worker) = redeemed else {
        socket.write_all(b"no the ticket is not valid\n").await?;
        return Err(Closed::Ticket);
    };
    socket.write_all(b"ok\n").await?;
    let number = inner.next_link();
    let on_gone = inner.link_gone_later(&worker, incarnation, number);
    let link = Link::establish(number, socket, None, &inner.options, on_gone).await?;
    inner.attach_link(&worker, incarnation, link);
    Ok(())
}
