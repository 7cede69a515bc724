//! Strikes off workers that were silent for too long.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::handle::Inner;

/// Looks at every worker from time to time until the process stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    let stop = inner.supervisor.token();
    let period = (inner.options.timing.prune_after / 20).clamp(Duration::from_millis(20), Duration::from_secs(15));
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut patience = Patience::new(inner.now(), period, inner.options.heartbeat_interval);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = interval.tick() => {}
        }
        if patience.may_judge(inner.now()) {
            sweep(&inner).await;
        }
    }
}

async fn sweep(inner: &Inner) {
    let names = inner.registry.read().names();
    for worker in names {
        let ticked = inner.change(|registry, now| Ok(registry.tick(&worker, now).into_iter().collect())).await;
        debug_assert!(ticked.is_ok(), "time passing is never refused");
    }
    loop {
        let mut waiting = false;
        let overdue = inner.change(|registry, now| {
            let overdue = registry.awaited.overdue(now);
            waiting = overdue.is_some();
            Ok(overdue.into_iter().collect())
        });
        let ended = overdue.await;
        debug_assert!(ended.is_ok(), "time passing is never refused");
        if !waiting {
            return;
        }
    }
}

/// Whether silence means anything. After the machine slept, or this process was stopped, no worker can have been heard,
/// and each gets time to speak before it is judged.
#[derive(Debug)]
struct Patience {
    looked: Duration,
    judge_from: Duration,
    period: Duration,
    heartbeat_interval: Duration,
}

impl Patience {
    fn new(now: Duration, period: Duration, heartbeat_interval: Duration) -> Self {
        Self { looked: now, judge_from: now, period, heartbeat_interval }
    }

    fn may_judge(&mut self, now: Duration) -> bool {
        let gap = now.saturating_sub(self.looked);
        self.looked = now;
        if gap > self.period + self.heartbeat_interval {
            self.judge_from = now + 2 * self.heartbeat_interval;
        }
        now >= self.judge_from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_machine_slept_workers_get_time_to_speak() {
        let at = Duration::from_secs;
        let mut patience = Patience::new(at(0), at(15), at(30));
        assert!(patience.may_judge(at(15)));
        assert!(!patience.may_judge(at(3_600)));
        assert!(!patience.may_judge(at(3_615)));
        assert!(patience.may_judge(at(3_660)));
    }
}
