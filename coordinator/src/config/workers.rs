//! How long workers are waited for.

use std::time::Duration;

use coordinator_core::worker::{InvalidTiming, Timing};

use super::layers::{ConfigError, Layers};
use super::{DAY, settings, values};

/// The times by which silent and unreachable workers are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerTimes {
    /// How often a worker shall say that it lives.
    pub heartbeat_interval: Duration,
    /// Silence after which a worker is given up.
    pub heartbeat_timeout: Duration,
    /// A worker that cannot be reached may come back within this time as if nothing had happened.
    pub reconnect_grace: Duration,
    /// A ping is sent on a link after so long; its answer may take as long again.
    pub keep_alive: Duration,
}

impl WorkerTimes {
    /// The same as the registry has them.
    ///
    /// # Errors
    /// [`InvalidTiming`] when they are not in the order in which one makes up for the other.
    pub fn timing(self) -> Result<Timing, InvalidTiming> {
        let reassign_after = self.reconnect_grace + (self.heartbeat_timeout.saturating_sub(self.reconnect_grace)) / 6;
        let (keep_alive, reconnect_grace) = (self.keep_alive * 2, self.reconnect_grace);
        Timing { keep_alive, reconnect_grace, reassign_after, prune_after: self.heartbeat_timeout }.check()
    }
}

pub(super) fn read(layers: &mut Layers) -> Result<WorkerTimes, ConfigError> {
    Ok(WorkerTimes {
        heartbeat_interval: layers.require(&settings::WORKER_HEARTBEAT_INTERVAL, values::seconds(1, 60))?,
        heartbeat_timeout: layers.require(&settings::WORKER_HEARTBEAT_TIMEOUT, values::seconds(4, DAY))?,
        reconnect_grace: layers.require(&settings::WORKER_RECONNECT_GRACE, values::seconds(3, DAY))?,
        keep_alive: layers.require(&settings::WORKER_KEEP_ALIVE, values::seconds(1, 60))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_registry_and_times_out_of_order_are_refused() {
        let seconds = Duration::from_secs;
        let times = WorkerTimes {
            heartbeat_interval: seconds(30),
            heartbeat_timeout: seconds(300),
            reconnect_grace: seconds(120),
            keep_alive: seconds(10),
        };
        assert_eq!(times.timing(), Ok(Timing::default()));
        assert!(WorkerTimes { keep_alive: seconds(60), ..times }.timing().is_err());
        assert!(WorkerTimes { heartbeat_timeout: seconds(120), ..times }.timing().is_err());
    }
}
