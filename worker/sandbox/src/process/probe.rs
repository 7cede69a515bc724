//! The check at start: a throw-away sandbox is really made, and a program really run in it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::PathBuf;
use std::sync::Arc;

use codegen_types::{IsolationReport, Limits, WorkspacePath};

use super::connection::{Connection, OpenError, Wanted};
use super::sandbox::ProcessSandbox;
use crate::backend::{Sandbox, SandboxError, Spawn};
use crate::layers::report;
use crate::protocol::OpenFailure;
use crate::uids::PROBE_UID;

/// What isolation this host gives.
pub(super) async fn probe(connection: &Arc<Connection>) -> Result<IsolationReport, SandboxError> {
    let uid = rustix::process::geteuid().is_root().then_some(PROBE_UID);
    let directory = match ProbeDirectory::make(uid) {
        Ok(directory) => directory,
        Err(error) => return Ok(report::refused(&no_directory(&error))),
    };
    let workspace = fs::File::open(&directory.0).map_err(SandboxError::Channel)?.into();
    let wanted = Wanted { workspace, limits: Limits::default(), system_paths: Vec::new(), uid };
    let sandbox = match ProcessSandbox::make(connection, wanted).await {
        Ok(sandbox) => sandbox,
        Err(OpenError::Refused(failure)) => return Ok(report::refused(&failure)),
        Err(OpenError::Channel(error)) => return Err(error),
    };
    // The sandbox holds it mounted; a worker that is killed from here on leaves nothing behind.
    drop(directory);
    let ran = run_true(&sandbox).await;
    sandbox.destroy().await;
    match ran {
        Ok(()) => Ok(sandbox.report().clone()),
        Err(why) => Ok(report::refused(&OpenFailure::at("run a program", why))),
    }
}

fn no_directory(error: &io::Error) -> OpenFailure {
    // Root inside a user namespace that lacks the ids of sessions, such as a rootless container's.
    let is_unmapped = error.raw_os_error() == Some(libc::EINVAL);
    let remedy = is_unmapped.then(|| {
        format!(
            "start the server as a user other than root, or map user ids from {PROBE_UID} on into this user namespace"
        )
    });
    OpenFailure { remedy, ..OpenFailure::at("give a directory to a session's user id", error) }
}

async fn run_true(sandbox: &ProcessSandbox) -> Result<(), String> {
    let null = || -> io::Result<OwnedFd> { Ok(fs::File::options().read(true).write(true).open("/dev/null")?.into()) };
    let standard = || null().map_err(|error| error.to_string());
    let spawn = Spawn {
        argv: vec!["/bin/sh".into(), "-c".into(), "exit 0".into()],
        env: Vec::new(),
        cwd: WorkspacePath::root(),
        stdin: standard()?,
        stdout: standard()?,
        stderr: standard()?,
        extra: Vec::new(),
    };
    let mut child = sandbox.spawn(spawn).await.map_err(|error| match &error {
        SandboxError::NotStarted { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    })?;
    let end = child.wait().await.map_err(|error| error.to_string())?;
    if end.code == Some(0) { Ok(()) } else { Err(format!("it ended with {end:?}")) }
}

/// A directory that goes away with this value.
struct ProbeDirectory(PathBuf);

impl ProbeDirectory {
    fn make(owner: Option<u32>) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("codegen-mcp-probe-{}", codegen_types::Incarnation::mint()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let directory = Self(path);
        if let Some(owner) = owner {
            chown(&directory.0, Some(owner), Some(owner))?;
        }
        Ok(directory)
    }
}

impl Drop for ProbeDirectory {
    fn drop(&mut self) {
        // A directory that stays is empty and says by its name what it was.
        let _ = fs::remove_dir(&self.0);
    }
}
