//! The directory that holds the workspaces of all sessions.

use std::ffi::CString;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use codegen_types::{ErrorCode, Failure, SessionId};
use nix::unistd::geteuid;
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, RenameFlags, Uid, chownat, fchmod, fchown, fstatvfs, mkdirat, openat,
    renameat_with, unlinkat,
};
use rustix::io::Errno;

use super::describe::Node;
use super::identity::Identity;
use super::scratch::SCRATCH;
use super::tree::{self, TreeError};
use super::usage::{self, Usage};
use super::walk::{Reach, walk};
use super::{names, resolve};

/// Files of a workspace that are counted when its size is asked for; it may hold more where its limit is higher.
const FILES_COUNTED_MAX: u64 = 500_000;
/// A workspace on its way out; never opened again, deleted when the base is opened.
const DELETING: &str = ".deleting-";
/// A workspace that has no owner yet.
const CREATING: &str = ".creating-";
/// A workspace that waits for its session.
const SPARE: &str = ".spare-";
/// Files and directories of a workspace that is given to another user.
const GIVEN_MAX: usize = 2_000_000;
/// Entries of a base that are looked at.
const ENTRIES_MAX: usize = 1_000_000;

/// Steps of one deletion. Nobody adds anything by then; a file system that lists less than it holds must not keep us.
const STEPS_MAX: u64 = 200_000_000;

/// The directory that holds the workspaces of all sessions, each under its session's id. No session can reach it, so
/// names in it change only by us.
#[derive(Debug)]
pub struct WorkspaceBase {
    directory: OwnedFd,
}

/// An empty workspace that belongs to no session yet. When nobody adopts or discards it, it is deleted when the base is
/// opened again.
#[derive(Debug)]
pub struct SpareWorkspace {
    name: CString,
}

/// Why a workspace cannot be had. For the operator; a client gets its [`Failure`] form.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// What is there is not a workspace of this session's user.
    #[error("`{name}` in the base of workspaces is {what}; move it away")]
    Foreign {
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The kernel refused.
    #[error("could not {action} a workspace")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl From<BaseError> for Failure {
    fn from(error: BaseError) -> Self {
        let full = matches!(&error, BaseError::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded));
        if full {
            return Self::new(ErrorCode::DiskLimit, "the worker's disk is full; delete files or tell the operator");
        }
        Self::new(ErrorCode::Internal, "the worker cannot reach the session's workspace; the operator's log says why")
    }
}

fn failed<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> BaseError {
    move |error| BaseError::Io { action, source: error.into() }
}

impl WorkspaceBase {
    /// Opens the base, makes it when it is not there (0700), and deletes what an earlier life left half-deleted.
    ///
    /// # Errors
    /// It cannot be made or read; or others than its owner may write to it, or its owner is neither root nor us.
    pub fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let directory = openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let node = Node::of(directory.as_fd())?;
        let trusted = node.uid == 0 || node.uid == geteuid().as_raw();
        if !trusted || node.mode & 0o022 != 0 {
            let message = format!("{} must belong to the worker's user, and only to it: chmod go-w", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        let base = Self { directory };
        base.delete_leftovers()?;
        Ok(base)
    }

    /// Opens a session's workspace, or makes it (0700) for `owner`; without one it is the worker's own. Whether it was
    /// made by this call.
    ///
    /// # Errors
    /// [`BaseError::Foreign`] when something else is there, or the workspace of another user.
    pub fn open_or_create(&self, session: SessionId, owner: Option<u32>) -> Result<(OwnedFd, bool), BaseError> {
        let name = session_name(session);
        let owner = owner.unwrap_or_else(|| geteuid().as_raw());
        match self.open_existing(&name, owner) {
            Err(BaseError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            found => return found.map(|workspace| (workspace, false)),
        }
        let created = match self.create(&name, owner) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            made => made.map(|()| true).map_err(failed("make"))?,
        };
        Ok((self.open_existing(&name, owner)?, created))
    }

    /// Makes an empty workspace (0700) for `owner`, or for the worker's own user, that a session is to have later.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create_spare(&self, owner: Option<u32>) -> Result<(SpareWorkspace, OwnedFd), BaseError> {
        let owner = owner.unwrap_or_else(|| geteuid().as_raw());
        let name = names::unpredictable(SPARE, "").map_err(failed("make"))?;
        self.create(&name, owner).map_err(failed("make"))?;
        let directory = self.open_existing(&name, owner)?;
        Ok((SpareWorkspace { name }, directory))
    }

    /// Makes a spare workspace that of a session; open descriptors and mounts of it stay what they are. False when the
    /// session has a workspace already, and then the spare is as before.
    ///
    /// # Errors
    /// The kernel refused, or the spare is gone.
    pub fn adopt(&self, spare: &SpareWorkspace, session: SessionId) -> Result<bool, BaseError> {
        let base = &self.directory;
        match renameat_with(base, &spare.name, base, session_name(session), RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(failed("adopt")(errno)),
        }
    }

    /// Deletes a spare workspace. No program may be running in it.
    ///
    /// # Errors
    /// It cannot be deleted; that is tried again when the base is opened.
    pub fn discard(&self, spare: &SpareWorkspace) -> io::Result<()> {
        self.erase(&spare.name)
    }

    /// A number that stands for this directory, the same at every start, and most likely another for another one.
    ///
    /// # Errors
    /// The directory cannot be described.
    pub fn place(&self) -> io::Result<u64> {
        let found = rustix::fs::fstat(&self.directory)?;
        Ok(found.st_dev.rotate_left(32) ^ found.st_ino)
    }

    /// The user whose workspace a session has, if it has one.
    pub fn owner(&self, session: SessionId) -> Option<u32> {
        let node = Node::at(self.directory.as_fd(), &session_name(session)).ok()?;
        node.is_directory().then_some(node.uid)
    }

    /// Gives a session's workspace, with all in it that is `from`'s, to another user. The directory itself comes last, so
    /// that a change that is cut short is made again. No program of the session may be running.
    ///
    /// # Errors
    /// There is no workspace, or some of it is out of reach.
    pub fn give(&self, session: SessionId, from: u32, to: u32) -> io::Result<()> {
        let name = session_name(session);
        let workspace = resolve::directory_without_links(self.directory.as_fd(), &name)?;
        let (user, group) = (Uid::from_raw(to), Gid::from_raw(to));
        let mut refused = None;
        let whole = walk(workspace.as_fd(), Reach::Tree { components_max: usize::MAX }, GIVEN_MAX, |met| {
            if met.node().is_some_and(|node| node.uid == from)
                && let Err(errno) = chownat(met.directory, met.name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
            {
                refused = Some(errno);
            }
        })?;
        match refused {
            Some(errno) => Err(errno.into()),
            None if !whole => Err(io::Error::other("the workspace is too deep or too large")),
            None => Ok(fchown(&workspace, Some(user), Some(group))?),
        }
    }

    /// Every session that has a workspace, and its user, sorted.
    ///
    /// # Errors
    /// The base cannot be read.
    pub fn owners(&self) -> io::Result<Vec<(SessionId, u32)>> {
        let mut owners: Vec<(SessionId, u32)> = Vec::new();
        self.each(|name| {
            if let Ok(session) = name.parse::<SessionId>() {
                owners.extend(self.owner(session).map(|uid| (session, uid)));
            }
        })?;
        owners.sort_unstable();
        Ok(owners)
    }

    /// Every session that has a workspace, sorted.
    ///
    /// # Errors
    /// The base cannot be read.
    pub fn held(&self) -> io::Result<Vec<SessionId>> {
        Ok(self.owners()?.into_iter().map(|(session, _)| session).collect())
    }

    /// Deletes a session's workspace; whether there was one. It is renamed first, so that a deletion that is cut short
    /// leaves nothing that could be opened as a workspace. No program of the session may be running.
    ///
    /// # Errors
    /// Something in it cannot be deleted; what is left is tried again when the base is opened.
    pub fn delete(&self, session: SessionId) -> Result<bool, BaseError> {
        let aside = names::unpredictable(DELETING, "").map_err(failed("delete"))?;
        let (name, base) = (session_name(session), &self.directory);
        match renameat_with(base, &name, base, &aside, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(failed("delete")(errno)),
        }
        self.erase(&aside).map_err(failed("delete"))?;
        Ok(true)
    }

    /// Counts what a session's workspace holds.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn disk_usage(&self, session: SessionId) -> io::Result<Usage> {
        let name = session_name(session);
        let node = Node::at(self.directory.as_fd(), &name)?;
        let _assumed = Identity::if_needed(node.uid, node.gid).map(|identity| identity.assume()).transpose()?;
        let workspace = resolve::directory_without_links(self.directory.as_fd(), &name)?;
        Ok(usage::measure(workspace.as_fd(), FILES_COUNTED_MAX)?)
    }

    /// Bytes that the file system below all workspaces has left for us.
    ///
    /// # Errors
    /// The file system does not say.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let found = fstatvfs(&self.directory)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn open_existing(&self, name: &CString, owner: u32) -> Result<OwnedFd, BaseError> {
        let foreign = |what| BaseError::Foreign { name: name.to_string_lossy().into_owned(), what };
        let opened = match resolve::directory_without_links(self.directory.as_fd(), name) {
            Err(Errno::ACCESS) => self.open_as_owner(name),
            opened => opened,
        };
        let workspace = match opened {
            Err(Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Err(foreign("no plain directory")),
            found => found.map_err(failed("open"))?,
        };
        let node = Node::of(workspace.as_fd()).map_err(failed("open"))?;
        if node.uid != owner {
            return Err(foreign("another user's directory"));
        }
        Ok(workspace)
    }

    /// Opens a workspace under its owner's id, where only that may.
    fn open_as_owner(&self, name: &CString) -> Result<OwnedFd, Errno> {
        let node = Node::at(self.directory.as_fd(), name)?;
        let identity = Identity::if_needed(node.uid, node.gid).ok_or(Errno::ACCESS)?;
        let _assumed = identity.assume().map_err(|_| Errno::ACCESS)?;
        resolve::directory_without_links(self.directory.as_fd(), name)
    }

    /// Makes a workspace aside and gives it its name when it is whole.
    fn create(&self, name: &CString, owner: u32) -> io::Result<()> {
        let aside = names::unpredictable(CREATING, "")?;
        mkdirat(&self.directory, &aside, Mode::RWXU)?;
        self.own(&aside, owner)
            .and_then(|()| {
                let base = &self.directory;
                Ok(renameat_with(base, &aside, base, name, RenameFlags::NOREPLACE)?)
            })
            .inspect_err(|_| {
                // If even this fails, it is deleted when the base is opened.
                let _left = unlinkat(&self.directory, &aside, AtFlags::REMOVEDIR);
            })
    }

    fn own(&self, name: &CString, owner: u32) -> io::Result<()> {
        let made = resolve::directory_without_links(self.directory.as_fd(), name)?;
        fchmod(&made, Mode::RWXU)?;
        if owner != geteuid().as_raw() {
            fchown(&made, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))?;
        }
        Ok(())
    }

    fn delete_leftovers(&self) -> io::Result<()> {
        let mut leftovers = Vec::new();
        self.each(|name| {
            if [DELETING, CREATING, SPARE, SCRATCH].iter().any(|aside| name.starts_with(aside)) {
                leftovers.push(names::c_name(name));
            }
        })?;
        leftovers.iter().try_for_each(|name| self.erase(name))
    }

    /// Lets the users of sessions pass the base, so that they can reach their workspaces by path, or closes it again. They
    /// can list nothing. The group, too: whoever acts as a session may be in it.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn let_sessions_pass(&self, needed: bool) -> io::Result<()> {
        const PASSABLE: Mode = Mode::XGRP.union(Mode::XOTH);
        let present = Mode::from_raw_mode(Node::of(self.directory.as_fd())?.mode & 0o7777);
        // Any other mode is the operator's own choice.
        let closed = if present == Mode::RWXU | PASSABLE { Mode::RWXU } else { present };
        let wanted = if needed { present | PASSABLE } else { closed };
        if wanted == present { Ok(()) } else { Ok(fchmod(&self.directory, wanted)?) }
    }

    fn erase(&self, name: &CString) -> io::Result<()> {
        self.empty_as_owner(name);
        match tree::remove(self.directory.as_fd(), name, STEPS_MAX) {
            Ok(_) | Err(TreeError::Errno(Errno::NOENT)) => Ok(()),
            Err(TreeError::Errno(Errno::NOTDIR)) => Ok(unlinkat(&self.directory, name, AtFlags::empty())?),
            Err(TreeError::Errno(errno)) => Err(errno.into()),
            Err(TreeError::KeepsChanging) => Err(io::ErrorKind::ResourceBusy.into()),
        }
    }

    /// Empties a tree of a session's user, where only that user may. What cannot be deleted so is met again by whoever
    /// deletes the tree itself.
    fn empty_as_owner(&self, name: &CString) {
        let Ok(node) = Node::at(self.directory.as_fd(), name) else { return };
        let Some(Ok(_assumed)) = Identity::if_needed(node.uid, node.gid).map(|identity| identity.assume()) else {
            return;
        };
        let _emptied = tree::clear(self.directory.as_fd(), name, STEPS_MAX);
    }

    /// Names that are UTF-8; the others are not ours.
    fn each(&self, mut visit: impl FnMut(&str)) -> io::Result<()> {
        walk(self.directory.as_fd(), Reach::Entries, ENTRIES_MAX, |met| {
            if let Ok(name) = met.name.to_str() {
                visit(name);
            }
        })?;
        Ok(())
    }
}

fn session_name(session: SessionId) -> CString {
    names::c_name(&session.to_string())
}
