//! The running calls of one connection, for whoever ends it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The running calls of one connection.
#[derive(Clone, Default)]
pub struct Calls {
    cancel: CancellationToken,
    streams_over: CancellationToken,
    tracker: TaskTracker,
}

impl Calls {
    /// Calls that end with those of `self`, and can be ended before them.
    pub(super) fn part(&self) -> Self {
        Self {
            cancel: self.cancel.child_token(),
            streams_over: self.streams_over.child_token(),
            tracker: self.tracker.clone(),
        }
    }

    /// Cancels every running call; each still ends in its own time.
    pub(super) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Ends the streams of changes: they have nothing to finish, and would keep a client waiting that closes its side.
    pub(super) fn end_streams(&self) {
        self.streams_over.cancel();
    }

    /// Cancelled when the client has closed its side.
    pub(super) fn streams_over(&self) -> CancellationToken {
        self.streams_over.clone()
    }

    /// Cancelled when the connection is over.
    pub(super) fn token(&self) -> CancellationToken {
        self.cancel.child_token()
    }

    /// Runs something beside the calls until the connection is over, at the longest.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(work);
    }

    /// Counts `work` among what has to end.
    pub(super) fn track<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        self.tracker.track_future(work)
    }

    /// Cancels every running call and waits for their ends, but no longer than `deadline`.
    pub(super) async fn end(&self, deadline: Duration) {
        self.end_streams();
        self.cancel.cancel();
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_err() {
            tracing::warn!(left = self.tracker.len(), "calls of a closed connection have not ended yet");
        }
    }
}
