//! Ends the sessions of workers that are drained, each as it goes idle.

use std::time::Duration;

use super::Operators;

/// How often the sessions of a worker that is drained are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

impl Operators {
    /// Drains whichever workers are to be drained, for ever.
    pub async fn keep_draining(self) {
        let mut changed = self.0.cordons.changed();
        loop {
            let draining = self.0.cordons.draining();
            for worker in &draining {
                self.0.sessions.end_idle_on(worker);
            }
            if draining.is_empty() {
                // The sender lives as long as this handle.
                changed.changed().await.ok();
            } else {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        }
    }
}
