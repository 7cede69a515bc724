//! The workers as operators see them.

use std::collections::{BTreeMap, HashMap};

use codegen_types::{Failure, HostUse, Incarnation, IsolationReport, Resources, Runtime, WorkerId};
use coordinator_core::placement::Slots;
use coordinator_core::worker::Admittance;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Operators, SessionLine, cordons, time};
use crate::store::CordonRow;
use crate::workers::WorkerSnapshot;

/// Sessions that are shown with their worker; the filter of sessions shows the rest.
const SESSIONS_SHOWN: usize = 100;

/// One worker at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its name.
    pub worker_id: WorkerId,
    /// `joining`, `healthy`, `suspect` or `draining`; `gone` when only an operator's word of it is left.
    pub state: String,
    /// What an operator said about new work for it; absent when it takes all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cordon: Option<CordonView>,
    /// Whether an operator has it drained and nothing of any session is left on it but files.
    pub drained: bool,
    /// What room it has.
    pub slots: SlotsView,
    /// Sessions that have processes on it, or are about to.
    pub sessions_open: usize,
    /// Tasks that run on it.
    pub tasks_running: usize,
    /// What it said of itself; absent when it is gone.
    #[serde(flatten)]
    pub life: Option<LifeView>,
}

/// What one life of a worker said of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LifeView {
    /// Which life.
    pub incarnation: Incarnation,
    /// How well its sandboxes isolate: `full`, `portable`, `reduced` or `none`.
    pub isolation: String,
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

/// What an operator said about new work for a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CordonView {
    /// `cordoned` or `draining`.
    pub admittance: Admittance,
    /// Who said so.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
}

/// What room a worker has, in sessions that it can have open at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotsView {
    /// All of them.
    pub total: u32,
    /// Those of open sessions.
    pub used: u32,
    /// Those promised to sessions that are about to be opened.
    pub reserved: u32,
}

/// One worker with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerDetail {
    /// What the list has of it, too.
    #[serde(flatten)]
    pub row: WorkerRow,
    /// The layers of its isolation; absent when it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<IsolationReport>,
    /// What its host has; absent when it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// What of that is in use, as it said last; absent when it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<HostUse>,
    /// Sessions that have processes or files on it, the newest first, at most a hundred.
    pub sessions: Vec<SessionLine>,
    /// How many there are.
    pub sessions_total: usize,
}

/// What sessions have on a worker.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    open: usize,
    running: usize,
}

impl Operators {
    /// The workers that have joined and are not gone, and those gone that an operator said something about; by name.
    pub fn workers(&self) -> Vec<WorkerRow> {
        let (loads, mut cordons) = (self.loads(), self.0.cordons.rows());
        let mut row = |worker: WorkerSnapshot| {
            let load = loads.get(&worker.id).copied().unwrap_or_default();
            let cordon = cordons.remove(&worker.id);
            WorkerRow::of(worker, load, cordon)
        };
        let mut rows: Vec<WorkerRow> = self.0.workers.snapshot().into_iter().map(&mut row).collect();
        rows.extend(cordons.into_values().map(|cordon| {
            let load = loads.get(&cordon.worker).copied().unwrap_or_default();
            WorkerRow::of_gone(cordon.worker.clone(), Some(cordon), load)
        }));
        rows.sort_by(|a, b| a.worker_id.cmp(&b.worker_id));
        rows
    }

    /// One worker.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub fn worker(&self, worker: &WorkerId) -> Result<WorkerDetail, Failure> {
        let row = self.row(worker).ok_or_else(|| cordons::unknown(worker))?;
        let there = self.0.workers.snapshot().into_iter().find(|snapshot| snapshot.id == *worker);
        let (resources, used) = there.as_ref().map(|there| (there.resources, there.used)).unzip();
        let layers = there.map(|there| there.isolation);
        let mut sessions = self.lines(|line| line.worker.as_ref() == Some(worker) && line.state != "closed");
        let sessions_total = sessions.len();
        sessions.truncate(SESSIONS_SHOWN);
        Ok(WorkerDetail { row, layers, resources, used, sessions, sessions_total })
    }

    /// A worker of which nobody says anything any more.
    pub(super) fn gone(&self, worker: WorkerId) -> WorkerRow {
        let load = self.loads().get(&worker).copied().unwrap_or_default();
        WorkerRow::of_gone(worker, None, load)
    }

    pub(super) fn row(&self, worker: &WorkerId) -> Option<WorkerRow> {
        self.workers().into_iter().find(|row| row.worker_id == *worker)
    }

    fn loads(&self) -> HashMap<WorkerId, Load> {
        let mut loads: HashMap<WorkerId, Load> = HashMap::new();
        for session in self.0.sessions.of_everybody() {
            if let Some(lease) = &session.lease
                && matches!(session.state, "opening" | "ready" | "closing")
            {
                let load = loads.entry(lease.worker.clone()).or_default();
                load.open += 1;
                load.running += session.running.len();
            }
        }
        loads
    }
}

impl WorkerRow {
    fn of(worker: WorkerSnapshot, load: Load, cordon: Option<CordonRow>) -> Self {
        let slots = SlotsView::from(worker.slots);
        let is_draining = cordon.as_ref().is_some_and(|cordon| cordon.admittance == Admittance::Draining);
        Self {
            worker_id: worker.id,
            state: worker.state.as_str().to_owned(),
            drained: is_draining && load.open == 0 && slots.used == 0 && slots.reserved == 0,
            cordon: cordon.map(CordonView::of),
            slots,
            sessions_open: load.open,
            tasks_running: load.running,
            life: Some(LifeView {
                incarnation: worker.incarnation,
                isolation: worker.isolation.level.to_string(),
                link_up: worker.link_up,
                heartbeat_age_seconds: worker.last_heartbeat_age.as_secs_f64(),
                version: worker.version,
                runtimes: worker.runtimes,
                labels: worker.labels,
            }),
        }
    }

    fn of_gone(worker: WorkerId, cordon: Option<CordonRow>, load: Load) -> Self {
        let is_draining = cordon.as_ref().is_some_and(|cordon| cordon.admittance == Admittance::Draining);
        Self {
            worker_id: worker,
            state: "gone".to_owned(),
            drained: is_draining && load.open == 0,
            cordon: cordon.map(CordonView::of),
            slots: SlotsView::default(),
            sessions_open: load.open,
            tasks_running: load.running,
            life: None,
        }
    }
}

impl CordonView {
    fn of(row: CordonRow) -> Self {
        Self { admittance: row.admittance, by: row.set_by.to_string(), since: time(row.since_ms) }
    }
}

impl From<Slots> for SlotsView {
    fn from(slots: Slots) -> Self {
        Self { total: slots.total, used: slots.used, reserved: slots.reserved }
    }
}
