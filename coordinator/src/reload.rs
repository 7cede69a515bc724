//! Telling the parts of a running process to read their files again.

use tokio::sync::watch;

/// Tells them. Cheap to clone; all clones tell the same parts.
#[derive(Debug, Clone, Default)]
pub struct Reload(watch::Sender<u64>);

/// What one part is told. A part that is still reading when it is told several times reads once more.
#[derive(Debug)]
pub struct Reloads(watch::Receiver<u64>);

impl Reload {
    /// Has a part told from now on.
    pub fn follow(&self) -> Reloads {
        Reloads(self.0.subscribe())
    }

    /// Tells every part.
    pub fn tell(&self) {
        match self.0.receiver_count() {
            0 => tracing::info!("asked to read files again, and there are none that would be"),
            parts => tracing::info!(parts, "files are read again"),
        }
        self.0.send_modify(|times| *times += 1);
    }
}

impl Reloads {
    /// Waits until the part is told; for ever once nobody is left who could.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn every_part_is_told_and_one_that_lags_is_told_once() {
        let reload = Reload::default();
        reload.tell();
        let (mut one, mut other) = (reload.follow(), reload.follow());
        assert!(one.next().now_or_never().is_none(), "what was before is over");
        reload.tell();
        assert!(one.next().now_or_never().is_some());
        reload.tell();
        assert!(one.next().now_or_never().is_some() && one.next().now_or_never().is_none());
        assert!(other.next().now_or_never().is_some() && other.next().now_or_never().is_none());
        drop(reload);
        assert!(other.next().now_or_never().is_none());
    }
}
