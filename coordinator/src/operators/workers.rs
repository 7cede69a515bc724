//! The workers as operators see them.

use std::collections::BTreeMap;

use codegen_types::{Incarnation, Runtime, WorkerId};
use coordinator_core::placement::Slots;
use serde::{Deserialize, Serialize};

use super::Operators;
use crate::workers::WorkerSnapshot;

/// One worker at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its name.
    pub worker_id: WorkerId,
    /// Its present life.
    pub incarnation: Incarnation,
    /// `joining`, `healthy`, `suspect`, `draining` or `gone`.
    pub state: String,
    /// How well its sandboxes isolate: `full`, `portable`, `reduced` or `none`.
    pub isolation: String,
    /// What room it has.
    pub slots: SlotsView,
    /// Whether it can be called just now.
    pub link_up: bool,
    /// How long ago it was heard of, in seconds.
    pub heartbeat_age_seconds: f64,
    /// Its release, as it says itself.
    pub version: String,
    /// What it runs programs with.
    pub runtimes: Vec<Runtime>,
    /// Its operator's labels.
    pub labels: BTreeMap<String, String>,
}

/// What room a worker has, in sessions that it can have open at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotsView {
    /// All of them.
    pub total: u32,
    /// Those of open sessions.
    pub used: u32,
    /// Those promised to sessions that are about to be opened.
    pub reserved: u32,
}

impl Operators {
    /// The workers that have joined and are not gone, by name.
    pub fn workers(&self) -> Vec<WorkerRow> {
        self.workers.snapshot().into_iter().map(WorkerRow::of).collect()
    }
}

impl WorkerRow {
    pub(super) fn of(worker: WorkerSnapshot) -> Self {
        Self {
            worker_id: worker.id,
            incarnation: worker.incarnation,
            state: worker.state.as_str().to_owned(),
            isolation: worker.isolation.level.to_string(),
            slots: worker.slots.into(),
            link_up: worker.link_up,
            heartbeat_age_seconds: worker.last_heartbeat_age.as_secs_f64(),
            version: worker.version,
            runtimes: worker.runtimes,
            labels: worker.labels,
        }
    }
}

impl From<Slots> for SlotsView {
    fn from(slots: Slots) -> Self {
        Self { total: slots.total, used: slots.used, reserved: slots.reserved }
    }
}
