//! Why a program is ended before it ends by itself, and what the client is told.

use std::fmt::Write;
use std::time::Duration;

use codegen_types::{ErrorCode, EventBody, Exit, Failure, Limits};

use crate::disk::Outgrown;
use crate::tasks::Stop;

/// How long a program may take to end after an interrupt.
const GRACE: Duration = Duration::from_secs(2);
/// The longest grace that a cancellation may ask for.
const GRACE_MAX: Duration = Duration::from_secs(10);

/// From how long on it is told that a task waited for its turn.
const WAITING_TOLD: Duration = Duration::from_secs(1);

/// Why a program is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its time is over; of what it was given it waited so much for its turn.
    TimedOut { given: Duration, waited: Duration },
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
    /// The workspace holds more files and directories than this many, or nests them too deep.
    Files(u64),
    /// Its temporary files take more than this many bytes, or are too many.
    Scratch(u64),
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
    /// That of what runs in a session that has too much.
    pub fn of_outgrown(of: Outgrown, limits: &Limits) -> Self {
        match of {
            Outgrown::Bytes(_) => Self::Disk(limits.workspace_bytes),
            Outgrown::Files => Self::Files(limits.workspace_files),
            Outgrown::Scratch => Self::Scratch(limits.scratch_bytes),
        }
    }

    /// How long what runs may take to end after an interrupt; none: it is killed at once. A kernel that goes on after
    /// its call keeps its variables, so it is interrupted first also when it used too much.
    pub fn grace(self, outlives_its_task: bool) -> Option<Duration> {
        match self {
            Self::TimedOut { .. } => Some(GRACE),
            Self::Cancelled { grace } => Some(grace.min(GRACE_MAX)),
            Self::Output(_) | Self::Disk(_) | Self::Files(_) | Self::Scratch(_) | Self::Memory(_)
                if outlives_its_task =>
            {
                Some(GRACE)
            }
            Self::SessionClosed
            | Self::WorkerStops
            | Self::KernelRestarted
            | Self::Output(_)
            | Self::Disk(_)
            | Self::Files(_)
            | Self::Scratch(_)
            | Self::Memory(_) => None,
        }
    }

    /// Why a kernel is no more that was killed for this reason, as a sentence goes on after a colon.
    pub fn of_a_kernel(self) -> &'static str {
        match self {
            Self::TimedOut { .. } => "its call ran out of time and did not react to the interrupt",
            Self::Cancelled { .. } => "its call was cancelled and did not react to the interrupt",
            Self::SessionClosed => "the session was closed",
            Self::WorkerStops => "the worker stopped",
            Self::KernelRestarted => "it was restarted",
            Self::Output(_) => "its call wrote too much and did not react to the interrupt",
            Self::Disk(_) | Self::Files(_) | Self::Scratch(_) => {
                "the workspace grew too large and its call did not react to the interrupt"
            }
            Self::Memory(_) => "its call used too much memory and did not react to the interrupt",
        }
    }

    /// The last event of a task that was ended for this reason.
    pub fn failed(self, exit: Option<Exit>) -> EventBody {
        EventBody::Failed { failure: self.failure(), exit }
    }

    /// The last event of a task that still waited for something when it was ended.
    pub fn before_it_ran(self, awaited: &str) -> EventBody {
        let message = match self {
            Self::TimedOut { given, .. } => {
                let seconds = given.as_secs_f64();
                format!("it waited {seconds} s, the time it was given, for {awaited}; nothing was run")
            }
            Self::Cancelled { .. } => format!("It was cancelled while it waited for {awaited}; nothing was run."),
            Self::SessionClosed => format!("Its session was closed while it waited for {awaited}; nothing was run."),
            Self::WorkerStops => format!("The worker stopped while it waited for {awaited}; nothing was run."),
            Self::KernelRestarted
            | Self::Output(_)
            | Self::Disk(_)
            | Self::Files(_)
            | Self::Scratch(_)
            | Self::Memory(_) => {
                return self.failed(None);
            }
        };
        EventBody::Failed { failure: Failure::new(self.failure().code, message), exit: None }
    }

    fn failure(self) -> Failure {
        let (code, message) = match self {
            Self::TimedOut { given, waited } => {
                let mut message = format!("it was ended after {} s, the time it was given", given.as_secs_f64());
                if waited >= WAITING_TOLD {
                    let _ = write!(message, ", of which it waited {:.1} s for its turn", waited.as_secs_f64());
                }
                (ErrorCode::TaskTimeout, message)
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
            Self::Scratch(max) => (
                ErrorCode::DiskLimit,
                format!(
                    "its temporary files grew beyond {max} bytes or became too many, so it was ended and they were deleted"
                ),
            ),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_was_spent_waiting_is_told() {
        let message = |waited| Ending::TimedOut { given: Duration::from_secs(60), waited }.failure().message;
        assert_eq!(message(Duration::from_millis(2)), "it was ended after 60 s, the time it was given");
        assert!(message(Duration::from_secs(55)).ends_with(", of which it waited 55.0 s for its turn"));
    }
}
