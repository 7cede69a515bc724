//! Deleting files and trees without following a link.

use std::os::fd::AsFd;

use codegen_types::operation;
use codegen_types::{ErrorCode, Failure, OperationResult};
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use super::resolve::Place;
use super::tree::{self, TreeError};
use super::workspace::Workspace;
use super::{fault, usage};

/// Steps of one recursive deletion, so that a program which keeps adding files cannot keep us for ever.
const STEPS_MAX: u64 = 2_000_000;

impl Workspace {
    /// Deletes a file, link or directory. Links are deleted, never followed; mount points are refused. Directories of
    /// the session that it made unreadable are made readable first.
    ///
    /// # Errors
    /// `NOT_FOUND`; `INVALID_ARGUMENT` for the workspace itself, or for a directory that is not empty without
    /// `recursive`; `PATH_VIOLATION`, `PERMISSION_DENIED`; `PRECONDITION_FAILED` when files are added all the time.
    pub fn remove(&self, remove: &operation::Remove) -> Result<OperationResult, Failure> {
        let _turn = self.take_turn();
        let _identity = self.assume()?;
        let path = &remove.path;
        let place = Place::find(self.root(), path)?.ok_or_else(|| fault::is_workspace("deleted"))?;
        let present = place.present(path)?.ok_or_else(|| fault::of_errno(Errno::NOENT, path))?;
        usage::forget(self);
        if present.is_directory() && remove.recursive {
            let removed = tree::remove(place.directory.as_fd(), &place.name, STEPS_MAX);
            return removed.map(|removed| OperationResult::Remove { removed }).map_err(|error| match error {
                TreeError::KeepsChanging => Failure::new(
                    ErrorCode::PreconditionFailed,
                    format!("{} is being added to all the time; stop what does it and try again", fault::shown(path)),
                ),
                TreeError::Errno(errno) => fault::of_errno(errno, path),
            });
        }
        let flags = if present.is_directory() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        unlinkat(&place.directory, &place.name, flags).map_err(|errno| match errno {
            Errno::NOTEMPTY | Errno::EXIST => Failure::new(
                ErrorCode::InvalidArgument,
                format!("{} is a directory with something in it; pass recursive to delete it all", fault::shown(path)),
            ),
            _ => fault::of_errno(errno, path),
        })?;
        Ok(OperationResult::Remove { removed: 1 })
    }
}
