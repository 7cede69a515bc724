//! What becomes of a session's worker, kept apart from what clients ask of the session, so that whoever tells it waits
//! for nobody and every owner hears it before anything else.

use std::collections::VecDeque;

use coordinator_core::session::Input;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// News that one owner has not heard yet. When they are that many the oldest is forgotten: where the worker stands
/// follows from the newest.
const NEWS_MAX: usize = 16;

/// What one owner is to hear, in order.
#[derive(Default)]
pub(super) struct OwnerNews {
    unheard: Mutex<VecDeque<Input>>,
    came: Notify,
}

impl OwnerNews {
    pub(super) fn tell(&self, input: Input) {
        let mut unheard = self.unheard.lock();
        if unheard.len() == NEWS_MAX {
            unheard.pop_front();
        }
        unheard.push_back(input);
        drop(unheard);
        self.came.notify_one();
    }

    /// The oldest that was not heard, once there is one. Nothing is lost when this is dropped.
    pub(super) async fn next(&self) -> Input {
        loop {
            let oldest = self.unheard.lock().pop_front();
            match oldest {
                Some(input) => return input,
                None => self.came.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn news_are_heard_in_order_and_only_the_newest_are_kept() {
        let news = OwnerNews::default();
        let of = |ttl_ms| Input::Update { ttl_ms: Some(ttl_ms) };
        (0..40).for_each(|n| news.tell(of(n)));
        let heard: Vec<Input> = std::iter::from_fn(|| news.next().now_or_never()).collect();
        assert_eq!(heard, (24..40).map(of).collect::<Vec<_>>());
        news.tell(of(7));
        assert_eq!(news.next().now_or_never(), Some(of(7)));
    }
}
