//! The server: the user's one process that owns the state directory, the log and the workers.
//!
//! Everything is built and bound before anything is spawned; it runs until a signal, or, started on demand, until
//! nobody has needed it for a while; then it drains under a deadline. A second signal ends it at once.

mod assembly;
mod chosen;
mod client;
pub mod client_io;
pub mod fronts;
mod listeners;
mod lost_tokens;
pub mod presence;
mod readiness;
pub mod signals;
pub mod standalone;
pub mod state_dir;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

pub use assembly::AssemblyError;
use assembly::{Bound, Running};
use fronts::Fronts;
use presence::Presence;
use signals::Signals;
use state_dir::{StateDir, StateDirError};

use crate::config::Config;
use crate::http::{HttpError, HttpServer};
use crate::identity::Authenticator;
use crate::reload::Reload;
use crate::supervisor::OnEnd;

/// How long a server waits for one that is just ending here.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);

/// How a server came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A front started it; it ends when it is no longer needed.
    OnDemand,
    /// An operator started it; it runs until a signal.
    Explicit,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The state directory cannot be used, or another server has it.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// One of its parts cannot work.
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
    /// Fronts could not reach it.
    #[error("the socket {path} cannot be bound")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Clients could not reach it over HTTP.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// It could not be asked to stop.
    #[error("signals cannot be listened for")]
    Signals(#[source] io::Error),
}

/// The user's one server, running but for taking clients.
pub struct Server {
    running: Running,
    listener: UnixListener,
    http: Option<HttpServer>,
    signals: Signals,
    role: Role,
    config: Config,
}

impl Server {
    /// Takes the state directory, opens the log and the store, binds every socket, and then sets everything going.
    pub async fn build(config: Config, role: Role) -> Result<Self, BuildError> {
        // Whatever this process makes is for its user alone.
        rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
        let patience = match role {
            Role::OnDemand => LOCK_PATIENCE,
            Role::Explicit => Duration::ZERO,
        };
        let state = StateDir::open_or_create(&config.state_dir)?.lock(patience).await?;
        // Sockets of a server that was killed: nobody but the holder of the lock could listen there.
        state.remove_sockets();
        let reload = Reload::default();
        let signals = Signals::listen(Some(reload.clone())).map_err(BuildError::Signals)?;
        let path = state.front_socket();
        let bound = Bound::build(&config, state, &reload).await?;
        let listener = UnixListener::bind(&path).map_err(|source| BuildError::Bind { path, source })?;
        let http = bind_http(&config, role, bound.authenticator()).await?.map(|http| http.reloaded_by(&reload));
        let running = bound.start().await?;
        Ok(Self { running, listener, http, signals, role, config })
    }

    /// The URL at which HTTP is served, if it is.
    pub fn http_url(&self) -> Option<String> {
        let http = self.http.as_ref()?;
        let scheme = if http.is_encrypted() { "https" } else { "http" };
        Some(format!("{scheme}://{}", http.address()))
    }

    /// The address at which workers register, if they can.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.running.grpc_address()
    }

    /// Takes clients until it is to stop, then drains.
    pub async fn run(self) {
        let Self { running, listener, http, mut signals, role, config } = self;
        let presence = Presence::default();
        let clients = running.clients().clone();
        let fronts = Fronts::new(running.service(), presence.clone(), clients.clone(), config.isolation_minimum);
        clients.spawn("accept fronts", OnEnd::Ignore, fronts.accept(listener));
        if let Some(http) = http {
            tracing::info!(address = %http.address(), "serving HTTP");
            clients.spawn("HTTP", OnEnd::Ignore, http.run(running.http_services(), clients.token()));
        }
        let why = tokio::select! {
            () = signals.next() => "signal",
            () = running.failed() => "a part of the process ended",
            () = unneeded(role, &config, &presence, &running) => "nobody needs it",
        };
        tracing::info!(why, "stopping");
        tokio::select! {
            () = running.stop(why) => {}
            () = signals.next() => tracing::warn!("a second signal: ending at once"),
        }
    }
}

/// HTTP is for servers that an operator starts: one that is started on demand ends when no front needs it.
async fn bind_http(
    config: &Config,
    role: Role,
    authenticator: &Authenticator,
) -> Result<Option<HttpServer>, HttpError> {
    match (role, &config.http) {
        (Role::Explicit, Some(http)) => HttpServer::bind(http.clone(), authenticator.clone()).await.map(Some),
        (Role::Explicit, None) | (Role::OnDemand, _) => Ok(None),
    }
}

/// Waits until a server that was started on demand is no longer needed; for ever for any other.
async fn unneeded(role: Role, config: &Config, presence: &Presence, running: &Running) {
    match role {
        Role::OnDemand => presence.idle(config.linger, || running.running_tasks()).await,
        Role::Explicit => CancellationToken::new().cancelled().await,
    }
}
