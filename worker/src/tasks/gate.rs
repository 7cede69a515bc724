//! Whether a task may begin.

use tokio_util::sync::CancellationToken;

/// Closed for a task that is held: what is done before it passes changes nothing, and may be dropped.
#[derive(Debug, Clone)]
pub(crate) struct Gate(CancellationToken);

impl Gate {
    pub fn open() -> Self {
        let gate = Self::closed();
        gate.let_pass();
        gate
    }

    pub fn closed() -> Self {
        Self(CancellationToken::new())
    }

    pub fn is_open(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Opens it, for good.
    pub fn let_pass(&self) {
        self.0.cancel();
    }

    /// Waits until it is open.
    pub async fn pass(&self) {
        self.0.cancelled().await;
    }
}
