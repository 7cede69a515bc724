//! What is left to the worker when its launcher was killed: processes of sandboxes whose init had ended before, which
//! nobody else knows of.

use std::time::{Duration, Instant};

use rustix::time::Timespec;

use crate::supervisor;

/// How long the worker sees to it at most, which then ends.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it kills without a rest what multiplies meanwhile.
const TURN: Duration = Duration::from_millis(10);
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Kills all children of this process but `inits`, each of which ends its own sandbox by itself, and waits until there is
/// none any more; false when some live on. Blocks. Whose parent is gone comes to this process, as
/// [`launcher::fork`](crate::launcher::fork) sees to.
pub(super) fn end_all_but(inits: &[i32]) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let turn = Instant::now() + TURN;
        while Instant::now() < turn {
            if supervisor::end_children(|pid| !inits.contains(pid)) {
                return true;
            }
        }
        // Only the time matters.
        let _ = rustix::event::poll(&mut [], Some(&REST));
    }
    false
}
