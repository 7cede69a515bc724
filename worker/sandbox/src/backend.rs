//! The seam between a worker and whatever isolates its sessions.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::net::TcpListener;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use codegen_types::{ErrorCode, Failure, IsolationReport, Limits, WorkspacePath};
use serde::{Deserialize, Serialize};

use crate::child::Child;

/// A future that can cross threads, as trait objects need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes sandboxes.
pub trait Backend: Send + Sync + 'static {
    /// What a probe at start found: the level that sandboxes of this backend have, and every layer.
    fn report(&self) -> &IsolationReport;

    /// Makes the sandbox of one session. Refuses with [`SandboxError::Unavailable`] rather than make a weaker one.
    fn open(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, SandboxError>>;

    /// The user ids under which something may still run: those of all sandboxes that are not known to be gone, destroyed or
    /// not.
    fn held(&self) -> BTreeSet<u32> {
        BTreeSet::new()
    }

    /// Waits until this backend can make no sandbox any more, and never will.
    fn lost(&self) -> BoxFuture<'_, ()>;
}

/// The isolated environment of one session.
pub trait Sandbox: Send + Sync {
    /// The layers that this sandbox really has.
    fn report(&self) -> &IsolationReport;

    /// Where programs find the workspace and room for temporary files.
    fn places(&self) -> &Places;

    /// Starts a program under a supervisor of its own, and returns when it runs. An error means that it never did; where
    /// the sandbox died meanwhile, nobody knows, and waiting for the child's end says so.
    fn spawn(&self, spawn: Spawn) -> BoxFuture<'_, Result<Child, SandboxError>>;

    /// Starts a long-lived program without a supervisor (the prepared interpreter) and returns its process id inside.
    /// Its end is seen where one of its extra sockets ends.
    fn spawn_bare(&self, spawn: Spawn) -> BoxFuture<'_, Result<u32, SandboxError>>;

    /// The child of a supervisor that the prepared interpreter forked, by the worker's end of its control socket. Its
    /// end says whether the memory limit was hit, as that of [`spawn`](Self::spawn) does.
    fn adopt(&self, ctl: OwnedFd) -> io::Result<Child> {
        Child::from_ctl(ctl)
    }

    /// The socket at which programs inside find the worker's proxy, where one was asked for; given once.
    fn proxy_listener(&self) -> Option<TcpListener> {
        None
    }

    /// Kills everything inside and waits until it is gone, but not for ever; gives the number of processes that were killed.
    /// What does not die has its user id [held](Backend::held).
    fn destroy(&self) -> BoxFuture<'_, u32>;

    /// Waits until the sandbox is gone and says why. May be called by many, and again.
    fn ended(&self) -> BoxFuture<'_, SandboxEnd>;
}

/// Where programs of a sandbox find what is theirs, by absolute paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// The session's workspace.
    pub workspace: PathBuf,
    /// Room for temporary files, which goes with the sandbox.
    pub scratch: PathBuf,
}

impl Places {
    /// Those of a sandbox with a root of its own.
    pub fn on_own_root() -> Self {
        Self { workspace: PathBuf::from("/workspace"), scratch: PathBuf::from("/tmp") }
    }
}

/// What the sandbox of a session is made of.
#[derive(Debug)]
pub struct SandboxSpec {
    /// The session's workspace, a directory.
    pub workspace: OwnedFd,
    /// What it may use.
    pub limits: Limits,
    /// Trees to show read-only beside the system's own (`/usr`, `/lib` ...), such as the prefix of an interpreter.
    pub system_paths: Vec<PathBuf>,
    /// The host's user id of this session; a worker that is root must name one, others cannot.
    pub uid: Option<u32>,
    /// How programs find the worker's proxy, if there is to be one.
    pub proxy: Option<ProxySpec>,
}

/// A proxy that programs find at [`PROXY_PORT`] of their loopback interface.
#[derive(Debug)]
pub struct ProxySpec {
    /// Certificates (PEM) to show at [`PROXY_CERTIFICATES`], from the beginning of this file.
    pub certificates: Option<OwnedFd>,
}

/// Where programs find the worker's proxy.
pub const PROXY_PORT: u16 = 3128;
/// Where programs find the certificates to trust, when the proxy has some of its own.
pub const PROXY_CERTIFICATES: &str = "/etc/proxy-certificates.pem";

/// A program to start inside a sandbox.
#[derive(Debug)]
pub struct Spawn {
    /// The program, by its absolute path inside, and its arguments.
    pub argv: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory below the workspace.
    pub cwd: WorkspacePath,
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
    /// Further descriptors, each with the number it has inside (3 to 63).
    pub extra: Vec<(OwnedFd, RawFd)>,
}

/// Why a sandbox is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxEnd {
    /// It was destroyed on purpose.
    Destroyed,
    /// It used more memory than it may.
    MemoryLimit,
    /// Its init or the launcher ended unexpectedly.
    Crashed,
}

/// Why a sandbox could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The isolation asked for is not to be had here; nothing was run.
    #[error("no sandbox: {why}")]
    Unavailable {
        /// The step or layer that is missing, and the remedy.
        why: String,
    },
    /// The launcher process is gone, and every sandbox with it.
    #[error("the process that makes sandboxes is gone")]
    LauncherLost,
    /// This sandbox is gone.
    #[error("the sandbox is gone")]
    Gone,
    /// The request itself cannot be carried out.
    #[error("the sandbox refused the request: {why}")]
    Refused {
        /// What is wrong with it.
        why: String,
    },
    /// The program could not be started.
    #[error("the program did not start: {step}")]
    NotStarted {
        /// The step that failed.
        step: String,
        /// Why.
        source: io::Error,
    },
    /// A socket to the launcher or to the sandbox failed.
    #[error("the channel to the sandbox failed")]
    Channel(#[source] io::Error),
}

impl SandboxError {
    /// The failure as a client may read it.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Unavailable { .. } => {
                Failure::new(ErrorCode::IsolationUnavailable, format!("{self}. Nothing was run."))
            }
            Self::NotStarted { step, source } if source.raw_os_error() == Some(libc::EAGAIN) => Failure::new(
                ErrorCode::ProcessLimit,
                format!(
                    "The session has as many processes as it may ({step}), so nothing was run. End some of them and call again."
                ),
            ),
            Self::NotStarted { source, .. } => Failure::new(
                ErrorCode::InvalidArgument,
                format!("{self}: {source}. Check the arguments and directory."),
            ),
            Self::Refused { .. } => Failure::new(ErrorCode::InvalidArgument, format!("{self}.")),
            Self::LauncherLost | Self::Gone | Self::Channel(_) => {
                let message = format!("{self}, so nothing was run. Call again: the session gets a new sandbox.");
                Failure::new(ErrorCode::Internal, message)
            }
        }
    }
}
