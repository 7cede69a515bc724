//! What changed while a program ran.

use std::cmp::Ordering;

use codegen_types::event::{ChangeKind, FileChange, FileKind};
use codegen_types::path::COMPONENTS_MAX;
use codegen_types::{Failure, WorkspacePath};
use rustix::io::Errno;

use super::fault;
use super::names::OURS;
use super::walk::{Reach, walk};
use super::workspace::Workspace;

/// Entries that a scan looks at.
pub const SCAN_ENTRIES_MAX: usize = 20_000;
/// Entries that a glance looks at.
const GLANCE_ENTRIES_MAX: usize = 64;
/// Changes that are named.
pub const CHANGES_MAX: usize = 200;

/// The files of a workspace at one moment: everything but directories and what is in `.codegen/`, by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Sorted by path.
    files: Vec<(Vec<u8>, Version)>,
    complete: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    size: u64,
    inode: u64,
    mtime_ns: i128,
    ctime_ns: i128,
}

impl Workspace {
    /// Looks at all files, to be compared with a later look. Nothing is opened but directories, so the worker does it as
    /// itself and sees what the session made unreadable. Installed packages are left out: they are thousands of files
    /// that nobody means by the files of a workspace.
    ///
    /// # Errors
    /// The workspace cannot be read.
    pub fn scan(&self) -> Result<Scan, Failure> {
        self.scan_up_to(SCAN_ENTRIES_MAX)
    }

    /// The same for a workspace that is soon looked through, else `None`: it looks at 64 entries at most.
    ///
    /// # Errors
    /// The workspace cannot be read.
    pub fn glance(&self) -> Result<Option<Scan>, Failure> {
        Ok(Some(self.scan_up_to(GLANCE_ENTRIES_MAX)?).filter(|scan| scan.complete))
    }

    fn scan_up_to(&self, entries_max: usize) -> Result<Scan, Failure> {
        let reach = Reach::TreeWithout { components_max: COMPONENTS_MAX, left_out: OURS };
        let mut files = Vec::new();
        let assumed = self.assume_if_needed();
        let _assumed = assumed.map_err(|_| fault::of_errno(Errno::PERM, &WorkspacePath::root()))?;
        let complete = walk(self.root(), reach, entries_max, |met| {
            if met.kind == FileKind::Directory {
                return;
            }
            if let Some(node) = met.node() {
                let version =
                    Version { size: node.size, inode: node.inode, mtime_ns: node.mtime_ns, ctime_ns: node.ctime_ns };
                files.push((met.path.to_vec(), version));
            }
        });
        let complete = complete.map_err(|errno| fault::of_errno(errno, &WorkspacePath::root()))?;
        files.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Scan { files, complete })
    }
}

impl Scan {
    /// Files that were made, changed or deleted since this look, sorted by path, and whether there may be more than are
    /// named. When either look was cut short, what it did not see cannot be told from what was not there: only changed
    /// files are named then. Files whose names are no paths of ours (not UTF-8) are left out, too.
    pub fn changes_to(&self, later: &Self) -> (Vec<FileChange>, bool) {
        let mut truncated = !self.complete || !later.complete;
        let known_whole = !truncated;
        let mut changes = Vec::new();
        for (path, change, size) in differences(&self.files, &later.files) {
            if !known_whole && change != ChangeKind::Modified {
                continue;
            }
            let path = std::str::from_utf8(path).ok().and_then(|path| WorkspacePath::parse(path).ok());
            match path {
                Some(path) if changes.len() < CHANGES_MAX => changes.push(FileChange { path, change, size }),
                _ => truncated = true,
            }
        }
        (changes, truncated)
    }
}

type Entry = (Vec<u8>, Version);

/// Merges two sorted lists.
fn differences<'a>(before: &'a [Entry], after: &'a [Entry]) -> impl Iterator<Item = (&'a [u8], ChangeKind, u64)> {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            let order = match (before.peek(), after.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            match order {
                Ordering::Less => return before.next().map(|(path, _)| (path.as_slice(), ChangeKind::Deleted, 0)),
                Ordering::Greater => {
                    return after.next().map(|(path, new)| (path.as_slice(), ChangeKind::Created, new.size));
                }
                Ordering::Equal => {
                    if let (Some((path, old)), Some((_, new))) = (before.next(), after.next())
                        && old != new
                    {
                        return Some((path.as_slice(), ChangeKind::Modified, new.size));
                    }
                }
            }
        }
    })
}
