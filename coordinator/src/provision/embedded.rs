//! The embedded worker: a child process of the same binary, which registers as any other worker does.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use codegen_types::{IsolationLevel, Limits, PackageAccess};
use futures::FutureExt as _;
use futures::future::FusedFuture as _;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::stderr::{self, Tail};
use crate::supervisor::{OnEnd, Supervisor};
use crate::workers::{EMBEDDED_WORKER, Workers};

/// How long the child may take to read its start message.
const START_LIMIT: Duration = Duration::from_secs(5);
/// How long what the child said last is read after it ended; processes it left behind may hold the pipe open.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(200);

/// How the embedded worker is started, restarted and ended.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The program; this process's own binary unless a test puts another in its place.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// The Unix socket where it finds the coordinator.
    pub socket: PathBuf,
    /// The directory of its workspaces.
    pub base_workspace: PathBuf,
    /// Directories above it that are closed to others, but where sessions must pass them.
    pub closed_above: Vec<PathBuf>,
    /// Sessions that it may have open at once.
    pub sessions_max: u32,
    /// How many of them where isolation is reduced.
    pub reduced_sessions: u32,
    /// Sessions with less isolation are refused.
    pub isolation_minimum: IsolationLevel,
    /// What it logs: `error`, `warn`, `info`, `debug`, `trace`.
    pub log_level: String,
    /// Directories to search for interpreters, separated by colons; the worker's own choice when absent.
    pub search_path: Option<String>,
    /// The limits that sessions have, so that sandboxes are made ahead of need; none are when absent.
    pub spare_limits: Option<Limits>,
    /// How it may reach package indexes.
    pub packages: PackageAccess,
    /// The rest before the first restart; it doubles with each.
    pub restart_rest_min: Duration,
    /// The longest rest before a restart.
    pub restart_rest_max: Duration,
    /// After a life of this length, rests begin anew.
    pub healthy_after: Duration,
    /// How long it may take to end after SIGTERM, before SIGKILL.
    pub stop_grace: Duration,
}

impl EmbeddedOptions {
    /// The defaults, for a coordinator that listens on `socket`.
    pub fn new(socket: impl Into<PathBuf>, base_workspace: impl Into<PathBuf>) -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            args: vec!["worker".into(), "--embedded".into()],
            socket: socket.into(),
            base_workspace: base_workspace.into(),
            closed_above: Vec::new(),
            sessions_max: 64,
            reduced_sessions: 1,
            isolation_minimum: IsolationLevel::Full,
            log_level: "info".to_owned(),
            search_path: None,
            spare_limits: None,
            packages: PackageAccess::default(),
            restart_rest_min: Duration::from_millis(200),
            restart_rest_max: Duration::from_secs(30),
            healthy_after: Duration::from_secs(60),
            stop_grace: Duration::from_secs(5),
        }
    }
}

/// The embedded worker, kept alive until it is [stopped](Self::stop) or this is dropped.
///
/// It does not follow the supervisor's token: while the server drains, tasks still run on it.
#[derive(Debug)]
pub struct Embedded {
    stop: CancellationToken,
    /// The child's process id while there is one; closed when none will come.
    process: watch::Receiver<Option<u32>>,
}

impl Embedded {
    /// Starts the worker and keeps it alive. It has joined when [`Workers::ready`] says so.
    pub fn start(options: EmbeddedOptions, workers: Workers, supervisor: &Supervisor) -> Self {
        let stop = CancellationToken::new();
        let (process, receiver) = watch::channel(None);
        let backoff = Backoff::new(options.restart_rest_min, options.restart_rest_max, options.healthy_after);
        let keeper = Keeper { options, workers, stop: stop.clone(), process, tail: Arc::default(), backoff };
        supervisor.spawn("embedded worker", OnEnd::Ignore, keeper.run());
        Self { stop, process: receiver }
    }

    /// Ends the worker: SIGTERM, a grace period, SIGKILL. Returns when its process is gone.
    pub async fn stop(&self) {
        self.stop.cancel();
        let mut process = self.process.clone();
        while process.changed().await.is_ok() {}
    }

    /// The worker's process id, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        *self.process.borrow()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The worker's start message: one line of JSON on its standard input.
#[derive(Serialize)]
struct StartMessage<'a> {
    token: &'a str,
    coordinator: String,
    worker_id: &'a str,
    base_workspace: &'a PathBuf,
    closed_above: &'a [PathBuf],
    sessions_max: u32,
    reduced_sessions: u32,
    isolation_minimum: IsolationLevel,
    log_level: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    search_path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spare_limits: Option<Limits>,
    packages: &'a PackageAccess,
}

struct Keeper {
    options: EmbeddedOptions,
    workers: Workers,
    stop: CancellationToken,
    process: watch::Sender<Option<u32>>,
    tail: Arc<Mutex<Tail>>,
    backoff: Backoff,
}

/// How one life of the child ended.
enum LifeEnd {
    Stopped,
    Ended(String),
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let began = Instant::now();
            let end = self.live().await;
            self.process.send_replace(None);
            self.workers.embedded_ended().await;
            let LifeEnd::Ended(why) = end else { return };
            let rest = self.backoff.after(began.elapsed());
            tracing::warn!(why, ?rest, "the embedded worker ended; it is started again");
            self.workers.note_start_failure(Some(self.explained(&why)));
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    fn explained(&self, why: &str) -> String {
        let said = self.tail.lock().text();
        if said.is_empty() {
            format!("the embedded worker ended ({why})")
        } else {
            format!("the embedded worker ended ({why}) and said: {said}")
        }
    }

    /// One life of the child, from its start to its end.
    async fn live(&mut self) -> LifeEnd {
        *self.tail.lock() = Tail::default();
        let mut child = match self.spawn() {
            Ok(child) => child,
            Err(error) => return LifeEnd::Ended(format!("it could not be started: {error}")),
        };
        self.process.send_replace(child.id());
        let stdin = child.stdin.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let mut listening = pin!(listen(stderr, Arc::clone(&self.tail)).fuse());
        let mut guarding = pin!(self.guard(&mut child, stdin));
        let end = tokio::select! {
            end = &mut guarding => end,
            () = &mut listening => guarding.await,
        };
        if !listening.is_terminated() {
            tokio::time::timeout(LAST_WORDS_LIMIT, listening).await.ok();
        }
        end
    }

    fn spawn(&self) -> std::io::Result<Child> {
        Command::new(&self.options.program)
            .arg0("coordinator")
            .args(&self.options.args)
            .env_clear()
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }

    /// Tells the child what to do, holds its life line, and waits for its end or ends it.
    async fn guard(&self, child: &mut Child, mut stdin: ChildStdin) -> LifeEnd {
        let message = match self.start_message() {
            Ok(message) => message,
            Err(error) => {
                self.kill(child).await;
                return LifeEnd::Ended(format!("its start message could not be written: {error}"));
            }
        };
        let greeting = tokio::time::timeout(START_LIMIT, stdin.write_all(&message));
        let greeted = tokio::select! {
            () = self.stop.cancelled() => None,
            greeted = greeting => Some(greeted),
        };
        match greeted {
            Some(Ok(Ok(()))) => {}
            // It may have ended already; how it did says more than the pipe.
            Some(Ok(Err(_))) => tracing::debug!("the embedded worker did not read its start message"),
            Some(Err(_)) => {
                self.kill(child).await;
                return LifeEnd::Ended("it did not read its start message in time".to_owned());
            }
            None => {
                self.end(child).await;
                return LifeEnd::Stopped;
            }
        }
        tokio::select! {
            status = child.wait() => match status {
                Ok(status) => LifeEnd::Ended(described(status)),
                Err(error) => LifeEnd::Ended(format!("it could not be waited for: {error}")),
            },
            () = self.stop.cancelled() => {
                self.end(child).await;
                LifeEnd::Stopped
            }
        }
    }

    fn start_message(&self) -> serde_json::Result<Vec<u8>> {
        let token = self.workers.issue_embedded_token();
        let options = &self.options;
        let message = StartMessage {
            token: token.expose(),
            coordinator: format!("unix:{}", options.socket.display()),
            worker_id: EMBEDDED_WORKER,
            base_workspace: &options.base_workspace,
            closed_above: &options.closed_above,
            sessions_max: options.sessions_max,
            reduced_sessions: options.reduced_sessions,
            isolation_minimum: options.isolation_minimum,
            log_level: &options.log_level,
            search_path: options.search_path.as_deref(),
            spare_limits: options.spare_limits,
            packages: &options.packages,
        };
        let mut line = serde_json::to_vec(&message)?;
        line.push(b'\n');
        Ok(line)
    }

    async fn end(&self, child: &mut Child) {
        if let Some(pid) = pid_of(child) {
            rustix::process::kill_process(pid, Signal::TERM).ok();
        }
        if tokio::time::timeout(self.options.stop_grace, child.wait()).await.is_err() {
            tracing::warn!("the embedded worker did not end when told to; it is killed");
            self.kill(child).await;
        }
    }

    /// Kills the child's process group, which is its own. The child was not waited for, so the id is still its.
    async fn kill(&self, child: &mut Child) {
        if let Some(pid) = pid_of(child) {
            rustix::process::kill_process_group(pid, Signal::KILL).ok();
        }
        child.wait().await.ok();
    }
}

fn pid_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(child.id()?.cast_signed())
}

async fn listen(stderr: ChildStderr, tail: Arc<Mutex<Tail>>) {
    let read = stderr::read_lines(stderr, |line| {
        tracing::info!(target: "worker", "{line}");
        tail.lock().push(line);
    });
    if let Err(error) = read.await {
        tracing::warn!(%error, "the embedded worker can no longer be heard");
    }
}

fn described(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no status".to_owned(),
    }
}
