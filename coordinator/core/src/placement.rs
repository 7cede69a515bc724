//! Which worker gets a session: a pure function over a view of the registry.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use codegen_types::{Incarnation, IsolationLevel, WorkerId};

use crate::worker::{Admittance, WorkerStatus};

/// What a session asks of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirements {
    /// The weakest isolation under which the session may run.
    pub isolation_minimum: IsolationLevel,
    /// Runtimes that the worker must have, by name (`python`, `shell`).
    pub runtimes: Vec<String>,
    /// Labels that the worker must carry.
    pub labels: BTreeMap<String, String>,
    /// What the worker must be trusted with.
    pub trust: Trust,
}

/// What a worker is trusted with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Sessions, and all that is theirs.
    #[default]
    Sessions,
    /// Secrets of the operator, too.
    Secrets,
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
    /// What it is trusted with: not its own word, but by what it joined with.
    pub trust: Trust,
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
        self.total.saturating_sub(self.taken())
    }

    const fn taken(self) -> u32 {
        self.used.saturating_add(self.reserved)
    }

    /// Compares by load, the less loaded first: by the share of slots that is taken, then by free slots, the more the
    /// better.
    fn by_load(self, other: Self) -> Ordering {
        let share = u64::from(self.taken()) * u64::from(other.total);
        let others = u64::from(other.taken()) * u64::from(self.total);
        share.cmp(&others).then(other.free().cmp(&self.free()))
    }
}

/// One worker, as placement sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerView<'a> {
    /// Its name.
    pub id: &'a WorkerId,
    /// Its present life.
    pub incarnation: Incarnation,
    /// How it is.
    pub status: WorkerStatus,
    /// What an operator said about it.
    pub admittance: Admittance,
    /// What it can do.
    pub capabilities: &'a Capabilities,
    /// What room it has.
    pub slots: Slots,
}

/// Why one worker was passed over.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// It does not take new sessions just now.
    Status(WorkerStatus),
    /// An operator said so.
    Admittance(Admittance),
    /// Its sandboxes are too weak.
    Isolation {
        /// What it has.
        has: IsolationLevel,
        /// What was asked for.
        wanted: IsolationLevel,
    },
    /// A runtime is missing.
    Runtime(String),
    /// A label is missing or has another value.
    Label(String),
    /// It is told no secrets of the operator.
    Untrusted,
    /// It has no free slot.
    Full,
}

impl Unfit {
    /// What is said of so many workers of which this is true.
    fn of(&self, count: usize) -> String {
        let [is, has, verb_end] = if count == 1 { ["is", "has", "s"] } else { ["are", "have", ""] };
        match self {
            Self::Status(status) => format!("{is} {status}"),
            Self::Admittance(Admittance::Draining) => format!("{is} being drained"),
            Self::Admittance(Admittance::Open | Admittance::Cordoned) => format!("{is} cordoned"),
            Self::Isolation { has, wanted } => format!("isolate{verb_end} at level {has}, {wanted} is required"),
            Self::Runtime(name) => format!("{has} no runtime `{name}`"),
            Self::Label(label) => format!("lack{verb_end} the label {label}"),
            Self::Untrusted => format!("{is} not told secrets (SECRETS_WORKERS)"),
            Self::Full => format!("{has} all slots taken"),
        }
    }
}

/// What stands in the way of a session that fits nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Workers that are there; some are away and may be back soon, or none has joined yet.
    Workers,
    /// Isolation: every worker that is there is too weak.
    Isolation,
    /// Room: somewhere it would fit once a slot is free.
    Room,
    /// Leave: an operator keeps a worker from new sessions that might do.
    Admittance,
    /// A worker that can do what is required.
    Capability,
}

/// No worker fits: the reason for each one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unplaced {
    /// Each worker and why it was passed over.
    pub reasons: Vec<(WorkerId, Unfit)>,
}

impl Unplaced {
    /// What would have to be otherwise.
    pub fn missing(&self) -> Missing {
        let all = |is: fn(&Unfit) -> bool| self.reasons.iter().all(|(_, unfit)| is(unfit));
        let any = |is: fn(&Unfit) -> bool| self.reasons.iter().any(|(_, unfit)| is(unfit));
        if any(|unfit| matches!(unfit, Unfit::Full)) {
            Missing::Room
        } else if any(|unfit| matches!(unfit, Unfit::Isolation { .. }))
            && all(|unfit| matches!(unfit, Unfit::Isolation { .. }))
        {
            Missing::Isolation
        } else if self.reasons.is_empty() || any(|unfit| matches!(unfit, Unfit::Status(_))) {
            Missing::Workers
        } else if any(|unfit| matches!(unfit, Unfit::Admittance(_))) {
            Missing::Admittance
        } else {
            Missing::Capability
        }
    }
}

impl std::error::Error for Unplaced {}

impl fmt::Display for Unplaced {
    /// Says which requirement excluded how many workers; names none, since clients read it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: BTreeMap<&Unfit, usize> = BTreeMap::new();
        for (_, unfit) in &self.reasons {
            *counts.entry(unfit).or_default() += 1;
        }
        match (self.reasons.len(), counts.first_key_value()) {
            (_, None) => return f.write_str("no worker has joined"),
            (1, Some((unfit, _))) => return write!(f, "no worker fits: the only one {}", unfit.of(1)),
            (all, Some(_)) => write!(f, "no worker fits: of {all}, ")?,
        }
        for (at, (unfit, count)) in counts.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {}", unfit.of(*count))?;
        }
        Ok(())
    }
}

/// Chooses a worker for a new session: the least loaded one among those that fit, which is the one with the smallest
/// share of its slots taken. Between equals it is the one with more free slots, and then the first by name, so that the
/// choice can be repeated.
///
/// # Errors
/// [`Unplaced`] with the reason for each worker when none fits.
pub fn place<'a>(
    requirements: &Requirements,
    workers: impl Iterator<Item = WorkerView<'a>> + Clone,
) -> Result<WorkerView<'a>, Unplaced> {
    let fitting = workers.clone().filter(|worker| unfit(requirements, worker).is_none());
    let best = fitting.min_by(|a, b| a.slots.by_load(b.slots).then_with(|| a.id.cmp(b.id)));
    best.ok_or_else(|| {
        let reasons = workers.filter_map(|worker| Some((worker.id.clone(), unfit(requirements, &worker)?)));
        Unplaced { reasons: reasons.collect() }
    })
}

/// Whether a session can be opened again on the worker that has its files. A cordon does not keep it from its files.
///
/// # Errors
/// [`Unfit`]: why not.
pub fn reopen(requirements: &Requirements, worker: &WorkerView<'_>) -> Result<(), Unfit> {
    let admittance = match worker.admittance {
        Admittance::Cordoned => Admittance::Open,
        other @ (Admittance::Open | Admittance::Draining) => other,
    };
    unfit(requirements, &WorkerView { admittance, ..*worker }).map_or(Ok(()), Err)
}

fn unfit(requirements: &Requirements, worker: &WorkerView<'_>) -> Option<Unfit> {
    let has = worker.capabilities;
    if !worker.status.takes_sessions() {
        return Some(Unfit::Status(worker.status));
    }
    if worker.admittance != Admittance::Open {
        return Some(Unfit::Admittance(worker.admittance));
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
    if has.trust < requirements.trust {
        return Some(Unfit::Untrusted);
    }
    (worker.slots.free() == 0).then_some(Unfit::Full)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone)]
    struct Owned {
        id: WorkerId,
        status: WorkerStatus,
        admittance: Admittance,
        capabilities: Capabilities,
        slots: Slots,
    }

    fn worker(name: &str, total: u32, used: u32, reserved: u32) -> Owned {
        Owned {
            id: name.parse().unwrap(),
            status: WorkerStatus::Healthy,
            admittance: Admittance::Open,
            capabilities: Capabilities {
                isolation: IsolationLevel::Full,
                runtimes: ["python".to_owned()].into(),
                labels: [("zone".to_owned(), "a".to_owned())].into(),
                trust: Trust::Sessions,
            },
            slots: Slots { total, used, reserved },
        }
    }

    fn view(worker: &Owned) -> WorkerView<'_> {
        let Owned { id, status, admittance, capabilities, slots } = worker;
        let (incarnation, status, admittance, slots) = (Incarnation::mint(), *status, *admittance, *slots);
        WorkerView { id, incarnation, status, admittance, capabilities, slots }
    }

    fn placed(requirements: &Requirements, workers: &[Owned]) -> Result<String, Unplaced> {
        place(requirements, workers.iter().map(view)).map(|chosen| chosen.id.to_string())
    }

    fn requirements() -> Requirements {
        Requirements {
            isolation_minimum: IsolationLevel::Full,
            runtimes: vec!["python".to_owned()],
            labels: BTreeMap::new(),
            trust: Trust::Sessions,
        }
    }

    #[test]
    fn the_least_loaded_worker_is_chosen_and_reservations_count() {
        let chosen = |workers: &[Owned]| placed(&requirements(), workers).unwrap();
        assert_eq!(chosen(&[worker("b", 4, 0, 0), worker("a", 4, 0, 0), worker("c", 5, 0, 2)]), "a");
        assert_eq!(chosen(&[worker("large", 100, 50, 0), worker("small", 10, 1, 0)]), "small");
        assert_eq!(chosen(&[worker("a", 10, 5, 0), worker("b", 20, 0, 10)]), "b", "the same share, more room");
    }

    #[test]
    fn it_is_said_which_requirement_excluded_how_many() {
        let mut weak = worker("weak", 1, 0, 0);
        weak.capabilities.isolation = IsolationLevel::Reduced;
        let mut bare = worker("bare", 1, 0, 0);
        bare.capabilities.runtimes.clear();
        let leaving = Owned { status: WorkerStatus::Draining, ..worker("leaving", 1, 0, 0) };
        let cordoned = Owned { admittance: Admittance::Cordoned, ..worker("cordoned", 1, 0, 0) };
        let (full, full_too) = (worker("full", 2, 2, 0), worker("too", 1, 0, 1));
        let all = [weak.clone(), bare, leaving.clone(), cordoned.clone(), full.clone(), full_too];
        let refused = placed(&requirements(), &all).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "no worker fits: of 6, 1 is draining, 1 is cordoned, 1 isolates at level reduced, full is required, \
             1 has no runtime `python`, 2 have all slots taken"
        );
        let missing = |workers: &[Owned]| placed(&requirements(), workers).unwrap_err().missing();
        assert_eq!(missing(&all), Missing::Room);
        assert_eq!(missing(&[weak]), Missing::Isolation);
        assert_eq!(missing(&[leaving, cordoned.clone()]), Missing::Workers);
        assert_eq!(missing(std::slice::from_ref(&cordoned)), Missing::Admittance);
        assert_eq!(missing(&[]), Missing::Workers);
        let elsewhere = Requirements { labels: [("zone".to_owned(), "b".to_owned())].into(), ..requirements() };
        let missing = |workers: &[Owned]| placed(&elsewhere, workers).unwrap_err().missing();
        assert_eq!(missing(std::slice::from_ref(&full)), Missing::Capability, "room would not help");
        assert_eq!(missing(&[full.clone(), cordoned]), Missing::Admittance, "it may have the label");
        let refused = placed(&elsewhere, &[full.clone(), full]).unwrap_err();
        assert_eq!(refused.to_string(), "no worker fits: of 2, 2 lack the label zone=b");
        assert_eq!(placed(&requirements(), &[]).unwrap_err().to_string(), "no worker has joined");
    }

    #[test]
    fn what_gets_secrets_is_placed_on_a_worker_that_is_told_them_however_loaded() {
        let (idle, mut trusted) = (worker("a", 100, 0, 0), worker("b", 10, 9, 0));
        trusted.capabilities.trust = Trust::Secrets;
        let wanted = Requirements { trust: Trust::Secrets, ..requirements() };
        assert_eq!(placed(&wanted, &[idle.clone(), trusted.clone()]).unwrap(), "b");
        assert_eq!(placed(&requirements(), &[idle.clone(), trusted]).unwrap(), "a");
        let refused = placed(&wanted, std::slice::from_ref(&idle)).unwrap_err();
        assert_eq!(refused.to_string(), "no worker fits: the only one is not told secrets (SECRETS_WORKERS)");
        assert_eq!(refused.missing(), Missing::Capability);
        assert_eq!(reopen(&wanted, &view(&idle)), Err(Unfit::Untrusted));
    }

    #[test]
    fn a_cordon_keeps_no_session_from_its_files_and_a_drain_does() {
        let with = |admittance| Owned { admittance, ..worker("w", 1, 0, 0) };
        let again = |admittance| reopen(&requirements(), &view(&with(admittance)));
        assert_eq!(again(Admittance::Cordoned), Ok(()));
        assert_eq!(again(Admittance::Draining), Err(Unfit::Admittance(Admittance::Draining)));
        for admittance in [Admittance::Cordoned, Admittance::Draining] {
            assert!(placed(&requirements(), &[with(admittance)]).is_err());
        }
        assert_eq!(reopen(&requirements(), &view(&worker("w", 1, 1, 0))), Err(Unfit::Full));
    }

    proptest! {
        #[test]
        fn no_worker_is_ever_overbooked(totals in prop::collection::vec(0u32..6, 1..6), creates in 0usize..40) {
            let mut workers: Vec<Owned> =
                totals.iter().enumerate().map(|(at, total)| worker(&format!("w{at}"), *total, 0, 0)).collect();
            let mut count = 0;
            for create in 0..creates {
                let Ok(id) = placed(&requirements(), &workers) else { break };
                let slots = &mut workers.iter_mut().find(|worker| worker.id.as_str() == id).unwrap().slots;
                if create % 2 == 0 { slots.reserved += 1 } else { slots.used += 1 }
                prop_assert!(slots.used + slots.reserved <= slots.total);
                count += 1;
            }
            let room: u32 = totals.iter().sum();
            prop_assert_eq!(count, creates.min(room as usize));
        }

        #[test]
        fn the_order_of_the_workers_changes_nothing(
            slots in prop::collection::vec((1u32..9, 0u32..9, 0u32..3), 1..8), turn in 0usize..8,
        ) {
            let mut workers: Vec<Owned> = slots
                .iter()
                .enumerate()
                .map(|(at, (total, used, reserved))| worker(&format!("w{at}"), *total, *used, *reserved))
                .collect();
            let first = placed(&requirements(), &workers).ok();
            let turn = turn % workers.len();
            workers.rotate_left(turn);
            prop_assert_eq!(first, placed(&requirements(), &workers).ok());
        }
    }
}
