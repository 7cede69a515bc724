//! What sandboxes without namespaces left, and how far it is seen to: in turns of bounded time, so that none of it holds up
//! the launcher, and for as long as it takes, so that no end is told and no user id is free before everything is gone.

use std::time::{Duration, Instant};

use super::remains::{EXIT_CLEAN, Remains};
use crate::cgroups::Group;
use crate::kernel::{self, Ending};
use crate::protocol::LauncherReply;

/// How long one undertaker may take; then it is ended, and another one goes on.
const TURN: Duration = Duration::from_secs(5);
/// The rest between two undertakers doubles from the first to the last of these.
const REST_MIN: Duration = Duration::from_millis(5);
const REST_MAX: Duration = Duration::from_secs(1);
/// So many turns are given to files that cannot be deleted; they go at the worker's next start.
const FILES_TURNS_MAX: u32 = 20;

/// Everything that is still to be seen to. Bounded by the sandboxes that the worker asked for.
#[derive(Debug, Default)]
pub(super) struct Burials(Vec<Burial>);

/// What one sandbox left.
#[derive(Debug)]
pub(super) struct Burial {
    pub(super) remains: Remains,
    /// What is put away and said when nothing of it is left; not of an earlier life, whose end nobody waits for.
    pub(super) after: Option<(Group, LauncherReply)>,
    stage: Stage,
    turns: u32,
}

#[derive(Debug)]
enum Stage {
    /// Nobody sees to it until then.
    Resting { until: Instant },
    /// An undertaker does.
    Under { undertaker: i32, until: Instant },
    /// Nothing is left, as far as this sandbox alone is looked at.
    Done,
}

impl Burials {
    pub(super) fn add(&mut self, remains: Remains, after: Option<(Group, LauncherReply)>) {
        self.0.push(Burial { remains, after, stage: Stage::Resting { until: Instant::now() }, turns: 0 });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something may still run under a user id.
    pub(super) fn hold(&self, uid: u32) -> bool {
        self.0.iter().any(|burial| burial.remains.user() == Some(uid))
    }

    /// Whether there may be processes that are known by the parent alone that they have lost.
    pub(super) fn have_orphans(&self) -> bool {
        self.0.iter().any(|burial| burial.remains.user().is_none())
    }

    pub(super) fn is_undertaker(&self, pid: i32) -> bool {
        self.0.iter().any(|burial| matches!(burial.stage, Stage::Under { undertaker, .. } if undertaker == pid))
    }

    /// A child of the launcher ended, which may be an undertaker.
    pub(super) fn note_end(&mut self, pid: i32, ending: Ending) {
        let of = |burial: &&mut Burial| matches!(burial.stage, Stage::Under { undertaker, .. } if undertaker == pid);
        let Some(burial) = self.0.iter_mut().find(of) else { return };
        let given_up = burial.turns >= FILES_TURNS_MAX && !burial.remains.has_processes();
        if ending == Ending::Exited(EXIT_CLEAN) || given_up {
            burial.stage = Stage::Done;
        } else {
            burial.stage = Stage::Resting { until: Instant::now() + rest(burial.turns) };
        }
    }

    /// Ends undertakers whose turn is over, begins those that are due, and gives what is done with. `orphaned`: there are
    /// processes that lost their parent, and whose they are is not known.
    pub(super) fn go_on(&mut self, orphaned: bool) -> Vec<Burial> {
        let now = Instant::now();
        for burial in &mut self.0 {
            match burial.stage {
                Stage::Resting { until } if until <= now && !burial.waits(orphaned) => burial.begin(now),
                Stage::Under { undertaker, until } if until <= now => {
                    kernel::kill(undertaker, libc::SIGKILL);
                    // It is reaped when it is gone; one that sleeps in the kernel takes its time.
                    burial.stage = Stage::Under { undertaker, until: now + TURN };
                }
                Stage::Resting { .. } | Stage::Under { .. } | Stage::Done => {}
            }
        }
        self.0.extract_if(.., |burial| matches!(burial.stage, Stage::Done) && !burial.waits(orphaned)).collect()
    }

    /// When something is to be done that nobody tells of. Of what waits for the orphans' end nothing is, while there are some.
    pub(super) fn next_look(&self, orphaned: bool) -> Option<Instant> {
        let of = |burial: &Burial| match burial.stage {
            Stage::Resting { until } => (!burial.waits(orphaned)).then_some(until),
            Stage::Under { until, .. } => Some(until),
            Stage::Done => None,
        };
        self.0.iter().filter_map(of).min()
    }
}

impl Burial {
    /// Whether it must wait until no process is left that lost its parent, since that may be its own.
    fn waits(&self, orphaned: bool) -> bool {
        orphaned && self.remains.user().is_none()
    }

    fn begin(&mut self, now: Instant) {
        self.turns = self.turns.saturating_add(1);
        self.stage = match self.remains.bury() {
            Some(undertaker) => Stage::Under { undertaker, until: now + TURN },
            None => Stage::Resting { until: now + rest(self.turns) },
        };
    }
}

/// How long to rest after so many turns.
fn rest(turns: u32) -> Duration {
    REST_MIN.saturating_mul(1 << turns.min(16)).min(REST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_and_never_end() {
        assert!(rest(0) < rest(1) && rest(1) < rest(3));
        assert_eq!((rest(16), rest(u32::MAX)), (REST_MAX, REST_MAX));
    }

    #[test]
    fn an_end_is_not_told_while_there_are_orphans_that_may_be_its_own() {
        let mut burials = Burials::default();
        let directory = tempfile::tempdir().unwrap();
        let remains = Remains::make(None, &directory.path().join("workspace")).unwrap();
        burials.add(remains, None);
        for _ in 0..3 {
            assert!(burials.go_on(true).is_empty());
            assert!(matches!(burials.0[0].stage, Stage::Resting { .. }), "no undertaker begins, either");
            assert_eq!(burials.next_look(true), None, "and nobody looks again before the orphans' next turn");
        }
        assert!(burials.next_look(false).is_some_and(|look| look <= Instant::now()), "it is due without them");
        burials.0[0].stage = Stage::Done;
        assert!(burials.go_on(true).is_empty(), "others may have come since its undertaker began");
        assert_eq!(burials.go_on(false).len(), 1);
        assert!(burials.is_empty());
    }
}
