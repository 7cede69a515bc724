//! The floor under every call over Streamable HTTP: rmcp's own service, without authentication, limits or a log. Says on
//! stdout where it listens, and ends with its stdin.

use std::io::Write as _;
use std::sync::Arc;

use axum::serve::ListenerExt as _;
use bench_peers::Echo;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let sessions = Arc::new(LocalSessionManager::default());
    let service = StreamableHttpService::new(|| Ok(Echo), sessions, StreamableHttpServerConfig::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "http://{}/mcp", listener.local_addr()?)?;
    // As the product does: otherwise each answer would wait for the client's delayed acknowledgement.
    let listener = listener.tap_io(|stream| {
        let _best_effort = stream.set_nodelay(true);
    });
    let stdin_ends = async { tokio::io::stdin().read_to_end(&mut Vec::new()).await.map(drop) };
    let router = axum::Router::new().nest_service("/mcp", service);
    tokio::select! {
        served = axum::serve(listener, router) => served?,
        ended = stdin_ends => ended?,
    }
    Ok(())
}
