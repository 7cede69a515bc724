//! The table as placement and people look at it, and the slots that are promised on the way.

use std::time::Duration;

use codegen_types::{Capabilities, Incarnation, Runtime, SessionId, WorkerId};
use coordinator_core::placement::{self, Requirements, Trust, Unplaced, WorkerView};
use coordinator_core::worker::Admittance;

use super::{Entry, Registry};
use crate::workers::slots::SlotBook;
use crate::workers::snapshot::WorkerSnapshot;

impl Registry {
    /// Whether a session could be placed on any worker, room aside.
    pub(crate) fn any_ready(&self) -> bool {
        self.workers.values().any(|entry| entry.state.status().takes_sessions())
    }

    /// What an operator says of a worker's name from now on.
    pub(crate) fn admit(&mut self, worker: WorkerId, admittance: Admittance) {
        match admittance {
            Admittance::Open => drop(self.admittances.remove(&worker)),
            Admittance::Cordoned | Admittance::Draining => drop(self.admittances.insert(worker, admittance)),
        }
    }

    /// Chooses a worker and promises a slot of it. `prefer` has that session's files: no other will do, and the slot
    /// that the session may still have there is no hindrance.
    pub(crate) fn reserve(
        &mut self,
        requirements: &Requirements,
        prefer: Option<(&WorkerId, SessionId)>,
    ) -> Result<(WorkerId, Incarnation), Unplaced> {
        let (worker, incarnation) = match prefer {
            None => {
                let chosen =
                    placement::place(requirements, self.workers.iter().map(|(id, entry)| self.view(id, entry)))?;
                (chosen.id.clone(), chosen.incarnation)
            }
            Some((worker, session)) => {
                let (id, entry) = self.workers.get_key_value(worker).ok_or_else(Unplaced::default)?;
                let view = WorkerView { slots: entry.slots.view_for(session), ..self.view(id, entry) };
                let reopened = placement::reopen(requirements, &view);
                reopened.map_err(|unfit| Unplaced { reasons: vec![(id.clone(), unfit)] })?;
                (id.clone(), entry.incarnation)
            }
        };
        let entry = self.life(&worker, incarnation).expect("a view is of a worker in the table");
        entry.slots.reserve(prefer.map(|(_, session)| session));
        Ok((worker, incarnation))
    }

    fn view<'a>(&self, id: &'a WorkerId, entry: &'a Entry) -> WorkerView<'a> {
        WorkerView {
            id,
            incarnation: entry.incarnation,
            status: entry.state.status(),
            admittance: self.admittances.get(id).copied().unwrap_or_default(),
            capabilities: &entry.placing,
            slots: entry.slots.view(),
        }
    }

    /// Changes the slots of a life that is not over yet.
    pub(crate) fn slots(&mut self, worker: &WorkerId, incarnation: Incarnation, change: impl FnOnce(&mut SlotBook)) {
        if let Some(entry) = self.life(worker, incarnation) {
            change(&mut entry.slots);
        }
    }

    /// What a worker runs programs with; nothing of one that is gone.
    pub(crate) fn runtimes(&self, worker: &WorkerId) -> Vec<Runtime> {
        self.workers.get(worker).map(|entry| entry.capabilities.runtimes.clone()).unwrap_or_default()
    }

    /// What a worker is trusted with; nothing more than another when it is gone.
    pub(crate) fn trust(&self, worker: &WorkerId) -> Trust {
        self.workers.get(worker).map(|entry| entry.placing.trust).unwrap_or_default()
    }

    pub(crate) fn snapshot(&self, now: Duration) -> Vec<WorkerSnapshot> {
        let row = |(id, entry): (&WorkerId, &Entry)| WorkerSnapshot {
            id: id.clone(),
            incarnation: entry.incarnation,
            state: entry.state.status(),
            version: entry.version.clone(),
            isolation: entry.capabilities.isolation.clone(),
            runtimes: entry.capabilities.runtimes.clone(),
            labels: entry.capabilities.labels.clone(),
            admittance: self.admittances.get(id).copied().unwrap_or_default(),
            resources: entry.capabilities.resources,
            used: entry.used,
            slots: entry.slots.view(),
            last_heartbeat_age: now.saturating_sub(entry.heard),
            link_up: entry.is_linked(),
        };
        self.workers.iter().map(row).collect()
    }
}

/// What placement asks for of what a worker said, and of what it is trusted with.
pub(super) fn of(capabilities: &Capabilities, trust: Trust) -> placement::Capabilities {
    placement::Capabilities {
        isolation: capabilities.isolation.level,
        runtimes: capabilities.runtimes.iter().map(|runtime| runtime.name.clone()).collect(),
        labels: capabilities.labels.clone(),
        trust,
    }
}
