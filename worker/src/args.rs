//! The command line of the worker.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

/// A worker of CodeGen-MCP: runs the code of sessions in sandboxes.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(
    name = "worker",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "With --coordinator it joins a coordinator on another host and serves it until SIGTERM, which lets running \
        tasks end first; a second SIGTERM ends them. A coordinator starts its embedded worker by itself.\n\n\
        pip is told of package indexes by PACKAGE_INDEXES, PACKAGE_HOSTS, PIP_INDEX_URL, HTTPS_PROXY, HTTP_PROXY, NO_PROXY \
        and PIP_CERT. No variable of this process reaches a sandbox."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub remote: RemoteArgs,

    /// Serve the coordinator that started this process: a start message is read from standard input, whose end stops
    /// the worker at once
    #[arg(long)]
    pub embedded: bool,

    /// Serve as the start message on standard input says, as the worker asks of itself
    #[arg(long, hide = true)]
    pub joined: bool,

    /// Make a sandbox, look for interpreters, print what was found as JSON and exit
    #[arg(long)]
    pub probe: bool,

    /// Draw the picture of this media type that comes on standard input, as the worker asks of itself
    #[arg(long, value_name = "MIME", hide = true)]
    pub render: Option<String>,

    /// Directories to search for interpreters, separated by colons [default: PATH]
    #[arg(long, value_name = "DIRS")]
    pub search_path: Option<OsString>,
}

/// What it can be asked to do instead of serving.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum Command {
    /// Say how sessions would be isolated here, layer by layer, as `coordinator doctor` does, and with what programs run
    Doctor {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// How a worker joins a coordinator on another host.
#[derive(Debug, Clone, Default, PartialEq, Eq, ClapArgs)]
pub(crate) struct RemoteArgs {
    /// Where the coordinator takes workers [env: COORDINATOR_ADDR]
    #[arg(long, value_name = "HOST:PORT")]
    pub coordinator: Option<String>,

    /// The file with the token that lets this worker join, for nobody else to read; a certificate that names the worker
    /// may stand for it [env: WORKER_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// The name of this worker among those of its coordinator [default: the host's name] [env: WORKER_ID]
    #[arg(long, value_name = "NAME")]
    pub worker_id: Option<String>,

    /// How many sessions may be open at once [default: 64] [env: MAX_SESSIONS]
    #[arg(long, value_name = "COUNT")]
    pub max_sessions: Option<String>,

    /// How many of them where isolation is reduced, so that they share one user id [default: 1] [env: REDUCED_SESSIONS]
    #[arg(long, value_name = "COUNT")]
    pub reduced_sessions: Option<String>,

    /// Where workspaces are kept [default: $XDG_STATE_HOME/codegen-mcp/worker or ~/.local/state/codegen-mcp/worker]
    /// [env: BASE_WORKSPACE]
    #[arg(long, value_name = "DIR")]
    pub base_workspace: Option<PathBuf>,

    /// Below this isolation no session is run: reduced, portable or full [default: full] [env: ISOLATION_MINIMUM]
    #[arg(long, value_name = "LEVEL")]
    pub isolation_minimum: Option<String>,

    /// A label by which sessions can ask for this worker; may be repeated [env: WORKER_LABELS, separated by commas]
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,

    /// What is logged to standard error: error, warn, info, debug or trace [default: info] [env: LOG_LEVEL]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// The authority whose certificate the coordinator must have, a PEM file; the coordinator is then spoken to with TLS
    /// [env: TLS_CA]
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,

    /// The certificate that the worker shows, a PEM file [env: TLS_CERT]
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// The private key of the certificate, a PEM file [env: TLS_KEY]
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Have the coordinator dial this address, instead of dialling it [env: WORKER_ADVERTISE]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,

    /// Where to listen for it [default: the advertised port, at every address] [env: WORKER_LISTEN]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,

    /// How long running tasks may go on after SIGTERM [default: 30s] [env: DRAIN_TIMEOUT]
    #[arg(long, value_name = "DURATION")]
    pub drain_timeout: Option<String>,

    /// Speak to a coordinator on another host without TLS: whoever is in between reads and changes everything
    #[arg(long)]
    pub insecure_plaintext: bool,
}
