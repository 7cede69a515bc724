//! How long to wait before the next attempt.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const CAP: Duration = Duration::from_secs(30);
/// The longest wait while nobody listens at the coordinator's address: being refused at once costs neither side anything,
/// and whoever restarts a coordinator waits for its workers. A thousand of them come back within this time, spread over it.
const REFUSED_CAP: Duration = Duration::from_secs(5);
/// A link that held so long was one: what failed before it is forgotten.
const HELD: Duration = Duration::from_secs(10);

/// Exponential back-off with full jitter: any wait up to the ceiling is as likely as any other, so that workers that
/// lost a coordinator together do not come back together.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    /// Refused connections since the last one that was not. They count for nothing else.
    refusals: u32,
}

impl Backoff {
    /// Counts a failure; how long to wait now.
    pub fn after_failure(&mut self) -> Duration {
        let ceiling = Self::ceiling(self.failures);
        (self.failures, self.refusals) = (self.failures.saturating_add(1), 0);
        ceiling.mul_f64(random_fraction())
    }

    /// Counts a connection that was refused, since nobody listens; how long to wait now.
    pub fn after_refusal(&mut self) -> Duration {
        let ceiling = Self::ceiling(self.refusals).min(REFUSED_CAP);
        self.refusals = self.refusals.saturating_add(1);
        ceiling.mul_f64(random_fraction())
    }

    /// Forgets earlier failures, if the link that just ended has held for long. One that broke at once is a failure like
    /// any other, or two workers that cut each other's links would do so without end.
    pub fn after_link(&mut self, held: Duration) {
        self.refusals = 0;
        if held >= HELD {
            self.failures = 0;
        }
    }

    fn ceiling(failures: u32) -> Duration {
        FIRST.saturating_mul(1 << failures.min(16)).min(CAP)
    }
}

/// The keys of a hasher come from the operating system's random source.
fn random_fraction() -> f64 {
    f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_no_further() {
        assert_eq!(Backoff::ceiling(0), FIRST);
        assert_eq!(Backoff::ceiling(3), FIRST * 8);
        assert_eq!(Backoff::ceiling(u32::MAX), CAP);
        let mut backoff = Backoff::default();
        assert!((0..100).all(|_| backoff.after_failure() <= CAP));
    }

    #[test]
    fn only_a_link_that_held_makes_earlier_failures_forgotten() {
        let mut backoff = Backoff { failures: 7, refusals: 7 };
        backoff.after_link(Duration::from_secs(1));
        assert_eq!(backoff.failures, 7);
        backoff.after_link(HELD);
        assert_eq!(backoff.failures, 0);
    }

    #[test]
    fn while_nobody_listens_waits_stay_short_and_make_no_other_wait_longer() {
        let mut backoff = Backoff::default();
        assert!((0..100).all(|_| backoff.after_refusal() <= REFUSED_CAP));
        assert!(backoff.after_failure() <= FIRST, "the first failure of another kind");
        assert!(backoff.after_refusal() <= FIRST, "and the first refusal after it");
    }
}
