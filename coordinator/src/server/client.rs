//! One client of the server: its streams, its MCP connection, its diagnostics.

use std::io;

use codegen_types::Principal;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::client_io::{ClientInput, ClientOutput};
use super::fronts::{Client, ServeClient};
use crate::caller::{self, Caller};
use crate::config::ToolNames;
use crate::diagnostics::Taps;
use crate::front::handover::End;
use crate::identity::Scopes;
use crate::mcp::{self, Services};
use crate::supervisor::Supervisor;

/// Serves MCP clients, all of them on behalf of the user who runs this process.
pub(super) struct McpClients {
    services: Services,
    principal: Principal,
    taps: Taps,
    supervisor: Supervisor,
}

impl McpClients {
    pub(super) fn new(services: Services, taps: Taps, supervisor: Supervisor) -> Self {
        Self { services, principal: caller::this_user(), taps, supervisor }
    }

    async fn converse(&self, client: Client, cancel: CancellationToken) -> io::Result<End> {
        let Client { streams, tool_names, debug, pid } = client;
        let input = ClientInput::new(streams.stdin)?;
        let output = ClientOutput::new(streams.stdout)?;
        let _reading_along = match debug {
            true => Some(self.taps.open(streams.stderr, &self.supervisor)?),
            false => None,
        };
        tracing::info!(pid, "a client connected");
        let options = mcp::Options { tool_names: listed(tool_names), ..self.services.options().clone() };
        let caller = Caller { principal: self.principal.clone(), scopes: Scopes::ALL, client: None, trace: None };
        let served = mcp::serve_stdio(self.services.with_options(options), caller, input, output, cancel).await;
        Ok(match served {
            Ok(()) => {
                tracing::info!(pid, "a client left");
                End::ClientClosed
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(pid, error, "a client's connection broke");
                End::Failed(error.to_string())
            }
        })
    }
}

impl ServeClient for McpClients {
    fn serve(&self, client: Client, cancel: CancellationToken) -> BoxFuture<'_, End> {
        Box::pin(async move {
            let conversed = self.converse(client, cancel).await;
            conversed.unwrap_or_else(|error| End::Failed(format!("the client's streams cannot be used: {error}")))
        })
    }
}

fn listed(names: ToolNames) -> mcp::ToolNames {
    match names {
        ToolNames::Underscored => mcp::ToolNames::Underscored,
        ToolNames::Dotted => mcp::ToolNames::Dotted,
    }
}
