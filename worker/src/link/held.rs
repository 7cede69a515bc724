//! Which of its sessions a worker names to its coordinator: all of them, unless there are more than one message may name.

use std::cmp::Reverse;

use codegen_proto::bounds::HELD_SESSIONS_MAX;
use codegen_types::HeldSession;

/// Sessions that a worker keeps, as many as it may name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub sessions: Vec<HeldSession>,
    /// Whether there are more.
    pub is_partial: bool,
}

/// Names those first that are open, as they have processes, then those whose tasks may be asked for, and then those that
/// were open in this life of the worker.
pub(super) fn named(mut held: Vec<HeldSession>) -> Named {
    let is_partial = held.len() > HELD_SESSIONS_MAX;
    if is_partial {
        held.sort_by_key(|held| Reverse((held.open, !held.tasks.is_empty(), held.epoch)));
        held.truncate(HELD_SESSIONS_MAX);
        tracing::warn!(most = HELD_SESSIONS_MAX, "more sessions are kept here than the coordinator can be told of");
    }
    Named { sessions: held, is_partial }
}

#[cfg(test)]
mod tests {
    use codegen_types::{Epoch, SessionId, TaskId};

    use super::*;

    fn held(open: bool, epoch: u64) -> HeldSession {
        HeldSession { session: SessionId::mint(), epoch: Epoch(epoch), open, tasks: Vec::new() }
    }

    #[test]
    fn a_worker_with_more_sessions_than_it_may_name_names_those_in_use_first_and_says_so() {
        let (old, open, asked, used) = (held(false, 0), held(true, 1), held(false, 1), held(false, 1));
        let asked = HeldSession { tasks: vec![TaskId::mint()], ..asked };
        let mut all = vec![old.clone(), used.clone(), asked.clone(), open.clone()];
        assert_eq!(named(all.clone()), Named { sessions: all.clone(), is_partial: false });
        all.splice(0..0, std::iter::repeat_with(|| held(false, 0)).take(HELD_SESSIONS_MAX));
        let Named { sessions, is_partial } = named(all);
        assert!(is_partial && sessions.len() == HELD_SESSIONS_MAX);
        assert_eq!(sessions[..3], [open, asked, used]);
        assert!(!sessions.contains(&old), "who came last of those at rest is not named");
    }
}
