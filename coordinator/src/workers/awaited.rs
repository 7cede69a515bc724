//! Lives of workers that an earlier server knew, and that may yet come to this one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use codegen_types::{Incarnation, WorkerId};
use coordinator_core::worker::GoneWhy;

use super::said::Change;

/// The lives of each worker that are waited for. Their number is bounded by what sessions the earlier server left.
#[derive(Default)]
pub(crate) struct Awaited {
    lives: BTreeMap<WorkerId, Lives>,
    /// Until when, since boot, others may come, of which no more is known.
    others_until: Duration,
}

/// Which life of a worker was its last is not known when both have left something.
struct Lives {
    incarnations: BTreeSet<Incarnation>,
    /// Since boot; afterwards they are gone.
    until: Duration,
}

impl Awaited {
    pub(crate) fn expect(&mut self, worker: WorkerId, incarnation: Incarnation, until: Duration) {
        let lives = self.lives.entry(worker).or_insert_with(|| Lives { incarnations: BTreeSet::new(), until });
        lives.incarnations.insert(incarnation);
        lives.until = lives.until.max(until);
    }

    /// Workers may come that left nothing by which they are known.
    pub(crate) fn expect_others(&mut self, until: Duration) {
        self.others_until = until;
    }

    /// Whether any worker may yet come.
    pub(crate) fn may_come(&self, now: Duration) -> bool {
        !self.lives.is_empty() || now < self.others_until
    }

    /// Whether this life may yet come.
    pub(crate) fn is_expected(&self, worker: &WorkerId, incarnation: Incarnation) -> bool {
        self.lives.get(worker).is_some_and(|lives| lives.incarnations.contains(&incarnation))
    }

    /// Whether the name is kept for lives that may yet come, and this is none of them.
    pub(crate) fn is_kept_from(&self, worker: &WorkerId, incarnation: Incarnation, now: Duration) -> bool {
        self.lives.get(worker).is_some_and(|lives| now <= lives.until && !lives.incarnations.contains(&incarnation))
    }

    /// A life of a worker has come, and none of the others comes any more. When it was none of those that were waited
    /// for, gives one of these: sessions hear of the life that came, so that one end is enough for them.
    pub(crate) fn came(&mut self, worker: &WorkerId, incarnation: Incarnation) -> Option<Incarnation> {
        let lives = self.lives.remove(worker)?;
        let waited_for = lives.incarnations.contains(&incarnation);
        lives.incarnations.into_iter().next_back().filter(|_| !waited_for)
    }

    /// The end of one that did not come in time.
    pub(crate) fn overdue(&mut self, now: Duration) -> Option<Change> {
        let (worker, lives) = self.lives.iter_mut().find(|(_, lives)| now > lives.until)?;
        let (worker, incarnation) = (worker.clone(), lives.incarnations.pop_first());
        if lives.incarnations.is_empty() {
            self.lives.remove(&worker);
        }
        Some(Change::Gone { worker, incarnation: incarnation?, why: GoneWhy::Pruned })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTIL: Duration = Duration::from_secs(5);
    const LATE: Duration = Duration::from_secs(9);

    fn worker(name: &str) -> WorkerId {
        name.parse().unwrap()
    }

    #[test]
    fn a_life_is_waited_for_until_it_or_another_comes_or_its_time_is_over() {
        let mut awaited = Awaited::default();
        let (a, b, c, other) = (Incarnation::mint(), Incarnation::mint(), Incarnation::mint(), Incarnation::mint());
        for (name, life) in [("a", a), ("b", b), ("c", c)] {
            awaited.expect(worker(name), life, UNTIL);
        }
        assert!(awaited.is_expected(&worker("a"), a) && !awaited.is_expected(&worker("a"), b));
        let is_kept_from = |life, now| awaited.is_kept_from(&worker("a"), life, now);
        assert_eq!([is_kept_from(b, UNTIL), is_kept_from(a, UNTIL), is_kept_from(b, LATE)], [true, false, false]);
        assert_eq!(awaited.came(&worker("a"), a), None);
        assert_eq!(awaited.came(&worker("b"), other), Some(b));
        assert_eq!(awaited.came(&worker("x"), other), None);
        assert!(awaited.overdue(UNTIL).is_none() && awaited.may_come(LATE));
        assert!(matches!(awaited.overdue(LATE), Some(Change::Gone { incarnation, .. }) if incarnation == c));
        assert!(awaited.overdue(LATE).is_none() && !awaited.may_come(UNTIL));
        awaited.expect_others(LATE);
        assert!(awaited.may_come(UNTIL) && !awaited.may_come(LATE), "what is not known comes to no end but by time");
        assert!(!awaited.is_kept_from(&worker("a"), a, UNTIL) && awaited.overdue(LATE).is_none());
    }

    #[test]
    fn all_lives_of_one_worker_are_waited_for_and_each_ends() {
        let mut awaited = Awaited::default();
        let lives = [Incarnation::mint(), Incarnation::mint()];
        for life in lives {
            awaited.expect(worker("a"), life, UNTIL);
            awaited.expect(worker("b"), life, UNTIL);
        }
        assert!(lives.iter().all(|life| awaited.is_expected(&worker("a"), *life)));
        assert_eq!(awaited.came(&worker("a"), lives[0]), None);
        assert!(!awaited.is_expected(&worker("a"), lives[1]), "the worker has begun another life");
        let ended: BTreeSet<Incarnation> = std::iter::from_fn(|| awaited.overdue(LATE))
            .map(|change| match change {
                Change::Gone { incarnation, .. } | Change::Joined { incarnation, .. } => incarnation,
            })
            .collect();
        assert_eq!(ended, lives.into());
    }
}
