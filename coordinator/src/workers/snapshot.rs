//! What an operator sees of a worker.

use std::collections::BTreeMap;
use std::time::Duration;

use codegen_types::{HostUse, Incarnation, IsolationReport, Resources, Runtime, WorkerId};
use coordinator_core::placement::Slots;
use coordinator_core::worker::{Admittance, WorkerStatus};

/// One worker at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSnapshot {
    /// Its name.
    pub id: WorkerId,
    /// Its present life.
    pub incarnation: Incarnation,
    /// Where it stands.
    pub state: WorkerStatus,
    /// Its release, as it says itself.
    pub version: String,
    /// What its sandboxes have.
    pub isolation: IsolationReport,
    /// What it can run.
    pub runtimes: Vec<Runtime>,
    /// What an operator said about new work for it.
    pub admittance: Admittance,
    /// Its operator's labels.
    pub labels: BTreeMap<String, String>,
    /// What its host has.
    pub resources: Resources,
    /// What of that is in use, as it said last.
    pub used: HostUse,
    /// What room it has.
    pub slots: Slots,
    /// How long ago it was heard of.
    pub last_heartbeat_age: Duration,
    /// Whether it can be called just now.
    pub link_up: bool,
}
