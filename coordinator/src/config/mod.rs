//! Configuration: flags, environment and a TOML file, in that order of precedence, with the source of each value.

mod admission;
mod egress;
mod grpc;
mod http;
mod layers;
mod oauth;
mod packages;
mod provision;
mod settings;
mod values;
mod workers;

use std::path::PathBuf;
use std::time::Duration;

use codegen_types::{IsolationLevel, Limits, PackageAccess};
use coordinator_core::egress::PermittedHosts;
use coordinator_core::quota::Quotas;

use crate::admission::Rates;
use crate::identity::{IssuerConfig, Requirement};
use crate::telemetry::traces::TraceOptions;

pub use egress::SecretsWorkers;
pub use grpc::{GrpcConfig, GrpcListen, Plaintext, Reflection};
pub use http::{AllowedHost, AllowedOrigin, HttpBounds, HttpConfig, Patience, TlsFiles};
pub use layers::{ConfigError, Environment, Flags, Source};
use layers::{Layers, Row};
pub use provision::Provision;
pub use settings::{KEYS, Key};
pub use values::{EmbeddedWorker, LogLevel, ToolNames};
pub use workers::WorkerTimes;

/// Everything the coordinator can be told, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// How much is written to the diagnostic files.
    pub log_level: LogLevel,
    /// Where everything that outlives the process is kept.
    pub state_dir: PathBuf,
    /// Where workspaces are kept; below the state directory when absent.
    pub base_workspace: Option<PathBuf>,
    /// Idle time after which a session's processes are ended.
    pub session_max_age: Duration,
    /// How often expired sessions are looked for.
    pub cleanup_interval: Duration,
    /// How long the files of a session that nobody uses are kept.
    pub workspace_retention: Duration,
    /// Bytes that the files of all sessions that nobody uses may take together.
    pub workspace_retention_bytes: u64,
    /// How long workers are waited for.
    pub worker_times: WorkerTimes,
    /// How long a server that was started on demand stays after its last client and task.
    pub linger: Duration,
    /// A call that runs so long is answered with its task.
    pub yield_after: Duration,
    /// Where workers register.
    pub grpc: GrpcConfig,
    /// Whether the server has a worker of its own.
    pub embedded_worker: EmbeddedWorker,
    /// Who starts other workers.
    pub provision: Provision,
    /// How HTTP is served, if it is.
    pub http: Option<HttpConfig>,
    /// Whether requests over HTTP need credentials.
    pub http_auth: Requirement,
    /// Whose tokens are let in over HTTP besides our own.
    pub oauth: Option<IssuerConfig>,
    /// The file with the rules of which calls are allowed, if there is one.
    pub policy: Option<PathBuf>,
    /// Sessions that may be open at once.
    pub max_sessions: u32,
    /// How many of them where isolation is reduced, so that they share one user id.
    pub reduced_sessions: u32,
    /// Below this isolation no session is run.
    pub isolation_minimum: IsolationLevel,
    /// How package indexes are reached.
    pub packages: PackageAccess,
    /// Which hosts sessions may reach.
    pub egress: PermittedHosts,
    /// Which workers are told the operator's secrets.
    pub secrets_workers: SecretsWorkers,
    /// Where traces go, if they are made.
    pub traces: Option<TraceOptions>,
    /// How tools are listed.
    pub tool_names: ToolNames,
    /// How often each principal may call.
    pub rates: Rates,
    /// How much each principal may use.
    pub quotas: Quotas,
    /// What each session and task may use.
    pub limits: Limits,
    /// Where interpreters are looked for, separated by colons: this process's `PATH`. The worker's own choice when absent.
    pub search_path: Option<String>,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    rows: Vec<Row>,
}

/// One value as `config show` prints it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Shown {
    /// The name in the configuration file.
    pub name: String,
    /// The value, as it could be written there.
    pub value: String,
    /// Where it comes from.
    pub source: String,
}

impl Config {
    /// Reads and checks the configuration. Fails on the first value that is not allowed, and names it.
    pub fn load(flags: &Flags, environment: &Environment) -> Result<Self, ConfigError> {
        let mut layers = Layers::read(flags, environment)?;
        let state_dir = match layers.get(&settings::STATE_DIR, values::directory)? {
            Some(dir) => dir,
            None => layers.fallback(&settings::STATE_DIR, environment.default_state_dir()?),
        };
        let tls = http::tls_files(&mut layers)?;
        let grpc = grpc::read(&mut layers, tls.clone())?;
        let provision = provision::read(&mut layers, &grpc, &state_dir)?;
        let config = Self {
            log_level: layers.require(&settings::LOG_LEVEL, values::log_level)?,
            state_dir,
            base_workspace: layers.get(&settings::BASE_WORKSPACE, values::directory)?,
            session_max_age: layers.require(&settings::SESSION_MAX_AGE, values::seconds(1, 30 * DAY))?,
            cleanup_interval: layers.require(&settings::CLEANUP_INTERVAL, values::seconds(1, DAY))?,
            workspace_retention: layers.require(&settings::WORKSPACE_RETENTION, values::seconds(60, 3650 * DAY))?,
            workspace_retention_bytes: layers
                .require(&settings::WORKSPACE_RETENTION_BYTES, values::bytes(1 << 20, 1 << 50))?,
            worker_times: workers::read(&mut layers)?,
            linger: layers.require(&settings::LINGER, values::seconds(0, DAY))?,
            yield_after: layers.require(&settings::YIELD_AFTER, values::seconds(1, 3600))?,
            secrets_workers: egress::secrets_workers(&mut layers, grpc.plaintext)?,
            grpc,
            embedded_worker: layers.require(&settings::EMBEDDED_WORKER, values::embedded_worker)?,
            provision,
            http: http::read(&mut layers, tls)?,
            http_auth: layers.require(&settings::HTTP_AUTH, values::requirement)?,
            oauth: oauth::read(&mut layers)?,
            policy: layers.get(&settings::POLICY, values::directory)?,
            max_sessions: layers.require(&settings::MAX_SESSIONS, values::count(1, 4096))?,
            reduced_sessions: layers.require(&settings::REDUCED_SESSIONS, values::count(1, 4096))?,
            isolation_minimum: layers.require(&settings::ISOLATION_MINIMUM, values::isolation)?,
            packages: packages::access(&mut layers, environment)?,
            egress: egress::read(&mut layers)?,
            traces: traces(&mut layers)?,
            tool_names: layers.require(&settings::TOOL_NAMES, values::tool_names)?,
            rates: admission::rates(&mut layers)?,
            quotas: admission::quotas(&mut layers)?,
            limits: layers.limits()?,
            search_path: environment.search_path().and_then(|path| path.to_str()).map(str::to_owned),
            file: layers.file().map(PathBuf::from),
            rows: layers.into_rows(),
        };
        Ok(config)
    }

    /// Every value with its source, in the order of the table of settings.
    pub fn show(&self) -> Vec<Shown> {
        self.rows
            .iter()
            .map(|row| Shown { name: row.name.clone(), value: row.value.clone(), source: row.source.to_string() })
            .collect()
    }
}

const DAY: u64 = 24 * 3600;

fn traces(layers: &mut Layers) -> Result<Option<TraceOptions>, ConfigError> {
    let endpoint = layers.get(&settings::OTLP_ENDPOINT, values::collector)?;
    let ratio = layers.require(&settings::TRACE_RATIO, values::ratio)?;
    Ok(endpoint.map(|endpoint| TraceOptions { endpoint, ratio }))
}

#[cfg(test)]
mod tests;
