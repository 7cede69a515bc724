//! Places for what takes its time: bounded together, and for each principal.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use codegen_types::{ErrorCode, Failure, Principal};
use parking_lot::Mutex;

/// Places of one kind. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Of what.
    what: &'static str,
    most: usize,
    most_of_one: usize,
    /// After how long one may be free again.
    lasts: Duration,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_principal: HashMap<Principal, usize>,
}

/// A place that is taken until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    principal: Principal,
}

impl Places {
    /// So many places altogether, and so many for each principal; what has one lasts about so long.
    pub(super) fn new(what: &'static str, most: usize, most_of_one: usize, lasts: Duration) -> Self {
        Self(Arc::new(Inner { what, most, most_of_one, lasts, taken: Mutex::default() }))
    }

    /// Takes a place.
    ///
    /// # Errors
    /// `RATE_LIMITED` when the principal has all that one may have; `NO_CAPACITY` when all are taken.
    pub(super) fn take(&self, principal: &Principal) -> Result<Place, Failure> {
        let Inner { what, most, most_of_one, lasts, taken } = &*self.0;
        let mut taken = taken.lock();
        let own = taken.by_principal.get(principal).copied().unwrap_or(0);
        if own >= *most_of_one {
            let message = format!("you have {own} {what} open; wait for one of them to end");
            return Err(Failure::new(ErrorCode::RateLimited, message).retry_after(*lasts));
        }
        if taken.all >= *most {
            let message = format!("too many {what} are open; try again later");
            return Err(Failure::new(ErrorCode::NoCapacity, message).retry_after(*lasts));
        }
        taken.all += 1;
        taken.by_principal.insert(principal.clone(), own + 1);
        Ok(Place { places: self.clone(), principal: principal.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.taken.lock();
        taken.all -= 1;
        match taken.by_principal.get_mut(&self.principal) {
            Some(own @ 2..) => *own -= 1,
            _ => drop(taken.by_principal.remove(&self.principal)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_principal_leaves_places_for_others_and_gives_back_what_it_had() {
        let places = Places::new("things", 3, 2, Duration::from_secs(7));
        let (ann, bob) = (Principal::os_user("ann"), Principal::os_user("bob"));
        let code = |taken: Result<Place, Failure>| taken.err().map(|failure| failure.code);
        let held = (places.take(&ann).unwrap(), places.take(&ann).unwrap());
        assert_eq!(code(places.take(&ann)), Some(ErrorCode::RateLimited));
        assert_eq!(places.take(&ann).unwrap_err().retry_after_ms, Some(7_000));
        let other = places.take(&bob).unwrap();
        assert_eq!(code(places.take(&bob)), Some(ErrorCode::NoCapacity));
        drop(held.0);
        assert_eq!(code(places.take(&ann)), None);
        drop((held.1, other));
        let taken = places.0.taken.lock();
        assert!(taken.all == 0 && taken.by_principal.is_empty());
    }
}
