//! What a task runs: a program of its own, or a call on a kernel that outlives it.

use std::sync::Arc;
use std::time::Duration;

use codegen_types::{ErrorCode, Failure};
use sandbox::{ChildEnd, SupervisorLost};

use super::ending::Ending;
use super::stdio::Stdio;
use crate::runtimes::{CallEnd, Prepared, Process, StartError};
use crate::session::{Live, Session, Turn};
use crate::tasks::Gate;

/// How soon a kernel is interrupted again: an interrupt that comes between two steps of a call is not heard.
const INTERRUPT_AGAIN: Duration = Duration::from_millis(200);

/// What runs.
#[derive(Debug)]
pub(crate) enum Subject {
    /// A program.
    Program(Process),
    /// A call.
    Call(Turn),
}

/// How it ended, and what the client should know about its kernel.
#[derive(Debug)]
pub(crate) struct Ended {
    pub end: ChildEnd,
    pub note: Option<String>,
}

/// Starts what a task runs, once its gate is open; with it comes a sentence for the client when its kernel is new. An error
/// means that nothing was run.
pub(crate) async fn start(
    session: &Session,
    live: &Arc<Live>,
    turn: Option<Turn>,
    prepared: &Prepared,
    stdio: Stdio,
    shown: std::os::fd::OwnedFd,
    gate: &Gate,
) -> Result<(Subject, Option<String>), StartError> {
    let Some(mut turn) = turn else {
        let program = session.runtimes().start(live, prepared, stdio, shown, gate).await?;
        return Ok((Subject::Program(program), None));
    };
    let Prepared::Python(job) = prepared else { return Err(StartError::NotPython) };
    if !turn.is_ready(live) {
        gate.pass().await;
    }
    let restarted = turn.restarted();
    let (kernel, mut news) = turn.ready(live).await?;
    let begun = tokio::select! {
        biased;
        begun = kernel.begin(job, &stdio, &shown, gate) => begun.is_ok(),
        () = restarted, if !gate.is_open() => false,
    };
    if !begun {
        // It did not get the call, which goes to the next one.
        turn.obey();
        turn.end("it had ended".to_owned());
        gate.pass().await;
        let (kernel, again) = turn.ready(live).await?;
        kernel.begin(job, &stdio, &shown, gate).await?;
        news = again;
    }
    Ok((Subject::Call(turn), news))
}

/// Refuses what a kernel cannot run, before anything is started.
pub(crate) fn check(session: &Session, turn: Option<&Turn>, prepared: &Prepared) -> Result<(), Failure> {
    match (turn, prepared) {
        (None, _) => Ok(()),
        (Some(turn), Prepared::Python(_)) => session.kernels().check_room(turn),
        (Some(_), _) => Err(Failure::new(ErrorCode::InvalidArgument, "A kernel runs Python code only.")),
    }
}

impl Subject {
    /// Waits for its end. Cancel-safe.
    pub async fn wait(&mut self) -> Result<Ended, SupervisorLost> {
        match self {
            Self::Program(program) => Ok(Ended { end: program.wait().await?, note: None }),
            Self::Call(turn) => {
                let kernel = turn.kernel().ok_or(SupervisorLost)?;
                match kernel.wait().await {
                    Ok(CallEnd::Returned(end)) => Ok(Ended { note: kept(turn, &end), end }),
                    Ok(CallEnd::Died(end, why)) => {
                        let note = format!(
                            "Kernel `{}` is gone and its variables with it: {why}. The next call starts a new one.",
                            turn.name()
                        );
                        turn.end(why);
                        Ok(Ended { end, note: Some(note) })
                    }
                    Err(SupervisorLost) => {
                        turn.end("its processes were killed".to_owned());
                        Err(SupervisorLost)
                    }
                }
            }
        }
    }

    /// Interrupts it and waits for its end. A program is interrupted once, lest it is disturbed while it tidies up; a
    /// kernel passes no more than one interrupt to a call, but may miss one.
    pub async fn end_by_interrupt(&mut self) -> Result<Ended, SupervisorLost> {
        if let Self::Program(program) = self {
            program.interrupt().await;
        }
        while let Self::Call(turn) = self {
            if let Some(kernel) = turn.kernel() {
                kernel.interrupt().await;
            }
            if let Ok(end) = tokio::time::timeout(INTERRUPT_AGAIN, self.wait()).await {
                return end;
            }
        }
        self.wait().await
    }

    /// Kills it with every process of it; a kernel is killed with its call.
    pub async fn kill(&mut self, ending: Ending) {
        match self {
            Self::Program(program) => program.kill().await,
            Self::Call(turn) => {
                if let Some(kernel) = turn.kernel() {
                    kernel.kill(ending.of_a_kernel()).await;
                }
            }
        }
    }

    /// Whether it is known to have begun.
    pub fn has_begun(&self) -> bool {
        match self {
            Self::Program(program) => program.has_begun(),
            Self::Call(_) => true,
        }
    }

    /// Waits until its kernel is to be restarted; for ever when it has none.
    pub fn restarted(&self) -> impl Future<Output = ()> + use<> {
        let order = match self {
            Self::Call(turn) => Some(turn.restarted()),
            Self::Program(_) => None,
        };
        async move {
            match order {
                Some(order) => order.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Whether an interrupt may save something, whatever the reason for the end is.
    pub fn outlives_its_task(&self) -> bool {
        matches!(self, Self::Call(_))
    }
}

fn kept(turn: &Turn, end: &ChildEnd) -> Option<String> {
    let interrupted = end.signal.is_some();
    interrupted.then(|| format!("Kernel `{}` was interrupted and keeps its variables.", turn.name()))
}
