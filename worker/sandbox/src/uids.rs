//! User ids of the host for the sessions of a worker that is root: each session one of its own, from a block that no
//! other worker holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// Where workers reserve their blocks.
pub const DIRECTORY: &str = "/run/codegen-mcp/uids";
/// The ids of probes' sandboxes, which run nothing of a session, lie from here to those of sessions.
pub(crate) const FIRST_PROBE_UID: u32 = FIRST_UID - PROBE_UIDS;
/// So many that two workers that probe at the same time do not take the same one: each ends what runs under it.
const PROBE_UIDS: u32 = 1 << 24;

/// What ends the processes of an id acts under one that is so much higher, which nothing else has: no session can signal it.
pub(crate) const UNDERTAKERS: u32 = 1 << 25;

const FIRST_UID: u32 = 1_900_000_000;
const BLOCK_UIDS: u32 = 1_024;
const BLOCKS: u32 = 1_024;

/// An id for one probe, by chance.
pub(crate) fn probe_uid() -> io::Result<u32> {
    let mut bits = [std::mem::MaybeUninit::<u8>::uninit(); 4];
    let (random, _) = rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty())?;
    let random: [u8; 4] = (&*random).try_into().map_err(|_| io::ErrorKind::UnexpectedEof)?;
    Ok(FIRST_PROBE_UID + u32::from_ne_bytes(random) % PROBE_UIDS)
}

/// Why there is no user id for a session.
#[derive(Debug, thiserror::Error)]
pub enum UidError {
    /// The directory of reservations cannot be used.
    #[error("the directory of user-id reservations {path} cannot be used")]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Every block is held by another worker.
    #[error("every block of user ids is held by another worker")]
    NoBlock,
    /// Every id of this worker's blocks is in use.
    #[error("every user id of this worker is in use")]
    NoUid,
}

/// The ids of one worker. A block is held until this is dropped or the process ends.
#[derive(Debug)]
pub struct Uids {
    directory: PathBuf,
    /// Held blocks, each with its lock.
    blocks: BTreeMap<u32, File>,
    taken: BTreeSet<u32>,
}

impl Uids {
    /// Reserves a block in [`DIRECTORY`]: the first free one from a place that the caller chooses, so that a worker finds
    /// the same one again at its next start.
    pub fn reserve(place: u64) -> Result<Self, UidError> {
        Self::reserve_in(Path::new(DIRECTORY), place)
    }

    /// Reserves a block in a directory, which is made if it is missing.
    pub fn reserve_in(directory: &Path, place: u64) -> Result<Self, UidError> {
        let failed = |source| UidError::Directory { path: directory.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let mut uids = Self { directory: directory.to_owned(), blocks: BTreeMap::new(), taken: BTreeSet::new() };
        // The remainder is below BLOCKS.
        let first = (place % u64::from(BLOCKS)) as u32;
        for block in (first..BLOCKS).chain(0..first) {
            if uids.hold(block).map_err(failed)? {
                return Ok(uids);
            }
        }
        Err(UidError::NoBlock)
    }

    /// The id for a session, taken until [`Uids::release`]. `owner` is who owns the session's workspace already: it
    /// keeps its id where that is possible. When the id returned is another one, the workspace must be given to it.
    pub fn take(&mut self, owner: Option<u32>) -> Result<u32, UidError> {
        self.take_but(owner, &BTreeSet::new())
    }

    /// The same, but none of those that are `held`: ids under which something may still run. What `owner` had is its own.
    pub fn take_but(&mut self, owner: Option<u32>, held: &BTreeSet<u32>) -> Result<u32, UidError> {
        if let Some(owner) = owner.filter(|owner| self.is_ours(*owner))
            && self.taken.insert(owner)
        {
            return Ok(owner);
        }
        let free = self
            .blocks
            .keys()
            .flat_map(|block| block_uids(*block))
            .find(|uid| !self.taken.contains(uid) && !held.contains(uid));
        let uid = free.ok_or(UidError::NoUid)?;
        self.taken.insert(uid);
        Ok(uid)
    }

    /// Marks an id as used by a workspace that exists but has no sandbox now, so that no other session gets it.
    pub fn keep(&mut self, uid: u32) {
        if self.is_ours(uid) {
            self.taken.insert(uid);
        }
    }

    /// Gives an id back. Only after the session's processes *and files* are gone; a workspace that stays keeps it.
    pub fn release(&mut self, uid: u32) {
        self.taken.remove(&uid);
    }

    /// Whether an id lies in a block that we hold, or can hold now.
    fn is_ours(&mut self, uid: u32) -> bool {
        let Some(block) = block_of(uid) else { return false };
        self.blocks.contains_key(&block) || self.hold(block).unwrap_or(false)
    }

    fn hold(&mut self, block: u32) -> io::Result<bool> {
        let file =
            File::options().create(true).truncate(false).write(true).open(self.directory.join(block.to_string()))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                self.blocks.insert(block, file);
                Ok(true)
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn block_uids(block: u32) -> std::ops::Range<u32> {
    let first = FIRST_UID + block * BLOCK_UIDS;
    first..first + BLOCK_UIDS
}

fn block_of(uid: u32) -> Option<u32> {
    let block = uid.checked_sub(FIRST_UID)? / BLOCK_UIDS;
    (block < BLOCKS).then_some(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_workers_never_share_an_id() {
        let directory = tempfile::tempdir().unwrap();
        let mut one = Uids::reserve_in(directory.path(), 0).unwrap();
        let mut other = Uids::reserve_in(directory.path(), 0).unwrap();
        let first = one.take(None).unwrap();
        let second = other.take(None).unwrap();
        assert_ne!(first, second);
        assert_ne!(other.take(Some(first)).unwrap(), first, "an id of a living worker's block is not given away");
    }

    #[test]
    fn a_session_keeps_the_id_that_owns_its_files() {
        let directory = tempfile::tempdir().unwrap();
        let owner = Uids::reserve_in(directory.path(), 0).unwrap().take(None).unwrap();
        let mut again = Uids::reserve_in(directory.path(), 0).unwrap();
        assert_eq!(again.take(Some(owner)).unwrap(), owner);
        assert_ne!(again.take(Some(owner)).unwrap(), owner, "an id in use is not given twice");
        assert_ne!(again.take(Some(0)).unwrap(), 0, "an id outside the range is never given");
    }

    #[test]
    fn a_kept_id_is_not_given_to_another_session_until_it_is_released() {
        let directory = tempfile::tempdir().unwrap();
        let mut uids = Uids::reserve_in(directory.path(), 0).unwrap();
        uids.keep(FIRST_UID);
        assert_eq!(uids.take(None).unwrap(), FIRST_UID + 1);
        uids.release(FIRST_UID);
        assert_eq!(uids.take(None).unwrap(), FIRST_UID);
    }

    #[test]
    fn an_id_under_which_something_may_still_run_is_given_to_nobody_but_who_had_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut uids = Uids::reserve_in(directory.path(), 0).unwrap();
        let held = BTreeSet::from([FIRST_UID, FIRST_UID + 1]);
        assert_eq!(uids.take_but(None, &held).unwrap(), FIRST_UID + 2);
        assert_eq!(uids.take_but(Some(FIRST_UID), &held).unwrap(), FIRST_UID);
        assert_eq!(uids.take_but(None, &BTreeSet::new()).unwrap(), FIRST_UID + 1);
    }

    #[test]
    fn a_block_that_is_used_up_is_said_so() {
        let directory = tempfile::tempdir().unwrap();
        let mut uids = Uids::reserve_in(directory.path(), 0).unwrap();
        for _ in 0..BLOCK_UIDS {
            uids.take(None).unwrap();
        }
        assert!(matches!(uids.take(None), Err(UidError::NoUid)));
    }
}
