//! The check at start: a throw-away sandbox is really made, and a program really run in it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use codegen_types::{IsolationLevel, IsolationReport, LayerState, Limits, WorkspacePath};
use rustix::fs::FlockOperation;

use super::connection::{Connection, OpenError, Wanted};
use super::sandbox::ProcessSandbox;
use crate::backend::{Sandbox, SandboxError, Spawn};
use crate::layers::report;
use crate::protocol::OpenFailure;
use crate::uids::{FIRST_PROBE_UID, probe_uid};

/// What the names of probes' directories begin with.
const PREFIX: &str = "codegen-mcp-probe-";
/// Longer than a probe takes.
const PROBE_TIME_MAX: Duration = Duration::from_secs(600);

/// What a probe found.
pub(super) struct Probed {
    pub(super) report: IsolationReport,
    /// Why the level is not a better one.
    pub(super) not_better: Option<OpenFailure>,
}

/// The best isolation that this host gives.
pub(super) async fn probe(connection: &Arc<Connection>) -> Result<Probed, SandboxError> {
    // Nobody waits for it: others may have filled the directory.
    tokio::task::spawn_blocking(|| clear_away_earlier(&std::env::temp_dir()));
    let mut not_better: Option<OpenFailure> = None;
    let mut others = String::new();
    for level in [IsolationLevel::Full, IsolationLevel::Portable, IsolationLevel::Reduced] {
        match try_level(connection, level, not_better.clone()).await? {
            Ok(report) => return Ok(Probed { report, not_better }),
            // What stands in the way of the best level is what there is to mend.
            Err(failure) => {
                tracing::info!(%level, %failure, "this host does not permit a level of isolation");
                match not_better {
                    None => not_better = Some(failure),
                    Some(_) => others.push_str(&format!("; nor {level}: {failure}")),
                }
            }
        }
    }
    let mut failure = not_better.clone().unwrap_or_else(|| OpenFailure::at("choose a level", "there is none"));
    failure.why.push_str(&others);
    Ok(Probed { report: report::refused(&failure), not_better })
}

async fn try_level(
    connection: &Arc<Connection>,
    level: IsolationLevel,
    not_better: Option<OpenFailure>,
) -> Result<Result<IsolationReport, OpenFailure>, SandboxError> {
    // Below level portable nobody has a user id of its own.
    let needs_uid = rustix::process::geteuid().is_root() && level > IsolationLevel::Reduced;
    let uid = needs_uid.then(probe_uid).transpose().map_err(SandboxError::Channel)?;
    let (directory, workspace) = match ProbeDirectory::make(uid) {
        Ok(made) => made,
        Err(error) => return Ok(Err(no_directory(&error))),
    };
    let (limits, system_paths, proxy) = (Limits::default(), Vec::new(), None);
    let wanted = Wanted { workspace, level, not_better, limits, system_paths, uid, proxy };
    let sandbox = match ProcessSandbox::make(connection, wanted).await {
        Ok(sandbox) => sandbox,
        Err(OpenError::Refused(failure)) => return Ok(Err(failure)),
        Err(OpenError::Channel(error)) => return Err(error),
    };
    // A sandbox of level full holds it mounted; a worker that is killed from here on leaves nothing behind.
    let directory = (level < IsolationLevel::Full).then_some(directory);
    let ran = run_true(&sandbox).await;
    sandbox.destroy().await;
    drop(directory);
    let report = sandbox.report().clone();
    Ok(match ran {
        Ok(()) if report.level == level => Ok(report),
        Ok(()) => Err(missing(&report, level)),
        Err(why) => Err(OpenFailure::at("run a program", why)),
    })
}

/// The first layer that a level is nothing without.
fn missing(report: &IsolationReport, level: IsolationLevel) -> OpenFailure {
    let row = report.layers.iter().find(|row| row.layer.is_promised_by(level) && row.state == LayerState::Absent);
    match row {
        Some(row) => OpenFailure { remedy: row.remedy.clone(), ..OpenFailure::at(row.layer.as_str(), &row.detail) },
        None => OpenFailure::at("check the layers", "one is missing"),
    }
}

fn no_directory(error: &io::Error) -> OpenFailure {
    // Root inside a user namespace that lacks the ids of sessions, such as a rootless container's.
    let is_unmapped = error.raw_os_error() == Some(libc::EINVAL);
    let remedy = is_unmapped.then(|| {
        format!(
            "start the server as a user other than root, or map user ids from {FIRST_PROBE_UID} on into this user namespace"
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

/// A directory with one for a workspace in it, as the base of workspaces is. It goes away with this value.
struct ProbeDirectory {
    path: PathBuf,
    /// Locked for as long as somebody is at work in it.
    _lock: fs::File,
}

impl ProbeDirectory {
    fn make(owner: Option<u32>) -> io::Result<(Self, OwnedFd)> {
        let path = std::env::temp_dir().join(format!("{PREFIX}{}", codegen_types::Incarnation::mint()));
        fs::DirBuilder::new().mode(0o711).create(&path)?;
        let directory = Self { _lock: locked(&path)?, path };
        // Whatever the mask says.
        fs::set_permissions(&directory.path, fs::Permissions::from_mode(0o711))?;
        fs::DirBuilder::new().mode(0o700).create(directory.workspace())?;
        // Root without its power over others' files can open it no more once it has another owner.
        let workspace = fs::File::open(directory.workspace())?.into();
        if let Some(owner) = owner {
            chown(directory.workspace(), Some(owner), Some(owner))?;
        }
        Ok((directory, workspace))
    }

    fn workspace(&self) -> PathBuf {
        self.path.join("workspace")
    }
}

impl Drop for ProbeDirectory {
    fn drop(&mut self) {
        // One that stays is empty, and a later probe takes it away.
        let _ = fs::remove_dir(self.workspace());
        let _ = fs::remove_dir(&self.path);
    }
}

/// Takes away what was left by workers that were killed in the middle of a probe: empty directories of this user's alone.
fn clear_away_earlier(base: &Path) {
    let user = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let is_probes = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
        if is_probes && entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == user && is_old(&found)) {
            // The clock may have been set: one that somebody is at work in is locked.
            drop(locked(&entry.path()).map(|lock| ProbeDirectory { path: entry.path(), _lock: lock }));
        }
    }
}

/// A directory that nobody else has locked, locked.
fn locked(directory: &Path) -> io::Result<fs::File> {
    let file = fs::File::open(directory)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// Whether a directory was made longer ago, as the clock has it, than a probe takes.
fn is_old(found: &fs::Metadata) -> bool {
    found.modified().is_ok_and(|made| made.elapsed().is_ok_and(|age| age > PROBE_TIME_MAX))
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn what_a_killed_probe_left_is_taken_away_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let directory = |name: &str, age: u64| {
            let path = base.path().join(name);
            fs::create_dir_all(path.join("workspace")).unwrap();
            let times = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(age));
            File::open(&path).unwrap().set_times(times).unwrap();
            path
        };
        let left = directory("codegen-mcp-probe-left", 3_600);
        let new = directory("codegen-mcp-probe-new", 1);
        let at_work = directory("codegen-mcp-probe-at-work", 3_600);
        let _lock = locked(&at_work).unwrap();
        let others = directory("other", 3_600);
        let full = directory("codegen-mcp-probe-full", 3_600);
        fs::write(full.join("workspace/file"), "kept").unwrap();
        std::os::unix::fs::symlink(&others, base.path().join("codegen-mcp-probe-link")).unwrap();
        clear_away_earlier(base.path());
        assert!(!left.exists());
        assert!(new.join("workspace").exists() && at_work.join("workspace").exists());
        assert!(others.join("workspace").exists());
        assert!(full.join("workspace/file").exists(), "only what is empty goes");
    }
}
