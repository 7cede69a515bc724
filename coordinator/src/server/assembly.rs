//! All parts of a serving process, put together in the order in which they need each other.

use std::sync::Arc;
use std::time::Duration;

use super::client::McpClients;
use super::fronts::ServeClient;
use super::listeners::{ListenError, Listeners};
use super::state_dir::LockedStateDir;
use crate::config::Config;
use crate::diagnostics::{Diagnostics, DiagnosticsError};
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
}

/// All parts, built and bound; nothing runs before [`start`](Self::start).
pub(super) struct Assembly {
    state: LockedStateDir,
    _diagnostics: Diagnostics,
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
        let listeners = Listeners::bind(&state, config.grpc_port).await?;
        let service = Arc::new(McpClients::new(diagnostics.taps().clone(), clients.clone()));
        Ok(Self { state, _diagnostics: diagnostics, listeners: Some(listeners), service, clients, core })
    }

    pub(super) async fn start(&mut self) -> Result<(), AssemblyError> {
        let _ = self.listeners.take();
        Ok(())
    }

    pub(super) fn service(&self) -> Arc<dyn ServeClient> {
        Arc::clone(&self.service) as Arc<dyn ServeClient>
    }

    pub(super) fn running_tasks(&self) -> usize {
        0
    }

    pub(super) async fn stop(self, _why: &str) {
        self.clients.cancel();
        if !self.clients.drain(DRAIN_PATIENCE).await {
            tracing::warn!("calls were still running when the time to end them was over");
        }
        self.core.cancel();
        self.core.drain(DRAIN_PATIENCE).await;
        self.state.release();
    }
}
