//! A worker that is real but for what it runs: it registers, opens a link and serves gRPC on it.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use codegen_proto::metadata::{JOIN_TOKEN_KEY, WORKER_SESSION_KEY, with_secret};
use codegen_proto::v1::worker_lifecycle_client::WorkerLifecycleClient;
use codegen_proto::v1::worker_server::WorkerServer;
use codegen_proto::{Heartbeat, RegisterWorker, Registered, Secret, v1};
use codegen_types::{
    Capabilities, Epoch, HeldSession, Incarnation, IsolationLevel, IsolationReport, Lease, Runtime, WorkerId,
};
use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Status};

use crate::streams::{Service, Tasks};

const WINDOW_BYTES: u32 = 256 << 10;

/// How the coordinator is reached.
#[derive(Debug, Clone)]
pub enum Route {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Route {
    /// A connection, and a second descriptor of it with which it can be broken from outside.
    pub async fn connect(&self) -> (Box<dyn Io>, OwnedFd) {
        match self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).await.unwrap();
                let spare = stream.as_fd().try_clone_to_owned().unwrap();
                (Box::new(stream), spare)
            }
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await.unwrap();
                let spare = stream.as_fd().try_clone_to_owned().unwrap();
                (Box::new(stream), spare)
            }
        }
    }

    async fn client(&self) -> WorkerLifecycleClient<Channel> {
        let route = self.clone();
        let connector = tower::service_fn(move |_| {
            let route = route.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(route.connect().await.0)) }
        });
        let endpoint = Endpoint::from_static("http://coordinator");
        WorkerLifecycleClient::new(endpoint.connect_with_connector(connector).await.unwrap())
    }
}

/// What a double says of itself.
#[derive(Clone)]
pub struct Spec {
    pub id: WorkerId,
    pub incarnation: Incarnation,
    pub level: IsolationLevel,
    pub sessions_max: u32,
    pub held: Vec<HeldSession>,
    pub draining: bool,
    pub advertise: Option<String>,
    pub follows: Option<Incarnation>,
}

impl Spec {
    pub fn named(name: &str) -> Self {
        Self {
            id: name.parse().unwrap(),
            incarnation: Incarnation::mint(),
            level: IsolationLevel::Full,
            sessions_max: 8,
            held: Vec::new(),
            draining: false,
            advertise: None,
            follows: None,
        }
    }
}

pub struct Double {
    pub spec: Spec,
    pub tasks: Arc<Tasks>,
    pub session: String,
    route: Route,
    client: Option<WorkerLifecycleClient<Channel>>,
    link: Option<OwnedFd>,
}

impl Double {
    pub fn new(route: Route, spec: Spec) -> Self {
        let tasks = Tasks::new(spec.level);
        Self { spec, tasks, session: String::new(), route, client: None, link: None }
    }

    pub fn lease(&self) -> Lease {
        Lease { worker: self.spec.id.clone(), incarnation: self.spec.incarnation, epoch: Epoch(1) }
    }

    pub async fn client(&mut self) -> WorkerLifecycleClient<Channel> {
        if self.client.is_none() {
            self.client = Some(self.route.client().await);
        }
        self.client.clone().unwrap()
    }

    pub fn registration(&self) -> v1::RegisterWorkerRequest {
        let report = IsolationReport { level: self.spec.level, layers: Vec::new() };
        let python =
            Runtime { name: "python".to_owned(), version: "3.11".to_owned(), path: "/usr/bin/python3".to_owned() };
        let request = RegisterWorker {
            worker: self.spec.id.clone(),
            incarnation: self.spec.incarnation,
            version: "0.1.0".to_owned(),
            capabilities: Capabilities {
                isolation: report,
                runtimes: vec![python],
                sessions_max: self.spec.sessions_max,
                labels: Default::default(),
                resources: Default::default(),
            },
            held: self.spec.held.clone(),
            held_is_partial: false,
            advertise: self.spec.advertise.clone(),
            draining: self.spec.draining,
            follows: self.spec.follows,
        };
        request.into()
    }

    pub async fn register(&mut self, token: &str) -> Result<v1::RegisterWorkerResponse, Status> {
        let registered = self.try_register(token, self.registration()).await?;
        self.session.clone_from(&registered.worker_session);
        Registered::try_from(registered.clone()).unwrap();
        Ok(registered)
    }

    /// Sends a registration, whatever it says.
    pub async fn try_register(
        &mut self,
        token: &str,
        message: v1::RegisterWorkerRequest,
    ) -> Result<v1::RegisterWorkerResponse, Status> {
        let request = with_secret(message, JOIN_TOKEN_KEY, &Secret::new(token)).unwrap();
        Ok(self.client().await.register_worker(request).await?.into_inner())
    }

    /// A heartbeat; answers with a ticket when the coordinator has no link.
    pub async fn heartbeat(&mut self) -> Result<String, Status> {
        let beat = Heartbeat {
            worker: self.spec.id.clone(),
            incarnation: self.spec.incarnation,
            sessions_open: 0,
            tasks_running: 0,
            memory_bytes: 0,
            held: self.spec.held.clone(),
            draining: self.spec.draining,
            used: Default::default(),
        };
        self.try_heartbeat(beat.into()).await
    }

    /// Sends a heartbeat, whatever it says.
    pub async fn try_heartbeat(&mut self, message: v1::HeartbeatRequest) -> Result<String, Status> {
        let request = self.authenticated(message);
        Ok(self.client().await.heartbeat(request).await?.into_inner().link_ticket)
    }

    pub async fn leave(&mut self) -> Result<(), Status> {
        let leave = v1::DeregisterWorkerRequest {
            worker_id: self.spec.id.to_string(),
            incarnation: self.spec.incarnation.to_string(),
            reason: "test".to_owned(),
        };
        self.try_leave(leave).await
    }

    /// Sends a farewell, whatever it says.
    pub async fn try_leave(&mut self, message: v1::DeregisterWorkerRequest) -> Result<(), Status> {
        let request = self.authenticated(message);
        self.client().await.deregister_worker(request).await.map(drop)
    }

    fn authenticated<T>(&self, message: T) -> Request<T> {
        with_secret(message, WORKER_SESSION_KEY, &Secret::new(&*self.session)).unwrap()
    }

    /// Sends the preamble and, on `ok`, serves on the connection. The answer line otherwise.
    pub async fn open_link(&mut self, ticket: &str) -> Result<(), String> {
        let (mut io, spare) = self.route.connect().await;
        io.write_all(format!("codegen-link/1 {ticket} {}\n", self.spec.incarnation).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while answer.last() != Some(&b'\n') {
            answer.push(io.read_u8().await.unwrap());
        }
        if answer != b"ok\n" {
            return Err(String::from_utf8(answer).unwrap());
        }
        self.serve(io, spare);
        Ok(())
    }

    /// Waits to be dialled, as a worker does that advertised where it is, and serves whoever shows the ticket.
    pub async fn be_dialled(&mut self, listener: &TcpListener, ticket: &str) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.push(stream.read_u8().await.unwrap());
        }
        let right = format!("codegen-link/1 {ticket} {}\n", self.spec.incarnation);
        assert_eq!(String::from_utf8(line).unwrap(), right);
        stream.write_all(b"ok\n").await.unwrap();
        let spare = stream.as_fd().try_clone_to_owned().unwrap();
        self.serve(Box::new(stream), spare);
    }

    fn serve(&mut self, io: Box<dyn Io>, spare: OwnedFd) {
        self.tasks.set_socket(spare.try_clone().unwrap());
        self.link = Some(spare);
        let tasks = Arc::clone(&self.tasks);
        // It sees a call when its head is there.
        let service = WorkerServer::with_interceptor(Service(Arc::clone(&tasks)), move |head| {
            tasks.heads.fetch_add(1, Ordering::SeqCst);
            Ok(head)
        });
        let connections = futures::stream::once(async move { Ok::<_, std::io::Error>(Accepted(io)) });
        let served = Server::builder()
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(64 << 20)
            .max_concurrent_streams(256)
            .http2_max_pending_accept_reset_streams(Some(1_024))
            .add_service(service)
            .serve_with_incoming(connections.chain(futures::stream::pending()));
        tokio::spawn(served);
    }

    /// Breaks the link as a cable would.
    pub fn break_link(&mut self) {
        let link = self.link.take().expect("a link");
        rustix::net::shutdown(&link, rustix::net::Shutdown::Both).unwrap();
    }

    /// Opens the link again, as a worker does: with the ticket of a heartbeat.
    pub async fn reopen_link(&mut self) {
        let ticket = self.heartbeat().await.unwrap();
        assert!(!ticket.is_empty(), "the coordinator knows that the link is down");
        self.open_link(&ticket).await.unwrap();
    }
}

struct Accepted(Box<dyn Io>);

impl tonic::transport::server::Connected for Accepted {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
