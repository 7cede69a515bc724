//! Spawning through one place, so that every task of the process has a name, a failure policy and an end.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What happens when a task ends before it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEnd {
    /// Nothing: it serves one call or one connection.
    Ignore,
    /// The process cannot go on without it and stops.
    Shutdown,
}

/// Spawns and ends the tasks of this process.
///
/// Ending takes two steps: [`cancel`](Self::cancel) asks every task to stop, then [`drain`](Self::drain) waits for them
/// under a deadline; what is left then is dropped with the runtime.
#[derive(Debug, Clone, Default)]
pub struct Supervisor {
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Supervisor {
    /// Cancelled when the process is to stop.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Runs a task until it ends by itself; it watches [`token`](Self::token) on its own.
    pub fn spawn<F>(&self, name: &'static str, on_end: OnEnd, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.token.clone();
        self.tracker.spawn(async move {
            let guard = EndGuard { name, on_end, token };
            task.await;
            drop(guard);
        });
    }

    /// Asks every task to stop.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Waits until every task has ended, but no longer than `deadline`. Returns whether all did.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

/// Applies the policy also when the task panics.
struct EndGuard {
    name: &'static str,
    on_end: OnEnd,
    token: CancellationToken,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        if self.on_end == OnEnd::Shutdown && !self.token.is_cancelled() {
            tracing::error!(task = self.name, "a task that the process needs has ended; stopping");
            self.token.cancel();
        }
    }
}
