//! Which sessions lose their files: the ones that nobody used for too long, and the oldest when room is needed.
//!
//! What is given up is gone, so a clock that is set ahead makes nothing older: while a server runs, time passes here as it
//! does for the machine. Only from one server to the next is the clock's word taken.

use std::cmp::Reverse;
use std::collections::HashMap;

use codegen_types::SessionId;

/// A session that has no processes, as retention sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Which session.
    pub session: SessionId,
    /// How long ago it was last used, in milliseconds.
    pub age_ms: u64,
    /// How many bytes its workspace takes; zero when there is none.
    pub bytes: u64,
}

/// How long and how much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Since the last use, in milliseconds.
    pub age_ms: u64,
    /// All kept workspaces together, in bytes.
    pub bytes_max: u64,
    /// All kept sessions together.
    pub sessions_max: usize,
}

/// How long ago sessions were used, and what time it is, of a clock that may be set.
#[derive(Debug, Default)]
pub struct Ages {
    /// When this was asked last: by the clock as it was believed, and by the time that passes.
    asked: Option<(i64, u64)>,
    seen: HashMap<SessionId, Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    last_used_ms: i64,
    age_ms: u64,
}

impl Ages {
    /// The ages of sessions that were last used at these times (milliseconds since the Unix epoch), in milliseconds and in
    /// their order, and the time up to which what is older than an age may be given up. `clock_ms` is what the clock says,
    /// `passed_ms` comes from one that is never set.
    pub fn at(&mut self, sessions: &[(SessionId, i64)], clock_ms: i64, passed_ms: u64) -> (Vec<u64>, i64) {
        let since = self.asked.map(|(_, asked)| passed_ms.saturating_sub(asked));
        let now = match (self.asked, since.and_then(|since| i64::try_from(since).ok())) {
            (Some((believed, _)), Some(since)) => clock_ms.min(believed.saturating_add(since)),
            _ => clock_ms,
        };
        let before = std::mem::take(&mut self.seen);
        let ages = sessions.iter().map(|(session, last_used_ms)| {
            let by_clock = u64::try_from(clock_ms.saturating_sub(*last_used_ms)).unwrap_or(0);
            let age_ms = match (before.get(session).filter(|seen| seen.last_used_ms == *last_used_ms), since) {
                (Some(seen), Some(since)) => seen.age_ms.saturating_add(since),
                // It was used since it was looked at last.
                (_, Some(since)) => by_clock.min(since),
                (_, None) => by_clock,
            };
            self.seen.insert(*session, Seen { last_used_ms: *last_used_ms, age_ms });
            age_ms
        });
        let ages = ages.collect();
        self.asked = Some((now, passed_ms));
        (ages, now)
    }
}

/// The sessions to delete, least recently used first.
pub fn due(kept: &[Kept], retention: &Retention) -> Vec<SessionId> {
    let mut oldest_first = kept.to_vec();
    oldest_first.sort_by_key(|kept| (Reverse(kept.age_ms), kept.session));
    let mut bytes: u64 = kept.iter().fold(0, |sum, kept| sum.saturating_add(kept.bytes));
    let mut sessions = kept.len();
    let mut due = Vec::new();
    for candidate in oldest_first {
        // Deleting a session that takes no room makes none.
        let room_is_needed = bytes > retention.bytes_max && candidate.bytes > 0;
        if candidate.age_ms >= retention.age_ms || room_is_needed || sessions > retention.sessions_max {
            bytes = bytes.saturating_sub(candidate.bytes);
            sessions -= 1;
            due.push(candidate.session);
        }
    }
    due
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const DAY_MS: i64 = 24 * 3600 * 1000;

    fn session(n: u128) -> SessionId {
        SessionId::from_uuid(Uuid::from_u128(n))
    }

    fn kept(n: u128, age_ms: u64, bytes: u64) -> Kept {
        Kept { session: session(n), age_ms, bytes }
    }

    fn names(due: &[SessionId], of: &[Kept]) -> Vec<usize> {
        due.iter().map(|id| of.iter().position(|kept| kept.session == *id).unwrap()).collect()
    }

    #[test]
    fn age_then_room_then_number_decide_and_the_oldest_go_first() {
        let all = [kept(1, 100, 10), kept(2, 900, 10), kept(3, 500, 10), kept(4, 600, 0)];
        let retention = Retention { age_ms: 10_000, bytes_max: 100, sessions_max: 10 };
        assert_eq!(names(&due(&all, &retention), &all), [] as [usize; 0]);
        assert_eq!(names(&due(&all, &Retention { age_ms: 600, ..retention }), &all), [1, 3]);
        assert_eq!(names(&due(&all, &Retention { bytes_max: 15, ..retention }), &all), [1, 2]);
        assert_eq!(names(&due(&all, &Retention { sessions_max: 3, ..retention }), &all), [1]);
    }

    #[test]
    fn a_clock_that_is_set_ahead_makes_nothing_older_and_one_that_is_set_back_keeps_the_order() {
        let (mut ages, noon) = (Ages::default(), 20_000 * DAY_MS);
        let at = |last_used: &[i64]| -> Vec<(SessionId, i64)> {
            (1..).zip(last_used).map(|(n, last_used)| (session(n), *last_used)).collect()
        };
        assert_eq!(ages.at(&at(&[noon - DAY_MS, noon - 500]), noon, 7_000), (vec![86_400_000, 500], noon));
        // A year ahead, and the second one is used there.
        let ahead = noon + 365 * DAY_MS;
        assert_eq!(ages.at(&at(&[noon - DAY_MS, ahead]), ahead + 50, 8_000), (vec![86_401_000, 50], noon + 1_000));
        assert_eq!(ages.at(&at(&[noon - DAY_MS, ahead]), ahead + 1_050, 9_000).0, [86_402_000, 1_050]);
        // Set right again, where a third one is used.
        let right = noon + 3_000;
        assert_eq!(ages.at(&at(&[noon - DAY_MS, ahead, right]), right, 10_000).0, [86_403_000, 2_050, 0]);
        // And back beyond what anybody remembers.
        assert_eq!(ages.at(&at(&[noon - DAY_MS, ahead, right]), 0, 11_000), (vec![86_404_000, 3_050, 1_000], 0));
    }

    proptest! {
        #[test]
        fn while_a_server_runs_no_age_grows_faster_than_time_passes(
            steps in prop::collection::vec((0u64..100_000, -400 * DAY_MS..400 * DAY_MS, any::<bool>()), 1..30),
        ) {
            let (mut ages, mut passed, mut used, mut used_at) = (Ages::default(), 0, 1_000 * DAY_MS, 0);
            prop_assert_eq!(ages.at(&[(session(1), used)], used, passed).0, vec![0]);
            for (step, clock, uses) in steps {
                passed += step;
                if uses {
                    (used, used_at) = (1_000 * DAY_MS + clock, passed);
                }
                let age = ages.at(&[(session(1), used)], 1_000 * DAY_MS + clock, passed).0[0];
                prop_assert!(age <= passed - used_at, "{} since {}", age, used_at);
            }
        }

        #[test]
        fn what_stays_fits(sizes in prop::collection::vec((0u64..1_000, 0u64..50), 0..20), bytes_max in 0u64..200) {
            let all: Vec<Kept> = (0u128..).zip(&sizes).map(|(n, (age, bytes))| kept(n, *age, *bytes)).collect();
            let retention = Retention { age_ms: 700, bytes_max, sessions_max: 8 };
            let due = due(&all, &retention);
            let stays: Vec<&Kept> = all.iter().filter(|kept| !due.contains(&kept.session)).collect();
            prop_assert!(stays.len() <= 8);
            prop_assert!(stays.iter().map(|kept| kept.bytes).sum::<u64>() <= bytes_max);
            prop_assert!(stays.iter().all(|kept| kept.age_ms < 700));
        }
    }
}
