//! The order in which calls on a kernel came over one connection, kept until each is with its worker, which then goes on
//! with it: a client may send the next call before the one before is answered.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Queues that are kept before those that are over are dropped.
const QUEUES_KEPT: usize = 64;

/// The queues of one connection: by session, as the client names it, and kernel.
#[derive(Debug, Default)]
pub struct Arrivals(HashMap<(Option<String>, String), CancellationToken>);

/// A call's place among those that came before it. The next one's turn comes when this is [`over`](Self::over), or dropped
/// by everybody.
#[derive(Debug, Clone)]
pub struct Arrival(Arc<Place>);

#[derive(Debug)]
struct Place {
    before: Mutex<Option<CancellationToken>>,
    over: CancellationToken,
}

impl Arrivals {
    /// Takes the next place of a connection among its calls on a kernel. To be done for each as it comes.
    pub fn arrive(&mut self, session: Option<String>, kernel: String) -> Arrival {
        if self.0.len() >= QUEUES_KEPT {
            self.0.retain(|_, last| !last.is_cancelled());
        }
        let over = CancellationToken::new();
        let before = self.0.insert((session, kernel), over.clone()).filter(|before| !before.is_cancelled());
        Arrival(Arc::new(Place { before: Mutex::new(before), over }))
    }
}

impl Arrival {
    /// Waits until all that came before are with their workers, or are over.
    pub async fn turn(&self) {
        let before = self.0.before.lock().clone();
        if let Some(before) = before {
            before.cancelled().await;
        }
        *self.0.before.lock() = None;
    }

    /// Says that the call is with its worker. Only for one whose [`turn`](Self::turn) has come.
    pub fn over(&self) {
        self.0.over.cancel();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let over = self.over.clone();
        // Who gives up a place lets nobody pass those before it.
        match (self.before.get_mut().take(), tokio::runtime::Handle::try_current()) {
            (Some(before), Ok(runtime)) if !before.is_cancelled() => {
                runtime.spawn(async move {
                    before.cancelled().await;
                    over.cancel();
                });
            }
            _ => over.cancel(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn arrive(arrivals: &mut Arrivals, kernel: &str) -> Arrival {
        arrivals.arrive(None, kernel.to_owned())
    }

    #[tokio::test]
    async fn each_waits_for_all_before_it_on_its_kernel_and_for_no_other() {
        let mut arrivals = Arrivals::default();
        let [first, second, third] = [(); 3].map(|()| arrive(&mut arrivals, "a"));
        let other = arrive(&mut arrivals, "b");
        assert!(first.turn().now_or_never().is_some() && other.turn().now_or_never().is_some());
        assert!(second.turn().now_or_never().is_none());
        drop(second);
        tokio::task::yield_now().await;
        assert!(third.turn().now_or_never().is_none(), "who gives up lets nobody pass the first");
        first.over();
        third.turn().await;
        drop(third);
        assert!(arrive(&mut arrivals, "a").turn().now_or_never().is_some());
    }

    #[tokio::test]
    async fn queues_that_are_over_are_not_kept() {
        let mut arrivals = Arrivals::default();
        let waits = arrive(&mut arrivals, "waits");
        for n in 0..1_000 {
            arrive(&mut arrivals, &n.to_string());
        }
        assert!(arrivals.0.len() <= QUEUES_KEPT);
        assert!(arrive(&mut arrivals, "waits").turn().now_or_never().is_none(), "one that goes on is");
        drop(waits);
    }
}
