//! A program that runs in a prepared interpreter.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use sandbox::datagram::AsyncSocket;
use sandbox::{Child, ChildEnd, Sandbox, SupervisorLost};
use serde::Deserialize;

use super::StartError;
use super::lane::{Lanes, Spare, Taken};
use super::python::{BEGIN, Job, SentJob};
use super::vitals::Observed;
use crate::executor::stdio::Stdio;
use crate::tasks::Gate;

/// How long an answer takes from here to its caller, about.
const AFTER_THE_ANSWER: Duration = Duration::from_millis(1);
/// Spares that may turn out to be dead before one takes a job.
const TRIES: usize = 3;

/// A program of a prepared interpreter. Dropping it ends it with all its processes; its lane is free for others then.
#[derive(Debug)]
pub(crate) struct Forked {
    /// Absent once it is given up.
    held: Option<(Child, Taken)>,
    jobs: AsyncSocket,
    process: Option<Observed>,
    listening: Listening,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Runs,
    /// It is stopped, and will run no more instruction.
    Stopped,
    /// Nothing is left of it.
    Gone,
}

/// What tells of its end, beside its lane's word for it.
#[derive(Debug, Clone, Copy)]
enum Listening {
    /// Its own word.
    ToIt,
    /// It said this; its lane is to say which process beside it is none of its own.
    ToLane(Report),
    /// Nothing more. It is given leave to go.
    Leaving,
    Over,
}

/// What a program says when nothing more comes of it.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Report {
    code: u8,
    memory_peak_bytes: u64,
}

impl Forked {
    /// Gives a job to a spare, and lets it begin once the gate is open. `extra` is where the program shows things, or where a kernel gets its calls.
    pub(super) async fn start(
        lanes: &Arc<Lanes>,
        sandbox: &dyn Sandbox,
        job: &Job,
        stdio: &Stdio,
        extra: &OwnedFd,
        gate: &Gate,
    ) -> Result<Self, StartError> {
        let (lives_long, is_held) = (job.is_kernel(), job.is_held());
        let job = SentJob::new(job)?;
        let mut passed = [&stdio.stdin, &stdio.stdout, &stdio.stderr, extra].map(AsFd::as_fd).to_vec();
        passed.extend(job.file());
        let mut lane = lanes.take().await?;
        for _ in 0..TRIES {
            let Spare { control, jobs, process } = lane.spare().await?;
            let child = sandbox.adopt(control).map_err(StartError::Descriptors)?;
            // From here on a caller that is gone leaves a program to be ended.
            let held = Some((child, lane));
            let mut this = Self { held, jobs, process: None, listening: Listening::ToIt, standing: Standing::Runs };
            if this.take_job(job.bytes(), &passed).await {
                this.process = process;
                if let Some((_, lane)) = &mut this.held
                    && lane.is_hurried()
                    && !lives_long
                {
                    // The next one is made while this one runs.
                    lane.refill().await;
                }
                if is_held {
                    gate.pass().await;
                    this.jobs.send(BEGIN, &[]).await.map_err(|_| StartError::InterpreterLost)?;
                }
                return Ok(this);
            }
            let Some((_, back)) = this.held.take() else { break };
            lane = back;
        }
        Err(StartError::InterpreterLost)
    }

    /// Whether it took the job. One that did not never will.
    async fn take_job(&self, job: &[u8], passed: &[BorrowedFd<'_>]) -> bool {
        self.jobs.send(job, passed).await.is_ok()
            && matches!(self.jobs.recv().await, Ok(Some(said)) if said.bytes == b"t")
    }

    /// Lets the end say which limits were hit since this moment, and how much memory it took, for a program that lives
    /// through many tasks.
    pub fn count_from_now(&mut self) {
        if let Some(process) = &self.process {
            process.forget_peak();
        }
        if let Some((child, _)) = &mut self.held {
            child.count_limits_from_now();
        }
    }

    /// How often a process or thread of the session was refused since then.
    pub fn processes_refused(&self) -> u64 {
        self.held.as_ref().map_or(0, |(child, _)| child.processes_refused())
    }

    /// Interrupts it.
    pub async fn interrupt(&self) {
        if let Some((child, _)) = &self.held {
            child.interrupt().await;
        }
    }

    /// Kills it and every process of it.
    pub async fn kill(&self) {
        if let Some((child, _)) = &self.held {
            child.kill().await;
        }
    }

    /// Waits until it and every process of it are gone, or will run no more instruction. Cancel-safe.
    pub async fn wait(&mut self) -> Result<ChildEnd, SupervisorLost> {
        let Some((child, lane)) = &mut self.held else { return Err(SupervisorLost) };
        loop {
            let heard = async {
                match self.listening {
                    Listening::ToIt => {
                        let said = self.jobs.recv().await.ok().flatten();
                        // It says one thing; what comes else is the session's code.
                        let report = said.and_then(|said| serde_json::from_slice(&said.bytes).ok());
                        (report.map_or(Listening::Leaving, Listening::ToLane), None)
                    }
                    Listening::ToLane(report) => {
                        let beside = lane.settled().await;
                        let early = ended_early(self.process.as_ref(), beside, report);
                        (if early.is_some() { Listening::Over } else { Listening::Leaving }, early)
                    }
                    Listening::Leaving => {
                        // One that is gone by now needs no leave.
                        let _ = self.jobs.send(b"x", &[]).await;
                        (Listening::Over, None)
                    }
                    Listening::Over => std::future::pending().await,
                }
            };
            let (listening, early) = tokio::select! {
                biased;
                end = child.wait() => {
                    self.listening = Listening::Over;
                    return end.inspect(|_| self.standing = Standing::Gone);
                }
                heard = heard => heard,
            };
            self.listening = listening;
            if let Some(end) = early {
                self.standing = Standing::Stopped;
                let mut end = child.judged(end);
                end.processes_refused = end.processes_refused.saturating_sub(lane.refused());
                return Ok(end);
            }
        }
    }
}

/// Stops a program that says that nothing more comes of it, so that nobody waits for the system to take it apart. None: it
/// has threads or processes yet, so that its end must be waited for.
///
/// The session's code may say so, too: what it gets by that is the end of its program, with an exit code of its choice.
fn ended_early(process: Option<&Observed>, beside: Option<&Observed>, report: Report) -> Option<ChildEnd> {
    let process = process?;
    let vitals = process.vitals(beside)?;
    if !vitals.is_alone {
        return None;
    }
    process.stop().ok()?;
    Some(ChildEnd {
        code: Some(report.code.into()),
        cpu_ms: vitals.cpu_ms,
        memory_peak_bytes: report.memory_peak_bytes,
        ..ChildEnd::default()
    })
}

impl Drop for Forked {
    fn drop(&mut self) {
        let (Some((mut child, mut lane)), Ok(runtime)) = (self.held.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let standing = self.standing;
        if standing != Standing::Runs {
            lane.close();
        }
        runtime.spawn(async move {
            // What must be done before the next call is done while its caller thinks, unless callers do not.
            if !lane.is_hurried() {
                tokio::time::sleep(AFTER_THE_ANSWER).await;
            }
            // One process is taken apart while the other is made.
            if standing != Standing::Gone {
                child.kill().await;
            }
            lane.refill().await;
            if standing != Standing::Gone && child.wait().await.is_err() {
                lane.give_up();
            }
        });
    }
}
