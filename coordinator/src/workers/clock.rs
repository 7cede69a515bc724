//! The clock by which workers are judged.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time since boot, suspension included: a clock set by hand ends no worker, and a laptop that slept knows it.
pub(crate) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}
