//! The end of everything in a sandbox, where the kernel does not see to it.

use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::time::Timespec;

use super::meter::Measured;
use crate::kernel;
use crate::supervisor;

/// How long init takes at most while there is a launcher, which sees to what is left.
const END_DEADLINE: Duration = Duration::from_secs(2);
/// How long it kills without a rest what multiplies meanwhile.
const TURN: Duration = Duration::from_millis(10);
/// The rest between two turns; later, when they go on for long.
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
const REST_LONG: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const PATIENCE: Duration = Duration::from_secs(10);

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

    /// Kills all but init until nothing is left. The launcher sees to what dies late; once that is gone nobody else does, and
    /// nobody waits for init.
    pub(super) fn end(self, launcher: Launcher) {
        if self == Self::Namespace {
            return;
        }
        let begun = Instant::now();
        while !self.end_for_a_turn() {
            if begun.elapsed() > END_DEADLINE && !launcher.is_gone() {
                return;
            }
            let rest = if begun.elapsed() > PATIENCE { REST_LONG } else { REST };
            // Only the time matters.
            let _ = rustix::event::poll(&mut [], Some(&rest));
        }
    }

    /// Kills whatever is found for a while; true when nothing is left.
    fn end_for_a_turn(self) -> bool {
        let until = Instant::now() + TURN;
        loop {
            // All of the user at once, between two forks of whatever still multiplies.
            if self == Self::User && !rustix::process::geteuid().is_root() {
                kernel::kill(-1, libc::SIGKILL);
            }
            if supervisor::end_children(|_| true) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
        }
    }
}

/// The process that sees to what init leaves, as long as it is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Launcher(Option<Pid>);

impl Launcher {
    /// The one that forked this process.
    pub(super) fn of_this_process() -> Self {
        Self(rustix::process::getppid())
    }

    pub(super) fn is_gone(self) -> bool {
        rustix::process::getppid() != self.0
    }
}
