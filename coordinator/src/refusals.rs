//! How many refused registrations and authentications are recorded: enough to see an attack, too few to be one on the log.

use std::time::Duration;

/// Recorded refusals in one window.
const RECORDED_MAX: u32 = 10;
/// The length of a window.
const WINDOW: Duration = Duration::from_secs(10);

/// Counts refusals in windows of ten seconds.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    window_began: Duration,
    recorded: u32,
    suppressed: u64,
}

/// What becomes of one refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is recorded, with the number of those before it that were not.
    Record {
        /// How many.
        suppressed: u64,
    },
    /// It is only counted, and the peer is told to slow down.
    Suppress,
}

impl Refusals {
    pub(crate) fn count(&mut self, now: Duration) -> Verdict {
        if now.saturating_sub(self.window_began) >= WINDOW {
            (self.window_began, self.recorded) = (now, 0);
        }
        if self.recorded == RECORDED_MAX {
            self.suppressed += 1;
            return Verdict::Suppress;
        }
        self.recorded += 1;
        Verdict::Record { suppressed: std::mem::take(&mut self.suppressed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_recorded_in_part_and_counted_in_full() {
        let mut refusals = Refusals::default();
        let start = Duration::from_secs(100);
        let verdicts: Vec<Verdict> = (0..50).map(|_| refusals.count(start)).collect();
        let recorded = verdicts.iter().filter(|verdict| **verdict != Verdict::Suppress).count();
        assert_eq!(recorded, RECORDED_MAX as usize);
        assert_eq!(refusals.count(start + WINDOW), Verdict::Record { suppressed: 40 });
        assert_eq!(refusals.count(start + WINDOW), Verdict::Record { suppressed: 0 });
    }
}
