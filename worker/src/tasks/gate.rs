//! Whether a task may begin.

use std::sync::{Arc, OnceLock};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Closed for a task that is held: what is done before it passes changes nothing, and may be dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate {
    open: CancellationToken,
    since: Arc<OnceLock<Instant>>,
}

impl Gate {
    pub fn open() -> Self {
        let gate = Self::closed();
        gate.let_pass();
        gate
    }

    pub fn closed() -> Self {
        Self::default()
    }

    pub fn is_open(&self) -> bool {
        self.open.is_cancelled()
    }

    /// Opens it, for good.
    pub fn let_pass(&self) {
        self.since.get_or_init(Instant::now);
        self.open.cancel();
    }

    /// Waits until it is open.
    pub async fn pass(&self) {
        self.open.cancelled().await;
    }

    /// Since when it is open.
    pub fn open_since(&self) -> Option<Instant> {
        self.since.get().copied()
    }
}
