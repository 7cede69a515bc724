//! Renaming files and directories inside one workspace.

use std::os::fd::AsFd;

use codegen_types::operation;
use codegen_types::{ErrorCode, Failure, OperationResult};
use rustix::fs::{RenameFlags, renameat_with};
use rustix::io::Errno;

use super::fault;
use super::resolve::Place;
use super::workspace::Workspace;

impl Workspace {
    /// Renames a file or directory; a link is renamed itself. Missing directories above the new name are made.
    ///
    /// # Errors
    /// `NOT_FOUND`, `ALREADY_EXISTS` (also for a directory in the way, whatever `overwrite` says),
    /// `INVALID_ARGUMENT` for the workspace itself or a directory into itself, `PATH_VIOLATION`, `PERMISSION_DENIED`.
    pub fn mv(&self, rename: &operation::Move) -> Result<OperationResult, Failure> {
        let _turn = self.take_turn();
        let _identity = self.assume()?;
        let from = Place::find(self.root(), &rename.from)?.ok_or_else(|| fault::is_workspace("moved"))?;
        if from.present(&rename.from)?.is_none() {
            return Err(fault::of_errno(Errno::NOENT, &rename.from));
        }
        if rename.to.as_str().starts_with(&format!("{}/", rename.from.as_str())) {
            return Err(into_itself(rename));
        }
        let to = Place::make(self.root(), &rename.to)?.ok_or_else(|| fault::is_workspace("replaced"))?;
        let in_the_way = to.present(&rename.to)?;
        if in_the_way.is_some_and(|node| !rename.overwrite || node.is_directory()) {
            return Err(fault::of_errno(Errno::EXIST, &rename.to));
        }
        let flags = if rename.overwrite { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        renameat_with(&from.directory, &from.name, &to.directory, &to.name, flags).map_err(|errno| match errno {
            Errno::INVAL => into_itself(rename),
            // A file is in the way of a directory, or a directory came in the way meanwhile.
            Errno::NOTDIR | Errno::ISDIR | Errno::NOTEMPTY => fault::of_errno(Errno::EXIST, &rename.to),
            Errno::NOENT => fault::of_errno(errno, &rename.from),
            _ => fault::of_errno(errno, &rename.to),
        })?;
        let node = super::describe::Node::at(to.directory.as_fd(), &to.name);
        let node = node.map_err(|errno| fault::of_errno(errno, &rename.to))?;
        Ok(OperationResult::Move { stat: node.stat(rename.to.as_str().to_owned()) })
    }
}

fn into_itself(rename: &operation::Move) -> Failure {
    let shown = fault::shown(&rename.from);
    Failure::new(ErrorCode::InvalidArgument, format!("{shown} cannot be moved into itself"))
}
