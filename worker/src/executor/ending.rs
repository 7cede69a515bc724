//! Why a program is ended before it ends by itself, and what the client is told.

use std::time::Duration;

use codegen_types::{ErrorCode, EventBody, Exit, Failure};

use crate::tasks::Stop;

/// How long a program may take to end after an interrupt.
const GRACE: Duration = Duration::from_secs(2);
/// The longest grace that a cancellation may ask for.
const GRACE_MAX: Duration = Duration::from_secs(10);

/// Why a program is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It was given this much time.
    TimedOut(Duration),
    /// The coordinator cancelled it.
    Cancelled { grace: Duration },
    /// Its session is closed.
    SessionClosed,
    /// The worker stops.
    WorkerStops,
    /// Its kernel is restarted.
    KernelRestarted,
    /// It wrote more output than this many bytes.
    Output(u64),
    /// The workspace holds more than this many bytes.
    Disk(u64),
    /// The workspace holds more things than can be counted, which is this many.
    Files(usize),
    /// Its session used more than this many bytes of memory.
    Memory(u64),
}

impl From<Stop> for Ending {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Cancelled { grace } => Self::Cancelled { grace },
            Stop::SessionClosed => Self::SessionClosed,
            Stop::WorkerStops => Self::WorkerStops,
        }
    }
}

impl Ending {
    /// How long what runs may take to end after an interrupt; none: it is killed at once. A kernel that goes on after
    /// its call keeps its variables, so it is interrupted first also when it used too much.
    pub fn grace(self, outlives_its_task: bool) -> Option<Duration> {
        match self {
            Self::TimedOut(_) => Some(GRACE),
            Self::Cancelled { grace } => Some(grace.min(GRACE_MAX)),
            Self::Output(_) | Self::Disk(_) | Self::Files(_) | Self::Memory(_) if outlives_its_task => Some(GRACE),
            Self::SessionClosed
            | Self::WorkerStops
            | Self::KernelRestarted
            | Self::Output(_)
            | Self::Disk(_)
            | Self::Files(_)
            | Self::Memory(_) => None,
        }
    }

    /// Why a kernel is no more that was killed for this reason, as a sentence goes on after a colon.
    pub fn of_a_kernel(self) -> &'static str {
        match self {
            Self::TimedOut(_) => "its call ran out of time and did not react to the interrupt",
            Self::Cancelled { .. } => "its call was cancelled and did not react to the interrupt",
            Self::SessionClosed => "the session was closed",
            Self::WorkerStops => "the worker stopped",
            Self::KernelRestarted => "it was restarted",
            Self::Output(_) => "its call wrote too much and did not react to the interrupt",
            Self::Disk(_) | Self::Files(_) => {
                "the workspace grew too large and its call did not react to the interrupt"
            }
            Self::Memory(_) => "its call used too much memory and did not react to the interrupt",
        }
    }

    /// The last event of a task that was ended for this reason.
    pub fn failed(self, exit: Option<Exit>) -> EventBody {
        EventBody::Failed { failure: self.failure(), exit }
    }

    fn failure(self) -> Failure {
        let (code, message) = match self {
            Self::TimedOut(given) => {
                (ErrorCode::TaskTimeout, format!("it was ended after {} s, the time it was given", given.as_secs_f64()))
            }
            Self::Cancelled { .. } => (ErrorCode::TaskCancelled, "It was cancelled and ended.".to_owned()),
            Self::SessionClosed => (ErrorCode::TaskCancelled, "Its session was closed, so it was ended.".to_owned()),
            Self::WorkerStops => (ErrorCode::TaskCancelled, "The worker stopped, so it was ended.".to_owned()),
            Self::KernelRestarted => {
                (ErrorCode::TaskCancelled, "Its kernel was restarted, so it was ended.".to_owned())
            }
            Self::Output(max) => {
                (ErrorCode::OutputLimit, format!("it wrote more than {max} bytes of output and was ended"))
            }
            Self::Disk(max) => {
                (ErrorCode::DiskLimit, format!("the workspace grew beyond {max} bytes, so it was ended"))
            }
            Self::Files(max) => (
                ErrorCode::DiskLimit,
                format!("the workspace holds more than {max} files, or nests them too deep, so it was ended"),
            ),
            Self::Memory(max) => {
                (ErrorCode::MemoryLimit, format!("the session used more than {max} bytes of memory, so it was ended"))
            }
        };
        Failure::new(code, message)
    }
}
