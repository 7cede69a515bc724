//! Whose files and processes a session's are: when the worker is root, each session has a user id of the host to itself.

use std::collections::BTreeSet;
use std::io;

use codegen_types::SessionId;
use parking_lot::Mutex;
use sandbox::files::WorkspaceBase;
use sandbox::uids::{UidError, Uids};

/// The user ids of this worker's sessions.
#[derive(Debug)]
pub(crate) struct Owners(Option<Mutex<Uids>>);

/// Why a session has no user id.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnerError {
    /// There is none to be had.
    #[error("no user id for the session")]
    Uids(#[from] UidError),
    /// Its workspace belongs to a user whose id another worker holds, and cannot be given to another one.
    #[error("the workspace belongs to user {owner}, whose id is held by another worker, and cannot be given away")]
    NotGiven {
        /// Whose it is.
        owner: u32,
        /// Why it cannot be given away.
        source: io::Error,
    },
    /// The workspaces cannot be listed.
    #[error("the owners of the workspaces cannot be listed")]
    Base(#[from] io::Error),
}

impl Owners {
    /// Reserves ids, those of every workspace that is there among them. A worker that is not root needs none.
    pub fn of(base: &WorkspaceBase) -> Result<Self, OwnerError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self(None));
        }
        let held = base.owners()?;
        let mut uids = Uids::reserve(base.place()?)?;
        for (_, uid) in held {
            uids.keep(uid);
        }
        Ok(Self(Some(Mutex::new(uids))))
    }

    /// The id of a session: that of its workspace, or a new one that is not `held` by what an earlier one left. None: the
    /// worker's own.
    pub fn choose(
        &self,
        base: &WorkspaceBase,
        session: SessionId,
        held: &BTreeSet<u32>,
    ) -> Result<Option<u32>, OwnerError> {
        let Some(uids) = &self.0 else { return Ok(None) };
        let mut uids = uids.lock();
        let Some(owner) = base.owner(session) else { return Ok(Some(uids.take_but(None, held)?)) };
        // What the workspace kept is the session's own to take.
        uids.release(owner);
        let uid = uids.take_but(Some(owner), held)?;
        if uid != owner {
            // Another worker holds the block of the owner, which may be a session's of its own by now.
            tracing::info!(%session, owner, uid, "a workspace is given another user id");
            if let Err(source) = base.give(session, owner, uid) {
                uids.release(uid);
                return Err(OwnerError::NotGiven { owner, source });
            }
        }
        Ok(Some(uid))
    }

    /// An id for a session that is still to come, which has no workspace yet: none that is `held` by what an earlier one
    /// left. None: the worker's own.
    pub fn reserve(&self, held: &BTreeSet<u32>) -> Result<Option<u32>, OwnerError> {
        let Some(uids) = &self.0 else { return Ok(None) };
        Ok(Some(uids.lock().take_but(None, held)?))
    }

    /// Gives back the id of a session that has neither files nor processes any more.
    pub fn release(&self, uid: u32) {
        if let Some(uids) = &self.0 {
            uids.lock().release(uid);
        }
    }
}
