//! Everything in one process, for one client on this process's own standard streams: containers, tests, and fronts of
//! another release than the running server.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use super::assembly::{AssemblyError, Bound};
use super::fronts::Client;
use super::signals::Signals;
use super::state_dir::{LockedStateDir, StandaloneAs, StateDirError};
use crate::config::Config;
use crate::front::handover::{End, Streams};
use crate::reload::Reload;

/// How long running calls may take to end once the process is to stop.
const CALLS_PATIENCE: Duration = Duration::from_secs(10);

/// What to serve, and how.
#[derive(Debug)]
pub struct Standalone {
    /// The configuration. When its state directory is taken, a private one below it is used.
    pub config: Config,
    /// Whether stderr gets diagnostics.
    pub debug: bool,
}

/// Why the client was not served, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum StandaloneError {
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// One of the parts cannot work.
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
    /// The standard streams or signals cannot be used.
    #[error("the standard streams cannot be used")]
    Streams(#[source] io::Error),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// Serves the client until it closes its side or a signal comes.
pub async fn run(standalone: Standalone) -> Result<(), StandaloneError> {
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    let Standalone { config, debug } = standalone;
    let reload = Reload::default();
    let mut signals = Signals::listen(Some(reload.clone())).map_err(StandaloneError::Streams)?;
    let (state, used) = LockedStateDir::standalone(&config.state_dir).await?;
    if let StandaloneAs::Private { why } = used {
        eprintln!("coordinator: {why}; sessions of this client are kept apart, in {}", state.path().display());
    }
    state.remove_sockets();
    let streams = take_streams().map_err(StandaloneError::Streams)?;
    let running = Bound::build(&config, state, &reload).await?.start().await?;
    let service = running.service();
    let cancel = running.clients().token().child_token();
    let client = Client { streams, tool_names: config.tool_names, debug, pid: std::process::id() };
    let serving = service.serve(client, cancel.clone());
    tokio::pin!(serving);
    let end = tokio::select! {
        end = &mut serving => Some(end),
        () = signals.next() => None,
        () = running.failed() => Some(End::Failed("a part of the process ended".to_owned())),
    };
    cancel.cancel();
    let stop = async {
        if end.is_none() && tokio::time::timeout(CALLS_PATIENCE, serving).await.is_err() {
            tracing::warn!("calls were still running when the time to end them was over");
        }
        running.stop("the client is gone").await;
    };
    tokio::select! {
        () = stop => {}
        () = signals.next() => {}
    }
    match end {
        Some(End::Failed(why)) => Err(StandaloneError::Broken(why)),
        Some(End::ClientClosed | End::ServerStopping) | None => Ok(()),
    }
}

/// Takes the process's own streams for the client. What anything else in this process prints goes to stderr from now
/// on, and reading stdin gives nothing.
fn take_streams() -> io::Result<Streams> {
    let streams = Streams {
        stdin: io::stdin().as_fd().try_clone_to_owned()?,
        stdout: io::stdout().as_fd().try_clone_to_owned()?,
        stderr: io::stderr().as_fd().try_clone_to_owned()?,
    };
    rustix::stdio::dup2_stdout(&streams.stderr)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(streams)
}
