//! The backend of processes: the worker's side of the launcher.

mod bereaved;
mod connection;
mod probe;
mod sandbox;

use std::collections::BTreeSet;
use std::sync::Arc;

use codegen_types::{IsolationLevel, IsolationReport};

use crate::backend::{Backend, BoxFuture, Sandbox, SandboxError, SandboxSpec};
use crate::launcher::LauncherSocket;
use crate::protocol::OpenFailure;
use connection::Connection;
use probe::Probed;
use sandbox::ProcessSandbox;

/// Makes sandboxes of the best level that the host permits, and refuses when a layer of it is missing.
#[derive(Debug)]
pub struct ProcessBackend {
    connection: Arc<Connection>,
    report: IsolationReport,
    /// Why the level is not a better one.
    not_better: Option<OpenFailure>,
}

impl ProcessBackend {
    /// Takes over the launcher and probes what isolation this host gives, by making a sandbox and running a program
    /// in it. Needs a tokio runtime. Fails only when the launcher is gone; what is missing is in the report.
    pub async fn start(socket: LauncherSocket) -> Result<Self, SandboxError> {
        let connection = Arc::new(Connection::start(socket.0).map_err(SandboxError::Channel)?);
        let Probed { report, not_better } = probe::probe(&connection).await?;
        Ok(Self { connection, report, not_better })
    }
}

impl Backend for ProcessBackend {
    fn report(&self) -> &IsolationReport {
        &self.report
    }

    fn open(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, SandboxError>> {
        Box::pin(async move {
            let level = self.report.level;
            if level == IsolationLevel::None {
                return Err(SandboxError::Unavailable { why: self.report.missing() });
            }
            let sandbox = ProcessSandbox::open(&self.connection, spec, level, self.not_better.clone()).await?;
            Ok(Arc::new(sandbox) as Arc<dyn Sandbox>)
        })
    }

    fn held(&self) -> BTreeSet<u32> {
        self.connection.held()
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.connection.lost())
    }
}
