//! How long credentials are good, for whatever outlives the request that showed them.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The longest time before the clock is looked at again: it may have been set.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// How long credentials are good. By default for ever.
#[derive(Debug, Clone, Default)]
pub struct Validity {
    /// When they expire, in milliseconds since 1970.
    pub(super) expires_ms: Option<i64>,
    /// Cancelled when they are revoked.
    pub(super) revoked: Option<CancellationToken>,
}

impl Validity {
    /// Whether the credentials are good no more.
    pub fn is_over(&self) -> bool {
        let revoked = self.revoked.as_ref().is_some_and(CancellationToken::is_cancelled);
        revoked || self.expires_ms.is_some_and(|expires| expires <= jiff::Timestamp::now().as_millisecond())
    }

    /// Waits until the credentials are good no more; for ever where they always are.
    pub async fn over(&self) {
        let revoked = async {
            match &self.revoked {
                Some(revoked) => revoked.cancelled().await,
                None => std::future::pending().await,
            }
        };
        let expired = async {
            let Some(expires) = self.expires_ms else { return std::future::pending().await };
            while let Ok(left @ 1..) = u64::try_from(expires - jiff::Timestamp::now().as_millisecond()) {
                tokio::time::sleep(Duration::from_millis(left).min(LOOK_INTERVAL)).await;
            }
        };
        tokio::select! {
            () = revoked => {}
            () = expired => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn credentials_are_over_when_they_expire_or_are_revoked() {
        let now = jiff::Timestamp::now().as_millisecond();
        let until = |expires_ms| Validity { expires_ms, revoked: Some(CancellationToken::new()) };
        assert!(Validity::default().over().now_or_never().is_none());
        assert!(until(Some(now)).over().now_or_never().is_some());
        let good = until(Some(now + 3_600_000));
        assert!(good.over().now_or_never().is_none());
        good.revoked.as_ref().unwrap().cancel();
        assert!(good.over().now_or_never().is_some());
        tokio::time::timeout(Duration::from_secs(30), until(Some(now + 50)).over()).await.unwrap();
    }
}
