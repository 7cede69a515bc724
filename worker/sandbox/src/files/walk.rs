//! Walking a tree by descriptors: no link is followed, and the work is bounded.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};

use codegen_types::event::FileKind;
use rustix::fs::{FileType, Mode, RawDir, fchmod, readlinkat};
use rustix::io::Errno;

use super::describe::{Node, kind_of};
use super::{names, resolve};

const BUFFER_BYTES: usize = 32 << 10;
/// The paths of directories that are still to be read, in bytes.
const PENDING_BYTES_MAX: usize = 32 << 20;

/// How far a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The directory's own entries.
    Entries,
    /// All below it, down to so many components.
    Tree {
        /// The deepest path that is met.
        components_max: usize,
    },
    /// The same, but nothing below one directory.
    TreeWithout {
        /// The deepest path that is met.
        components_max: usize,
        /// The directory, by its path below the start.
        left_out: &'static str,
    },
}

/// Something met on a walk.
pub(super) struct Met<'walk> {
    /// The directory it is in.
    pub(super) directory: BorrowedFd<'walk>,
    /// Its name there.
    pub(super) name: &'walk CStr,
    /// Its path below the start, as bytes.
    pub(super) path: &'walk [u8],
    pub(super) kind: FileKind,
}

impl Met<'_> {
    /// What it is now, or nothing when it is gone.
    pub(super) fn node(&self) -> Option<Node> {
        Node::at(self.directory, self.name).ok()
    }

    /// Where a link leads, in its own words; only text is given.
    pub(super) fn target(&self) -> Option<String> {
        let read = || readlinkat(self.directory, self.name, Vec::new()).ok()?.into_string().ok();
        (self.kind == FileKind::Symlink).then(read).flatten()
    }
}

/// Shows everything below `start` to `visit`, at most `entries_max` things, in no order. Whether that was all: false
/// also when a directory could not be read, is a mount point, or lies too deep.
pub(super) fn walk(
    start: BorrowedFd<'_>,
    reach: Reach,
    entries_max: usize,
    mut visit: impl FnMut(&Met<'_>),
) -> Result<bool, Errno> {
    walk_while(start, reach, entries_max, |met| {
        visit(met);
        ControlFlow::Continue(())
    })
}

/// The same until `visit` breaks it off, which is not all either.
pub(super) fn walk_while(
    start: BorrowedFd<'_>,
    reach: Reach,
    entries_max: usize,
    mut visit: impl FnMut(&Met<'_>) -> ControlFlow<()>,
) -> Result<bool, Errno> {
    let (pending, path) = (Vec::new(), Vec::new());
    let mut walk = Walk { reach, left: entries_max, complete: true, pending, pending_bytes: 0, path };
    // A descriptor of its own, since walks that share one would share its reading position.
    let top = match resolve::directory_without_links(start, c".") {
        Err(Errno::ACCESS) => {
            make_readable(start)?;
            resolve::directory_without_links(start, c".")?
        }
        opened => opened?,
    };
    walk.directory(top.as_fd(), &[], &mut visit)?;
    while let Some(path) = walk.pending.pop() {
        walk.pending_bytes -= path.len();
        let opened = CString::new(path.as_slice()).map_err(|_| Errno::INVAL);
        let read = opened.and_then(|name| resolve::directory_without_links(start, &name));
        match read.and_then(|directory| walk.directory(directory.as_fd(), &path, &mut visit)) {
            // It is gone, or is no directory any more.
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(_) => walk.complete = false,
        }
        if walk.left == 0 {
            break;
        }
    }
    Ok(walk.complete)
}

/// Gives the owner back the rights to a directory that is held open, so that nobody escapes a count by taking them away.
fn make_readable(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(Node::of(directory)?.mode & 0o7777);
    fchmod(directory, mode | Mode::RWXU)
}

struct Walk {
    reach: Reach,
    left: usize,
    complete: bool,
    pending: Vec<Vec<u8>>,
    pending_bytes: usize,
    path: Vec<u8>,
}

impl Walk {
    fn directory(
        &mut self,
        directory: BorrowedFd<'_>,
        at: &[u8],
        visit: &mut impl FnMut(&Met<'_>) -> ControlFlow<()>,
    ) -> Result<(), Errno> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut entries = RawDir::new(directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if names::is_dot(name) {
                continue;
            }
            let Some(left) = self.left.checked_sub(1) else {
                self.complete = false;
                return Ok(());
            };
            self.left = left;
            let kind = match entry.file_type() {
                FileType::Unknown => match Node::at(directory, name) {
                    Ok(node) => node.kind(),
                    Err(_) => continue,
                },
                known => kind_of(known),
            };
            self.path.clear();
            self.path.extend_from_slice(at);
            if !at.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            if visit(&Met { directory, name, path: &self.path, kind }).is_break() {
                self.break_off();
                return Ok(());
            }
            if kind == FileKind::Directory {
                self.descend();
            }
        }
        Ok(())
    }

    fn break_off(&mut self) {
        self.complete = false;
        self.left = 0;
        self.pending.clear();
    }

    /// Remembers a directory for later, unless it is out of reach.
    fn descend(&mut self) {
        let components_max = match self.reach {
            Reach::Entries => return,
            Reach::TreeWithout { left_out, .. } if self.path == left_out.as_bytes() => return,
            Reach::Tree { components_max } | Reach::TreeWithout { components_max, .. } => components_max,
        };
        let near = self.path.iter().filter(|byte| **byte == b'/').count() + 1 < components_max;
        if near && self.pending_bytes + self.path.len() <= PENDING_BYTES_MAX {
            self.pending_bytes += self.path.len();
            self.pending.push(self.path.clone());
        } else {
            self.complete = false;
        }
    }
}
