//! Room for bytes that clients have this process hold: bounded together, and for each principal.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use codegen_types::{ErrorCode, Failure, Principal};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room is counted in pieces of so many bytes.
const PIECE_BYTES: usize = 4 << 10;
/// Shares that are remembered before those are forgotten that nobody uses.
const SHARES_KEPT: usize = 256;

/// Room for bytes. Cheap to clone; all clones are the same room.
#[derive(Debug, Clone)]
pub(crate) struct ByteRoom {
    all: Arc<Semaphore>,
    of_one_bytes: usize,
    shares: Arc<Mutex<HashMap<Principal, Weak<Semaphore>>>>,
}

/// One principal's share of a room. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// What somebody holds of a share, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    share: Share,
    pieces: usize,
    /// Of the own share and of all, once there is something.
    permits: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

/// There is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// The principal has its share.
    #[error("what you have sent or not read yet takes all the room that one user may have; wait for some of it to end")]
    Own,
    /// All of it is taken.
    #[error("there is no room for so much just now")]
    All,
}

impl From<Full> for Failure {
    fn from(full: Full) -> Self {
        let code = match full {
            Full::Own => ErrorCode::RateLimited,
            Full::All => ErrorCode::NoCapacity,
        };
        Self::new(code, full.to_string()).retry_soon()
    }
}

impl ByteRoom {
    /// Room for so many bytes, of which one principal may have so many.
    pub(crate) fn new(all_bytes: usize, of_one_bytes: usize) -> Self {
        let all = Arc::new(Semaphore::new(all_bytes.div_ceil(PIECE_BYTES)));
        Self { all, of_one_bytes, shares: Arc::default() }
    }

    /// The share of a principal.
    pub(crate) fn of(&self, principal: &Principal) -> Share {
        let all = Arc::clone(&self.all);
        let mut shares = self.shares.lock();
        if let Some(own) = shares.get(principal).and_then(Weak::upgrade) {
            return Share { own, all };
        }
        if shares.len() >= SHARES_KEPT {
            shares.retain(|_, share| share.strong_count() > 0);
        }
        let own = Arc::new(Semaphore::new(self.of_one_bytes.div_ceil(PIECE_BYTES)));
        shares.insert(principal.clone(), Arc::downgrade(&own));
        Share { own, all }
    }
}

impl Share {
    /// Holds nothing yet.
    pub(crate) fn nothing(&self) -> Held {
        Held { share: self.clone(), pieces: 0, permits: None }
    }

    /// Holds so many bytes.
    pub(crate) fn hold(&self, bytes: usize) -> Result<Held, Full> {
        let mut held = self.nothing();
        held.grow_to(bytes)?;
        Ok(held)
    }
}

impl Held {
    /// Holds so many bytes altogether, if that is more than before.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), Full> {
        let pieces = bytes.div_ceil(PIECE_BYTES);
        let Some(more) = pieces.checked_sub(self.pieces).filter(|more| *more > 0) else { return Ok(()) };
        let many = u32::try_from(more).unwrap_or(u32::MAX);
        let own = Arc::clone(&self.share.own).try_acquire_many_owned(many).map_err(|_| Full::Own)?;
        let all = Arc::clone(&self.share.all).try_acquire_many_owned(many).map_err(|_| Full::All)?;
        match &mut self.permits {
            Some((held_own, held_all)) => {
                held_own.merge(own);
                held_all.merge(all);
            }
            None => self.permits = Some((own, all)),
        }
        self.pieces = pieces;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_principal_leaves_room_for_others_and_gives_back_what_it_had() {
        let room = ByteRoom::new(3 * PIECE_BYTES, 2 * PIECE_BYTES);
        let (ann, bob) = (Principal::os_user("ann"), Principal::os_user("bob"));
        let mut held = room.of(&ann).hold(1).unwrap();
        assert_eq!(held.grow_to(PIECE_BYTES), Ok(()), "it is one piece still");
        assert_eq!(held.grow_to(2 * PIECE_BYTES), Ok(()));
        assert_eq!(room.of(&ann).hold(1).err(), Some(Full::Own), "however often it is asked");
        let other = room.of(&bob).hold(1).unwrap();
        assert_eq!(room.of(&bob).hold(1).err(), Some(Full::All));
        drop(held);
        assert!(room.of(&bob).hold(1).is_ok() && room.of(&ann).hold(2 * PIECE_BYTES).is_ok());
        drop(other);
        assert_eq!(room.all.available_permits(), 3);
    }

    #[test]
    fn shares_that_nobody_uses_are_forgotten() {
        let room = ByteRoom::new(PIECE_BYTES, PIECE_BYTES);
        for number in 0..4 * SHARES_KEPT {
            drop(room.of(&Principal::os_user(&number.to_string())));
        }
        assert!(room.shares.lock().len() <= SHARES_KEPT);
    }
}
