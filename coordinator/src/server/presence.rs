//! How many fronts there are, and whether a server that was started on demand is still needed.

use std::time::Duration;

use tokio::sync::watch;

/// How often running tasks are looked at while no front is there.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// How long a server waits at least for the front that started it.
const FIRST_FRONT_PATIENCE: Duration = Duration::from_secs(10);

/// Counts the fronts.
#[derive(Debug, Clone)]
pub struct Presence(watch::Sender<Count>);

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    present: usize,
    /// Whether there ever was one.
    ever: bool,
}

/// One front, until it is dropped.
#[derive(Debug)]
pub struct Present(Presence);

impl Default for Presence {
    fn default() -> Self {
        Self(watch::Sender::new(Count::default()))
    }
}

impl Presence {
    /// Counts a front until the returned value is dropped.
    pub fn arrive(&self) -> Present {
        self.0.send_modify(|count| {
            count.present += 1;
            count.ever = true;
        });
        Present(self.clone())
    }

    /// Waits until there has been neither a front nor a running task for `linger`.
    pub async fn idle(&self, linger: Duration, running_tasks: impl Fn() -> usize) {
        let mut fronts = self.0.subscribe();
        loop {
            // The sender lives in `self`, so that waiting cannot fail.
            drop(fronts.wait_for(|count| count.present == 0).await);
            let ever = fronts.borrow_and_update().ever;
            let linger = if ever { linger } else { linger.max(FIRST_FRONT_PATIENCE) };
            tokio::select! {
                () = quiet(linger, &running_tasks) => return,
                // Any change: also a front that came and went counts as use.
                _ = fronts.changed() => {}
            }
        }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| count.present -= 1);
    }
}

/// Waits until no task has run for `linger`.
async fn quiet(linger: Duration, running_tasks: &impl Fn() -> usize) {
    let look = LOOK_INTERVAL_MAX.min(linger.max(Duration::from_millis(10)));
    let mut since = tokio::time::Instant::now();
    loop {
        if running_tasks() > 0 {
            since = tokio::time::Instant::now();
        } else if since.elapsed() >= linger {
            return;
        }
        tokio::time::sleep(look).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const LINGER: Duration = Duration::from_secs(60);

    async fn ends_within(presence: &Presence, seconds: u64, running: &AtomicUsize) -> bool {
        let idle = presence.idle(LINGER, || running.load(Ordering::Relaxed));
        tokio::time::timeout(Duration::from_secs(seconds), idle).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_without_fronts_and_tasks_ends_after_its_linger() {
        let presence = Presence::default();
        let none = AtomicUsize::new(0);
        assert!(!ends_within(&presence, 59, &none).await);
        assert!(ends_within(&presence, 62, &none).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_front_or_a_running_task_keeps_the_server() {
        let presence = Presence::default();
        let running = AtomicUsize::new(0);
        let front = presence.arrive();
        assert!(!ends_within(&presence, 3600, &running).await);
        drop(front);
        running.store(1, Ordering::Relaxed);
        assert!(!ends_within(&presence, 3600, &running).await);
        running.store(0, Ordering::Relaxed);
        assert!(ends_within(&presence, 62, &running).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_without_linger_still_waits_for_the_front_that_started_it() {
        let presence = Presence::default();
        let idle = presence.idle(Duration::ZERO, || 0);
        assert!(tokio::time::timeout(Duration::from_secs(9), idle).await.is_err());
        drop(presence.arrive());
        let idle = presence.idle(Duration::ZERO, || 0);
        assert!(tokio::time::timeout(Duration::from_secs(1), idle).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_front_that_comes_back_in_time_starts_the_linger_anew() {
        let presence = Presence::default();
        let none = AtomicUsize::new(0);
        let comes_back = async {
            tokio::time::sleep(Duration::from_secs(50)).await;
            drop(presence.arrive());
        };
        let (ended, ()) = tokio::join!(ends_within(&presence, 100, &none), comes_back);
        assert!(!ended);
    }
}
