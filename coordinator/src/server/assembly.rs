//! All parts of a serving process, put together in the order in which they need each other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use codegen_audit::{Audit, AuditUnavailable, Entry, EventKind, OpenError, Options as AuditOptions};
use coordinator_core::worker::{InvalidTiming, Timing};
use serde_json::json;
use tokio::sync::mpsc;

use super::client::McpClients;
use super::fronts::ServeClient;
use super::listeners::{ListenError, Listeners};
use super::state_dir::LockedStateDir;
use crate::config::Config;
use crate::diagnostics::{Diagnostics, DiagnosticsError};
use crate::front::handover::VERSION;
use crate::mcp::{self, Services};
use crate::provision::embedded::{Embedded, EmbeddedOptions};
use crate::supervisor::Supervisor;
use crate::workers::{WorkerEvent, Workers, WorkersOptions};

/// How long running calls may take to end once the process is to stop.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
/// How long everything else may then take.
const CORE_PATIENCE: Duration = Duration::from_secs(5);

/// Why a part cannot work.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// There would be nowhere to write what goes wrong.
    #[error(transparent)]
    Diagnostics(#[from] DiagnosticsError),
    /// No worker could join.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Nothing may be done unaudited.
    #[error("the audit log cannot be opened; `coordinator audit verify` says more")]
    Audit(#[from] OpenError),
    /// The log took no record.
    #[error("the audit log cannot be written")]
    Unaudited(#[from] AuditUnavailable),
    /// The times of the configuration contradict each other.
    #[error("the times for workers are not in order")]
    Timing(#[from] InvalidTiming),
}

/// All parts, built and bound; nothing runs before [`start`](Self::start).
pub(super) struct Assembly {
    service: Arc<McpClients>,
    workers: Workers,
    audit: Audit,
    /// What [`start`](Self::start) uses up.
    waiting: Option<Waiting>,
    embedded: Option<Embedded>,
    /// Runs the connections of clients, which end first.
    pub(super) clients: Supervisor,
    /// Runs everything that the clients' calls need.
    pub(super) core: Supervisor,
    // The last to go: what is written about the end of all others goes there.
    diagnostics: Diagnostics,
    state: LockedStateDir,
}

/// Parts that are bound and wait to be set going.
struct Waiting {
    listeners: Listeners,
    events: mpsc::Receiver<WorkerEvent>,
    embedded: EmbeddedOptions,
}

impl Assembly {
    /// Opens the log and the store, and binds the sockets on which workers join.
    pub(super) async fn build(config: &Config, state: LockedStateDir) -> Result<Self, AssemblyError> {
        let (clients, core) = (Supervisor::default(), Supervisor::default());
        let diagnostics = Diagnostics::init(&state.logs_dir(), config.log_level)?;
        let (audit, _opened) = Audit::open(AuditOptions::new(state.audit_dir())).await?;
        let listeners = Listeners::bind(&state, config.grpc_port).await?;
        let timing = Timing { prune_after: config.worker_heartbeat_timeout, ..Timing::default() };
        let options = WorkersOptions { timing, ..WorkersOptions::default() };
        let (workers, events) = Workers::new(options, audit.clone(), core.clone())?;
        let options = mcp::Options { limits: config.limits, ..mcp::Options::default() };
        let services = Services::new(Arc::new(super::none::NoSessions), audit.clone(), options);
        let service = McpClients::new(services, workers.clone(), diagnostics.taps().clone(), clients.clone());
        let waiting = Waiting { listeners, events, embedded: embedded_options(config, &state) };
        Ok(Self {
            service: Arc::new(service),
            workers,
            audit,
            waiting: Some(waiting),
            embedded: None,
            clients,
            core,
            diagnostics,
            state,
        })
    }

    /// Sets everything going.
    pub(super) async fn start(&mut self) -> Result<(), AssemblyError> {
        let Some(Waiting { listeners, events, embedded }) = self.waiting.take() else { return Ok(()) };
        let detail = json!({"version": VERSION, "pid": std::process::id()});
        let started = Entry { kind: EventKind::ServerStarted, detail: Some(detail), ..Entry::default() };
        self.audit.append(started).await?;
        drop(events);
        self.workers.serve_listener(listeners.embedded);
        if let Some(remote) = listeners.remote {
            self.workers.serve_listener(remote);
        }
        self.embedded = Some(Embedded::start(embedded, self.workers.clone(), &self.core));
        tracing::info!(version = VERSION, state = %self.state.path().display(), "serving");
        Ok(())
    }

    /// What serves clients.
    pub(super) fn service(&self) -> Arc<dyn ServeClient> {
        Arc::clone(&self.service) as Arc<dyn ServeClient>
    }

    /// How many tasks run at present, for whichever client.
    pub(super) fn running_tasks(&self) -> usize {
        0
    }

    /// Ends everything in order: clients with their calls, sessions, workers, the log, the lock.
    pub(super) async fn stop(self, why: &str) {
        self.clients.cancel();
        if !self.clients.drain(DRAIN_PATIENCE).await {
            tracing::warn!("calls were still running when the time to end them was over");
        }
        if let Some(embedded) = &self.embedded {
            embedded.stop().await;
        }
        self.workers.shutdown();
        self.core.cancel();
        if !self.core.drain(CORE_PATIENCE).await {
            tracing::warn!("parts of the server were still running when the time to end them was over");
        }
        let stopped = Entry { kind: EventKind::ServerStopped, detail: Some(json!({"why": why})), ..Entry::default() };
        if let Err(error) = self.audit.append(stopped).await {
            tracing::error!(%error, "the end of the server is not in the log");
        }
        self.audit.close().await;
        self.state.release();
        drop(self.diagnostics);
    }
}

fn embedded_options(config: &Config, state: &LockedStateDir) -> EmbeddedOptions {
    let workspaces: PathBuf = config.base_workspace.clone().unwrap_or_else(|| state.workspaces_dir());
    EmbeddedOptions {
        sessions_max: config.max_sessions,
        isolation_minimum: config.isolation_minimum,
        log_level: config.log_level.as_str().to_owned(),
        search_path: config.search_path.clone(),
        ..EmbeddedOptions::new(state.worker_socket_for_child(), workspaces)
    }
}
