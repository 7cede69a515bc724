//! One client of the server: its streams, its MCP connection, its diagnostics.

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::client_io::{ClientInput, ClientOutput};
use super::fronts::{Client, ServeClient};
use crate::diagnostics::Taps;
use crate::front::handover::End;
use crate::supervisor::Supervisor;

/// Serves MCP clients.
pub(super) struct McpClients {
    taps: Taps,
    supervisor: Supervisor,
}

impl McpClients {
    pub(super) fn new(taps: Taps, supervisor: Supervisor) -> Self {
        Self { taps, supervisor }
    }
}

impl ServeClient for McpClients {
    fn serve(&self, client: Client, cancel: CancellationToken) -> BoxFuture<'_, End> {
        Box::pin(async move {
            let input = ClientInput::new(client.streams.stdin);
            let output = ClientOutput::new(client.streams.stdout);
            let _tap = client.debug.then(|| self.taps.open(client.streams.stderr, &self.supervisor));
            let (Ok(mut input), Ok(mut output)) = (input, output) else { return End::Failed(String::new()) };
            let _ = cancel.run_until_cancelled(tokio::io::copy(&mut input, &mut output)).await;
            End::ClientClosed
        })
    }
}
