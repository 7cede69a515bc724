//! How much a workspace holds, and whether more fits.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use codegen_types::{ErrorCode, Failure, WorkspacePath};
use rustix::io::Errno;

use super::fault;
use super::walk::{Reach, walk};
use super::workspace::Workspace;

/// Directories deeper than this are not counted, and the count is incomplete.
const DEPTH_MAX: usize = 256;

/// How long a count is good enough to allow a write. Programs write without asking us in any case; the sandbox's own
/// disk layer watches them. A write is only ever refused on a fresh count.
const COUNT_AGE_MAX: Duration = Duration::from_secs(1);

/// What a workspace holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk of everything in it; a file with several links inside counts once.
    pub bytes: u64,
    /// Files, links and directories.
    pub files: u64,
    /// Whether everything was counted: there are no more files than may be, and no directory is too deep or unreadable.
    pub complete: bool,
}

impl Workspace {
    /// Counts what the workspace holds now. Nothing is opened but directories, so the worker does it as itself where it may.
    ///
    /// # Errors
    /// The workspace cannot be read.
    pub fn usage(&self) -> Result<Usage, Failure> {
        self.count().map_err(|errno| fault::of_errno(errno, &WorkspacePath::root()))
    }

    /// Refuses a write of `added` bytes in place of `freed` that the quota has no room for.
    pub(super) fn require_room(&self, added: u64, freed: u64) -> Result<(), Failure> {
        let max = self.limits.workspace_bytes;
        let files_max = self.limits.workspace_files;
        let fits = |usage: Usage| {
            usage.complete && usage.files <= files_max && usage.bytes.saturating_sub(freed).saturating_add(added) <= max
        };
        let counted = *self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.is_some_and(|(at, usage)| at.elapsed() < COUNT_AGE_MAX && fits(usage)) {
            return Ok(());
        }
        let usage = self.count().map_err(|errno| fault::of_errno(errno, &WorkspacePath::root()))?;
        if fits(usage) {
            return Ok(());
        }
        let message = if usage.complete && usage.files <= files_max {
            format!("the workspace holds {} bytes, and {added} more would exceed its {max}; delete files", usage.bytes)
        } else {
            format!(
                "the workspace has more than the {files_max} files that it may, or directories that are unreadable or too \
                 deep; delete some"
            )
        };
        Err(Failure::new(ErrorCode::DiskLimit, message))
    }

    /// Remembers a file that was written since the last count, perhaps a new one.
    pub(super) fn count_written(&self, added: u64) {
        if let Some((_, usage)) = self.counted.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            usage.bytes = usage.bytes.saturating_add(added);
            usage.files = usage.files.saturating_add(1);
        }
    }

    fn count(&self) -> Result<Usage, Errno> {
        let _assumed = self.assume_if_needed().map_err(|_| Errno::PERM)?;
        let usage = measure(self.root(), self.limits.workspace_files)?;
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), usage));
        Ok(usage)
    }
}

/// Forgets the last count.
pub(super) fn forget(workspace: &Workspace) {
    *workspace.counted.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Counts what is below a directory, up to one more than so many entries.
pub(super) fn measure(directory: BorrowedFd<'_>, files_max: u64) -> Result<Usage, Errno> {
    let mut usage = Usage::default();
    let mut linked = HashSet::new();
    let entries_max = usize::try_from(files_max).unwrap_or(usize::MAX);
    let complete = walk(directory, Reach::Tree { components_max: DEPTH_MAX }, entries_max, |met| {
        let Some(node) = met.node() else { return };
        usage.files += 1;
        if node.links < 2 || node.is_directory() || linked.insert((node.device, node.inode)) {
            usage.bytes = usage.bytes.saturating_add(node.allocated);
        }
    });
    match complete {
        Ok(complete) => Ok(Usage { complete, ..usage }),
        // Whoever takes the rights away again and again is not counted, which must not look like a fault that passes.
        Err(Errno::ACCESS | Errno::PERM) => Ok(Usage { complete: false, ..usage }),
        Err(errno) => Err(errno),
    }
}
