//! The end of everything in a sandbox, where the kernel does not see to it.

use std::time::{Duration, Instant};

use rustix::time::Timespec;

use super::meter::Measured;
use crate::kernel;
use crate::supervisor;

/// How long init takes at most; the launcher sees to what is left.
const END_DEADLINE: Duration = Duration::from_secs(2);
const LOOK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// By what a sandbox's processes are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Everything {
    /// They are in a namespace of process ids that ends with init.
    Namespace,
    /// They are all that have init's own user id.
    User,
    /// They are the descendants of init, which takes their orphans.
    Descendants,
}

impl Everything {
    /// What its memory is.
    pub(super) fn measured(self) -> Measured {
        match self {
            Self::Namespace => Measured::Namespace,
            Self::User | Self::Descendants => Measured::Descendants,
        }
    }

    /// Whether SIGTERM is the launcher's end, upon which the kernel kills init itself where that is enough.
    pub(super) fn ends_on_request(self) -> bool {
        self != Self::Namespace
    }

    /// Kills all but init until nothing is left, as far as that can be brought about in time.
    pub(super) fn end(self) {
        if self == Self::Namespace {
            return;
        }
        let deadline = Instant::now() + END_DEADLINE;
        loop {
            // All of the user at once, between two forks of whatever still multiplies.
            if self == Self::User && !rustix::process::geteuid().is_root() {
                kernel::kill(-1, libc::SIGKILL);
            }
            supervisor::descendants().into_iter().for_each(|pid| kernel::kill(pid, libc::SIGKILL));
            while matches!(kernel::reap(), Ok(Some(_))) {}
            let alone = supervisor::descendants().is_empty();
            if alone || Instant::now() > deadline {
                return;
            }
            // Only the time matters.
            let _ = rustix::event::poll(&mut [], Some(&LOOK_INTERVAL));
        }
    }
}
