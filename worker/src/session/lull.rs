//! Work that nobody waits for: one piece at a time, and not while sessions are being opened.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

/// For so long no session must have been opened.
const QUIET: Duration = Duration::from_millis(30);
/// Opening that never pauses holds the work up for no longer than this.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// Who may work ahead of need, and when.
#[derive(Debug)]
pub(crate) struct Lull {
    turn: Semaphore,
    opened: Mutex<Option<Instant>>,
}

impl Default for Lull {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), opened: Mutex::default() }
    }
}

impl Lull {
    /// A session is being opened.
    pub fn disturb(&self) {
        *self.opened.lock() = Some(Instant::now());
    }

    /// Waits until no session was opened for a moment.
    pub async fn quiet(&self) {
        let until = Instant::now() + WAIT_MAX;
        while Instant::now() < until {
            let since = self.opened.lock().map_or(QUIET, |opened| opened.elapsed());
            match QUIET.checked_sub(since) {
                None | Some(Duration::ZERO) => return,
                Some(left) => tokio::time::sleep(left).await,
            }
        }
    }

    /// Waits for a turn to do costly work. The next one comes when the permit is dropped.
    pub async fn turn(&self) -> SemaphorePermit<'_> {
        let permit = self.turn.acquire().await.expect("it is never closed");
        self.quiet().await;
        permit
    }
}
