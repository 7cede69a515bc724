//! A copy of the built product with a state directory of its own.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use std::{env, fs};

use rustix::process::{Pid, Signal};

use crate::client::Client;
use crate::processes::{descendants, is_running, poll_until};

/// As whom the product runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// As whoever runs the tests.
    Myself,
    /// As an ordinary user; the tests must run as root.
    Ordinary,
    /// As root in what is like an engine's default container with four capabilities, where isolation is portable.
    Portable,
    /// As an ordinary user in what is like an engine's default container, where isolation is reduced; one who runs the
    /// tests stands for it.
    Reduced,
}

impl User {
    /// Every user as whom this test run can start the product.
    pub fn all() -> Vec<Self> {
        if rustix::process::geteuid().is_root() { vec![Self::Myself, Self::Ordinary] } else { vec![Self::Myself] }
    }

    /// Every user as whom this test run can start the product so that isolation is below full.
    pub fn below_full() -> Vec<Self> {
        if rustix::process::geteuid().is_root() { vec![Self::Portable, Self::Reduced] } else { vec![Self::Reduced] }
    }

    /// The level of isolation that this user's sessions have.
    pub fn level(self) -> &'static str {
        match self {
            Self::Myself | Self::Ordinary => "full",
            Self::Portable => "portable",
            Self::Reduced => "reduced",
        }
    }

    /// The user id under which root starts the product, where that is another. Each process of tests has one of its own:
    /// the kernel counts processes by user id, and what uses them up in one test must not be missing in the next.
    pub fn other_id(self) -> Option<u32> {
        let is_another = match self {
            Self::Ordinary => true,
            Self::Reduced => rustix::process::geteuid().is_root(),
            Self::Myself | Self::Portable => false,
        };
        is_another.then(|| 100_000 + std::process::id())
    }
}

/// The product installed for one test. Dropping it ends the server that runs on it, by process id.
#[derive(Debug)]
pub struct Installation {
    root: tempfile::TempDir,
    user: User,
}

impl Installation {
    /// Installs the product for the user who runs the tests.
    pub fn new() -> Self {
        Self::for_user(User::Myself)
    }

    /// Installs the product for `user`.
    ///
    /// # Panics
    /// When the binary was not built, or the temporary directory cannot be made.
    pub fn for_user(user: User) -> Self {
        let root = tempfile::Builder::new().prefix("codegen-e2e-").tempdir().expect("a temporary directory");
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let installation = Self { root, user };
        link_or_copy(&built_binary(), &installation.binary());
        if user.level() != "full" {
            link_or_copy(&built_binary().with_file_name("confined"), &installation.confined());
        }
        fs::create_dir(installation.state_dir()).expect("a state directory");
        fs::set_permissions(installation.state_dir(), fs::Permissions::from_mode(0o700)).expect("permissions");
        if let Some(id) = user.other_id() {
            std::os::unix::fs::chown(installation.state_dir(), Some(id), Some(id)).expect("chown");
        }
        installation
    }

    /// The binary of this installation.
    pub fn binary(&self) -> PathBuf {
        self.root.path().join("coordinator")
    }

    /// The program that confines the product where isolation is to be below full.
    pub fn confined(&self) -> PathBuf {
        self.root.path().join("confined")
    }

    /// A directory beside the state directory, outside every workspace.
    pub fn outside(&self) -> &Path {
        self.root.path()
    }

    /// The state directory of this installation.
    pub fn state_dir(&self) -> PathBuf {
        self.root.path().join("state")
    }

    /// A command that runs the binary with the state directory, as this installation's user, with a small environment.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.bare_command(["--state-dir"]);
        command.arg(self.state_dir()).args(arguments);
        command
    }

    /// The same with these arguments alone.
    pub fn bare_command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let below_full = matches!(self.user, User::Portable | User::Reduced);
        let mut command = Command::new(if below_full { self.confined() } else { self.binary() });
        command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).env("HOME", self.root.path());
        if below_full {
            command.arg(self.binary()).env("ISOLATION_MINIMUM", self.user.level());
        }
        command.args(arguments);
        if below_full || self.user.other_id().is_some() {
            command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
        }
        if let Some(id) = self.user.other_id() {
            command.uid(id).gid(id);
        }
        command
    }

    /// Runs a program of the system's Python as the product would run, with what is taken from it below level full.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn python_as_product(&self, code: &str) -> Output {
        let below_full = matches!(self.user, User::Portable | User::Reduced);
        let mut command = Command::new(if below_full { self.confined() } else { "/usr/bin/env".into() });
        command.args(["/usr/bin/python3", "-I", "-c", code]);
        if let Some(id) = self.user.other_id() {
            command.uid(id).gid(id);
        }
        command.output().expect("python3 of the system")
    }

    /// Runs one of the operator's commands to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        self.command(arguments).output().expect("the binary starts")
    }

    /// Launches a front and greets it with `initialize`.
    pub fn client(&self) -> Client {
        self.client_with::<&str>([])
    }

    /// Launches a front with further arguments and greets it with `initialize`.
    pub fn client_with<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Client {
        let mut client = self.silent_client(arguments);
        client.initialize("2025-11-25");
        client
    }

    /// Launches a front and says nothing to it.
    pub fn silent_client<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Client {
        Client::launch(self.command(arguments))
    }

    /// Who listens on the server's socket, by the kernel's word.
    pub fn server_pid(&self) -> Option<u32> {
        let socket = std::os::unix::net::UnixStream::connect(self.state_dir().join("server.sock")).ok()?;
        let peer = rustix::net::sockopt::socket_peercred(&socket).ok()?;
        u32::try_from(peer.pid.as_raw_nonzero().get()).ok()
    }

    /// Kills the server as the kernel's OOM killer would, and waits until it and everything below it is gone.
    ///
    /// # Panics
    /// When no server runs, or something of it survives.
    pub fn kill_server(&self) {
        let server = self.server_pid().expect("a server runs");
        let below = descendants(server);
        signal(server, Signal::KILL);
        poll_until("the killed server and its processes are gone", Duration::from_secs(60), || {
            (!is_running(server) && below.iter().all(|pid| !is_running(*pid))).then_some(())
        });
    }

    /// Stops the server with SIGTERM and waits until it is gone.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop_server(&self) {
        if let Some(server) = self.server_pid() {
            signal(server, Signal::TERM);
            poll_until("the server ends after SIGTERM", Duration::from_secs(20), || {
                (!is_running(server)).then_some(())
            });
        }
    }
}

impl Default for Installation {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if let Some(server) = self.server_pid() {
            let below = descendants(server);
            signal(server, Signal::KILL);
            for pid in below {
                signal(pid, Signal::KILL);
            }
        }
    }
}

/// Sends a signal to a process that a test started.
///
/// # Panics
/// When the process id is zero.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("a process id");
    // A process that is gone already is what the callers want.
    let _ = rustix::process::kill_process(pid, signal);
}

/// The `coordinator` that lies beside this test's own executable.
fn built_binary() -> PathBuf {
    let me = env::current_exe().expect("a path of one's own");
    let found = me.ancestors().skip(1).map(|dir| dir.join("coordinator")).find(|path| path.is_file());
    found.expect("no built `coordinator` beside the tests: run `make test`, or `cargo build -p coordinator` first")
}

fn link_or_copy(from: &Path, to: &Path) {
    fs::copy(from, to).expect("copying the binary");
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).expect("permissions");
}
