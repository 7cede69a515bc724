//! What the protocol's conformance suite asks for, served over the coordinator's HTTP.
//!
//! Prints its URL and serves until its input ends, so that it does not outlive whoever started it.
//!
//! *Invariant*: only tools, resources and prompts are the fixture's own; how requests come in and answers go out is the
//! product's.

mod asking;
mod content;
mod prompts;
mod resources;
mod rounds;
mod server;
mod tools;

use std::sync::Arc;

use codegen_audit::Audit;
use coordinator::config::HttpConfig;
use coordinator::http::HttpServer;
use coordinator::identity::{Authenticator, Requirement, Tokens};
use coordinator::store::Memory;
use tokio_util::sync::CancellationToken;

use server::Fixture;

/// Connections that are open at once: one of everything that the suite does.
const CONNECTIONS_MAX: u32 = 256;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = HttpConfig {
        connections_max: CONNECTIONS_MAX,
        connections_per_address_max: CONNECTIONS_MAX,
        ..HttpConfig::at(([127, 0, 0, 1], 0).into())
    };
    let audit = Audit::in_memory();
    let tokens = Tokens::load(Arc::new(Memory::default()), audit.clone()).await?;
    let authenticator = Authenticator::new(tokens, None, Requirement::Open, audit);
    let server = HttpServer::bind(config, authenticator).await?;
    tell(&format!("http://{}/mcp", server.address()))?;
    let served = server.run_other(Fixture::new()?, CancellationToken::new());
    let mut input = tokio::io::stdin();
    let mut nowhere = tokio::io::sink();
    tokio::select! {
        () = served => {}
        _ended = tokio::io::copy(&mut input, &mut nowhere) => {}
    }
    Ok(())
}

/// Tells whoever started this.
fn tell(line: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
