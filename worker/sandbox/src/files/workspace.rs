//! One session's files.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{io, time::Instant};

use codegen_types::{Failure, Limits};

use super::describe::Node;
use super::fault;
use super::identity::{Assumed, Identity};
use super::usage::Usage;

/// One session's files, reached from the descriptor of its directory.
///
/// All operations give a [`Failure`] that a client may read. Operations that change something take turns, so that
/// `if_match` and the quota hold among tool calls; the session's own programs are not held up.
#[derive(Debug)]
pub struct Workspace {
    root: OwnedFd,
    identity: Option<Identity>,
    /// The same where the worker cannot even look at a session's files as itself.
    needed: Option<Identity>,
    pub(super) limits: Limits,
    turn: Mutex<()>,
    pub(super) counted: Mutex<Option<(Instant, Usage)>>,
    /// The file that was replaced last, until its space may be freed.
    replaced: Mutex<Option<OwnedFd>>,
}

impl Workspace {
    /// The workspace in this directory. A worker that runs as root acts as the user that owns the directory.
    ///
    /// # Errors
    /// The descriptor is no directory.
    pub fn new(root: OwnedFd, limits: Limits) -> io::Result<Self> {
        let node = Node::of(root.as_fd())?;
        if !node.is_directory() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let identity = Identity::of_owner(node.uid, node.gid);
        let needed = Identity::if_needed(node.uid, node.gid);
        let (turn, counted, replaced) = Default::default();
        Ok(Self { root, identity, needed, limits, turn, counted, replaced })
    }

    /// The directory itself.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// What it may hold.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Acts as the session until the guard is dropped.
    pub(super) fn assume(&self) -> Result<Option<Assumed>, Failure> {
        let assumed = self.identity.as_ref().map(Identity::assume).transpose();
        assumed.map_err(|error| fault::internal(&format!("the worker cannot act as the session's user: {error}")))
    }

    /// Acts as the session, until the guard is dropped, only where the worker could not do so as itself.
    pub(super) fn assume_if_needed(&self) -> io::Result<Option<Assumed>> {
        self.needed.as_ref().map(Identity::assume).transpose()
    }

    /// Frees what the last operations replaced: whoever lets go of a file last waits for that, which can take longer than
    /// writing it. To be called after an operation when its caller has the result.
    pub fn let_go(&self) {
        self.hold(None);
    }

    /// Holds a file that was replaced, in place of the one before.
    pub(super) fn hold(&self, replaced: Option<OwnedFd>) {
        let before = std::mem::replace(&mut *self.replaced.lock().unwrap_or_else(PoisonError::into_inner), replaced);
        // Not under the lock.
        drop(before);
    }

    /// Waits until no other operation changes anything.
    pub(super) fn take_turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
