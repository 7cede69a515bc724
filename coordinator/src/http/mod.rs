//! HTTP: where connections come in, who is let through, and which path leads where.
//!
//! A request is looked at from the outside in: bounds of the connection, `Host` and `Origin`, credentials, body. Only
//! then does it reach what serves it.
//!
//! *Invariant*: no decision about sessions is made here, and nothing that a client sent is held without a bound.

mod authentication;
mod bodies;
mod error;
mod guard;
mod health;
mod legacy;
mod listener;
mod metadata;
mod metrics;
mod rest;
mod router;
mod stall;
mod step_up;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::HttpConfig;
use crate::identity::Authenticator;
use crate::mcp::{Handlers, LegacySse, Product, Services, StreamableHttp};
use crate::reload::{Reload, Reloads};
use crate::telemetry::Metrics;
use crate::tls::{Purpose, Tls};

pub use health::{Check, Readiness};
use listener::Listener;
use rest::Api;
pub use rest::Plant;
use router::Rest;

pub use crate::tls::TlsError;

/// How long calls that run when the server stops may take to end.
const CALLS_PATIENCE: Duration = Duration::from_secs(7);
/// How long their answers may then take to be written.
const ANSWERS_PATIENCE: Duration = Duration::from_secs(2);

/// Why HTTP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Anybody on the network could run code.
    #[error(
        "HTTP at {0} would let in anybody who reaches it; listen on 127.0.0.1 or [::1], or make tokens or name an \
         issuer first"
    )]
    Unauthenticated(SocketAddr),
    /// Nothing could be encrypted.
    #[error("HTTP cannot be encrypted")]
    Tls(#[from] TlsError),
    /// The address cannot be had.
    #[error("HTTP cannot listen on {address}; free the port or choose another with --http")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// HTTP, bound and not yet accepting.
pub struct HttpServer {
    listener: Listener,
    config: HttpConfig,
    authenticator: Authenticator,
    tls: Option<Tls>,
    reloads: Option<Reloads>,
}

/// What requests are served with.
pub struct HttpServices {
    /// What MCP needs.
    pub mcp: Services,
    /// Whether everything works that calls need.
    pub readiness: Arc<dyn Readiness>,
    /// What operators see in numbers.
    pub metrics: Metrics,
    /// What else operators see.
    pub plant: Arc<dyn Plant>,
}

impl HttpServer {
    /// Binds the address.
    ///
    /// # Errors
    /// The address is taken, or it can be reached from elsewhere and nobody would be asked who they are.
    pub async fn bind(config: HttpConfig, authenticator: Authenticator) -> Result<Self, HttpError> {
        let address = config.listen;
        if authenticator.is_open() && !address.ip().is_loopback() {
            return Err(HttpError::Unauthenticated(address));
        }
        let tls = config.tls.clone().map(|files| Tls::load(files, Purpose::Http)).transpose()?;
        let listener = TcpListener::bind(address).await.map_err(|source| HttpError::Bind { address, source })?;
        let listener = Listener::new(listener, &config, tls.clone());
        Ok(Self { listener, config, authenticator, tls, reloads: None })
    }

    /// The same, which reads its certificate again when told.
    #[must_use]
    pub fn reloaded_by(self, reload: &Reload) -> Self {
        // Without a certificate there is nothing to read.
        let reloads = self.tls.as_ref().map(|_| reload.follow());
        Self { reloads, ..self }
    }

    /// Whether connections are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Where connections are accepted.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Serves until `stop`, then drains: no connection is accepted any more, running calls are cancelled and answered,
    /// and what is still open after a few seconds is closed.
    pub async fn run(self, services: HttpServices, stop: CancellationToken) {
        let HttpServices { mcp, readiness, metrics, plant } = services;
        let keep_alive = self.config.patience.keep_alive;
        let api = Api::new(mcp.clone(), plant, self.authenticator.tokens().clone(), keep_alive);
        let sse = LegacySse::new(mcp.clone());
        let rest = Rest { sse, readiness, metrics, api };
        self.run_with(StreamableHttp::new(Product::new(mcp), keep_alive), Some(rest), stop).await;
    }

    /// Serves another server than the product over Streamable HTTP, as [`Self::run`] serves the product, and nothing
    /// beside it.
    pub async fn run_other<H: Handlers>(self, handlers: H, stop: CancellationToken) {
        let mcp = StreamableHttp::new(handlers, self.config.patience.keep_alive);
        self.run_with(mcp, None, stop).await;
    }

    async fn run_with<H: Handlers>(self, mcp: StreamableHttp<H>, rest: Option<Rest>, stop: CancellationToken) {
        let address = self.listener.address();
        let router = router::router(&self.config, address, self.authenticator, mcp.clone(), rest.clone());
        let (others, metrics) = rest.map(|rest| ((rest.sse, rest.api), rest.metrics)).unzip();
        let (drain, force) = (CancellationToken::new(), CancellationToken::new());
        let end = async {
            stop.cancelled().await;
            drain.cancel();
            let end_others = async {
                if let Some((sse, api)) = others {
                    tokio::join!(sse.end(CALLS_PATIENCE), api.end(CALLS_PATIENCE));
                }
            };
            tokio::join!(mcp.end(CALLS_PATIENCE), end_others);
            tokio::time::sleep(ANSWERS_PATIENCE).await;
            mcp.cut();
            force.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = self.listener.run(router, drain.clone(), force.clone()) => {}
            () = end => {}
            () = mcp.sweep() => {}
            () = keep_up(metrics) => {}
            () = follow(self.tls.zip(self.reloads)) => {}
        }
    }
}

/// Keeps what operators see in numbers up to date, for ever.
async fn keep_up(metrics: Option<Metrics>) {
    if let Some(metrics) = metrics {
        metrics.keep_up().await;
    }
    std::future::pending().await
}

/// Reads the certificate again when asked, for ever.
async fn follow(tls: Option<(Tls, Reloads)>) {
    if let Some((tls, reloads)) = tls {
        tls.follow(reloads).await;
    }
    std::future::pending().await
}
