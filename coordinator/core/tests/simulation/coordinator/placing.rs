//! Where sessions are placed.

use std::collections::{BTreeMap, BTreeSet};

use codegen_types::{Incarnation, IsolationLevel, WorkerId};
use coordinator_core::placement::{Capabilities, Requirements, Slots, Trust, WorkerView, place, reopen};
use coordinator_core::session::{Session, SessionState};
use coordinator_core::worker::Admittance;

use super::{Coordinator, Entry, name, number};
use crate::world::{Flaw, Ground};

impl Coordinator {
    /// The slots of a life of a worker that are taken, and promised.
    pub(super) fn taken(&self, worker: usize, incarnation: Incarnation) -> (u32, u32) {
        let holds = |session: &&Session| match &session.state {
            SessionState::Opening { lease, .. } | SessionState::Ready { lease } => lease.incarnation == incarnation,
            SessionState::Suspended { .. }
            | SessionState::Lost { .. }
            | SessionState::Closing { .. }
            | SessionState::Closed { .. } => false,
        };
        let used = self.sessions.values().filter(holds).count();
        let promised = self.promised.values().filter(|(at, life, _)| (*at, *life) == (worker, incarnation)).count();
        (u32::try_from(used).unwrap(), u32::try_from(promised).unwrap())
    }

    /// A worker that has more than it can, if one has.
    pub fn overbooked(&self) -> Option<usize> {
        let is_over = |(worker, entry): (&usize, &Entry)| {
            let (used, promised) = self.taken(*worker, entry.incarnation);
            (used + promised > self.slots[*worker]).then_some(*worker)
        };
        self.workers.iter().find_map(is_over)
    }

    pub(super) fn place(&self, prefer: Option<usize>, ground: &Ground) -> Option<(usize, Incarnation)> {
        let capabilities = Capabilities {
            isolation: IsolationLevel::Full,
            runtimes: BTreeSet::new(),
            labels: BTreeMap::new(),
            trust: Trust::Sessions,
        };
        let requirements = Requirements {
            isolation_minimum: IsolationLevel::Full,
            runtimes: Vec::new(),
            labels: BTreeMap::new(),
            trust: Trust::Sessions,
        };
        let names: Vec<WorkerId> = (0..self.slots.len()).map(name).collect();
        let view = |(worker, entry): (&usize, &Entry)| {
            let (used, promised) = self.taken(*worker, entry.incarnation);
            let reserved = if ground.flaw == Some(Flaw::ForgetsReservations) { 0 } else { promised };
            WorkerView {
                id: &names[*worker],
                incarnation: entry.incarnation,
                status: entry.state.status(),
                admittance: Admittance::Open,
                capabilities: &capabilities,
                slots: Slots { total: self.slots[*worker], used, reserved },
            }
        };
        let views: Vec<WorkerView<'_>> = self.workers.iter().map(view).collect();
        let chosen = match prefer.map(name) {
            Some(preferred) => {
                let view = *views.iter().find(|view| *view.id == preferred)?;
                reopen(&requirements, &view).ok()?;
                view
            }
            None => place(&requirements, views.iter().copied()).ok()?,
        };
        Some((number(chosen.id), chosen.incarnation))
    }
}
