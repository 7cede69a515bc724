//! The backend of namespaces: the worker's side of the launcher.

mod connection;
mod probe;
mod sandbox;

use std::sync::Arc;

use codegen_types::{IsolationLevel, IsolationReport};

use crate::backend::{Backend, BoxFuture, Sandbox, SandboxError, SandboxSpec};
use crate::launcher::LauncherSocket;
use connection::Connection;
use sandbox::ProcessSandbox;

/// Makes sandboxes of level *full* out of namespaces, and refuses when one of their layers is missing.
#[derive(Debug)]
pub struct ProcessBackend {
    connection: Arc<Connection>,
    report: IsolationReport,
}

impl ProcessBackend {
    /// Takes over the launcher and probes what isolation this host gives, by making a sandbox and running a program
    /// in it. Needs a tokio runtime. Fails only when the launcher is gone; what is missing is in the report.
    pub async fn start(socket: LauncherSocket) -> Result<Self, SandboxError> {
        let connection = Arc::new(Connection::start(socket.0).map_err(SandboxError::Channel)?);
        let report = probe::probe(&connection).await?;
        Ok(Self { connection, report })
    }
}

impl Backend for ProcessBackend {
    fn report(&self) -> &IsolationReport {
        &self.report
    }

    fn open(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, SandboxError>> {
        Box::pin(async move {
            if self.report.level != IsolationLevel::Full {
                return Err(SandboxError::Unavailable { why: self.report.missing() });
            }
            let sandbox = ProcessSandbox::open(&self.connection, spec).await?;
            Ok(Arc::new(sandbox) as Arc<dyn Sandbox>)
        })
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.connection.lost())
    }
}
