//! Places for connections from inside: so many of one session, and of all sessions of a worker together. What all take
//! together is bounded, and some places of each session are its own, so that no others can keep it from its hosts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Connections of one session that are open at once.
pub(super) const SESSION_MAX: usize = 32;
/// As many of them are taken from nobody.
const OWN: usize = 4;
/// Further ones of all sessions of a worker.
const SHARED_MAX: usize = 256;

/// The places of a worker. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SHARED_MAX)))
    }
}

impl Places {
    /// Those of one more session.
    pub(super) fn of_one(&self) -> PlacesOfOne {
        let of = |count| Arc::new(Semaphore::new(count));
        PlacesOfOne { all: of(SESSION_MAX), own: of(OWN), shared: Arc::clone(&self.0) }
    }
}

/// The places of one session.
pub(super) struct PlacesOfOne {
    all: Arc<Semaphore>,
    own: Arc<Semaphore>,
    shared: Arc<Semaphore>,
}

/// A place of a connection, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "held until the connection ends")] [OwnedSemaphorePermit; 2]);

/// Whose connections are as many as they may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error("this session has {SESSION_MAX} connections open, as many as it may; try again when one has ended")]
    Session,
    #[error("the sessions of this worker have as many connections open as they may; try again soon")]
    Worker,
}

impl PlacesOfOne {
    /// A place as soon as there is one, but no later than this.
    pub async fn take(&self, patience: Duration) -> Result<Place, Full> {
        let until = Instant::now() + patience;
        // None of these is ever closed.
        let of = |places: &Arc<Semaphore>| Arc::clone(places).acquire_owned();
        let Ok(Ok(first)) = timeout_at(until, of(&self.all)).await else { return Err(Full::Session) };
        let second = timeout_at(until, async {
            tokio::select! {
                biased;
                own = of(&self.own) => own,
                shared = of(&self.shared) => shared,
            }
        });
        match second.await {
            Ok(Ok(second)) => Ok(Place([first, second])),
            Ok(Err(_)) | Err(_) => Err(Full::Worker),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sessions_that_take_all_they_can_leave_each_other_some_places_and_give_all_back() {
        let worker = Places::default();
        let (sessions, mut taken): (Vec<_>, Vec<_>) = ((0..20).map(|_| worker.of_one()).collect(), Vec::new());
        let mut refused = Vec::new();
        for session in &sessions {
            for _ in 0..SESSION_MAX + 1 {
                match session.take(Duration::ZERO).await {
                    Ok(place) => taken.push(place),
                    Err(full) => refused.push(full),
                }
            }
        }
        assert_eq!(taken.len(), SHARED_MAX + sessions.len() * OWN, "no more than all may have");
        assert!(refused.contains(&Full::Session) && refused.contains(&Full::Worker));
        let late = worker.of_one();
        for _ in 0..OWN {
            taken.push(late.take(Duration::ZERO).await.expect("a place of its own"));
        }
        assert_eq!(late.take(Duration::ZERO).await.map(drop), Err(Full::Worker));
        taken.clear();
        assert!(late.take(Duration::ZERO).await.is_ok());
        assert_eq!(worker.0.available_permits(), SHARED_MAX);
    }

    #[tokio::test]
    async fn who_waits_gets_the_place_of_the_one_that_ends() {
        let session = Arc::new(Places::default().of_one());
        let mut taken = Vec::new();
        for _ in 0..SESSION_MAX {
            taken.push(session.take(Duration::ZERO).await.expect("a place"));
        }
        let waiting = Arc::clone(&session);
        let waiting = tokio::spawn(async move { waiting.take(Duration::from_secs(60)).await });
        taken.pop();
        assert!(waiting.await.expect("it ends").is_ok());
    }
}
