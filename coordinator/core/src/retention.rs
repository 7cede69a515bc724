//! Which sessions lose their files: the ones that nobody used for too long, and the oldest when room is needed.

use codegen_types::SessionId;

/// A session that has no processes, as retention sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Which session.
    pub session: SessionId,
    /// When it was last used, in milliseconds since the Unix epoch.
    pub last_used_ms: i64,
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

/// The sessions to delete, least recently used first.
pub fn due(kept: &[Kept], retention: &Retention, now: i64) -> Vec<SessionId> {
    let mut oldest_first = kept.to_vec();
    oldest_first.sort_by_key(|kept| (kept.last_used_ms, kept.session));
    let mut bytes: u64 = kept.iter().fold(0, |sum, kept| sum.saturating_add(kept.bytes));
    let mut sessions = kept.len();
    let mut due = Vec::new();
    for candidate in oldest_first {
        let age_ms = u64::try_from(now.saturating_sub(candidate.last_used_ms)).unwrap_or(0);
        // Deleting a session that takes no room makes none.
        let room_is_needed = bytes > retention.bytes_max && candidate.bytes > 0;
        if age_ms >= retention.age_ms || room_is_needed || sessions > retention.sessions_max {
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

    fn kept(n: u128, last_used_ms: i64, bytes: u64) -> Kept {
        Kept { session: SessionId::from_uuid(Uuid::from_u128(n)), last_used_ms, bytes }
    }

    fn names(due: &[SessionId], of: &[Kept]) -> Vec<usize> {
        due.iter().map(|id| of.iter().position(|kept| kept.session == *id).unwrap()).collect()
    }

    #[test]
    fn age_then_room_then_number_decide_and_the_oldest_go_first() {
        let all = [kept(1, 900, 10), kept(2, 100, 10), kept(3, 500, 10), kept(4, 400, 0)];
        let retention = Retention { age_ms: 10_000, bytes_max: 100, sessions_max: 10 };
        assert_eq!(names(&due(&all, &retention, 1_000), &all), [] as [usize; 0]);
        assert_eq!(names(&due(&all, &Retention { age_ms: 600, ..retention }, 1_000), &all), [1, 3]);
        assert_eq!(names(&due(&all, &Retention { bytes_max: 15, ..retention }, 1_000), &all), [1, 2]);
        assert_eq!(names(&due(&all, &Retention { sessions_max: 3, ..retention }, 1_000), &all), [1]);
    }

    proptest! {
        #[test]
        fn what_stays_fits(sizes in prop::collection::vec((0i64..1_000, 0u64..50), 0..20), bytes_max in 0u64..200) {
            let all: Vec<Kept> = (0u128..).zip(&sizes).map(|(n, (used, bytes))| kept(n, *used, *bytes)).collect();
            let retention = Retention { age_ms: 700, bytes_max, sessions_max: 8 };
            let due = due(&all, &retention, 1_000);
            let stays: Vec<&Kept> = all.iter().filter(|kept| !due.contains(&kept.session)).collect();
            prop_assert!(stays.len() <= 8);
            prop_assert!(stays.iter().map(|kept| kept.bytes).sum::<u64>() <= bytes_max);
            prop_assert!(stays.iter().all(|kept| 1_000 - kept.last_used_ms < 700));
        }
    }
}
