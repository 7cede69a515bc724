//! A kernel: an interpreter that lives through many calls and keeps their variables.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt as _;
use sandbox::datagram::{self, AsyncSocket};
use sandbox::{ChildEnd, SupervisorLost};
use serde::Deserialize;

use super::python::{self, BEGIN, Job, SentJob};
use super::{Forked, StartError};
use crate::executor::stdio::Stdio;
use crate::session::Live;
use crate::tasks::Gate;

/// A kernel that runs, or has ended unnoticed. Dropping it ends it with all its processes.
#[derive(Debug)]
pub(crate) struct Kernel {
    program: Forked,
    calls: AsyncSocket,
    live: Arc<Live>,
    call: u64,
    started_ms: i64,
    memory_bytes: u64,
    /// Datagrams that meant nothing.
    junk: u32,
    /// Whether its call was interrupted, so that an interrupt may still be on its way.
    interrupted: bool,
    /// Whether it waits for the word to begin a call, or to forget it, that it could not be given.
    stuck: bool,
    /// Why it was killed.
    killed: Option<&'static str>,
}

/// The word by which a call is forgotten that is held.
const FORGET: &[u8] = b"x";
/// Datagrams without meaning that a kernel may send in its life.
const JUNK_MAX: u32 = 1;
/// How long a kernel that takes no calls any more may take to end.
const OWN_END: Duration = Duration::from_millis(250);

/// How a call on a kernel ended.
#[derive(Debug)]
pub(crate) enum CallEnd {
    /// The kernel said so, and waits for the next one. What it says of itself is the session's own word.
    Returned(ChildEnd),
    /// The kernel is gone, and every process of it; with the reason, as a sentence goes on after a colon.
    Died(ChildEnd, String),
}

/// What a kernel says at the end of a call.
#[derive(Debug, Deserialize)]
struct Report {
    call: u64,
    /// None: it was interrupted.
    code: Option<i32>,
    cpu_ms: u64,
    /// Peak resident memory during the call of the largest process, in bytes; during all calls so far where the system
    /// does not forget it.
    memory_peak_bytes: u64,
    memory_bytes: u64,
}

/// A call that its kernel holds. Dropped, the kernel is to forget it.
struct Offer<'a> {
    kernel: &'a mut Kernel,
    after_interrupt: bool,
}

impl Offer<'_> {
    /// Lets the call begin.
    async fn accept(self) -> Result<(), StartError> {
        let sent = self.kernel.calls.send(BEGIN, &[]).await;
        std::mem::forget(self);
        sent.map_err(|_| StartError::InterpreterLost)
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        let kernel = &mut self.kernel;
        let told = kernel.calls.send(FORGET, &[]).now_or_never();
        kernel.stuck = !matches!(told, Some(Ok(())));
        kernel.interrupted |= self.after_interrupt;
        kernel.call -= 1;
    }
}

impl Kernel {
    /// Starts one in the session's sandbox.
    pub async fn start(live: &Arc<Live>) -> Result<Self, StartError> {
        let (calls, theirs) = datagram::pair().map_err(StartError::Descriptors)?;
        let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        let null = || null().map_err(StartError::Descriptors);
        let stdio = Stdio { stdin: null()?, stdout: null()?, stderr: null()? };
        let program = python::start(live, &Job::kernel(), stdio, theirs, &Gate::open()).await?;
        let calls = AsyncSocket::new(calls).map_err(StartError::Descriptors)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let live = Arc::clone(live);
        Ok(Self {
            program,
            calls,
            live,
            call: 0,
            started_ms,
            memory_bytes: 0,
            junk: 0,
            interrupted: false,
            stuck: false,
            killed: None,
        })
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

    /// Hands it a call, which the kernel runs once the gate is open. An error means that it did not get the call. Dropped
    /// before, the kernel forgets it.
    pub async fn begin(&mut self, job: &Job, stdio: &Stdio, shown: &OwnedFd, gate: &Gate) -> Result<(), StartError> {
        if self.stuck {
            return Err(StartError::InterpreterLost);
        }
        let is_held = job.is_held();
        self.program.count_from_now();
        let job = SentJob::new(job)?;
        let mut passed = [&stdio.stdin, &stdio.stdout, &stdio.stderr, shown].map(AsFd::as_fd).to_vec();
        passed.extend(job.file());
        self.call += 1;
        let after_interrupt = std::mem::take(&mut self.interrupted);
        let mut call = format!("{{\"call\":{},\"after_interrupt\":{after_interrupt}}}\n", self.call).into_bytes();
        call.extend_from_slice(job.bytes());
        self.calls.send(&call, &passed).await.map_err(|_| StartError::InterpreterLost)?;
        if is_held {
            let offer = Offer { kernel: self, after_interrupt };
            gate.pass().await;
            offer.accept().await?;
        }
        Ok(())
    }

    /// Interrupts what it runs.
    pub async fn interrupt(&mut self) {
        self.interrupted = true;
        self.program.interrupt().await;
    }

    /// Kills it and every process of it, for this reason.
    pub async fn kill(&mut self, why: &'static str) {
        self.killed.get_or_insert(why);
        self.program.kill().await;
    }

    /// Waits for the end of the call, or of the kernel. Cancel-safe.
    pub async fn wait(&mut self) -> Result<CallEnd, SupervisorLost> {
        while self.killed.is_none() {
            let said = tokio::select! {
                biased;
                said = self.calls.recv() => said,
                end = self.program.wait() => return end.map(|end| self.died(end)),
            };
            let Ok(Some(said)) = said else {
                // It closed its end, which it does only when it ends.
                match tokio::time::timeout(OWN_END, self.program.wait()).await {
                    Ok(end) => return end.map(|end| self.died(end)),
                    Err(_) => self.kill("it took no more calls, but did not end").await,
                }
                break;
            };
            match serde_json::from_slice::<Report>(&said.bytes) {
                Ok(report) if report.call == self.call => return Ok(CallEnd::Returned(self.returned(&report))),
                // Code of the session may write here, too, but a kernel that does nothing else must not keep the worker
                // at work.
                Ok(_) | Err(_) => self.junk += 1,
            }
            if self.junk > JUNK_MAX {
                self.kill("its code wrote to the descriptor through which it gets its calls").await;
            }
        }
        let end = self.program.wait().await?;
        Ok(self.died(end))
    }

    /// Why it ended, if it did so while nobody looked. An error: nobody can tell what is left of it.
    pub fn ended_unseen(&mut self) -> Option<Result<String, SupervisorLost>> {
        let end = self.program.wait().now_or_never()?;
        Some(end.map(|end| self.how(&end)))
    }

    fn died(&self, end: ChildEnd) -> CallEnd {
        let why = self.how(&end);
        CallEnd::Died(end, why)
    }

    /// How it ended, in words.
    fn how(&self, end: &ChildEnd) -> String {
        match (end.signal, end.code) {
            _ if end.memory_limit_hit => "it was killed for using more memory than the session may".to_owned(),
            (Some(libc::SIGKILL), _) if let Some(why) = self.killed => why.to_owned(),
            (Some(signal), _) => format!("it was killed by signal {signal}"),
            (None, Some(code)) => format!("it ended with exit code {code}"),
            (None, None) => "it ended".to_owned(),
        }
    }

    fn returned(&mut self, report: &Report) -> ChildEnd {
        self.memory_bytes = report.memory_bytes;
        ChildEnd {
            code: report.code,
            signal: report.code.is_none().then_some(libc::SIGINT),
            cpu_ms: report.cpu_ms,
            memory_peak_bytes: report.memory_peak_bytes,
            processes_refused: self.program.processes_refused(),
            ..ChildEnd::default()
        }
    }
}
