//! What a remote worker was told, by flags and then the environment, checked and put into a start message.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use codegen_types::{IsolationLevel, Limits, WorkerId};

use super::{packages, token};
use crate::args::Args;
use crate::link::{Address, tls};
use crate::runtimes::find::SYSTEM_PATH;
use crate::start::{AdvertiseStart, RemoteStart, StartMessage, TlsPair, TlsStart};

/// Sessions at once, when nobody says otherwise.
const SESSIONS_DEFAULT: u32 = 64;
/// The most sessions that may be asked for.
const SESSIONS_MAX: u32 = 4_096;
/// How long running tasks may go on after SIGTERM, when nobody says otherwise, in milliseconds.
const DRAIN_DEFAULT_MS: u64 = 30_000;
/// The longest label or value of one, in bytes.
const LABEL_BYTES_MAX: usize = 256;
/// The most labels.
const LABELS_MAX: usize = 64;
/// The name that a coordinator's own worker has.
const EMBEDDED: &str = "embedded";

/// A setting that is missing or not allowed.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {why}")]
pub(crate) struct Refused {
    /// The flag and the variable.
    name: &'static str,
    /// What is wrong, and what is allowed.
    why: String,
}

pub(super) fn refused(name: &'static str, why: impl Into<String>) -> Refused {
    Refused { name, why: why.into() }
}

/// The variables of a process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// The first of these variables that is set, not empty, and text.
    pub fn first(&self, names: &[&str]) -> Option<String> {
        let value = |name: &&str| self.0.get(&OsString::from(name))?.to_str().map(str::to_owned);
        names.iter().filter_map(value).find(|value| !value.is_empty())
    }

    fn directory(&self, name: &str) -> Option<PathBuf> {
        self.first(&[name]).map(PathBuf::from).filter(|path| path.is_absolute())
    }
}

/// The start message of a worker with these arguments.
pub(crate) fn resolve(args: Args, environment: &Environment) -> Result<StartMessage, Refused> {
    let remote = args.remote;
    let setting = |given: Option<String>, variable: &str| given.or_else(|| environment.first(&[variable]));
    let coordinator = setting(remote.coordinator, "COORDINATOR_ADDR")
        .ok_or_else(|| refused("--coordinator (COORDINATOR_ADDR)", "say where the coordinator is, as `host:50050`"))?;
    let path = |given: Option<PathBuf>, variable: &str| setting_path(given, environment, variable);
    let files = [path(remote.tls_ca, "TLS_CA"), path(remote.tls_cert, "TLS_CERT"), path(remote.tls_key, "TLS_KEY")];
    let tls = tls_files(files)?;
    check_address(&coordinator, tls.is_some() || remote.insecure_plaintext)?;
    let advertised = setting(remote.advertise, "WORKER_ADVERTISE");
    let advertise = advertise(advertised, setting(remote.listen, "WORKER_LISTEN"))?;
    check_tls(tls.as_ref(), advertise.as_ref(), remote.insecure_plaintext)?;
    let token_file = path(remote.token_file, "WORKER_TOKEN_FILE");
    check_proof(token_file.as_deref(), tls.as_ref())?;
    let drain_ms = drain_ms(setting(remote.drain_timeout, "DRAIN_TIMEOUT"))?;
    let base_workspace = match setting_path(remote.base_workspace, environment, "BASE_WORKSPACE") {
        Some(base) => base,
        None => default_base(environment)?,
    };
    let labels = match remote.labels {
        labels if labels.is_empty() => environment.first(&["WORKER_LABELS"]).into_iter().collect(),
        labels => labels,
    };
    Ok(StartMessage {
        token: None,
        coordinator,
        worker_id: worker_id(setting(remote.worker_id, "WORKER_ID"))?,
        base_workspace,
        closed_above: Vec::new(),
        sessions_max: sessions_max(MAX_SESSIONS, setting(remote.max_sessions, "MAX_SESSIONS"), SESSIONS_DEFAULT)?,
        reduced_sessions: sessions_max(REDUCED_SESSIONS, setting(remote.reduced_sessions, "REDUCED_SESSIONS"), 1)?,
        isolation_minimum: isolation(setting(remote.isolation_minimum, "ISOLATION_MINIMUM"))?,
        log_level: log_level(setting(remote.log_level, "LOG_LEVEL"))?,
        search_path: search_path(args.search_path, environment),
        spare_limits: Some(Limits::default()),
        packages: packages::access(environment)?,
        remote: Some(RemoteStart { token_file, labels: parse_labels(&labels)?, tls, advertise, drain_ms }),
    })
}

/// Without TLS only this machine is spoken to, unless the operator said otherwise.
fn check_address(text: &str, may_leave: bool) -> Result<(), Refused> {
    const NAME: &str = "--coordinator (COORDINATOR_ADDR)";
    let address: Address = text.parse().map_err(|error: crate::InvalidAddress| refused(NAME, error.to_string()))?;
    if address.is_local() || may_leave {
        return Ok(());
    }
    Err(refused(
        NAME,
        format!(
            "{text} is not on this machine and would be spoken to without TLS: give --tls-ca, or permit it with --insecure-plaintext"
        ),
    ))
}

/// An authority, and certificate and key or neither.
fn tls_files([authority, certificate, key]: [Option<PathBuf>; 3]) -> Result<Option<TlsStart>, Refused> {
    let pair = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsPair { certificate, key }),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(refused("--tls-cert, --tls-key (TLS_CERT, TLS_KEY)", "one is of no use without the other"));
        }
    };
    match (authority, pair) {
        (Some(authority), pair) => Ok(Some(TlsStart { authority, pair })),
        (None, None) => Ok(None),
        (None, Some(_)) => {
            Err(refused("--tls-ca (TLS_CA)", "say by which authority the coordinator's certificate is checked"))
        }
    }
}

/// Said now, to whoever started it, rather than later in a log.
fn check_tls(
    tls: Option<&TlsStart>,
    advertise: Option<&AdvertiseStart>,
    plaintext_anywhere: bool,
) -> Result<(), Refused> {
    const NAME: &str = "--tls-ca, --tls-cert, --tls-key";
    if let Some(pair) = tls.and_then(|files| files.pair.as_ref()) {
        token::check_private(&pair.key).map_err(|error| refused("--tls-key (TLS_KEY)", chain(&error)))?;
    }
    match (tls, advertise) {
        (Some(files), advertise) => {
            tls::check(files, advertise.is_some()).map_err(|error| refused(NAME, chain(&error)))
        }
        (None, Some(AdvertiseStart { listen, .. })) if !listen.ip().is_loopback() && !plaintext_anywhere => {
            let why = format!(
                "{listen} can be reached from elsewhere, without TLS: give --tls-cert and --tls-key, or permit it with --insecure-plaintext"
            );
            Err(refused("--advertise (WORKER_ADVERTISE)", why))
        }
        (None, _) => Ok(()),
    }
}

/// A token that can be read, or a certificate.
fn check_proof(token_file: Option<&Path>, tls: Option<&TlsStart>) -> Result<(), Refused> {
    const NAME: &str = "--token-file (WORKER_TOKEN_FILE)";
    match token_file {
        Some(path) => token::read(path).map(drop).map_err(|error| refused(NAME, chain(&error))),
        None if tls.is_some_and(|files| files.pair.is_some()) => Ok(()),
        None => Err(refused(NAME, "name the file with the token of `coordinator tokens create --role worker`")),
    }
}

fn advertise(address: Option<String>, listen: Option<String>) -> Result<Option<AdvertiseStart>, Refused> {
    const NAME: &str = "--advertise (WORKER_ADVERTISE)";
    let Some(address) = address else { return Ok(None) };
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse().ok());
    let port: u16 = port.filter(|port| *port != 0).ok_or_else(|| refused(NAME, "not HOST:PORT"))?;
    let listen = match listen {
        None => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        Some(text) => text.parse().map_err(|_| refused("--listen (WORKER_LISTEN)", "not ADDRESS:PORT"))?,
    };
    Ok(Some(AdvertiseStart { address, listen }))
}

/// The longest that running tasks may be waited for: a day.
fn drain_ms(given: Option<String>) -> Result<u64, Refused> {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let Some(text) = given else { return Ok(DRAIN_DEFAULT_MS) };
    let parsed = humantime::parse_duration(&text).ok().filter(|duration| *duration <= DAY);
    let duration =
        parsed.ok_or_else(|| refused("--drain-timeout (DRAIN_TIMEOUT)", "a duration such as `30s`, at most 1day"))?;
    Ok(u64::try_from(duration.as_millis()).unwrap_or(DRAIN_DEFAULT_MS))
}

fn setting_path(given: Option<PathBuf>, environment: &Environment, variable: &str) -> Option<PathBuf> {
    let path = given.or_else(|| environment.first(&[variable]).map(PathBuf::from))?;
    Some(std::path::absolute(&path).unwrap_or(path))
}

fn default_base(environment: &Environment) -> Result<PathBuf, Refused> {
    let state = environment.directory("XDG_STATE_HOME");
    let state = state.or_else(|| environment.directory("HOME").map(|home| home.join(".local/state")));
    let base = state.map(|state| state.join("codegen-mcp/worker"));
    let base =
        base.ok_or_else(|| refused("--base-workspace (BASE_WORKSPACE)", "neither XDG_STATE_HOME nor HOME is set"))?;
    make_private(&base).map_err(|error| refused("--base-workspace (BASE_WORKSPACE)", error.to_string()))?;
    Ok(base)
}

fn make_private(base: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(base)
}

fn worker_id(given: Option<String>) -> Result<WorkerId, Refused> {
    const NAME: &str = "--worker-id (WORKER_ID)";
    let text = match given {
        Some(text) => text,
        None => std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
    };
    if text == EMBEDDED {
        return Err(refused(NAME, "`embedded` is the name of a coordinator's own worker"));
    }
    text.parse().map_err(|_| refused(NAME, format!("{text:?} is not 1 to 128 letters, digits, `.`, `_` or `-`")))
}

const MAX_SESSIONS: &str = "--max-sessions (MAX_SESSIONS)";
const REDUCED_SESSIONS: &str = "--reduced-sessions (REDUCED_SESSIONS)";

fn sessions_max(name: &'static str, given: Option<String>, default: u32) -> Result<u32, Refused> {
    let Some(text) = given else { return Ok(default) };
    let number = text.parse().ok().filter(|number| (1..=SESSIONS_MAX).contains(number));
    number.ok_or_else(|| refused(name, format!("a number from 1 to {SESSIONS_MAX}")))
}

fn isolation(given: Option<String>) -> Result<IsolationLevel, Refused> {
    let Some(text) = given else { return Ok(IsolationLevel::Full) };
    let level = text.parse().ok().filter(|level| *level != IsolationLevel::None);
    level.ok_or_else(|| refused("--isolation-minimum (ISOLATION_MINIMUM)", "reduced, portable or full"))
}

fn log_level(given: Option<String>) -> Result<String, Refused> {
    let level = given.unwrap_or_else(|| "info".to_owned()).to_ascii_lowercase();
    if ["error", "warn", "info", "debug", "trace"].contains(&level.as_str()) {
        return Ok(level);
    }
    Err(refused("--log-level (LOG_LEVEL)", "error, warn, info, debug or trace"))
}

fn search_path(given: Option<OsString>, environment: &Environment) -> Option<String> {
    let given = given.and_then(|path| path.into_string().ok()).or_else(|| environment.first(&["PATH"]));
    given.or_else(|| Some(SYSTEM_PATH.to_owned()))
}

fn parse_labels(given: &[String]) -> Result<BTreeMap<String, String>, Refused> {
    const NAME: &str = "--label (WORKER_LABELS)";
    let mut labels = BTreeMap::new();
    for label in given.iter().flat_map(|labels| labels.split(',')).map(str::trim).filter(|label| !label.is_empty()) {
        let (name, value) =
            label.split_once('=').ok_or_else(|| refused(NAME, format!("{label:?} is no NAME=VALUE")))?;
        let fits = |text: &str| text.len() <= LABEL_BYTES_MAX && !text.chars().any(char::is_control);
        if name.is_empty() || !fits(name) || !fits(value) {
            return Err(refused(
                NAME,
                format!("names and values have at most {LABEL_BYTES_MAX} bytes, and a name at least one"),
            ));
        }
        labels.insert(name.to_owned(), value.to_owned());
    }
    if labels.len() > LABELS_MAX {
        return Err(refused(NAME, format!("at most {LABELS_MAX}")));
    }
    Ok(labels)
}

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
