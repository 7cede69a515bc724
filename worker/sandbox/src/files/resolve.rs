//! From a path to a descriptor, inside one directory or not at all.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use codegen_types::{Failure, WorkspacePath};
use rustix::fs::{Mode, OFlags, ResolveFlags, fchmod, mkdirat, openat2};
use rustix::io::Errno;

use super::describe::Node;
use super::fault;
use super::names::c_name;

const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// How often a resolution is tried that a rename elsewhere disturbed (EAGAIN), or that a signal interrupted.
const ATTEMPTS_MAX: usize = 256;

/// Never blocks on a FIFO or a device, never becomes a terminal's owner, never leaks into a program.
const SAFE: OFlags = OFlags::CLOEXEC.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

fn open(directory: BorrowedFd<'_>, path: &CStr, flags: OFlags, how: ResolveFlags) -> Result<OwnedFd, Errno> {
    let mut last = Errno::AGAIN;
    for _ in 0..ATTEMPTS_MAX {
        match openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            Err(errno @ (Errno::AGAIN | Errno::INTR)) => last = errno,
            done => return done,
        }
    }
    Err(last)
}

fn whole(path: &str) -> CString {
    c_name(if path.is_empty() { "." } else { path })
}

/// Opens a file for reading; links inside the workspace are followed.
pub(super) fn for_reading(root: BorrowedFd<'_>, path: &WorkspacePath) -> Result<OwnedFd, Errno> {
    open(root, &whole(path.as_str()), OFlags::RDONLY | SAFE, INSIDE)
}

/// Opens a directory for listing; links inside the workspace are followed.
pub(super) fn directory(root: BorrowedFd<'_>, path: &WorkspacePath) -> Result<OwnedFd, Errno> {
    open(root, &whole(path.as_str()), OFlags::RDONLY | OFlags::DIRECTORY | SAFE, INSIDE)
}

/// A reference to whatever is there, a link itself included, that can be described and not opened.
pub(super) fn reference(root: BorrowedFd<'_>, path: &WorkspacePath) -> Result<OwnedFd, Errno> {
    open(root, &whole(path.as_str()), OFlags::PATH | OFlags::NOFOLLOW, INSIDE)
}

/// Opens a directory below another without following any link. `path` may have several components.
pub(super) fn directory_without_links(top: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | SAFE;
    open(top, path, flags, INSIDE | ResolveFlags::NO_SYMLINKS)
}

/// A reference to a directory that may not be readable, without following any link.
pub(super) fn directory_reference(top: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    open(top, name, flags, INSIDE | ResolveFlags::NO_SYMLINKS)
}

/// Opens a plain file in a directory, not through a link.
pub(super) fn file_in(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    open(directory, name, OFlags::RDONLY | OFlags::NOFOLLOW | SAFE, INSIDE | ResolveFlags::NO_SYMLINKS)
}

/// A name in a directory: where something is, or will be, whatever it is.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: OwnedFd,
    pub(super) name: CString,
}

impl Place {
    /// The place of a path whose directory exists. The workspace itself has none.
    pub(super) fn find(root: BorrowedFd<'_>, path: &WorkspacePath) -> Result<Option<Self>, Failure> {
        let Some((parent, name)) = split(path) else { return Ok(None) };
        let directory = parent_reference(root, parent).map_err(|errno| fault::of_errno(errno, path))?;
        Ok(Some(Self { directory, name: c_name(name) }))
    }

    /// The place of a path; directories that are missing above it are made.
    pub(super) fn make(root: BorrowedFd<'_>, path: &WorkspacePath) -> Result<Option<Self>, Failure> {
        let Some((parent, name)) = split(path) else { return Ok(None) };
        let found = match parent_reference(root, parent) {
            Err(Errno::NOENT) => make_directories(root, parent),
            found => found,
        };
        let directory = found.map_err(|errno| fault::of_errno(errno, path))?;
        Ok(Some(Self { directory, name: c_name(name) }))
    }

    /// What is there now, if anything; a link itself.
    pub(super) fn present(&self, path: &WorkspacePath) -> Result<Option<Node>, Failure> {
        match Node::at(self.directory.as_fd(), &self.name) {
            Ok(node) => Ok(Some(node)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(fault::of_errno(errno, path)),
        }
    }
}

fn split(path: &WorkspacePath) -> Option<(&str, &str)> {
    if path.is_root() {
        return None;
    }
    Some(path.as_str().rsplit_once('/').unwrap_or(("", path.as_str())))
}

fn parent_reference(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    open(root, &whole(path), OFlags::PATH | OFlags::DIRECTORY, INSIDE)
}

/// Makes what is missing, one component at a time. Each step is resolved from the root again, so that a directory that
/// became a link meanwhile is subject to the same rules.
fn make_directories(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let mut current = parent_reference(root, "")?;
    let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
    let mut start = 0;
    for end in ends {
        current = match parent_reference(root, &path[..end]) {
            Err(Errno::NOENT) => {
                make_directory(current.as_fd(), &c_name(&path[start..end]))?;
                parent_reference(root, &path[..end])?
            }
            found => found?,
        };
        start = end + 1;
    }
    Ok(current)
}

fn make_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o755);
    match mkdirat(parent, name, mode) {
        // The worker's umask may have taken bits away.
        Ok(()) => fchmod(directory_without_links(parent, name)?, mode),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}
