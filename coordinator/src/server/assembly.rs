//! All parts of a serving process, put together in the order in which they need each other.

use std::sync::Arc;
use std::time::Duration;

use codegen_audit::{Audit, AuditUnavailable, Entry, EventKind, OpenError, Options as AuditOptions};
use serde_json::json;

use super::client::McpClients;
use super::fronts::ServeClient;
use super::listeners::{ListenError, Listeners};
use super::state_dir::LockedStateDir;
use crate::config::Config;
use crate::diagnostics::{Diagnostics, DiagnosticsError};
use crate::front::handover::VERSION;
use crate::mcp::{self, Services};
use crate::supervisor::Supervisor;

/// How long running calls may take to end once the process is to stop.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

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
}

/// All parts, built and bound; nothing runs before [`start`](Self::start).
pub(super) struct Assembly {
    state: LockedStateDir,
    _diagnostics: Diagnostics,
    audit: Audit,
    listeners: Option<Listeners>,
    service: Arc<McpClients>,
    /// Runs the connections of clients, which end first.
    pub(super) clients: Supervisor,
    /// Runs everything that the clients' calls need.
    pub(super) core: Supervisor,
}

impl Assembly {
    pub(super) async fn build(config: &Config, state: LockedStateDir) -> Result<Self, AssemblyError> {
        let (clients, core) = (Supervisor::default(), Supervisor::default());
        let diagnostics = Diagnostics::init(&state.logs_dir(), config.log_level)?;
        let (audit, _opened) = Audit::open(AuditOptions::new(state.audit_dir())).await?;
        let listeners = Listeners::bind(&state, config.grpc_port).await?;
        let options = mcp::Options { limits: config.limits, ..mcp::Options::default() };
        let services = Services::new(Arc::new(super::none::NoSessions), audit.clone(), options);
        let service = Arc::new(McpClients::new(services, diagnostics.taps().clone(), clients.clone()));
        Ok(Self { state, _diagnostics: diagnostics, audit, listeners: Some(listeners), service, clients, core })
    }

    pub(super) async fn start(&mut self) -> Result<(), AssemblyError> {
        let _ = self.listeners.take();
        let detail = json!({"version": VERSION, "pid": std::process::id()});
        let started = Entry { kind: EventKind::ServerStarted, detail: Some(detail), ..Entry::default() };
        self.audit.append(started).await?;
        Ok(())
    }

    pub(super) fn service(&self) -> Arc<dyn ServeClient> {
        Arc::clone(&self.service) as Arc<dyn ServeClient>
    }

    pub(super) fn running_tasks(&self) -> usize {
        0
    }

    pub(super) async fn stop(self, why: &str) {
        self.clients.cancel();
        if !self.clients.drain(DRAIN_PATIENCE).await {
            tracing::warn!("calls were still running when the time to end them was over");
        }
        self.core.cancel();
        self.core.drain(DRAIN_PATIENCE).await;
        let stopped = Entry { kind: EventKind::ServerStopped, detail: Some(json!({"why": why})), ..Entry::default() };
        if let Err(error) = self.audit.append(stopped).await {
            tracing::error!(%error, "the end of the server is not in the log");
        }
        self.audit.close().await;
        self.state.release();
    }
}
