//! What runs on the simulated hosts.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use codegen_audit::{Audit, Options};
use codegen_types::Incarnation;
use coordinator::identity::Tokens;
use coordinator::session::{SessionOptions, Sessions, SessionsDeps};
use coordinator::supervisor::Supervisor;
use coordinator::workers::{Clock, Listener, Workers, WorkersOptions};
use coordinator_core::worker::Timing;
use sandbox::{FakeBackend, Spawn};
use tokio::time::Instant;
use worker::simulated::{Ground as WorkerGround, Interpreters, Simulated};

use crate::flaws::{self, Flaw};
use crate::ground::{Ground, Life, Present, name};
use crate::network::{self, Dialler, Door};
use crate::{clients, settled};

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The times of the product, at a fifth.
fn workers_options() -> WorkersOptions {
    WorkersOptions {
        heartbeat_interval: seconds(6),
        timing: Timing {
            keep_alive: seconds(4),
            reconnect_grace: seconds(24),
            reassign_after: seconds(30),
            prune_after: seconds(60),
        },
        handshake_limit: seconds(2),
        ticket_lifetime: seconds(6),
        keep_alive_interval: seconds(2),
        link_wait: seconds(2),
        session_deadline: seconds(6),
        deadline_slack: seconds(3),
        cancel_grace: seconds(1),
        cancel_slack: seconds(2),
        clock: Clock::Runtime(Instant::now()),
        ..WorkersOptions::default()
    }
}

/// One life of the coordinator.
pub async fn coordinator(ground: Arc<Ground>) -> turmoil::Result {
    let (dir, store) = ground.with(|truth| (truth.log.clone(), Arc::clone(&truth.store)));
    // Small, so that a life is of several segments.
    let (audit, _) = Audit::open(Options { segment_bytes_max: 64 << 10, ..Options::new(&dir) }).await?;
    let supervisor = Supervisor::default();
    let (workers, events) = Workers::new(workers_options(), audit.clone(), supervisor.clone())?;
    let workers = workers.joined_by(Tokens::load(ground.tokens.clone(), audit.clone()).await?);
    let sessions = Sessions::start(SessionsDeps {
        audit: audit.clone(),
        audit_dir: Some(dir),
        sessions: store.clone(),
        tasks: store,
        fleet: flaws::fleet(&workers, ground.flaw),
        supervisor: supervisor.clone(),
        options: SessionOptions {
            worker_patience: seconds(2),
            reconnect_grace: seconds(24),
            ..SessionOptions::default()
        },
    })
    .await?;
    tokio::spawn(sessions.clone().follow(events));
    workers.serve_listener(Listener::Given(Box::new(Door::open().await?)));
    ground.tell("the coordinator serves");
    let present = Present { audit, workers };
    ground.with(|truth| truth.present = Some(present));
    clients::until_peace(&ground, &sessions).await;
    settled::when_asked(&ground, &sessions).await;
    std::future::pending().await
}

/// One life of a worker.
pub async fn worker(ground: Arc<Ground>, number: usize, token: String, interpreters: Interpreters) -> turmoil::Result {
    let incarnation = match ground.flaw {
        Some(Flaw::KeepsItsIncarnation) => kept(number),
        _ => Incarnation::mint(),
    };
    let programs = Arc::clone(&ground);
    let worker = Arc::new(Simulated::new(WorkerGround {
        worker: name(number),
        incarnation,
        coordinator: network::address(),
        token,
        base_workspace: ground.dir.path().join(name(number).as_str()),
        sessions_max: ground.slots[number],
        backend: Arc::new(FakeBackend::new(move |spawn| programs.started(number_of(spawn)))),
        network: Arc::new(Dialler),
        interpreters,
    })?);
    ground.tell(format_args!("worker {number} begins as {incarnation}"));
    let life = Life { incarnation, worker: Arc::clone(&worker) };
    ground.with(|truth| truth.lives.insert(number, life));
    worker.serve().await;
    Ok(())
}

fn kept(number: usize) -> Incarnation {
    Incarnation::from_uuid(uuid::Uuid::from_u128(number as u128 + 1))
}

/// A program is known by the last word of its command line.
fn number_of(spawn: &Spawn) -> u64 {
    let command = spawn.argv.last().map(|word| OsStr::to_string_lossy(word)).unwrap_or_default();
    command.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a program of this test")
}
