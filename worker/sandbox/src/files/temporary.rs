//! A new file on its way to its name.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use codegen_types::operation::WriteMode;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, openat, renameat, renameat_with, unlinkat};
use rustix::io::Errno;

use super::names;
use super::resolve::Place;
use super::workspace::Workspace;

/// A file that is deleted again unless it gets its name.
pub(super) struct Temporary<'dir> {
    directory: BorrowedFd<'dir>,
    name: CString,
    pub(super) file: File,
    renamed: bool,
}

impl<'dir> Temporary<'dir> {
    pub(super) fn create(directory: BorrowedFd<'dir>) -> io::Result<Self> {
        let name = names::unpredictable(".codegen-", ".tmp")?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(directory, &name, flags, Mode::from_raw_mode(0o600))?;
        Ok(Self { directory, name, file: file.into(), renamed: false })
    }

    /// Gives it its name. What is replaced is held for the workspace, which lets go of it when nobody waits.
    pub(super) fn rename_to(mut self, place: &Place, mode: WriteMode, workspace: &Workspace) -> Result<File, Errno> {
        let (from, to) = (self.directory, place.directory.as_fd());
        match mode {
            WriteMode::Create => renameat_with(from, &self.name, to, &place.name, RenameFlags::NOREPLACE)?,
            WriteMode::Overwrite | WriteMode::Append => {
                // There may be none, and it may be no file: it is not opened, but kept from being the last to go.
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let replaced = openat(to, &place.name, flags, Mode::empty()).ok();
                renameat(from, &self.name, to, &place.name)?;
                workspace.hold(replaced);
            }
        }
        self.renamed = true;
        self.file.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.renamed {
            // It is gone, or its directory is: there is nothing left to clean up then.
            let _gone = unlinkat(self.directory, &self.name, AtFlags::empty());
        }
    }
}
