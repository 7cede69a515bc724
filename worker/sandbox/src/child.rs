//! The worker's end of a supervised task.

use std::io;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::cgroups::{Counters, Counts};
use crate::datagram::AsyncSocket;

/// A supervised program. Dropping it makes its supervisor kill the program and every descendant.
#[derive(Debug)]
pub struct Child {
    socket: AsyncSocket,
    pid: Option<u32>,
    counters: Counters,
    /// What they said when it began.
    before: Counts,
}

/// How a supervised program ended. Every one of its descendants is gone, too.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildEnd {
    /// Its exit code, when it exited.
    pub code: Option<i32>,
    /// The signal that ended it, when one did.
    pub signal: Option<i32>,
    /// Processor time of it and all its descendants, in milliseconds.
    pub cpu_ms: u64,
    /// Peak resident memory of its largest process, in bytes.
    pub memory_peak_bytes: u64,
    /// Descendants that outlived it and were killed.
    pub leftovers_killed: u32,
    /// Whether the kernel killed a process of the sandbox for the memory limit meanwhile. Tasks that overlap share it.
    #[serde(default)]
    pub memory_limit_hit: bool,
    /// How often the kernel refused to start a process or thread of the sandbox meanwhile, since it had as many as it may;
    /// zero where no control group bounds them. Tasks that overlap share it.
    #[serde(default)]
    pub processes_refused: u64,
}

/// The supervisor ended without saying how its program did, so survivors can no longer be told from others: the whole
/// sandbox must be destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the supervisor of the task is gone")]
pub struct SupervisorLost;

/// What a supervisor says, one datagram each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SupervisorEvent {
    /// The program runs.
    Started { pid: u32 },
    /// The program could not be started.
    Failed { step: String, errno: i32 },
    /// The program and all its descendants are gone.
    Exited(ChildEnd),
}

impl Child {
    /// The child whose supervisor holds the other end of this `SOCK_SEQPACKET` socket. Needs a tokio runtime.
    pub fn from_ctl(ctl: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: AsyncSocket::new(ctl)?, pid: None, counters: Counters::default(), before: Counts::default() })
    }

    /// Lets the child's end say which limits were hit since now.
    pub(crate) fn watching(self, counters: Counters) -> Self {
        Self { before: counters.now(), counters, ..self }
    }

    /// Lets the end say which limits were hit since this moment, for a program that lives through many tasks.
    pub fn count_limits_from_now(&mut self) {
        self.before = self.counters.now();
    }

    /// How often a process or thread was refused since then.
    pub fn processes_refused(&self) -> u64 {
        self.counters.now().processes_refused.saturating_sub(self.before.processes_refused)
    }

    /// The program's process id inside the sandbox, once its supervisor named it; until then it may have begun or not.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Interrupts the program: SIGINT to its process group. Does nothing when the program has ended.
    pub async fn interrupt(&self) {
        // A supervisor that is gone is noticed by `wait`.
        let _ = self.socket.send(b"i", &[]).await;
    }

    /// Kills the program and every descendant. Does nothing when the program has ended.
    pub async fn kill(&self) {
        // A supervisor that is gone is noticed by `wait`.
        let _ = self.socket.send(b"k", &[]).await;
    }

    /// Waits until the program and every descendant are gone. Cancel-safe.
    pub async fn wait(&mut self) -> Result<ChildEnd, SupervisorLost> {
        loop {
            match self.next_event().await? {
                SupervisorEvent::Started { pid } => self.pid = Some(pid),
                SupervisorEvent::Failed { .. } => return Err(SupervisorLost),
                SupervisorEvent::Exited(end) => return Ok(self.judged(end)),
            }
        }
    }

    /// Waits for the first word of the supervisor: the program runs, or the step that failed and its error. The program
    /// of a supervisor that is lost before it said so may run. Cancel-safe; to be called before [`wait`](Self::wait).
    pub async fn started(&mut self) -> Result<Result<u32, (String, io::Error)>, SupervisorLost> {
        match self.next_event().await? {
            SupervisorEvent::Started { pid } => {
                self.pid = Some(pid);
                Ok(Ok(pid))
            }
            SupervisorEvent::Failed { step, errno } => Ok(Err((step, io::Error::from_raw_os_error(errno)))),
            SupervisorEvent::Exited(_) => Err(SupervisorLost),
        }
    }

    async fn next_event(&mut self) -> Result<SupervisorEvent, SupervisorLost> {
        let datagram = self.socket.recv().await.map_err(|_| SupervisorLost)?.ok_or(SupervisorLost)?;
        serde_json::from_slice(&datagram.bytes).map_err(|_| SupervisorLost)
    }

    /// An end that was learnt in another way, with what is known here of limits that were hit.
    pub fn judged(&self, mut end: ChildEnd) -> ChildEnd {
        end.memory_limit_hit |= self.counters.now().memory_kills > self.before.memory_kills;
        end.processes_refused = self.processes_refused();
        end
    }
}
