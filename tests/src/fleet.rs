//! A server that an operator started, and workers that join it from elsewhere.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::Signal;

use crate::client::Client;
use crate::installation::{Installation, signal};
use crate::processes::{descendants, poll_until};

/// How long a process may take to say what it is waited for to say.
const SAYING: Duration = Duration::from_secs(30);

/// A process that was launched, and what it writes to stderr. Dropping it kills it and everything below it.
#[derive(Debug)]
pub struct Launched {
    child: Child,
    lines: Receiver<String>,
    said: String,
}

impl Launched {
    /// Launches a command.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the process starts");
        let stderr = child.stderr.take().expect("a pipe was asked for");
        let (sender, lines) = channel();
        // Reads to the end whoever listens, so that the process never waits for a reader.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _nobody_listens = sender.send(line);
            }
        });
        Self { child, lines, said: String::new() }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it wrote to stderr so far.
    pub fn said(&mut self) -> &str {
        for line in self.lines.try_iter() {
            self.said.push_str(&line);
            self.said.push('\n');
        }
        &self.said
    }

    /// Waits until it wrote a line with this in it, and gives the line.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn says(&mut self, part: &str) -> String {
        let found = |text: &str| text.lines().find(|line| line.contains(part)).map(str::to_owned);
        poll_until(&format!("`{part}` is said"), SAYING, || found(self.said()))
    }

    /// Sends it a signal.
    pub fn signal(&self, which: Signal) {
        signal(self.pid(), which);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let child = &mut self.child;
        poll_until("the process ends", patience, || child.try_wait().expect("waiting for a child"))
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let below = descendants(self.pid());
            let _gone = self.child.kill();
            let _reaped = self.child.wait();
            for pid in below {
                signal(pid, Signal::KILL);
            }
        }
    }
}

fn serve(installation: &Installation, address: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Launched {
    let always = ["serve", "--grpc", address, "--no-embedded-worker"];
    let mut command = installation.command(always.iter().chain(arguments));
    command.envs(environment.iter().copied());
    Launched::start(command)
}

/// A server without a worker of its own.
#[derive(Debug)]
pub struct Fleet {
    /// The server.
    pub server: Launched,
    installation: Arc<Installation>,
    environment: Vec<(&'static str, &'static str)>,
}

impl Fleet {
    /// Starts a server that takes workers on a port of the loopback interface, with further arguments.
    pub fn start(arguments: &[&str]) -> Self {
        Self::on(Arc::new(Installation::new()), arguments)
    }

    /// Starts a server on an installation that is there already.
    pub fn on(installation: Arc<Installation>, arguments: &[&str]) -> Self {
        Self::of(installation, arguments, &[])
    }

    /// Starts a server with these settings in its environment.
    pub fn with_settings(environment: &[(&'static str, &'static str)]) -> Self {
        Self::of(Arc::new(Installation::new()), &[], environment)
    }

    /// Starts a server on an installation that is there already, with further arguments and with these settings in its
    /// environment.
    pub fn of(
        installation: Arc<Installation>,
        arguments: &[&str],
        environment: &[(&'static str, &'static str)],
    ) -> Self {
        let server = serve(&installation, "127.0.0.1:0", arguments, environment);
        Self { server, installation, environment: environment.to_vec() }
    }

    /// Kills the server as the kernel's OOM killer would. Workers are processes of their own and go on.
    pub fn kill_server(&mut self) {
        self.server.signal(Signal::KILL);
        self.server.wait(Duration::from_secs(60));
    }

    /// Starts the server again that was killed, where it was.
    pub fn start_again(&mut self, address: &str) {
        self.server = serve(&self.installation, address, &[], &self.environment);
        self.address();
    }

    /// Where the server keeps its state.
    pub fn installation(&self) -> &Arc<Installation> {
        &self.installation
    }

    /// Where workers join, `host:port`.
    pub fn address(&mut self) -> String {
        let line = self.server.says("workers join at");
        line.split_whitespace().last().expect("an address").to_owned()
    }

    /// A client of the server, over stdio.
    pub fn client(&self) -> Client {
        self.installation.client()
    }

    /// Makes a token with which workers may join, with further arguments, and gives the file that holds it.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn token(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let made = self.installation.run(["tokens", "create", "--role", "worker"].iter().chain(arguments));
        assert!(made.status.success(), "{made:?}");
        let path = self.installation.outside().join(name);
        fs::write(&path, made.stdout).expect("a token file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
        path
    }

    /// A command that runs a worker of this name with this token, as on another host.
    pub fn worker_command<S: AsRef<OsStr>>(
        &mut self,
        name: &str,
        token: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = self.certified_command(name, arguments);
        command.arg("--token-file").arg(token);
        command
    }

    /// A command that runs a worker of this name, which has no token.
    ///
    /// # Panics
    /// When its directory cannot be made.
    pub fn certified_command<S: AsRef<OsStr>>(
        &mut self,
        name: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let base = self.workspaces(name);
        fs::create_dir_all(&base).expect("a directory of workspaces");
        let address = self.address();
        let mut command = Command::new(self.installation.binary());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.args(["worker", "--coordinator", &address, "--worker-id", name]);
        command.arg("--base-workspace").arg(base).args(arguments);
        command
    }

    /// Starts a worker and waits until it has joined.
    pub fn worker(&mut self, name: &str, token: &Path, arguments: &[&str]) -> Launched {
        let mut worker = Launched::start(self.worker_command(name, token, arguments));
        worker.says("joined coordinator=");
        worker
    }

    /// Where the worker of this name keeps its workspaces.
    pub fn workspaces(&self, name: &str) -> PathBuf {
        self.installation.outside().join(format!("workspaces-{name}"))
    }
}
