//! The clock by which workers are judged.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// How the time is told that silent workers are judged by.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The time since boot, suspension included: a clock set by hand ends no worker, and a laptop that slept knows it.
    #[default]
    SinceBoot,
    /// The runtime's time since then, which tests let pass as they like.
    Runtime(Instant),
}

impl Clock {
    /// The time by this clock, from a moment that stays the same for as long as the clock is used.
    pub(crate) fn now(self) -> Duration {
        match self {
            Self::SinceBoot => since_boot(),
            Self::Runtime(begun) => begun.elapsed(),
        }
    }
}

fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}
