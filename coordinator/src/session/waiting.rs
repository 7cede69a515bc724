//! Calls that wait for a slot on a worker: in order, so many at most, and woken when something changes among the workers.
//!
//! Those that want the same wait behind each other, so that none is overtaken; those that want something else do not
//! hold each other up. Who gives up, or is given up, leaves the queue. No principal takes all its places.

use std::sync::Arc;
use std::time::Duration;

use codegen_types::{ErrorCode, Failure, Principal, SessionId, WorkerId};
use coordinator_core::placement::Requirements;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Shared;
use crate::workers::Reservation;

/// Calls that wait at once; when so many do, another one is refused.
const WAITERS_MAX: usize = 256;
/// As many of them may want new sessions; the rest is kept for sessions that are there and come back to their files.
const NEW_MAX: usize = 192;
/// Whoever waits looks at all workers no more often than once in this time.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a session wants of the workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wants {
    pub(super) requirements: Requirements,
    /// Which session is to be opened again, and the worker that has its files: no other will do.
    pub(super) prefer: Option<(WorkerId, SessionId)>,
}

/// Who waits, those first that came first.
#[derive(Default)]
pub(super) struct Waiting {
    queue: Arc<Mutex<Queue>>,
    /// Changes when somebody leaves.
    left: Arc<watch::Sender<()>>,
}

#[derive(Default)]
struct Queue {
    next: u64,
    waiters: Vec<Waiter>,
}

struct Waiter {
    number: u64,
    principal: Principal,
    wants: Wants,
    /// Why it waits.
    why: Failure,
}

/// A place in the queue; left when dropped.
struct Place {
    number: u64,
    queue: Arc<Mutex<Queue>>,
    left: Arc<watch::Sender<()>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.lock().waiters.retain(|waiter| waiter.number != self.number);
        self.left.send_replace(());
    }
}

impl Waiting {
    /// Why whoever is to be served first among those that want the same and came before `place` waits; nothing when
    /// nobody is.
    fn ahead(&self, place: Option<&Place>, wants: &Wants) -> Option<Failure> {
        let number = place.map_or(u64::MAX, |place| place.number);
        let queue = self.queue.lock();
        let ahead = queue.waiters.iter().find(|waiter| waiter.number < number && waiter.wants == *wants);
        ahead.map(|waiter| waiter.why.clone())
    }

    /// A place in the queue, of which nobody gets more than half of what the others leave.
    fn join(&self, principal: &Principal, wants: &Wants, why: &Failure) -> Option<Place> {
        let mut queue = self.queue.lock();
        let own = queue.waiters.iter().filter(|waiter| waiter.principal == *principal).count();
        let left = WAITERS_MAX - (queue.waiters.len() - own);
        let new = queue.waiters.iter().filter(|waiter| waiter.wants.prefer.is_none()).count();
        if own >= left.div_ceil(2) || (wants.prefer.is_none() && new >= NEW_MAX) {
            return None;
        }
        let number = queue.next;
        queue.next += 1;
        let principal = principal.clone();
        queue.waiters.push(Waiter { number, principal, wants: wants.clone(), why: why.clone() });
        Some(Place { number, queue: Arc::clone(&self.queue), left: Arc::clone(&self.left) })
    }
}

impl Shared {
    /// Reserves a slot. Room is waited for as long as `wait`; a worker that is just not there at least as long as the
    /// operator's patience; what only an operator can change, not at all without `wait`; and what no worker that is
    /// there can do, not at all.
    pub(in crate::session) async fn reserve(
        &self,
        principal: &Principal,
        wants: Wants,
        wait: Duration,
    ) -> Result<Box<dyn Reservation>, Failure> {
        let begun = Instant::now();
        let (mut changes, mut left) = (self.fleet.changes(), self.waiting.left.subscribe());
        let mut place: Option<Place> = None;
        let prefer = wants.prefer.as_ref().map(|(worker, session)| (worker, *session));
        loop {
            changes.borrow_and_update();
            left.borrow_and_update();
            let looked = Instant::now();
            let failure = match self.waiting.ahead(place.as_ref(), &wants) {
                Some(why) => why,
                None => match self.fleet.reserve(&wants.requirements, prefer) {
                    Ok(slot) => return Ok(slot),
                    Err(failure) => failure,
                },
            };
            let deadline = begun + self.patience(&failure).max(wait);
            let is_in_vain = matches!(failure.code, ErrorCode::IsolationUnavailable | ErrorCode::NoWorkerFits);
            if Instant::now() >= deadline || is_in_vain {
                return Err(failure);
            }
            if place.is_none() {
                place = Some(self.waiting.join(principal, &wants, &failure).ok_or(failure)?);
            }
            tokio::select! {
                // Both senders live as long as this.
                _ = changes.changed() => tokio::time::sleep_until(deadline.min(looked + LOOK_EVERY)).await,
                _ = left.changed() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    /// How long a worker is waited for that is just not there.
    fn patience(&self, failure: &Failure) -> Duration {
        let patience = self.options.worker_patience;
        let comes_back_by_itself =
            failure.retry_after_ms.is_none_or(|after_ms| u128::from(after_ms) <= patience.as_millis().max(1_000));
        let is_away = failure.code == ErrorCode::WorkerUnavailable && comes_back_by_itself;
        if is_away { patience } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use codegen_types::IsolationLevel;
    use coordinator_core::placement::Trust;

    use super::*;

    fn somebody(number: usize) -> Principal {
        Principal::os_user(&format!("user{number}"))
    }

    fn wants(zone: &str) -> Wants {
        let labels = [("zone".to_owned(), zone.to_owned())].into();
        let requirements =
            Requirements { isolation_minimum: IsolationLevel::Full, runtimes: vec![], labels, trust: Trust::Sessions };
        Wants { requirements, prefer: None }
    }

    #[test]
    fn who_wants_the_same_waits_in_order_and_who_leaves_is_forgotten() {
        let (waiting, full) = (Waiting::default(), Failure::new(ErrorCode::NoCapacity, "full"));
        let join = |zone: &str| waiting.join(&somebody(1), &wants(zone), &full).unwrap();
        let (first, second, other) = (join("a"), join("a"), join("b"));
        let is_first = |place: &Place, zone: &str| waiting.ahead(Some(place), &wants(zone)).is_none();
        assert!(is_first(&first, "a") && !is_first(&second, "a") && is_first(&other, "b"));
        assert_eq!(waiting.ahead(None, &wants("a")), Some(full.clone()), "whoever comes new is behind both");
        assert_eq!(waiting.ahead(None, &wants("c")), None);
        let left = waiting.left.subscribe();
        drop(first);
        assert!(left.has_changed().unwrap() && is_first(&second, "a"));
        drop((second, other));
        assert!(waiting.queue.lock().waiters.is_empty());
    }

    #[test]
    fn nobody_takes_all_places_and_some_are_for_sessions_that_come_back() {
        let (waiting, full) = (Waiting::default(), Failure::new(ErrorCode::NoCapacity, "full"));
        let back = Wants { prefer: Some(("w".parse().unwrap(), SessionId::mint())), ..wants("a") };
        let mut places = Vec::new();
        let mut fill = |who: usize, wants: &Wants| {
            let before = places.len();
            places.extend(std::iter::from_fn(|| waiting.join(&somebody(who), wants, &full)));
            places.len() - before
        };
        assert_eq!(fill(1, &wants("a")), WAITERS_MAX / 2);
        assert_eq!(fill(2, &wants("b")), NEW_MAX - WAITERS_MAX / 2);
        assert_eq!(fill(3, &wants("c")), 0, "the rest is for sessions that come back");
        assert_eq!(fill(3, &back), 32);
        let rest: usize = (4..20).map(|who| fill(who, &back)).sum();
        assert!(rest <= WAITERS_MAX - NEW_MAX - 32);
        assert!(waiting.queue.lock().waiters.len() <= WAITERS_MAX);
    }
}
