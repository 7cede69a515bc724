//! The files that hold all that a program wrote, in a directory of the workspace that the session's code can tamper with.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use codegen_types::{Failure, TaskId, WorkspacePath};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use super::names::c_name;
use super::walk::{Reach, walk};
use super::workspace::Workspace;
use super::{fault, resolve};

/// Where they are, one component after the other.
const DIRECTORY: [&str; 2] = [".codegen", "output"];
/// The files that a session keeps; the newest stay.
const KEPT_MAX: usize = 20;
/// Entries of the directory that are looked at for old ones.
const ENTRIES_MAX: usize = 10_000;

/// A new file that takes in what a program writes. Whatever becomes of its name, it stays the file that was made.
#[derive(Debug)]
pub struct OutputFile {
    path: WorkspacePath,
    file: File,
}

impl Workspace {
    /// Makes the file for a task's output, and deletes the oldest ones when there are many. No link is followed on the
    /// way, and nothing that is there already is opened: what session code put in its place makes this fail.
    ///
    /// # Errors
    /// Something else is there, or the file cannot be made.
    pub fn create_output(&self, task: TaskId) -> Result<OutputFile, Failure> {
        let name = format!("{task}.log");
        let path = WorkspacePath::parse(&format!("{}/{name}", DIRECTORY.join("/")))
            .map_err(|error| fault::internal(&format!("a task's id makes no path: {error}")))?;
        let _identity = self.assume()?;
        let fault = |errno| fault::of_errno(errno, &path);
        let directory = directory(self.root()).map_err(fault)?;
        prune(directory.as_fd()).map_err(fault)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::APPEND | OFlags::CLOEXEC;
        let file = openat(&directory, c_name(&name), flags, Mode::from_raw_mode(0o644)).map_err(fault)?;
        Ok(OutputFile { path, file: file.into() })
    }
}

impl OutputFile {
    /// Its path below the workspace.
    pub const fn path(&self) -> &WorkspacePath {
        &self.path
    }

    /// Adds to its end. Blocks on the disk.
    ///
    /// # Errors
    /// The disk is full, or fails.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }
}

/// Opens the directory and makes what is missing of it.
fn directory(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let mut current = resolve::directory_without_links(root, c".")?;
    for component in DIRECTORY {
        current = step(current.as_fd(), &c_name(component))?;
    }
    Ok(current)
}

fn step(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    match resolve::directory_without_links(parent, name) {
        Err(Errno::NOENT) => match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => resolve::directory_without_links(parent, name),
            Err(errno) => Err(errno),
        },
        found => found,
    }
}

/// Leaves room for one more. Ids of tasks sort by the time at which they were minted.
fn prune(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut found: Vec<CString> = Vec::new();
    walk(directory, Reach::Entries, ENTRIES_MAX, |met| {
        let name = met.name.to_str().ok().and_then(|name| name.strip_suffix(".log"));
        if name.is_some_and(|name| name.parse::<TaskId>().is_ok()) {
            found.push(met.name.to_owned());
        }
    })?;
    found.sort_unstable();
    for old in found.iter().take((found.len() + 1).saturating_sub(KEPT_MAX)) {
        // What session code put there and cannot be deleted so stays; it is the session's own room.
        let _left = unlinkat(directory, old, AtFlags::empty());
    }
    Ok(())
}
