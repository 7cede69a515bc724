//! How many workers there should be: started while free slots are few, ended one at a time once they are many.
//!
//! `now` is a time that only grows; how workers are started and ended is their provisioner's.

use std::time::Duration;

/// Within what bounds, and how eagerly, workers are started and ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Workers that there are at least.
    pub workers_min: u32,
    /// Workers that there are at most, those included that are ending.
    pub workers_max: u32,
    /// Below so many free slots another worker is started.
    pub free_slots_low: u32,
    /// Slots that a worker is taken to have until it says how many.
    pub slots_per_worker: u32,
    /// How long a worker must have had nothing to do before it is ended.
    pub idle_for: Duration,
}

/// Where a worker of ours stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It was started and has not joined yet.
    Starting,
    /// It takes sessions.
    Serving {
        /// Its slots.
        slots: u32,
        /// Those of them that are free.
        free: u32,
        /// Since when it has had nothing to do; `None` while it has, or holds anything that would be lost with it.
        idle_since: Option<Duration>,
    },
    /// It takes no more sessions while it still has some, or cannot be reached just now.
    Away,
    /// It was told to end.
    Ending,
}

/// One worker of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<T> {
    /// What its provisioner knows it by.
    pub name: T,
    /// Where it stands.
    pub phase: Phase,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<T> {
    /// Start so many workers.
    Start(u32),
    /// Let this one finish and end.
    End(T),
    /// Nothing.
    Rest,
}

/// Decides what to do about `members`, which stand in the order in which they may be ended, last first.
///
/// A worker is ended only when what stays has half a worker's slots free beyond the low watermark, so that neither ending
/// it nor the next few sessions start another.
pub fn decide<T: Clone>(scale: &Scale, members: &[Member<T>], now: Duration) -> Step<T> {
    let count = |is: fn(&Phase) -> bool| members.iter().filter(|member| is(&member.phase)).count() as u32;
    let ending = count(|phase| *phase == Phase::Ending);
    let starting = count(|phase| *phase == Phase::Starting);
    let alive = members.len() as u32 - ending;
    let room = scale.workers_max.saturating_sub(members.len() as u32);
    if alive < scale.workers_min {
        return start(room.min(scale.workers_min - alive));
    }
    let free: u32 = members.iter().map(|member| free_slots(&member.phase)).sum();
    // A worker that is starting is counted as what it will be, so that one wave of sessions starts one worker.
    let expected = free.saturating_add(starting.saturating_mul(scale.slots_per_worker));
    if expected < scale.free_slots_low {
        return start(room.min(1));
    }
    if ending > 0 || starting > 0 || alive <= scale.workers_min {
        return Step::Rest;
    }
    let idle = members.iter().rev().filter(|member| is_idle(&member.phase, scale.idle_for, now));
    let can_go = |member: &&Member<T>| can_go(&member.phase, free, scale.free_slots_low);
    idle.into_iter().find(can_go).map_or(Step::Rest, |member| Step::End(member.name.clone()))
}

fn start<T>(workers: u32) -> Step<T> {
    if workers == 0 { Step::Rest } else { Step::Start(workers) }
}

fn free_slots(phase: &Phase) -> u32 {
    match phase {
        Phase::Serving { free, .. } => *free,
        Phase::Starting | Phase::Away | Phase::Ending => 0,
    }
}

fn can_go(phase: &Phase, free: u32, low: u32) -> bool {
    match phase {
        Phase::Serving { slots, .. } => free.saturating_sub(*slots) >= low.saturating_add(slots.div_ceil(2)),
        Phase::Starting | Phase::Away | Phase::Ending => false,
    }
}

fn is_idle(phase: &Phase, idle_for: Duration, now: Duration) -> bool {
    match phase {
        Phase::Serving { idle_since: Some(since), .. } => now.saturating_sub(*since) >= idle_for,
        Phase::Serving { idle_since: None, .. } | Phase::Starting | Phase::Away | Phase::Ending => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCALE: Scale = Scale {
        workers_min: 1,
        workers_max: 3,
        free_slots_low: 2,
        slots_per_worker: 4,
        idle_for: Duration::from_secs(60),
    };

    fn serving(name: u32, used: u32, idle_since: Option<u64>) -> Member<u32> {
        let idle_since = idle_since.map(Duration::from_secs);
        Member { name, phase: Phase::Serving { slots: 4, free: 4 - used, idle_since } }
    }

    fn at(name: u32, phase: Phase) -> Member<u32> {
        Member { name, phase }
    }

    fn decided(members: &[Member<u32>]) -> Step<u32> {
        decide(&SCALE, members, Duration::from_secs(100))
    }

    #[test]
    fn as_many_as_must_be_are_started_at_once() {
        assert_eq!(decided(&[]), Step::Start(1));
        let scale = Scale { workers_min: 3, ..SCALE };
        assert_eq!(decide(&scale, &[serving(0, 0, None)], Duration::ZERO), Step::Start(2));
    }

    #[test]
    fn few_free_slots_start_one_worker_and_not_another_while_it_starts() {
        assert_eq!(decided(&[serving(0, 3, None)]), Step::Start(1));
        assert_eq!(decided(&[serving(0, 3, None), at(1, Phase::Starting)]), Step::Rest);
    }

    #[test]
    fn there_are_never_more_than_may_be() {
        let full = [serving(0, 4, None), serving(1, 4, None), serving(2, 4, None)];
        assert_eq!(decided(&full), Step::Rest);
        assert_eq!(decided(&[serving(0, 4, None), serving(1, 4, None), at(2, Phase::Ending)]), Step::Rest);
    }

    #[test]
    fn only_one_that_was_idle_for_long_is_ended_and_the_last_of_them_first() {
        let members = [serving(0, 0, Some(0)), serving(1, 0, Some(10)), serving(2, 0, Some(90))];
        assert_eq!(decided(&members), Step::End(1));
        assert_eq!(decided(&[serving(0, 0, Some(90)), serving(1, 1, None)]), Step::Rest);
        assert_eq!(decided(&[serving(0, 0, Some(0))]), Step::Rest, "the least that there must be");
    }

    #[test]
    fn one_that_takes_nothing_is_ended_even_where_no_other_may_go() {
        let idle = |slots| Phase::Serving { slots, free: slots, idle_since: Some(Duration::ZERO) };
        let members = [serving(0, 0, None), at(1, idle(0)), at(2, idle(4))];
        assert_eq!(decided(&members), Step::End(2));
        let members = [serving(0, 4, None), at(1, idle(0)), at(2, idle(4))];
        assert_eq!(decided(&members), Step::End(1), "the last one's slots are needed");
        assert_eq!(decided(&[serving(0, 3, None), at(1, idle(0))]), Step::Start(1), "it brings none");
        assert_eq!(decided(&[at(0, idle(4)), at(1, idle(0))]), Step::End(1));
    }

    #[test]
    fn one_is_ended_at_a_time() {
        let members = [serving(0, 0, Some(0)), serving(1, 0, Some(0)), at(2, Phase::Ending)];
        assert_eq!(decided(&members), Step::Rest);
    }

    proptest! {
        #[test]
        fn ending_one_is_never_followed_by_starting_one(
            loads in prop::collection::vec(0u32..=4, 1..6), low in 0u32..8, min in 0u32..3,
        ) {
            let scale = Scale { workers_min: min, workers_max: 6, free_slots_low: low, ..SCALE };
            let mut members: Vec<_> = loads
                .iter()
                .enumerate()
                .map(|(name, used)| serving(name as u32, *used, (*used == 0).then_some(0)))
                .collect();
            let now = Duration::from_secs(1000);
            if let Step::End(name) = decide(&scale, &members, now) {
                prop_assert!(loads[name as usize] == 0);
                members.retain(|member| member.name != name);
                prop_assert!(members.len() as u32 >= min);
                prop_assert!(!matches!(decide(&scale, &members, now), Step::Start(_)));
            }
        }

        #[test]
        fn bounds_hold(loads in prop::collection::vec(0u32..=4, 0..8), low in 0u32..50, min in 0u32..3) {
            let scale = Scale { workers_min: min, workers_max: 6, free_slots_low: low, ..SCALE };
            let members: Vec<_> =
                loads.iter().enumerate().map(|(name, used)| serving(name as u32, *used, None)).collect();
            if let Step::Start(more) = decide(&scale, &members, Duration::ZERO) {
                prop_assert!(members.len() as u32 + more <= 6);
            }
        }
    }
}
