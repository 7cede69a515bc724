//! Many workers that join a coordinator over gRPC, each on a connection of its own, and say that they live; prints JSON
//! when all have joined and again at the end.
//!
//!     bench-heartbeats HOST:PORT TOKEN_FILE WORKERS SESSIONS_EACH SECONDS INTERVAL_MS

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use codegen_proto::metadata::{JOIN_TOKEN_KEY, WORKER_SESSION_KEY, with_secret};
use codegen_proto::v1::worker_lifecycle_client::WorkerLifecycleClient;
use codegen_proto::{Heartbeat, RegisterWorker, Registered, Secret, v1};
use codegen_types::{
    Capabilities, Epoch, HeldSession, HostUse, Incarnation, IsolationLevel, IsolationReport, Resources, SessionId,
    WorkerId,
};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

#[derive(Clone)]
struct Plan {
    address: String,
    token: String,
    sessions: usize,
    interval: Duration,
}

struct Worker {
    client: WorkerLifecycleClient<Channel>,
    id: WorkerId,
    incarnation: Incarnation,
    session: Secret,
    held: Vec<HeldSession>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, token_file, workers, sessions, seconds, interval] = &args[..] else {
        anyhow::bail!("six arguments are wanted")
    };
    let token = std::fs::read_to_string(token_file)?.trim().to_owned();
    let interval = Duration::from_millis(interval.parse()?);
    let plan = Plan { address: format!("http://{address}"), token, sessions: sessions.parse()?, interval };
    let mut fleet = Vec::new();
    for at in 0..workers.parse()? {
        fleet.push(Worker::join(&plan, at).await.with_context(|| format!("worker {at} does not get in"))?);
    }
    writeln!(std::io::stdout(), "{}", serde_json::json!({"joined": fleet.len()}))?;
    let until = Instant::now() + Duration::from_secs(seconds.parse()?);
    let (count, mut living) = (fleet.len(), JoinSet::new());
    for (at, worker) in fleet.into_iter().enumerate() {
        // Spread over the interval, as workers are that started at different times.
        let first = plan.interval.mul_f64(at as f64 / count as f64);
        living.spawn(worker.live(plan.interval, first, until));
    }
    let (mut beats, mut slowest) = (0_u64, Duration::ZERO);
    while let Some(lived) = living.join_next().await {
        let (own, slow) = lived??;
        (beats, slowest) = (beats + own, slowest.max(slow));
    }
    writeln!(
        std::io::stdout(),
        "{}",
        serde_json::json!({"heartbeats": beats, "slowest_ms": slowest.as_secs_f64() * 1_000.0})
    )?;
    Ok(())
}

impl Worker {
    async fn join(plan: &Plan, at: usize) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(plan.address.clone())?.connect().await?;
        let mut client = WorkerLifecycleClient::new(channel);
        let (id, incarnation): (WorkerId, _) = (format!("simulated-{at:04}").parse()?, Incarnation::mint());
        let capabilities = Capabilities {
            isolation: IsolationReport { level: IsolationLevel::Full, layers: Vec::new() },
            runtimes: Vec::new(),
            sessions_max: 64,
            labels: [("pool".to_owned(), "simulated".to_owned())].into(),
            resources: Resources::default(),
        };
        let request = RegisterWorker {
            worker: id.clone(),
            incarnation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities,
            held: Vec::new(),
            held_is_partial: false,
            advertise: None,
            draining: false,
            follows: None,
        };
        let request = v1::RegisterWorkerRequest::from(request);
        let request = with_secret(request, JOIN_TOKEN_KEY, &Secret::new(&*plan.token))?;
        let answer: Registered = client.register_worker(request).await?.into_inner().try_into()?;
        let held = |_| HeldSession { session: SessionId::mint(), epoch: Epoch(1), open: true, tasks: Vec::new() };
        let held = (0..plan.sessions).map(held).collect();
        Ok(Self { client, id, incarnation, session: answer.worker_session, held })
    }

    /// Says that it lives until the time is over; how often, and how long the slowest took.
    async fn live(mut self, interval: Duration, first: Duration, until: Instant) -> anyhow::Result<(u64, Duration)> {
        let (mut beats, mut slowest) = (0, Duration::ZERO);
        let mut next = Instant::now() + first;
        while next < until {
            tokio::time::sleep_until(next.into()).await;
            next += interval;
            let heartbeat = Heartbeat {
                worker: self.id.clone(),
                incarnation: self.incarnation,
                sessions_open: u32::try_from(self.held.len())?,
                tasks_running: 0,
                memory_bytes: 1 << 30,
                held: self.held.clone(),
                draining: false,
                used: HostUse::default(),
            };
            let heartbeat = v1::HeartbeatRequest::from(heartbeat);
            let request = with_secret(heartbeat, WORKER_SESSION_KEY, &self.session)?;
            let begun = Instant::now();
            self.client.heartbeat(request).await?;
            (beats, slowest) = (beats + 1, slowest.max(begun.elapsed()));
        }
        Ok((beats, slowest))
    }
}
