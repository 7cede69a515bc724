//! Which worker gets a session: a pure function over a view of the registry.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use codegen_types::{Incarnation, IsolationLevel, WorkerId};

use crate::worker::WorkerStatus;

/// What a session asks of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirements {
    /// The weakest isolation under which the session may run.
    pub isolation_minimum: IsolationLevel,
    /// Runtimes that the worker must have, by name (`python`, `shell`).
    pub runtimes: Vec<String>,
    /// Labels that the worker must carry.
    pub labels: BTreeMap<String, String>,
}

/// What a worker can do, as it said when it registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The isolation of its sandboxes.
    pub isolation: IsolationLevel,
    /// Its runtimes, by name.
    pub runtimes: BTreeSet<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// How many sessions a worker can have open, and has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slots {
    /// Sessions that it can have open at once.
    pub total: u32,
    /// Sessions that it has open.
    pub used: u32,
    /// Slots promised to sessions that are about to be opened.
    pub reserved: u32,
}

impl Slots {
    /// Slots that are neither used nor promised.
    pub const fn free(self) -> u32 {
        self.total.saturating_sub(self.used.saturating_add(self.reserved))
    }
}

/// One worker, as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// Its name.
    pub id: WorkerId,
    /// Its present life.
    pub incarnation: Incarnation,
    /// Whether it takes new sessions.
    pub status: WorkerStatus,
    /// What it can do.
    pub capabilities: Capabilities,
    /// What room it has.
    pub slots: Slots,
}

/// Why one worker was passed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It does not take new sessions just now.
    #[error("is {0}")]
    Status(WorkerStatus),
    /// It is not the worker that has the session's files.
    #[error("does not have the session's files")]
    NotPreferred,
    /// Its sandboxes are too weak.
    #[error("isolates at level {has}, {wanted} is required")]
    Isolation {
        /// What it has.
        has: IsolationLevel,
        /// What was asked for.
        wanted: IsolationLevel,
    },
    /// A runtime is missing.
    #[error("has no runtime `{0}`")]
    Runtime(String),
    /// A label is missing or has another value.
    #[error("lacks the label {0}")]
    Label(String),
    /// It has no free slot.
    #[error("has all {0} slots taken")]
    Full(u32),
}

/// No worker fits: the reason for each one, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unplaced {
    /// Each worker and why it was passed over.
    pub reasons: Vec<(WorkerId, Unfit)>,
}

impl Unplaced {
    /// Whether isolation is what stands in the way: every worker that is there is too weak.
    pub fn is_isolation(&self) -> bool {
        !self.reasons.is_empty() && self.reasons.iter().all(|(_, unfit)| matches!(unfit, Unfit::Isolation { .. }))
    }
}

impl std::error::Error for Unplaced {}

impl fmt::Display for Unplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reasons.is_empty() {
            return f.write_str("no worker has joined");
        }
        f.write_str("no worker fits: ")?;
        for (at, (worker, unfit)) in self.reasons.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{worker} {unfit}")?;
        }
        Ok(())
    }
}

/// Chooses the worker with the most free slots among those that fit; between equals the first by name, so that the
/// choice can be repeated. When `prefer` is given, no other worker will do.
///
/// # Errors
/// [`Unplaced`] with the reason for each worker when none fits.
pub fn place<'a>(
    requirements: &Requirements,
    workers: &'a [WorkerView],
    prefer: Option<&WorkerId>,
) -> Result<&'a WorkerView, Unplaced> {
    let mut reasons = Vec::new();
    let mut fitting: Vec<&WorkerView> = Vec::new();
    for worker in workers {
        match unfit(requirements, worker, prefer) {
            Some(reason) => reasons.push((worker.id.clone(), reason)),
            None => fitting.push(worker),
        }
    }
    let best = fitting.into_iter().min_by_key(|worker| (Reverse(worker.slots.free()), &worker.id));
    best.ok_or_else(|| {
        reasons.sort_by(|(a, _), (b, _)| a.cmp(b));
        Unplaced { reasons }
    })
}

fn unfit(requirements: &Requirements, worker: &WorkerView, prefer: Option<&WorkerId>) -> Option<Unfit> {
    let has = &worker.capabilities;
    if prefer.is_some_and(|preferred| *preferred != worker.id) {
        return Some(Unfit::NotPreferred);
    }
    if !worker.status.takes_sessions() {
        return Some(Unfit::Status(worker.status));
    }
    if has.isolation < requirements.isolation_minimum {
        return Some(Unfit::Isolation { has: has.isolation, wanted: requirements.isolation_minimum });
    }
    if let Some(missing) = requirements.runtimes.iter().find(|runtime| !has.runtimes.contains(*runtime)) {
        return Some(Unfit::Runtime(missing.clone()));
    }
    if let Some((key, value)) = requirements.labels.iter().find(|(key, value)| has.labels.get(*key) != Some(value)) {
        return Some(Unfit::Label(format!("{key}={value}")));
    }
    (worker.slots.free() == 0).then_some(Unfit::Full(worker.slots.total))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn worker(name: &str, total: u32, used: u32, reserved: u32) -> WorkerView {
        WorkerView {
            id: name.parse().unwrap(),
            incarnation: Incarnation::mint(),
            status: WorkerStatus::Healthy,
            capabilities: Capabilities {
                isolation: IsolationLevel::Full,
                runtimes: ["python".to_owned()].into(),
                labels: BTreeMap::new(),
            },
            slots: Slots { total, used, reserved },
        }
    }

    fn requirements() -> Requirements {
        Requirements {
            isolation_minimum: IsolationLevel::Full,
            runtimes: vec!["python".to_owned()],
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn the_least_loaded_worker_is_chosen_and_reservations_count() {
        let workers = [worker("b", 4, 0, 0), worker("a", 4, 0, 0), worker("c", 5, 0, 2)];
        assert_eq!(place(&requirements(), &workers, None).unwrap().id.as_str(), "a");
    }

    #[test]
    fn a_session_with_files_goes_nowhere_else() {
        let workers = [worker("a", 4, 0, 0), worker("b", 4, 4, 0)];
        let refused = place(&requirements(), &workers, Some(&"b".parse().unwrap())).unwrap_err();
        assert_eq!(refused.to_string(), "no worker fits: a does not have the session's files, b has all 4 slots taken");
    }

    #[test]
    fn each_worker_is_passed_over_for_a_stated_reason() {
        let mut weak = worker("weak", 1, 0, 0);
        weak.capabilities.isolation = IsolationLevel::Reduced;
        let mut bare = worker("bare", 1, 0, 0);
        bare.capabilities.runtimes.clear();
        let mut leaving = worker("leaving", 1, 0, 0);
        leaving.status = WorkerStatus::Draining;
        let refused = place(&requirements(), &[weak.clone(), bare, leaving], None).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "no worker fits: bare has no runtime `python`, leaving is draining, weak isolates at level reduced, full is required"
        );
        assert!(place(&requirements(), &[weak], None).unwrap_err().is_isolation());
        assert_eq!(place(&requirements(), &[], None).unwrap_err().to_string(), "no worker has joined");
    }

    proptest! {
        #[test]
        fn no_worker_is_ever_overbooked(totals in prop::collection::vec(0u32..6, 1..6), creates in 0usize..40) {
            let mut workers: Vec<WorkerView> =
                totals.iter().enumerate().map(|(at, total)| worker(&format!("w{at}"), *total, 0, 0)).collect();
            let mut placed = 0;
            for create in 0..creates {
                let chosen = place(&requirements(), &workers, None).map(|worker| worker.id.clone());
                let Ok(id) = chosen else { break };
                let slots = &mut workers.iter_mut().find(|worker| worker.id == id).unwrap().slots;
                if create % 2 == 0 { slots.reserved += 1 } else { slots.used += 1 }
                prop_assert!(slots.used + slots.reserved <= slots.total);
                placed += 1;
            }
            let room: u32 = totals.iter().sum();
            prop_assert_eq!(placed, creates.min(room as usize));
        }
    }
}
