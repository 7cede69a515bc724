//! What lives in a session between its calls: kernels, with the threads and processes that their calls left. No task is there
//! that would be ended for what these take of the disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Live, Session};
use crate::disk::{Growth, Outgrown};

impl Session {
    /// Sees to it from now on that what lives between calls holds the disk's limits. Also while calls run, each of which looks
    /// after itself alone: one after the other they would leave no time between them.
    pub fn look_after(self: &Arc<Self>) {
        if !self.looked_after.swap(true, Ordering::SeqCst) {
            let (session, closed) = (Arc::clone(self), self.closed.clone());
            tokio::spawn(async move { closed.run_until_cancelled(hold(&session)).await });
        }
    }

    /// Whether nothing lives between calls any more. Whoever brings life to it later has it looked after again.
    fn is_left_alone(&self) -> bool {
        if self.kernels.any_lives() {
            return false;
        }
        self.looked_after.store(false, Ordering::SeqCst);
        // Whoever started one just now took it for looked after.
        !self.kernels.any_lives() || self.looked_after.swap(true, Ordering::SeqCst)
    }

    async fn end_outgrown(&self, live: &Live, of: Outgrown) {
        tracing::info!(session = %self.id, ?of, "a session took too much of the disk between its calls; its processes are ended");
        live.end_outgrown(of).await;
    }
}

/// Looks again and again until nothing lives.
async fn hold(session: &Session) {
    let mut growth = Growth::new();
    loop {
        growth.rest().await;
        if session.is_left_alone() {
            return;
        }
        let live = session.live.lock().await.clone();
        let Some(live) = live.filter(|live| !live.is_lost()) else { continue };
        if let Some(of) = growth.look(&session.workspace, live.sampled_scratch(&session.limits)).await {
            session.end_outgrown(&live, of).await;
        }
    }
}
