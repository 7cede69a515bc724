//! Starting the user's one server when there is none.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::process::Command;

use super::{FrontError, FrontRequest};
use crate::server::state_dir::StateDir;

/// How long a server may take to be ready, and another front to start one.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// The most that a server can say about why it did not start, in bytes.
const WHY_BYTES_MAX: u64 = 16 << 10;
/// From this size on, the file with a server's stderr begins anew, in bytes.
const STDERR_BYTES_MAX: u64 = 1 << 20;
/// What a server writes when fronts may connect.
pub(crate) const READY: &str = "ready\n";

/// Why no server could be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process could not be made.
    #[error("the server's process could not be started")]
    Spawn(#[source] io::Error),
    /// It ended, or said why it could not serve.
    #[error("the server did not start: {why}")]
    NotReady {
        /// Its own words, or where to look.
        why: String,
    },
    /// It took too long.
    #[error("the server was not ready within {} seconds; see {}", START_PATIENCE.as_secs(), .log.display())]
    TooSlow {
        /// Its stderr.
        log: PathBuf,
    },
}

/// A connection to the server, which is started if there is none. One front at a time starts one.
pub(super) async fn connect_or_start(request: &FrontRequest, state: &StateDir) -> Result<UnixStream, FrontError> {
    if let Some(stream) = connect(&state.front_socket()).await? {
        return Ok(stream);
    }
    let starting = state.lock_starting(START_PATIENCE).await?;
    // Another front may have started it while this one waited for the lock.
    if let Some(stream) = connect(&state.front_socket()).await? {
        return Ok(stream);
    }
    start(request, state).await?;
    drop(starting);
    let stream = connect(&state.front_socket()).await?;
    stream.ok_or_else(|| FrontError::Start(StartError::NotReady { why: "it ended at once".to_owned() }))
}

async fn connect(socket: &Path) -> Result<Option<UnixStream>, FrontError> {
    match UnixStream::connect(socket).await {
        Ok(stream) => Ok(Some(stream)),
        // Refused: the socket of a server that was killed.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) => Err(FrontError::Talk(error)),
    }
}

async fn start(request: &FrontRequest, state: &StateDir) -> Result<(), StartError> {
    let log = state.logs_dir().join("server.err");
    let stderr = open_stderr(&state.logs_dir(), &log).map_err(StartError::Spawn)?;
    let exe = std::env::current_exe().map_err(StartError::Spawn)?;
    let mut command = Command::new(exe);
    command.args(["serve", "--on-demand", "--state-dir"]).arg(state.path());
    if let Some(file) = &request.config.file {
        command.arg("--config").arg(file);
    }
    for (flag, value) in request.flags.values.iter().filter(|(flag, _)| **flag != "--state-dir") {
        command.arg(flag).arg(value);
    }
    command.env_clear().envs(request.environment.reduced()).current_dir("/");
    // The server's stdout is the pipe on which it says that it is ready; it closes it then.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    let mut child = command.spawn().map_err(StartError::Spawn)?;
    let stdout = child.stdout.take().expect("a pipe was asked for");
    let mut said = String::new();
    let mut stdout = stdout.take(WHY_BYTES_MAX);
    match tokio::time::timeout(START_PATIENCE, stdout.read_to_string(&mut said)).await {
        Ok(Ok(_)) if said == READY => Ok(()),
        Ok(Ok(_)) if !said.trim().is_empty() => Err(StartError::NotReady { why: said.trim().to_owned() }),
        Ok(_) => Err(StartError::NotReady { why: format!("it ended; see {}", log.display()) }),
        Err(_elapsed) => {
            // It would hold the lock without ever serving.
            let _gone = child.start_kill();
            Err(StartError::TooSlow { log })
        }
    }
}

fn open_stderr(dir: &Path, log: &Path) -> io::Result<File> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let file = File::options().append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(log)?;
    if file.metadata()?.len() > STDERR_BYTES_MAX {
        file.set_len(0)?;
    }
    Ok(file)
}
