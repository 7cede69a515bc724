//! The life of a task: how far it came, and how its end is to be understood.

use codegen_types::{ErrorCode, Lease};
use serde::{Deserialize, Serialize};

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TaskState {
    /// It was admitted and nothing of it has left the coordinator.
    Queued {
        /// How often it has been handed to a link and was not started.
        placements: u32,
    },
    /// Its attempt is on record, and it may be on its way to the worker or running there.
    Dispatched {
        /// Who holds its session.
        lease: Lease,
        /// How often it has been handed to a link, this time included.
        placements: u32,
    },
    /// The worker said that it began.
    Running {
        /// Who holds its session.
        lease: Lease,
    },
    /// It was carried out; a program that failed is a result, too.
    Finished,
    /// It was refused, or ended by a limit, a deadline or a cancellation.
    Failed {
        /// Why.
        code: ErrorCode,
    },
    /// How it ended cannot be known, unless the life of the worker that had it tells of it later.
    Unknown {
        /// Who held its session when it was sent; nothing for tasks of earlier releases.
        #[serde(default)]
        lease: Option<Lease>,
    },
}

/// What happens to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskInput {
    /// Its attempt is durable, and it is handed to the link of this holder.
    Dispatch {
        /// Who holds its session.
        lease: Lease,
    },
    /// The worker said that it began.
    Started,
    /// The worker answered with a result.
    Finished,
    /// The worker answered with a failure, or nothing was done for this reason.
    Failed {
        /// Why.
        code: ErrorCode,
    },
    /// It was never written to a link, or its worker denies having it.
    NotStarted {
        /// Why.
        code: ErrorCode,
    },
    /// It was sent, and its end cannot be learnt.
    OutcomeLost,
    /// The server started and found it without an outcome.
    ServerStarted,
    /// The worker told after all how it ended, when that had been given up.
    Resolved {
        /// Why it failed; nothing when it was carried out.
        code: Option<ErrorCode>,
    },
}

/// How often a task may be handed to a link when it was not started.
pub const PLACEMENTS_MAX: u32 = 2;

/// Whether a task that was not started for this reason may be handed over once more: it lay in the placement, and not
/// in the task.
pub const fn is_misplacement(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::WorkerUnavailable | ErrorCode::SessionNotFound | ErrorCode::PermissionDenied)
}

/// The input does not fit the state; nothing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task that is {state} takes no such input")]
pub struct TaskRefusal {
    /// The state in a word.
    pub state: &'static str,
}

impl TaskState {
    /// A task that was just admitted.
    pub const fn admitted() -> Self {
        Self::Queued { placements: 0 }
    }

    /// The state in a word.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Dispatched { .. } => "dispatched",
            Self::Running { .. } => "running",
            Self::Finished => "finished",
            Self::Failed { .. } => "failed",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// Whether it is over.
    pub const fn is_over(&self) -> bool {
        match self {
            Self::Queued { .. } | Self::Dispatched { .. } | Self::Running { .. } => false,
            Self::Finished | Self::Failed { .. } | Self::Unknown { .. } => true,
        }
    }

    /// The state after `input`. What was ever handed to a link is never queued again, unless it was certainly not
    /// started, and then only [`PLACEMENTS_MAX`] times.
    ///
    /// # Errors
    /// [`TaskRefusal`] when the input does not fit; what is over stays as it is, unless it was unknown.
    pub fn step(&self, input: &TaskInput) -> Result<Self, TaskRefusal> {
        let refused = Err(TaskRefusal { state: self.name() });
        match (self, input) {
            (Self::Queued { placements }, TaskInput::Dispatch { lease }) => {
                Ok(Self::Dispatched { lease: lease.clone(), placements: placements + 1 })
            }
            (Self::Queued { .. } | Self::Dispatched { .. } | Self::Running { .. }, TaskInput::Failed { code }) => {
                Ok(Self::Failed { code: *code })
            }
            (Self::Queued { .. }, TaskInput::ServerStarted) => Ok(Self::Failed { code: ErrorCode::WorkerUnavailable }),
            (
                Self::Queued { .. },
                TaskInput::Started
                | TaskInput::Finished
                | TaskInput::NotStarted { .. }
                | TaskInput::OutcomeLost
                | TaskInput::Resolved { .. },
            ) => refused,
            (Self::Dispatched { lease, .. }, TaskInput::Started) => Ok(Self::Running { lease: lease.clone() }),
            (Self::Dispatched { placements, .. }, TaskInput::NotStarted { code }) => {
                if *placements < PLACEMENTS_MAX {
                    Ok(Self::Queued { placements: *placements })
                } else {
                    Ok(Self::Failed { code: *code })
                }
            }
            (Self::Dispatched { .. } | Self::Running { .. }, TaskInput::Finished) => Ok(Self::Finished),
            (
                Self::Dispatched { lease, .. } | Self::Running { lease },
                TaskInput::OutcomeLost | TaskInput::ServerStarted,
            ) => Ok(Self::Unknown { lease: Some(lease.clone()) }),
            (Self::Dispatched { .. }, TaskInput::Dispatch { .. } | TaskInput::Resolved { .. }) => refused,
            (
                Self::Running { .. },
                TaskInput::Dispatch { .. }
                | TaskInput::Started
                | TaskInput::NotStarted { .. }
                | TaskInput::Resolved { .. },
            ) => refused,
            (Self::Unknown { lease: Some(_) }, TaskInput::Resolved { code }) => {
                Ok(code.map_or(Self::Finished, |code| Self::Failed { code }))
            }
            (Self::Finished | Self::Failed { .. } | Self::Unknown { .. }, _) => refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use codegen_types::{Epoch, Incarnation};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn lease() -> Lease {
        let incarnation = Incarnation::from_uuid(Uuid::from_u128(1));
        Lease { worker: "w".parse().unwrap(), incarnation, epoch: Epoch(1) }
    }

    fn inputs() -> Vec<TaskInput> {
        let code = ErrorCode::WorkerUnavailable;
        vec![
            TaskInput::Dispatch { lease: lease() },
            TaskInput::Started,
            TaskInput::Finished,
            TaskInput::Failed { code: ErrorCode::TaskTimeout },
            TaskInput::NotStarted { code },
            TaskInput::OutcomeLost,
            TaskInput::ServerStarted,
            TaskInput::Resolved { code: None },
            TaskInput::Resolved { code: Some(ErrorCode::TaskTimeout) },
        ]
    }

    #[test]
    fn the_whole_table() {
        let states = [
            TaskState::admitted(),
            TaskState::Dispatched { lease: lease(), placements: 1 },
            TaskState::Dispatched { lease: lease(), placements: 2 },
            TaskState::Running { lease: lease() },
            TaskState::Finished,
            TaskState::Failed { code: ErrorCode::TaskTimeout },
            TaskState::Unknown { lease: Some(lease()) },
            TaskState::Unknown { lease: None },
        ];
        let mut table = String::new();
        for state in &states {
            for input in inputs() {
                let next = state.step(&input).map(|next| serde_json::to_string(&next).unwrap());
                let text = next.unwrap_or_else(|refusal| format!("refused: {refusal}"));
                writeln!(table, "{} + {input:?} -> {text}", serde_json::to_string(state).unwrap()).unwrap();
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn only_what_lay_in_the_placement_is_handed_over_again() {
        let again: Vec<ErrorCode> = ErrorCode::ALL.iter().copied().filter(|code| is_misplacement(*code)).collect();
        let placement = [ErrorCode::SessionNotFound, ErrorCode::WorkerUnavailable, ErrorCode::PermissionDenied];
        assert_eq!(again.len(), placement.len(), "{again:?}");
        assert!(placement.iter().all(|code| again.contains(code)), "{again:?}");
    }

    proptest! {
        #[test]
        fn a_task_that_started_is_never_dispatched_again(history in prop::collection::vec(0usize..9, 0..40)) {
            let (mut state, mut dispatches, mut started) = (TaskState::admitted(), 0, false);
            for input in history.into_iter().map(|n| inputs().swap_remove(n)) {
                let Ok(next) = state.step(&input) else {
                    continue;
                };
                let resolved = matches!(input, TaskInput::Resolved { .. });
                prop_assert!(resolved || !state.is_over());
                if matches!(input, TaskInput::Dispatch { .. }) {
                    prop_assert!(!started);
                    dispatches += 1;
                }
                started |= input == TaskInput::Started;
                state = next;
            }
            prop_assert!(dispatches <= PLACEMENTS_MAX);
        }
    }
}
