//! How long to rest before a process that ended is started again.

use std::time::Duration;

/// Doubles the rest with each life that was short, and begins anew after one that was not.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    healthy_after: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration, healthy_after: Duration) -> Self {
        Self { first, longest, healthy_after, next: first }
    }

    /// The rest after a life of this length.
    pub(super) fn after(&mut self, lived: Duration) -> Duration {
        if lived >= self.healthy_after {
            self.next = self.first;
        }
        let rest = self.next;
        self.next = (rest * 2).min(self.longest);
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_double_up_to_a_bound_and_begin_anew_after_a_healthy_life() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(200), ms(30_000), ms(60_000));
        let rests: Vec<u128> = (0..10).map(|_| backoff.after(ms(10)).as_millis()).collect();
        assert_eq!(rests, [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        assert_eq!(backoff.after(ms(60_000)), ms(200));
        assert_eq!(backoff.after(ms(10)), ms(400));
    }
}
