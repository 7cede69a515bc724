//! The product's front door over stdio with its log in memory, to tell what `echo` costs apart from the disk.
//!
//! The product has no such setting and must not have one. Sessions are the real ones, but no worker ever joins.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use codegen_audit::Audit;
use codegen_types::Principal;
use coordinator::caller::Caller;
use coordinator::identity::Scopes;
use coordinator::mcp::{self, Services};
use coordinator::server::client_io::{ClientInput, ClientOutput};
use coordinator::session::{SessionOptions, Sessions, SessionsDeps};
use coordinator::store::Memory;
use coordinator::supervisor::Supervisor;
use coordinator::workers::{Workers, WorkersOptions};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let audit = Audit::in_memory();
    let supervisor = Supervisor::default();
    let (workers, _events) = Workers::new(WorkersOptions::default(), audit.clone(), supervisor.clone())?;
    let store = Arc::new(Memory::default());
    let sessions = Sessions::start(SessionsDeps {
        audit: audit.clone(),
        audit_dir: None,
        sessions: Arc::clone(&store) as _,
        tasks: store,
        fleet: Arc::new(workers),
        supervisor,
        options: SessionOptions::default(),
    })
    .await?;
    let services = Services::new(Arc::new(sessions), audit, mcp::Options::default());
    let caller = Caller { principal: Principal::os_user("bench"), scopes: Scopes::ALL, client: None, trace: None };
    let input = ClientInput::new(rustix::stdio::stdin().as_fd().try_clone_to_owned()?)?;
    let output = ClientOutput::new(rustix::stdio::stdout().as_fd().try_clone_to_owned()?)?;
    mcp::serve_stdio(services, caller, input, output, CancellationToken::new()).await?;
    Ok(())
}
