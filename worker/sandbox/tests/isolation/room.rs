//! Sandboxes for tests.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use codegen_types::{IsolationLevel, Limits, WorkspacePath};
use sandbox::launcher::{self, LauncherSocket};
use sandbox::uids::Uids;
use sandbox::{Backend, Child, ChildEnd, ProcessBackend, Sandbox, SandboxError, SandboxSpec, Spawn};
use tempfile::TempDir;
use tokio::sync::OnceCell;

pub const PYTHON: &str = "/usr/bin/python3";
const DEADLINE: Duration = Duration::from_secs(20);

static LAUNCHER: Mutex<Option<LauncherSocket>> = Mutex::new(None);
static BACKEND: OnceCell<ProcessBackend> = OnceCell::const_new();
static UIDS: Mutex<Option<Uids>> = Mutex::new(None);

/// Must come before the first thread.
pub fn fork_launcher() {
    *LAUNCHER.lock().unwrap() = Some(launcher::fork().unwrap());
}

pub async fn backend() -> &'static ProcessBackend {
    BACKEND
        .get_or_init(|| async {
            let socket = LAUNCHER.lock().unwrap().take().unwrap();
            ProcessBackend::start(socket).await.unwrap()
        })
        .await
}

/// The level that sandboxes have here.
pub async fn level() -> IsolationLevel {
    backend().await.report().level
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn take_uid() -> Option<u32> {
    is_root().then(|| UIDS.lock().unwrap().get_or_insert_with(|| Uids::reserve(0).unwrap()).take(None).unwrap())
}

/// A sandbox and its workspace.
pub struct Room {
    pub sandbox: Arc<dyn Sandbox>,
    pub workspace: PathBuf,
    pub uid: u32,
    /// Its init, by its number on the host.
    pub init: i32,
    _directory: TempDir,
}

/// What a program did.
#[derive(Debug)]
pub struct Ran {
    pub stdout: String,
    pub stderr: String,
    pub end: ChildEnd,
}

/// A program that runs, and readers of what it writes.
pub struct Running {
    pub child: Child,
    stdout: tokio::task::JoinHandle<String>,
    stderr: tokio::task::JoinHandle<String>,
}

impl Room {
    pub async fn new() -> Self {
        Self::with(Limits::default(), &[]).await
    }

    pub async fn with(limits: Limits, system_paths: &[&Path]) -> Self {
        Self::try_with(limits, system_paths).await.unwrap()
    }

    pub async fn try_with(limits: Limits, system_paths: &[&Path]) -> Result<Self, SandboxError> {
        Self::try_under(take_uid(), limits, system_paths).await
    }

    /// One whose session has this user id.
    pub async fn try_under(uid: Option<u32>, limits: Limits, system_paths: &[&Path]) -> Result<Self, SandboxError> {
        // The parent is closed to the session's id, as the state directory is.
        let directory = tempfile::tempdir().unwrap();
        let workspace = directory.path().join("workspace");
        std::fs::create_dir(&workspace).unwrap();
        // Root without its power over others' files can open it no more once it has another owner.
        let opened = File::open(&workspace).unwrap();
        if level().await != IsolationLevel::Full {
            // Sessions reach it by the host's path there, and so do the tests, which see what is in it but cannot list it.
            for path in [directory.path(), &workspace] {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711)).unwrap();
            }
        }
        if let Some(uid) = uid {
            chown(&workspace, Some(uid), Some(uid)).unwrap();
        }
        let spec = SandboxSpec {
            workspace: opened.into(),
            limits,
            system_paths: system_paths.iter().map(|path| path.to_path_buf()).collect(),
            uid,
            proxy: None,
        };
        let before = inits();
        let sandbox = backend().await.open(spec).await?;
        let uid = uid.unwrap_or(rustix::process::geteuid().as_raw());
        // Not the highest: process ids begin anew, and tests here use many.
        let init = inits().into_iter().find(|pid| !before.contains(pid)).unwrap();
        Ok(Self { sandbox, workspace, uid, init, _directory: directory })
    }

    /// Waits until no program and no supervisor of it is left.
    pub async fn is_quiet(&self) {
        eventually("nothing but init is left", || descendants_of(self.init).is_empty()).await;
    }

    pub async fn start(&self, argv: &[&str]) -> Running {
        self.try_start(argv, &[], Vec::new()).await.unwrap()
    }

    pub async fn try_start(
        &self,
        argv: &[&str],
        env: &[(&str, &str)],
        extra: Vec<(OwnedFd, RawFd)>,
    ) -> Result<Running, SandboxError> {
        let (mut spawn, stdout, stderr) = spawn(argv, env, extra);
        if env.is_empty() {
            spawn.env.push(("TMPDIR".into(), self.sandbox.places().scratch.clone().into()));
        }
        let child = self.sandbox.spawn(spawn).await?;
        Ok(Running { child, stdout: tokio::task::spawn_blocking(stdout), stderr: tokio::task::spawn_blocking(stderr) })
    }

    pub async fn run(&self, argv: &[&str]) -> Ran {
        self.start(argv).await.finish().await
    }

    pub async fn shell(&self, script: &str) -> Ran {
        self.run(&["/bin/sh", "-c", script]).await
    }

    /// Runs Python and gives what it printed; the program must succeed.
    pub async fn python(&self, script: &str) -> String {
        let ran = self.run(&[PYTHON, "-I", "-c", script]).await;
        assert_eq!(ran.end.code, Some(0), "{ran:?}");
        ran.stdout.trim_end().to_owned()
    }
}

impl Running {
    pub async fn finish(mut self) -> Ran {
        let end = within(self.child.wait()).await.unwrap();
        Ran { stdout: within(self.stdout).await.unwrap(), stderr: within(self.stderr).await.unwrap(), end }
    }
}

type Reader = Box<dyn FnOnce() -> String + Send>;

/// A program to start, and what reads its two outputs to their ends.
pub fn spawn(argv: &[&str], env: &[(&str, &str)], extra: Vec<(OwnedFd, RawFd)>) -> (Spawn, Reader, Reader) {
    let (stdout, out) = pipe();
    let (stderr, err) = pipe();
    let mut variables = vec![("PATH".into(), "/usr/bin:/bin".into()), ("HOME".into(), "/tmp".into())];
    if !env.is_empty() {
        variables = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    }
    let spawn = Spawn {
        argv: argv.iter().map(Into::into).collect(),
        env: variables,
        cwd: WorkspacePath::root(),
        stdin: File::open("/dev/null").unwrap().into(),
        stdout: out,
        stderr: err,
        extra,
    };
    (spawn, reader(stdout), reader(stderr))
}

fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
}

fn reader(pipe: OwnedFd) -> Reader {
    Box::new(move || {
        let mut bytes = Vec::new();
        File::from(pipe).read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Fails the test when something takes too long.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("took too long")
}

/// Polls until a condition holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The host's processes: process id, parent and the number inside the innermost namespace.
pub fn host_processes() -> Vec<(i32, i32, i32)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if field("State:")?.starts_with('Z') {
            return None;
        }
        let parent = field("PPid:")?.parse().ok()?;
        let inside = field("NSpid:")?.split_whitespace().next_back()?.parse().ok()?;
        Some((pid, parent, inside))
    })
    .collect()
}

/// All living descendants of this process.
pub fn descendants() -> Vec<i32> {
    descendants_of(std::process::id() as i32)
}

/// All living descendants of a process, parents first.
pub fn descendants_of(pid: i32) -> Vec<i32> {
    let all = host_processes();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(all.iter().filter(|(_, of, _)| *of == parent).map(|(pid, _, _)| *pid));
        next += 1;
    }
    found.remove(0);
    found
}

/// The inits of sandboxes below this process: children of its launcher, which is its only child.
pub fn inits() -> Vec<i32> {
    let own = std::process::id() as i32;
    let all = host_processes();
    let launchers: Vec<i32> = all.iter().filter(|(_, of, _)| *of == own).map(|(pid, _, _)| *pid).collect();
    all.into_iter().filter(|(_, of, _)| launchers.contains(of)).map(|(pid, _, _)| pid).collect()
}

/// Keeps a descriptor's number readable in messages.
pub fn number(fd: &OwnedFd) -> i32 {
    fd.as_raw_fd()
}
