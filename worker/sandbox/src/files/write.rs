//! Writing: a new file under an unpredictable name, renamed into place.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use codegen_types::operation::{self, WriteMode};
use codegen_types::{ErrorCode, Failure, OperationResult, WorkspacePath};
use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;

use super::describe::Node;
use super::resolve::Place;
use super::temporary::Temporary;
use super::workspace::Workspace;
use super::{fault, resolve};

/// Permission bits of a new file.
const NEW_FILE_MODE: u32 = 0o644;

impl Workspace {
    /// Writes a file atomically: readers see the old contents or the new, never a part. Appending copies the file and
    /// replaces it as well, so that it is atomic and can be refused by `if_match`; a program that has the old file open
    /// keeps the old one. Permission bits of a file that is replaced stay. Missing directories above it are made.
    ///
    /// # Errors
    /// `FILE_TOO_LARGE`, `DISK_LIMIT`, `PRECONDITION_FAILED`, `ALREADY_EXISTS`, `NOT_A_FILE`, `NOT_A_DIRECTORY`,
    /// `PATH_VIOLATION`, `PERMISSION_DENIED`.
    pub fn write(&self, write: &operation::Write) -> Result<OperationResult, Failure> {
        let path = &write.path;
        let added = write.contents.len() as u64;
        self.require_file_size(path, added)?;
        let _turn = self.take_turn();
        let (place, present) = self.look(write)?;
        let replaced = present.filter(|_| write.mode == WriteMode::Overwrite);
        self.require_room(added, replaced.map_or(0, |old| old.allocated))?;

        let _identity = self.assume()?;
        let fault = |errno| fault::of_errno(errno, path);
        let mode = present.map_or(NEW_FILE_MODE, |old| old.permissions());
        let mut temporary = Temporary::create(place.directory.as_fd()).map_err(|error| io_fault(&error, path))?;
        if write.mode == WriteMode::Append && present.is_some() {
            self.copy_old(&place, &mut temporary.file, path, added)?;
        }
        temporary.file.write_all(&write.contents).map_err(|error| io_fault(&error, path))?;
        fchmod(&temporary.file, Mode::from_raw_mode(mode)).map_err(fault)?;
        // Programs of the session do not take turns with us: look again at the last moment.
        if write.if_match.is_some() {
            require_match(write, place.present(path)?.as_ref())?;
        }
        let file = temporary.rename_to(&place, write.mode, self).map_err(fault)?;
        self.count_written(added);
        let stat = Node::of(file.as_fd()).map_err(fault)?.stat(path.as_str().to_owned());
        Ok(OperationResult::Write { stat, created: present.is_none() })
    }

    /// Finds the place, and what is there when it may be replaced.
    fn look(&self, write: &operation::Write) -> Result<(Place, Option<Node>), Failure> {
        let _identity = self.assume()?;
        let place = self.writing_place(write)?.ok_or_else(|| fault::of_errno(Errno::ISDIR, &write.path))?;
        let present = place.present(&write.path)?;
        self.require_writable(write, present.as_ref())?;
        Ok((place, present))
    }

    /// With `if_match` there must be a file already, so nothing is made for one that is not.
    fn writing_place(&self, write: &operation::Write) -> Result<Option<Place>, Failure> {
        if write.if_match.is_none() {
            return Place::make(self.root(), &write.path);
        }
        Place::find(self.root(), &write.path).map_err(|failure| match failure.code {
            ErrorCode::NotFound => fault::not_matching(&write.path),
            _ => failure,
        })
    }

    /// Refuses what is there when it may not be replaced or added to.
    fn require_writable(&self, write: &operation::Write, present: Option<&Node>) -> Result<(), Failure> {
        let Some(old) = present else { return require_match(write, None) };
        if write.mode == WriteMode::Create {
            return Err(fault::of_errno(Errno::EXIST, &write.path));
        }
        fault::require_plain_file(old, &write.path)?;
        require_match(write, Some(old))?;
        match write.mode {
            WriteMode::Append => {
                self.require_file_size(&write.path, old.size.saturating_add(write.contents.len() as u64))
            }
            WriteMode::Overwrite | WriteMode::Create => Ok(()),
        }
    }

    pub(super) fn require_file_size(&self, path: &WorkspacePath, size: u64) -> Result<(), Failure> {
        let max = self.limits.file_bytes;
        if size > max { Err(fault::too_large(path, size, max)) } else { Ok(()) }
    }

    /// Copies what an append keeps. The file may be another one than was looked at, so it is checked again.
    fn copy_old(&self, place: &Place, new: &mut File, path: &WorkspacePath, added: u64) -> Result<(), Failure> {
        let fault = |errno| fault::of_errno(errno, path);
        let old = resolve::file_in(place.directory.as_fd(), &place.name).map_err(fault)?;
        let node = Node::of(old.as_fd()).map_err(fault)?;
        fault::require_plain_file(&node, path)?;
        self.require_file_size(path, node.size.saturating_add(added))?;
        // A file that grows meanwhile is cut at the size that was allowed.
        let copied = io::copy(&mut File::from(old).take(node.size), new);
        copied.map(|_| ()).map_err(|error| io_fault(&error, path))
    }
}

fn require_match(write: &operation::Write, present: Option<&Node>) -> Result<(), Failure> {
    match &write.if_match {
        Some(wanted) if present.and_then(Node::etag).as_ref() != Some(wanted) => Err(fault::not_matching(&write.path)),
        _ => Ok(()),
    }
}

pub(super) fn io_fault(error: &io::Error, path: &WorkspacePath) -> Failure {
    fault::of_errno(Errno::from_io_error(error).unwrap_or(Errno::IO), path)
}
