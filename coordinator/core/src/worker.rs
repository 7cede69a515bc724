//! The life of a worker in the registry: joining, healthy, suspect, draining, gone.
//!
//! `now` is the time since boot, suspension included, so that a clock set by hand ends nobody.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a silent worker is borne with. Checked by [`Timing::check`] at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The longest time between two signs of life on a link that works: keep-alive interval and timeout.
    pub keep_alive: Duration,
    /// A worker whose link was lost may come back within this time as if nothing had happened.
    pub reconnect_grace: Duration,
    /// After this time its sessions may be given to others.
    pub reassign_after: Duration,
    /// After this time without a heartbeat it is struck off.
    pub prune_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(20),
            reconnect_grace: Duration::from_secs(120),
            reassign_after: Duration::from_secs(150),
            prune_after: Duration::from_secs(300),
        }
    }
}

/// The times are not in the order that makes the fence hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "worker times must grow in this order: keep-alive {keep_alive:?}, reconnect grace {reconnect_grace:?}, \
     reassignment {reassign_after:?}, heartbeat timeout {prune_after:?}",
    keep_alive = .0.keep_alive, reconnect_grace = .0.reconnect_grace,
    reassign_after = .0.reassign_after, prune_after = .0.prune_after
)]
pub struct InvalidTiming(Timing);

impl Timing {
    /// Checks that the times are in order.
    ///
    /// # Errors
    /// [`InvalidTiming`] when they are not.
    pub fn check(self) -> Result<Self, InvalidTiming> {
        let in_order = self.keep_alive < self.reconnect_grace
            && self.reconnect_grace < self.reassign_after
            && self.reassign_after < self.prune_after;
        if in_order { Ok(self) } else { Err(InvalidTiming(self)) }
    }
}

/// Where one life of a worker stands. `heard` is when its last heartbeat came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// It has registered, and its link is not up yet.
    Joining {
        /// Its last heartbeat, or its registration.
        heard: Duration,
    },
    /// Its link is up and its heartbeats come.
    Healthy {
        /// Its last heartbeat.
        heard: Duration,
    },
    /// Its link is down, or its heartbeats are late; it may yet come back.
    Suspect {
        /// Its last heartbeat.
        heard: Duration,
        /// Since when.
        since: Duration,
        /// What is wrong, and so what makes it good again.
        cause: Suspicion,
        /// Whether it was to take no more sessions before.
        draining: bool,
    },
    /// It finishes what it has and takes nothing new.
    Draining {
        /// Its last heartbeat.
        heard: Duration,
    },
    /// This life of it is over; another may join.
    Gone {
        /// Why.
        why: GoneWhy,
        /// Since when.
        at: Duration,
    },
}

/// Why a worker is suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// Its link broke; only a new link clears it.
    LinkDown,
    /// Its link is up and its heartbeats are late; the next one clears it.
    Silent,
}

/// Why a life of a worker is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoneWhy {
    /// It said goodbye.
    Left,
    /// It was silent for too long.
    Pruned,
    /// A new life of the same worker joined.
    Superseded,
    /// What it joined with has expired or was revoked.
    Dismissed,
}

impl GoneWhy {
    /// The reason as records name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Pruned => "pruned",
            Self::Superseded => "superseded",
            Self::Dismissed => "dismissed",
        }
    }
}

/// [`WorkerState`] without its data, for placement and display.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerStatus {
    /// See [`WorkerState::Joining`].
    Joining,
    /// See [`WorkerState::Healthy`].
    Healthy,
    /// See [`WorkerState::Suspect`].
    Suspect,
    /// See [`WorkerState::Draining`].
    Draining,
    /// See [`WorkerState::Gone`].
    Gone,
}

impl WorkerStatus {
    /// Whether new sessions may be placed on it.
    pub const fn takes_sessions(self) -> bool {
        matches!(self, Self::Healthy)
    }

    /// The status as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Healthy => "healthy",
            Self::Suspect => "suspect",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for WorkerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an operator said about new work for a worker. It belongs to the worker's name and not to one life of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admittance {
    /// It takes sessions.
    #[default]
    Open,
    /// It takes no new sessions; those that have their files there go on.
    Cordoned,
    /// It takes no sessions, and those that it has are ended as they go idle.
    Draining,
}

impl Admittance {
    /// The admittance as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
        }
    }
}

/// A text that is no admittance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not open, cordoned or draining")]
pub struct InvalidAdmittance;

impl FromStr for Admittance {
    type Err = InvalidAdmittance;

    fn from_str(text: &str) -> Result<Self, InvalidAdmittance> {
        [Self::Open, Self::Cordoned, Self::Draining]
            .into_iter()
            .find(|one| one.as_str() == text)
            .ok_or(InvalidAdmittance)
    }
}

/// What happens to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerInput {
    /// Its link is up.
    LinkUp,
    /// Its link broke.
    LinkDown,
    /// A heartbeat came.
    Heartbeat,
    /// It was told, or said, that it takes nothing new.
    Drain,
    /// What it joined with is not good any more.
    Dismiss,
    /// It said goodbye.
    Leave,
    /// A new life of it joined.
    Supersede,
    /// Time has passed.
    Tick,
}

impl WorkerState {
    /// A worker that has just registered.
    pub const fn joined(now: Duration) -> Self {
        Self::Joining { heard: now }
    }

    /// The state without its data.
    pub const fn status(&self) -> WorkerStatus {
        match self {
            Self::Joining { .. } => WorkerStatus::Joining,
            Self::Healthy { .. } => WorkerStatus::Healthy,
            Self::Suspect { .. } => WorkerStatus::Suspect,
            Self::Draining { .. } => WorkerStatus::Draining,
            Self::Gone { .. } => WorkerStatus::Gone,
        }
    }

    /// The state after `input`. Nothing brings back a life that is over, and only a link makes a worker healthy.
    #[must_use]
    pub fn step(self, input: WorkerInput, now: Duration, timing: &Timing) -> Self {
        match self {
            Self::Gone { .. } => self,
            Self::Joining { heard } => Self::live(self, heard, Phase::Joining, input, now, timing),
            Self::Healthy { heard } => Self::live(self, heard, Phase::Up { draining: false }, input, now, timing),
            Self::Draining { heard } => Self::live(self, heard, Phase::Up { draining: true }, input, now, timing),
            Self::Suspect { heard, since, cause, draining } => {
                Self::live(self, heard, Phase::Suspect { since, cause, draining }, input, now, timing)
            }
        }
    }

    fn live(self, heard: Duration, phase: Phase, input: WorkerInput, now: Duration, timing: &Timing) -> Self {
        let silent = now.saturating_sub(heard);
        match input {
            WorkerInput::Leave => Self::Gone { why: GoneWhy::Left, at: now },
            WorkerInput::Supersede => Self::Gone { why: GoneWhy::Superseded, at: now },
            WorkerInput::Dismiss => Self::Gone { why: GoneWhy::Dismissed, at: now },
            WorkerInput::Tick if silent > timing.prune_after => Self::Gone { why: GoneWhy::Pruned, at: now },
            WorkerInput::Tick => match phase {
                Phase::Up { draining } if silent > timing.reconnect_grace => {
                    Self::Suspect { heard, since: now, cause: Suspicion::Silent, draining }
                }
                Phase::Up { .. } | Phase::Joining | Phase::Suspect { .. } => self,
            },
            WorkerInput::LinkUp => phase.up(now),
            WorkerInput::LinkDown => match phase {
                Phase::Joining => self,
                Phase::Up { draining } => Self::Suspect { heard, since: now, cause: Suspicion::LinkDown, draining },
                Phase::Suspect { since, draining, .. } => {
                    Self::Suspect { heard, since, cause: Suspicion::LinkDown, draining }
                }
            },
            WorkerInput::Heartbeat => match phase {
                Phase::Joining => Self::Joining { heard: now },
                Phase::Up { .. } | Phase::Suspect { cause: Suspicion::Silent, .. } => phase.up(now),
                Phase::Suspect { since, cause: cause @ Suspicion::LinkDown, draining } => {
                    Self::Suspect { heard: now, since, cause, draining }
                }
            },
            WorkerInput::Drain => match phase {
                Phase::Joining | Phase::Up { .. } => Self::Draining { heard },
                Phase::Suspect { since, cause, .. } => Self::Suspect { heard, since, cause, draining: true },
            },
        }
    }
}

/// What the live states have in common, so that one table serves them.
#[derive(Clone, Copy)]
enum Phase {
    Joining,
    Up { draining: bool },
    Suspect { since: Duration, cause: Suspicion, draining: bool },
}

impl Phase {
    fn up(self, now: Duration) -> WorkerState {
        match self {
            Self::Up { draining: true } | Self::Suspect { draining: true, .. } => WorkerState::Draining { heard: now },
            Self::Joining | Self::Up { .. } | Self::Suspect { .. } => WorkerState::Healthy { heard: now },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    const INPUTS: [WorkerInput; 7] = [
        WorkerInput::LinkUp,
        WorkerInput::LinkDown,
        WorkerInput::Heartbeat,
        WorkerInput::Drain,
        WorkerInput::Leave,
        WorkerInput::Supersede,
        WorkerInput::Tick,
    ];

    #[test]
    fn the_whole_table() {
        let heard = Duration::from_secs(100);
        let states = [
            WorkerState::Joining { heard },
            WorkerState::Healthy { heard },
            WorkerState::Suspect { heard, since: heard, cause: Suspicion::LinkDown, draining: false },
            WorkerState::Suspect { heard, since: heard, cause: Suspicion::Silent, draining: true },
            WorkerState::Draining { heard },
            WorkerState::Gone { why: GoneWhy::Left, at: heard },
        ];
        let mut table = String::new();
        for state in states {
            for input in INPUTS {
                for after in [10, 130, 301] {
                    let next = state.step(input, heard + Duration::from_secs(after), &Timing::default());
                    if after == 10 || input == WorkerInput::Tick {
                        writeln!(table, "{state:?} + {input:?} after {after} s -> {next:?}").unwrap();
                    }
                }
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn times_out_of_order_are_refused() {
        assert!(Timing::default().check().is_ok());
        let wrong = Timing { prune_after: Duration::from_secs(100), ..Timing::default() };
        assert!(wrong.check().is_err());
    }

    proptest! {
        #[test]
        fn a_life_that_is_over_stays_over(history in prop::collection::vec((0usize..7, 0u64..200), 0..60)) {
            let (mut now, mut state) = (Duration::ZERO, WorkerState::joined(Duration::ZERO));
            for (input, passed) in history {
                now += Duration::from_secs(passed);
                let next = state.step(INPUTS[input], now, &Timing::default());
                if let WorkerState::Gone { .. } = state {
                    prop_assert_eq!(next, state);
                }
                state = next;
            }
        }

        #[test]
        fn a_draining_worker_never_takes_sessions_again(history in prop::collection::vec((0usize..7, 0u64..50), 0..60)) {
            let (mut now, mut state, mut drained) = (Duration::ZERO, WorkerState::joined(Duration::ZERO), false);
            for (input, passed) in history {
                now += Duration::from_secs(passed);
                state = state.step(INPUTS[input], now, &Timing::default());
                drained |= INPUTS[input] == WorkerInput::Drain;
                prop_assert!(!(drained && state.status().takes_sessions()), "{state:?}");
            }
        }
    }
}
