//! The front: the process that an MCP client starts and knows. It hands its client's streams to the user's one server
//! and stays until the server says good-bye.
//!
//! It ends with 0 when the client closed its side or the front was asked to stop (SIGTERM, SIGINT), and with 1 and a
//! reason on stderr when the server was lost or did not take the client.

pub mod handover;
mod start;

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

use tokio::net::UnixStream;

use crate::config::{Config, Environment, Flags, GrpcListen};
use crate::server::signals::Signals;
use crate::server::state_dir::{StateDir, StateDirError};
use handover::{End, Header, PROTOCOL, Replies, Reply, VERSION};
pub(crate) use start::READY;
pub use start::StartError;

/// How long a front that was asked to stop waits for the server to finish with its client.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// How often a server that ends just then is looked for anew.
const ATTEMPTS_MAX: u32 = 5;

/// What a client's process was asked to do.
#[derive(Debug, Clone)]
pub struct FrontRequest {
    /// The configuration, resolved.
    pub config: Config,
    /// What was given on the command line; a server that is started gets the same.
    pub flags: Flags,
    /// The environment, of which a server that is started gets what it needs.
    pub environment: Environment,
    /// Whether the client's stderr gets diagnostics.
    pub debug: bool,
}

/// Why the client is not served.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// No server could be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The server did not take the client.
    #[error("the server refused this client: {0}")]
    Refused(String),
    /// The server went away before it took the client, again and again.
    #[error("no server stayed long enough to take this client")]
    NoServer,
    /// Talking to the server failed.
    #[error("talking to the server failed")]
    Talk(#[source] io::Error),
    /// The server is gone, and with it the connection; sessions and files are kept.
    #[error("the server is gone; start again to go on with the same sessions")]
    Lost,
    /// The server ends.
    #[error("the server was stopped; start again to go on with the same sessions")]
    ServerStopping,
    /// The connection broke on the server's side.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// How a front came to its end.
#[derive(Debug)]
pub enum FrontEnd {
    /// The client closed its side, or the front was asked to stop.
    Done,
    /// The running server is of another release: this process is to serve the client alone, with this configuration.
    ServeAlone(Box<Config>),
}

/// Serves the client on this process's standard streams until it or the server ends.
pub async fn run(request: FrontRequest) -> Result<FrontEnd, FrontError> {
    hint_to_people();
    let mut signals = Signals::listen(None).map_err(FrontError::Talk)?;
    let taken = tokio::select! {
        taken = hand_over(&request) => taken?,
        () = signals.next() => return Ok(FrontEnd::Done),
    };
    match taken {
        Taken::Served(replies) => attend(replies, signals).await,
        Taken::OtherVersion(version) => Ok(FrontEnd::ServeAlone(Box::new(alone(request.config, &version)))),
    }
}

/// Who took the client.
enum Taken {
    Served(Replies<UnixStream>),
    OtherVersion(String),
}

/// Finds the server, starts it if there is none, and gives it the client.
async fn hand_over(request: &FrontRequest) -> Result<Taken, FrontError> {
    let state = StateDir::open_or_create(&request.config.state_dir)?;
    for _ in 0..ATTEMPTS_MAX {
        let stream = start::connect_or_start(request, &state).await?;
        match offer(request, stream).await {
            Ok(Some(taken)) => return Ok(taken),
            // The server was just ending; the next attempt waits for it and starts another.
            Ok(None) => {}
            Err(FrontError::Talk(error)) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Err(FrontError::NoServer)
}

async fn offer(request: &FrontRequest, stream: UnixStream) -> Result<Option<Taken>, FrontError> {
    let header = Header {
        protocol: PROTOCOL,
        version: VERSION.to_owned(),
        pid: std::process::id(),
        debug: request.debug,
        tool_names: request.config.tool_names,
        isolation_minimum: request.config.isolation_minimum,
    };
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    handover::send(&stream, &header, streams).await.map_err(FrontError::Talk)?;
    let mut replies = Replies::new(stream);
    match replies.next().await.map_err(FrontError::Talk)? {
        Some(Reply::Accepted) => Ok(Some(Taken::Served(replies))),
        Some(Reply::OtherVersion { version }) => Ok(Some(Taken::OtherVersion(version))),
        Some(Reply::Refused { why }) => Err(FrontError::Refused(why)),
        Some(Reply::Bye { .. }) | None => Ok(None),
    }
}

/// Waits for the end: the server's good-bye, its loss, or a signal.
async fn attend(mut replies: Replies<UnixStream>, mut signals: Signals) -> Result<FrontEnd, FrontError> {
    let reply = tokio::select! {
        reply = replies.next() => reply,
        () = signals.next() => {
            // The end of our side asks the server to stop serving the client.
            let told = replies.finish().await;
            let finished = async { told.and(replies.next().await) };
            let _either_way = tokio::time::timeout(STOP_PATIENCE, finished).await;
            return Ok(FrontEnd::Done);
        }
    };
    match reply {
        Ok(Some(Reply::Bye { end: End::ClientClosed })) => Ok(FrontEnd::Done),
        Ok(Some(Reply::Bye { end: End::ServerStopping })) => Err(FrontError::ServerStopping),
        Ok(Some(Reply::Bye { end: End::Failed(why) })) => Err(FrontError::Broken(why)),
        Ok(Some(Reply::Accepted | Reply::OtherVersion { .. } | Reply::Refused { .. }) | None) => Err(FrontError::Lost),
        Err(error) if is_gone(&error) => Err(FrontError::Lost),
        Err(error) => Err(FrontError::Talk(error)),
    }
}

/// The configuration with which a client is served alone: with a state directory for this release.
fn alone(mut config: Config, server_version: &str) -> Config {
    let state_dir = config.state_dir.join(format!("v{VERSION}"));
    eprintln!(
        "coordinator: a server of version {server_version} runs, this is version {VERSION}; serving this client alone, \
         with sessions of its own in {}",
        state_dir.display()
    );
    config.state_dir = state_dir;
    // The other server has the port, most likely; this client can do without.
    if let GrpcListen::Chosen(address) = config.grpc.listen {
        config.grpc.listen = GrpcListen::Default(address);
    }
    config
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotConnected)
}

/// Somebody who types the command learns what it is for; a client is told nothing.
pub fn hint_to_people() {
    if !io::stdin().is_terminal() {
        return;
    }
    let me = std::env::current_exe().unwrap_or_else(|_| "coordinator".into());
    let example = serde_json::json!({"mcpServers": {"codegen": {"command": me, "args": []}}});
    eprintln!(
        "coordinator {VERSION}: an MCP server that reads JSON-RPC lines from a client on stdin.\n\
         It is usually started by that client; in its configuration, for instance:\n  {example}\n\
         Other commands: `coordinator doctor`, `coordinator config show`, `coordinator audit verify`, \
         `coordinator --help`.\nWaiting for a client's messages here now; Ctrl-D or Ctrl-C ends it."
    );
}
