//! Lives of workers that an earlier server knew, and that may yet come to this one.

use std::collections::BTreeMap;
use std::time::Duration;

use codegen_types::{Incarnation, WorkerId};
use coordinator_core::worker::GoneWhy;

use super::said::Change;

/// One life of each worker that is waited for. Their number is bounded by what sessions the earlier server left.
#[derive(Default)]
pub(crate) struct Awaited {
    lives: BTreeMap<WorkerId, Life>,
}

struct Life {
    incarnation: Incarnation,
    /// Since boot; afterwards it is gone.
    until: Duration,
}

impl Awaited {
    pub(crate) fn expect(&mut self, worker: WorkerId, incarnation: Incarnation, until: Duration) {
        self.lives.insert(worker, Life { incarnation, until });
    }

    /// Whether this life may yet come.
    pub(crate) fn is_expected(&self, worker: &WorkerId, incarnation: Incarnation) -> bool {
        self.lives.get(worker).is_some_and(|life| life.incarnation == incarnation)
    }

    /// A life of a worker has come. Gives the one that was waited for, when it is another.
    pub(crate) fn came(&mut self, worker: &WorkerId, incarnation: Incarnation) -> Option<Incarnation> {
        let life = self.lives.remove(worker)?;
        (life.incarnation != incarnation).then_some(life.incarnation)
    }

    /// The end of one that did not come in time.
    pub(crate) fn overdue(&mut self, now: Duration) -> Option<Change> {
        let worker = self.lives.iter().find(|(_, life)| now > life.until).map(|(worker, _)| worker.clone())?;
        let life = self.lives.remove(&worker)?;
        Some(Change::Gone { worker, incarnation: life.incarnation, why: GoneWhy::Pruned })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_waited_for_until_it_or_another_comes_or_its_time_is_over() {
        let (mut awaited, late) = (Awaited::default(), Duration::from_secs(9));
        let worker = |name: &str| name.parse::<WorkerId>().unwrap();
        let (a, b, c, other) = (Incarnation::mint(), Incarnation::mint(), Incarnation::mint(), Incarnation::mint());
        for (name, life) in [("a", a), ("b", b), ("c", c)] {
            awaited.expect(worker(name), life, Duration::from_secs(5));
        }
        assert!(awaited.is_expected(&worker("a"), a) && !awaited.is_expected(&worker("a"), b));
        assert_eq!(awaited.came(&worker("a"), a), None);
        assert_eq!(awaited.came(&worker("b"), other), Some(b));
        assert_eq!(awaited.came(&worker("x"), other), None);
        assert!(awaited.overdue(Duration::from_secs(5)).is_none());
        assert!(matches!(awaited.overdue(late), Some(Change::Gone { incarnation, .. }) if incarnation == c));
        assert!(awaited.overdue(late).is_none());
    }
}
