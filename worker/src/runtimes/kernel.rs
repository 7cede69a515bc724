//! A kernel: an interpreter that lives through many calls and keeps their variables.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sandbox::datagram::{self, AsyncSocket};
use sandbox::{Child, ChildEnd, SupervisorLost};
use serde::Deserialize;

use super::StartError;
use super::python::{self, Job};
use super::template::job_file;
use crate::executor::stdio::Stdio;
use crate::session::Live;

/// A kernel that runs, or has ended unnoticed. Dropping it ends it with all its processes.
#[derive(Debug)]
pub(crate) struct Kernel {
    child: Child,
    calls: AsyncSocket,
    live: Arc<Live>,
    call: u64,
    started_ms: i64,
    memory_bytes: u64,
}

/// How a call on a kernel ended.
#[derive(Debug)]
pub(crate) enum CallEnd {
    /// The kernel said so, and waits for the next one. What it says of itself is the session's own word.
    Returned(ChildEnd),
    /// The kernel is gone, and every process of it.
    Died(ChildEnd),
}

/// What a kernel says at the end of a call.
#[derive(Debug, Deserialize)]
struct Report {
    call: u64,
    /// None: it was interrupted.
    code: Option<i32>,
    cpu_ms: u64,
    memory_bytes: u64,
}

impl Kernel {
    /// Starts one in the session's sandbox.
    pub async fn start(live: &Arc<Live>) -> Result<Self, StartError> {
        let (calls, theirs) = datagram::pair().map_err(StartError::Descriptors)?;
        let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        let null = || null().map_err(StartError::Descriptors);
        let stdio = Stdio { stdin: null()?, stdout: null()?, stderr: null()? };
        let child = python::start(live, &Job::kernel(), stdio, theirs).await?;
        let calls = AsyncSocket::new(calls).map_err(StartError::Descriptors)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        Ok(Self { child, calls, live: live.clone(), call: 0, started_ms, memory_bytes: 0 })
    }

    /// The life of the sandbox that it runs in.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Calls that were made.
    pub fn calls(&self) -> u64 {
        self.call
    }

    /// When it was started, in milliseconds since the Unix epoch.
    pub fn started_ms(&self) -> i64 {
        self.started_ms
    }

    /// Its resident memory at the end of the last call, in bytes, by its own word.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Hands it a call; the kernel runs it at once. An error means that it did not get the call.
    pub async fn begin(&mut self, job: &Job, stdio: &Stdio, shown: &OwnedFd) -> Result<(), StartError> {
        self.child.count_memory_limit_from_now();
        let job = job_file(job)?;
        let passed = [&stdio.stdin, &stdio.stdout, &stdio.stderr, shown, &job].map(AsFd::as_fd);
        self.call += 1;
        let header = format!("{{\"call\":{}}}", self.call);
        self.calls.send(header.as_bytes(), &passed).await.map_err(|_| StartError::InterpreterLost)
    }

    /// Interrupts what it runs.
    pub async fn interrupt(&self) {
        self.child.interrupt().await;
    }

    /// Kills it and every process of it.
    pub async fn kill(&self) {
        self.child.kill().await;
    }

    /// Waits for the end of the call, or of the kernel. Cancel-safe.
    pub async fn wait(&mut self) -> Result<CallEnd, SupervisorLost> {
        loop {
            tokio::select! {
                biased;
                said = self.calls.recv() => match said {
                    Ok(Some(said)) => match serde_json::from_slice::<Report>(&said.bytes) {
                        Ok(report) if report.call == self.call => return Ok(CallEnd::Returned(self.returned(&report))),
                        // Code of the session may write here, too.
                        Ok(_) | Err(_) => {}
                    },
                    // It closed its end, which it does only when it ends.
                    Ok(None) | Err(_) => return self.died().await,
                },
                end = self.child.wait() => return end.map(CallEnd::Died),
            }
        }
    }

    /// Waits for the kernel's own end. A kernel that takes no calls any more, but runs on, is ended.
    async fn died(&mut self) -> Result<CallEnd, SupervisorLost> {
        let end = tokio::time::timeout(std::time::Duration::from_millis(250), self.child.wait()).await;
        match end {
            Ok(end) => end.map(CallEnd::Died),
            Err(_) => {
                self.child.kill().await;
                self.child.wait().await.map(CallEnd::Died)
            }
        }
    }

    /// The end of a kernel that ended while nobody looked.
    pub fn ended_unseen(&mut self) -> Option<Result<ChildEnd, SupervisorLost>> {
        use futures::FutureExt;
        self.child.wait().now_or_never()
    }

    fn returned(&mut self, report: &Report) -> ChildEnd {
        self.memory_bytes = report.memory_bytes;
        ChildEnd {
            code: report.code,
            signal: report.code.is_none().then_some(libc::SIGINT),
            cpu_ms: report.cpu_ms,
            memory_peak_bytes: report.memory_bytes,
            ..ChildEnd::default()
        }
    }
}
