//! What is remembered of a worker that was started here, from one look to the next, and where it stands by that.

use std::time::Duration;

use coordinator_core::scaling::Phase;
use coordinator_core::worker::{Admittance, WorkerStatus};

use crate::workers::WorkerSnapshot;

/// What is remembered of a worker that was started here.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Remembered {
    absent_since: Option<Duration>,
    idle_since: Option<Duration>,
    /// Of which absence its operator was told.
    pub(super) warned_of: Option<Duration>,
    /// Whether it was told to end.
    pub(super) is_ending: bool,
}

impl Remembered {
    /// Where it stands, by what is known of the worker itself; `holds` says whether anything would be lost with it.
    pub(super) fn phase(&mut self, worker: Option<&WorkerSnapshot>, holds: bool, now: Duration) -> Phase {
        let Some(worker) = worker else {
            self.absent_since.get_or_insert(now);
            self.idle_since = None;
            return if self.is_ending { Phase::Ending } else { Phase::Starting };
        };
        self.absent_since = None;
        if self.is_ending {
            return Phase::Ending;
        }
        if holds || is_used(worker) {
            self.idle_since = None;
        } else {
            self.idle_since.get_or_insert(now);
        }
        match worker.state {
            WorkerStatus::Healthy if worker.admittance == Admittance::Open => {
                let slots = worker.slots;
                Phase::Serving { slots: slots.total, free: slots.free(), idle_since: self.idle_since }
            }
            // An operator said that it gets nothing new. With nothing left on it, it is in nobody's way when it ends.
            WorkerStatus::Healthy if self.idle_since.is_some() => {
                Phase::Serving { slots: 0, free: 0, idle_since: self.idle_since }
            }
            WorkerStatus::Joining => Phase::Starting,
            WorkerStatus::Healthy | WorkerStatus::Suspect | WorkerStatus::Draining | WorkerStatus::Gone => Phase::Away,
        }
    }

    /// Since when nothing is known of the worker, if that is longer than `patience`.
    pub(super) fn absent_beyond(&self, patience: Duration, now: Duration) -> Option<Duration> {
        self.absent_since.filter(|since| now.saturating_sub(*since) > patience)
    }
}

/// Whether sessions are open on it, or about to be.
pub(super) fn is_used(worker: &WorkerSnapshot) -> bool {
    worker.slots.used + worker.slots.reserved > 0
}
