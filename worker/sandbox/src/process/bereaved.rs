//! What is left to the worker when its launcher was killed: processes of sandboxes whose init had ended before, which
//! nobody else knows of.

use std::time::{Duration, Instant};

use rustix::time::Timespec;

use crate::supervisor;
use crate::uids::{FIRST_PROBE_UID, UNDERTAKERS};

/// How long the worker sees to it at most, which then ends.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it kills without a rest what multiplies meanwhile.
const TURN: Duration = Duration::from_millis(10);
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// How long those that end others are left to it: inits their own sandboxes, undertakers what one left. They kill at once
/// what is caught from here one by one.
const LEFT_TO_IT: Duration = Duration::from_secs(5);

/// Kills all children of this process, `inits` and undertakers last, and waits until there is none any more; false when some
/// live on. Blocks. Whose parent is gone comes to this process, as [`launcher::fork`](crate::launcher::fork) sees to.
pub(super) fn end_all(inits: &[i32]) -> bool {
    let begun = Instant::now();
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut spared: Vec<i32> = supervisor::children(own).into_iter().filter(|pid| is_undertaker(*pid)).collect();
    spared.extend(inits);
    while begun.elapsed() < PATIENCE {
        if begun.elapsed() > LEFT_TO_IT {
            spared.clear();
        }
        let turn = Instant::now() + TURN;
        while Instant::now() < turn {
            if supervisor::end_children(|pid| !spared.contains(pid)) {
                return true;
            }
        }
        // Only the time matters.
        let _ = rustix::event::poll(&mut [], Some(&REST));
    }
    false
}

/// Whether it runs under an id that only undertakers have.
fn is_undertaker(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let real: Option<u32> = ids.and_then(|ids| ids.split_whitespace().next()?.parse().ok());
    real.is_some_and(|id| id >= FIRST_PROBE_UID + UNDERTAKERS)
}
