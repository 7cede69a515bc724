//! Directories for the temporary files of sandboxes that have no file system of their own for them. They lie beside the
//! workspaces and go with their sandbox.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::describe::Node;
use super::identity::Identity;
use super::usage::{self, Usage};
use super::{names, tree};

/// The scratch directory of a sandbox; deleted when the base of workspaces is opened, should the sandbox not have done it.
pub(super) const SCRATCH: &str = ".scratch-";
/// Files that are counted in one; it may have fewer.
const FILES_COUNTED_MAX: u64 = 100_000;
/// Steps of emptying one.
const STEPS_MAX: u64 = 20_000_000;

/// A name that no other sandbox has.
pub(crate) fn scratch_name() -> io::Result<CString> {
    names::unpredictable(SCRATCH, "")
}

/// Deletes what is in a scratch directory, as its owner.
pub(crate) fn clear_scratch(base: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match tree::clear(base, name, STEPS_MAX) {
        Ok(()) | Err(tree::TreeError::Errno(rustix::io::Errno::NOENT)) => Ok(()),
        Err(tree::TreeError::Errno(errno)) => Err(errno.into()),
        Err(tree::TreeError::KeepsChanging) => Err(io::ErrorKind::ResourceBusy.into()),
    }
}

/// Counts what a scratch directory holds, as its owner.
///
/// # Errors
/// It cannot be read.
pub fn scratch_usage(path: &Path) -> io::Result<Usage> {
    let name = CString::new(path.as_os_str().as_encoded_bytes())?;
    let node = Node::at(CWD, &name)?;
    let _assumed = Identity::if_needed(node.uid, node.gid).map(|identity| identity.assume()).transpose()?;
    // Nobody but us changes names in the directory that holds it.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(CWD, &name, flags, Mode::empty())?;
    Ok(usage::measure(directory.as_fd(), FILES_COUNTED_MAX)?)
}
