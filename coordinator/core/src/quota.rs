//! How much one principal may use: tasks side by side, and processor time and bytes in a day.
//!
//! A day is one of UTC. A task is refused before it begins, never ended for a quota: what it uses is known when it is over,
//! and counts then. So a day's use can pass its quota by what ran when it was reached, which is bounded by the quota of
//! tasks and the limits of each.

const DAY_MS: i64 = 24 * 3600 * 1000;

/// How much one principal may use. What has no quota is not limited here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Sessions that are open at once.
    pub sessions: u32,
    /// Tasks that run at once, in all sessions together.
    pub tasks: Option<u32>,
    /// Processor time in a day, in milliseconds.
    pub cpu_ms_per_day: Option<u64>,
    /// Bytes that go in and out in a day.
    pub bytes_per_day: Option<u64>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { sessions: 256, tasks: Some(128), cpu_ms_per_day: None, bytes_per_day: None }
    }
}

/// What one principal uses and has used.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Days since the Unix epoch.
    day: i64,
    tasks: u32,
    cpu_ms: u64,
    bytes: u64,
}

/// Why a task may not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OverQuota {
    /// As many run as may.
    #[error(
        "{max} of your tasks run, the most that may at once; wait for one with task_wait, or end one with task_cancel"
    )]
    Tasks {
        /// How many may.
        max: u32,
    },
    /// The day's processor time is used up.
    #[error("your tasks have used the {} s of processor time that they may in a day", max_ms / 1000)]
    Cpu {
        /// How much that is, in milliseconds.
        max_ms: u64,
        /// When the next day begins, in milliseconds since the Unix epoch.
        until_ms: i64,
    },
    /// The day's bytes are used up.
    #[error("your tasks have moved the {max} bytes that they may in a day")]
    Bytes {
        /// How many that are.
        max: u64,
        /// When the next day begins, in milliseconds since the Unix epoch.
        until_ms: i64,
    },
}

impl OverQuota {
    /// When it holds no more, in milliseconds since the Unix epoch, where only time is needed.
    pub const fn until_ms(self) -> Option<i64> {
        match self {
            Self::Tasks { .. } => None,
            Self::Cpu { until_ms, .. } | Self::Bytes { until_ms, .. } => Some(until_ms),
        }
    }
}

/// What one principal may use, uses and has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What it may.
    pub quotas: Quotas,
    /// Its open sessions.
    pub sessions: u32,
    /// Its running tasks.
    pub tasks: u32,
    /// Its processor time of the day, in milliseconds.
    pub cpu_ms: u64,
    /// Its bytes of the day, in and out.
    pub bytes: u64,
    /// When the next day begins, in milliseconds since the Unix epoch.
    pub renewed_ms: i64,
}

impl Usage {
    /// Counts one more task, unless there is a quota that forbids it.
    ///
    /// # Errors
    /// Which quota. Nothing is counted then.
    pub fn begin(&mut self, quotas: &Quotas, now_ms: i64) -> Result<(), OverQuota> {
        self.turn(now_ms);
        let until_ms = self.day.saturating_add(1).saturating_mul(DAY_MS);
        if let Some(max_ms) = quotas.cpu_ms_per_day.filter(|max| self.cpu_ms >= *max) {
            return Err(OverQuota::Cpu { max_ms, until_ms });
        }
        if let Some(max) = quotas.bytes_per_day.filter(|max| self.bytes >= *max) {
            return Err(OverQuota::Bytes { max, until_ms });
        }
        if let Some(max) = quotas.tasks.filter(|max| self.tasks >= *max) {
            return Err(OverQuota::Tasks { max });
        }
        self.tasks = self.tasks.saturating_add(1);
        Ok(())
    }

    /// A task that was counted is over.
    pub fn end(&mut self) {
        self.tasks = self.tasks.saturating_sub(1);
    }

    /// Adds what a task used that ended at `at_ms`. What ended on an earlier day does not count any more.
    pub fn charge(&mut self, at_ms: i64, cpu_ms: u64, bytes: u64) {
        self.turn(at_ms);
        if day_of(at_ms) == self.day {
            self.cpu_ms = self.cpu_ms.saturating_add(cpu_ms);
            self.bytes = self.bytes.saturating_add(bytes);
        }
    }

    /// Whether nothing would be lost by forgetting it.
    pub fn is_idle(&self, now_ms: i64) -> bool {
        self.tasks == 0 && (self.day < day_of(now_ms) || (self.cpu_ms, self.bytes) == (0, 0))
    }

    /// What it comes to, with so many open sessions.
    pub fn standing(mut self, quotas: &Quotas, sessions: u32, now_ms: i64) -> Standing {
        self.turn(now_ms);
        let Self { day, tasks, cpu_ms, bytes } = self;
        let renewed_ms = day.saturating_add(1).saturating_mul(DAY_MS);
        Standing { quotas: *quotas, sessions, tasks, cpu_ms, bytes, renewed_ms }
    }

    /// Begins a new day. A clock that was set back begins none, or whoever sets it would get the day's quota again; but what
    /// was used on a day that is not near was used today, or nobody would get anything until then.
    fn turn(&mut self, now_ms: i64) {
        let today = day_of(now_ms);
        if today > self.day {
            *self = Self { day: today, tasks: self.tasks, cpu_ms: 0, bytes: 0 };
        } else if today < self.day.saturating_sub(1) {
            self.day = today;
        }
    }
}

/// When the day of `now_ms` began and when the next one does, in milliseconds since the Unix epoch.
pub const fn day_ms(now_ms: i64) -> (i64, i64) {
    let day = day_of(now_ms);
    (day.saturating_mul(DAY_MS), day.saturating_add(1).saturating_mul(DAY_MS))
}

const fn day_of(ms: i64) -> i64 {
    ms.div_euclid(DAY_MS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: i64 = 20_000 * DAY_MS + DAY_MS / 2;
    const MIDNIGHT: i64 = 20_001 * DAY_MS;

    fn quotas() -> Quotas {
        Quotas { sessions: 1, tasks: Some(2), cpu_ms_per_day: Some(1_000), bytes_per_day: Some(10_000) }
    }

    #[test]
    fn a_day_that_is_used_up_refuses_until_the_next_begins() {
        let (mut usage, quotas) = (Usage::default(), quotas());
        usage.charge(NOON, 999, 1);
        assert_eq!(usage.begin(&quotas, NOON), Ok(()));
        usage.end();
        usage.charge(NOON, 1, 0);
        let refused = OverQuota::Cpu { max_ms: 1_000, until_ms: MIDNIGHT };
        assert_eq!(usage.begin(&quotas, MIDNIGHT - 1), Err(refused));
        assert_eq!(usage.begin(&quotas, MIDNIGHT), Ok(()));
        usage.charge(MIDNIGHT, 0, 10_000);
        let refused = OverQuota::Bytes { max: 10_000, until_ms: MIDNIGHT + DAY_MS };
        assert_eq!((usage.begin(&quotas, MIDNIGHT + 5), refused.until_ms()), (Err(refused), Some(MIDNIGHT + DAY_MS)));
    }

    #[test]
    fn a_clock_that_is_set_back_gives_no_day_anew_and_yesterdays_end_costs_nothing_today() {
        let (mut usage, quotas) = (Usage::default(), quotas());
        usage.charge(MIDNIGHT, 1_000, 0);
        assert!(usage.begin(&quotas, NOON).is_err() && !usage.is_idle(NOON));
        usage.charge(NOON, 500, 500);
        assert_eq!(usage.standing(&quotas, 3, MIDNIGHT).cpu_ms, 1_000);
        assert!(usage.is_idle(MIDNIGHT + DAY_MS));
    }

    #[test]
    fn a_year_that_the_clock_was_ahead_takes_no_quota_away_for_a_year_and_gives_none() {
        let (mut usage, quotas, year) = (Usage::default(), quotas(), 365 * DAY_MS);
        usage.charge(NOON, 400, 0);
        usage.charge(NOON + year, 600, 0);
        usage.charge(NOON + 1, 500, 0);
        assert_eq!(usage.begin(&quotas, NOON + 2), Err(OverQuota::Cpu { max_ms: 1_000, until_ms: MIDNIGHT }));
        assert_eq!(usage.begin(&quotas, MIDNIGHT), Ok(()));
        assert_eq!(day_ms(NOON), (MIDNIGHT - DAY_MS, MIDNIGHT));
    }

    #[test]
    fn running_tasks_outlast_the_day_in_which_they_began() {
        let (mut usage, quotas) = (Usage::default(), quotas());
        assert_eq!((usage.begin(&quotas, NOON), usage.begin(&quotas, NOON)), (Ok(()), Ok(())));
        assert_eq!(usage.begin(&quotas, MIDNIGHT), Err(OverQuota::Tasks { max: 2 }));
        assert!(!usage.is_idle(MIDNIGHT + DAY_MS));
        usage.end();
        assert_eq!(usage.begin(&quotas, MIDNIGHT), Ok(()));
    }

    proptest! {
        /// However calls, ends and the clock interleave: never more tasks than may, and none once the day is used up.
        #[test]
        fn no_task_begins_beyond_its_quota(steps in prop::collection::vec((0_u8..4, 0_i64..4 * DAY_MS, 0_u64..400), 0..200)) {
            let (mut usage, quotas, mut running) = (Usage::default(), quotas(), 0_u32);
            for (step, at, amount) in steps {
                let before = usage.standing(&quotas, 0, at);
                match step {
                    0 | 1 => match usage.begin(&quotas, at) {
                        Ok(()) => {
                            running += 1;
                            prop_assert!(before.cpu_ms < 1_000 && before.bytes < 10_000);
                        }
                        Err(refused) => {
                            let holds = refused.until_ms().is_none_or(|until| until > at);
                            prop_assert!(holds && usage.standing(&quotas, 0, at).tasks == running);
                        }
                    },
                    2 if running > 0 => {
                        usage.end();
                        running -= 1;
                    }
                    _ => usage.charge(at, amount, amount * 10),
                }
                let standing = usage.standing(&quotas, 0, at);
                prop_assert!(standing.tasks == running && running <= 2);
                prop_assert!(standing.renewed_ms > at && standing.renewed_ms % DAY_MS == 0);
            }
        }
    }
}
