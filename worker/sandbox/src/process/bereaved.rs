//! What is left to the worker when its launcher was killed: processes of sandboxes whose init had ended before, which
//! nobody else knows of.

use std::time::{Duration, Instant};

use rustix::time::Timespec;

use crate::kernel;
use crate::supervisor;
use crate::uids::{FIRST_PROBE_UID, UNDERTAKERS};

/// How long the worker sees to it at most, which then ends.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it kills without a rest what multiplies meanwhile.
const TURN: Duration = Duration::from_millis(10);
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Kills all children of this process but `inits` and undertakers, which end what is theirs by themselves and all at once, and
/// waits until there is none any more; false when some live on. Blocks. Whose parent is gone comes to this process, as
/// [`launcher::fork`](crate::launcher::fork) sees to.
pub(super) fn end_all_but(inits: &[i32]) -> bool {
    let deadline = Instant::now() + PATIENCE;
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut spared: Vec<i32> = supervisor::children(own).into_iter().filter(|pid| is_undertaker(*pid)).collect();
    spared.extend(inits);
    while Instant::now() < deadline {
        // Below *full* the code of a session may have stopped its init.
        for pid in supervisor::children(own).iter().filter(|pid| spared.contains(pid)) {
            kernel::kill(*pid, libc::SIGCONT);
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
