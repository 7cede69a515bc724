//! How long a task of a worker on another connection takes, from its dispatch to its last event, beside a bare tonic
//! server that streams the same messages; both over TCP, in rounds that take turns. Prints JSON.
//!
//!     bench-dispatch ROUNDS CALLS_EACH

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use codegen_audit::Audit;
use codegen_proto::metadata::{JOIN_TOKEN_KEY, with_secret};
use codegen_proto::v1::worker_client::WorkerClient;
use codegen_proto::v1::worker_lifecycle_client::WorkerLifecycleClient;
use codegen_proto::v1::worker_server::{Worker, WorkerServer};
use codegen_proto::{ExecuteTask, RegisterWorker, Registered, v1};
use codegen_types::{
    Capabilities, Epoch, Event, EventBody, Exec, Exit, Incarnation, IsolationLevel, IsolationReport, Lease, Operation,
    OperationResult, OutputStream, Program, Resources, SessionId, TaskId, WorkerId,
};
use coordinator::supervisor::Supervisor;
use coordinator::workers::{DispatchEnd, Fleet as _, TaskDispatch, Workers, WorkersOptions};
use futures::StreamExt as _;
use futures::stream::{BoxStream, iter, once, pending};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

/// What both sides stream: that it began, a line of output, and the end.
struct ThreeEvents;

#[tonic::async_trait]
impl Worker for ThreeEvents {
    type ExecuteTaskStream = BoxStream<'static, Result<v1::TaskEvent, Status>>;
    type AttachTaskStream = BoxStream<'static, Result<v1::TaskEvent, Status>>;

    async fn execute_task(
        &self,
        _request: Request<Streaming<v1::TaskRequest>>,
    ) -> Result<Response<Self::ExecuteTaskStream>, Status> {
        let output = EventBody::Output { stream: OutputStream::Stdout, bytes: b"hello from the other side\n".to_vec() };
        let end = EventBody::Finished(OperationResult::Exec(Exit { code: Some(0), ..Exit::default() }));
        let bodies = [EventBody::Started, output, end].into_iter();
        let events = (1..).zip(bodies).map(|(seq, body)| Ok(v1::TaskEvent::from(Event { seq, body })));
        Ok(Response::new(iter(events.collect::<Vec<_>>()).boxed()))
    }

    async fn attach_task(
        &self,
        _request: Request<v1::AttachTaskRequest>,
    ) -> Result<Response<Self::AttachTaskStream>, Status> {
        Err(Status::not_found("nothing is kept"))
    }

    async fn cancel_task(
        &self,
        _request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::CancelTaskResponse>, Status> {
        Err(Status::not_found("nothing runs"))
    }

    async fn open_session(
        &self,
        _request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        Err(Status::unimplemented("no sessions"))
    }

    async fn close_session(
        &self,
        _request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        Err(Status::unimplemented("no sessions"))
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let [rounds, calls] = numbers[..] else { anyhow::bail!("two numbers are wanted") };
    let (own, mut bare) = (Dispatching::new().await?, bare().await?);
    let (mut own_ms, mut bare_ms) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for _ in 0..calls {
            own_ms.push(timed(own.call()).await?);
        }
        for _ in 0..calls {
            bare_ms.push(timed(streamed(&mut bare)).await?);
        }
    }
    let told = serde_json::json!({"dispatch_ms": own_ms, "bare_ms": bare_ms});
    writeln!(std::io::stdout(), "{told}")?;
    Ok(())
}

async fn timed(call: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<f64> {
    let begun = Instant::now();
    call.await?;
    Ok(begun.elapsed().as_secs_f64() * 1_000.0)
}

/// The coordinator's side with one worker, which joined and linked over TCP.
struct Dispatching {
    workers: Workers,
    lease: Lease,
    session: SessionId,
}

impl Dispatching {
    async fn new() -> anyhow::Result<Self> {
        let (workers, mut events) = Workers::new(WorkersOptions::default(), Audit::in_memory(), Supervisor::default())?;
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        workers.serve_listener(listener);
        let (id, incarnation): (WorkerId, _) = ("bench".parse()?, Incarnation::mint());
        join(&workers, address, &id, incarnation).await?;
        let lease = Lease { worker: id, incarnation, epoch: Epoch(1) };
        Ok(Self { workers, lease, session: SessionId::mint() })
    }

    async fn call(&self) -> anyhow::Result<()> {
        let task = TaskDispatch {
            task: TaskId::mint(),
            session: self.session,
            lease: self.lease.clone(),
            operation: operation(),
            timeout: Duration::from_secs(60),
            output_bytes_max: 1 << 20,
            trace: None,
            arrival: None,
            ahead: None,
        };
        let (sender, mut events) = mpsc::channel(16);
        let run = self.workers.execute(task, sender, CancellationToken::new());
        let read = async { while events.recv().await.is_some() {} };
        let (end, ()) = tokio::join!(run, read);
        anyhow::ensure!(matches!(end, DispatchEnd::Answered(EventBody::Finished(_))), "{end:?}");
        Ok(())
    }
}

fn operation() -> Operation {
    Operation::Exec(Exec::of(Program::Shell { command: "echo hello from the other side".to_owned() }))
}

/// Registers and opens the link as a worker does.
async fn join(workers: &Workers, address: SocketAddr, id: &WorkerId, incarnation: Incarnation) -> anyhow::Result<()> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let mut client = WorkerLifecycleClient::new(endpoint.connect().await?);
    let request = RegisterWorker {
        worker: id.clone(),
        incarnation,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: Capabilities {
            isolation: IsolationReport { level: IsolationLevel::Full, layers: Vec::new() },
            runtimes: Vec::new(),
            sessions_max: 64,
            labels: Default::default(),
            resources: Resources::default(),
        },
        held: Vec::new(),
        held_is_partial: false,
        advertise: None,
        draining: false,
        follows: None,
    };
    let request = with_secret(v1::RegisterWorkerRequest::from(request), JOIN_TOKEN_KEY, &workers.issue_token(id))?;
    let answer: Registered = client.register_worker(request).await?.into_inner().try_into()?;
    let mut link = TcpStream::connect(address).await?;
    link.set_nodelay(true)?;
    let ticket = answer.link_ticket.context("a worker that does not advertise gets a ticket")?;
    let line = format!("codegen-link/1 {} {incarnation}\n", ticket.expose());
    link.write_all(line.as_bytes()).await?;
    // No more than the word: HTTP/2 may follow at once.
    let mut said = [0; 3];
    link.read_exact(&mut said).await?;
    anyhow::ensure!(said == *b"ok\n", "the link is refused: {said:?}");
    tokio::spawn(serve(link));
    // Its other end may be a moment from being used.
    while !workers.snapshot().iter().any(|row| row.link_up) {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Serves [`ThreeEvents`] on one connection.
async fn serve(stream: TcpStream) -> Result<(), tonic::transport::Error> {
    let connection = once(async move { Ok::<_, std::io::Error>(stream) }).chain(pending());
    // As a worker has it: who has read the last event does not wait for the stream's end.
    let mut server = Server::builder().http2_max_pending_accept_reset_streams(Some(1_024));
    server.add_service(WorkerServer::new(ThreeEvents)).serve_with_incoming(connection).await
}

/// A tonic client of a tonic server with nothing around either.
async fn bare() -> anyhow::Result<WorkerClient<Channel>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = Endpoint::from_shared(format!("http://{}", listener.local_addr()?))?;
    tokio::spawn(async move {
        let (stream, _peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        serve(stream).await.map_err(std::io::Error::other)
    });
    Ok(WorkerClient::new(endpoint.connect().await?))
}

async fn streamed(client: &mut WorkerClient<Channel>) -> anyhow::Result<()> {
    let task = ExecuteTask {
        task: TaskId::mint(),
        session: SessionId::mint(),
        lease: Lease { worker: "bench".parse()?, incarnation: Incarnation::mint(), epoch: Epoch(1) },
        operation: operation(),
        timeout: Duration::from_secs(60),
    };
    let mut events = client.execute_task(iter([v1::TaskRequest::from(task)])).await?.into_inner();
    let mut last = None;
    while let Some(event) = events.message().await? {
        last = Some(event.seq);
    }
    last.filter(|seq| *seq == 3).context("three events are streamed")?;
    Ok(())
}
