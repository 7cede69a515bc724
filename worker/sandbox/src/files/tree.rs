//! Deleting a tree that its owner may have made hostile: any depth, unreadable directories, links, and changes
//! meanwhile.
//!
//! Everything goes by descriptor and single names, so no path gets too long and no link is followed. At most
//! [`OPEN_MAX`] directories are held open; what is deeper is first renamed up into the tree's own top directory.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, RawDir, RenameFlags, SeekFrom, chmodat, fchmod, renameat_with, seek, unlinkat,
};
use rustix::io::Errno;

use super::describe::Node;
use super::{names, resolve};

/// Directories held open at one time.
const OPEN_MAX: usize = 32;
const BUFFER_BYTES: usize = 16 << 10;

/// Why a tree could not be deleted.
#[derive(Debug, thiserror::Error)]
pub(super) enum TreeError {
    /// Something is added as fast as we delete.
    #[error("the tree keeps changing")]
    KeepsChanging,
    /// The kernel refused.
    #[error(transparent)]
    Errno(#[from] Errno),
}

/// Deletes a directory and all that is in it; gives how many files, links and directories that were. It gives
/// up after `steps_max` system calls that change something.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &CStr, steps_max: u64) -> Result<u64, TreeError> {
    let prefix = names::unpredictable(".deleting-", "-").map_err(|_| Errno::IO)?;
    let mut removal = Removal { prefix, renamed: 0, removed: 0, steps_left: steps_max };
    loop {
        removal.step()?;
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) => return Ok(removal.removed + 1),
            Err(Errno::NOTEMPTY | Errno::EXIST) => removal.clear(open(parent, name)?)?,
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Deletes all that is in a directory, and leaves the directory.
pub(super) fn clear(parent: BorrowedFd<'_>, name: &CStr, steps_max: u64) -> Result<(), TreeError> {
    let prefix = names::unpredictable(".deleting-", "-").map_err(|_| Errno::IO)?;
    let mut removal = Removal { prefix, renamed: 0, removed: 0, steps_left: steps_max };
    let top = open(parent, name)?;
    // What is too deep is lifted up into the top, where only another pass meets it.
    loop {
        let before = removal.renamed;
        removal.step()?;
        removal.clear(top.try_clone().map_err(|_| Errno::MFILE)?)?;
        if removal.renamed == before {
            return Ok(());
        }
    }
}

struct Removal {
    prefix: CString,
    renamed: u64,
    removed: u64,
    steps_left: u64,
}

/// A directory on the way down, with the name that it had in the one above.
struct Level {
    directory: OwnedFd,
    name: CString,
}

impl Removal {
    fn step(&mut self) -> Result<(), TreeError> {
        self.steps_left = self.steps_left.checked_sub(1).ok_or(TreeError::KeepsChanging)?;
        Ok(())
    }

    /// Empties a directory, as far as nobody fills it meanwhile.
    fn clear(&mut self, top: OwnedFd) -> Result<(), TreeError> {
        let mut levels: Vec<Level> = Vec::new();
        loop {
            let here = levels.last().map_or(top.as_fd(), |level| level.directory.as_fd());
            let full = self.sweep(here)?;
            match full {
                None => {
                    let Some(done) = levels.pop() else { return Ok(()) };
                    let above = levels.last().map_or(top.as_fd(), |level| level.directory.as_fd());
                    self.remove_empty(above, &done.name)?;
                }
                Some(name) if levels.len() < OPEN_MAX => match open(here, &name) {
                    Ok(directory) => levels.push(Level { directory, name }),
                    // It is no directory any more; the next sweep deletes it.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.step()?,
                    Err(errno) => return Err(errno.into()),
                },
                Some(name) => self.lift(here, &name, top.as_fd())?,
            }
        }
    }

    /// Deletes what can be deleted at once; gives the name of the first directory that is not empty.
    fn sweep(&mut self, directory: BorrowedFd<'_>) -> Result<Option<CString>, TreeError> {
        seek(directory, SeekFrom::Start(0))?;
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut entries = RawDir::new(directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // The directory itself was deleted meanwhile.
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            };
            let name = entry.file_name();
            if names::is_dot(name) {
                continue;
            }
            if self.remove_entry(directory, name, entry.file_type())? == Entry::Full {
                return Ok(Some(name.to_owned()));
            }
        }
        Ok(None)
    }

    fn remove_entry(&mut self, parent: BorrowedFd<'_>, name: &CStr, hint: FileType) -> Result<Entry, TreeError> {
        if hint != FileType::Directory {
            self.step()?;
            match unlinkat(parent, name, AtFlags::empty()) {
                Ok(()) => {
                    self.removed += 1;
                    return Ok(Entry::Gone);
                }
                Err(Errno::NOENT) => return Ok(Entry::Gone),
                Err(Errno::ISDIR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.remove_empty(parent, name)
    }

    fn remove_empty(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<Entry, TreeError> {
        self.step()?;
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) => {
                self.removed += 1;
                Ok(Entry::Gone)
            }
            Err(Errno::NOENT) => Ok(Entry::Gone),
            // No directory any more: whoever comes next sees a full one and finds out.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => Ok(Entry::Full),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Renames a directory that is too deep up into the top one, where it is met again.
    fn lift(&mut self, parent: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>) -> Result<(), TreeError> {
        self.step()?;
        self.renamed += 1;
        let mut to = self.prefix.clone().into_bytes();
        to.extend(self.renamed.to_string().bytes());
        let to = CString::new(to).map_err(|_| Errno::INVAL)?;
        let rename = || renameat_with(parent, name, top, &to, RenameFlags::NOREPLACE);
        let renamed = match rename() {
            // A directory is only moved by who may write to it.
            Err(Errno::ACCESS) => make_passable(parent, name).and_then(|()| rename()),
            done => done,
        };
        match renamed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[derive(PartialEq, Eq)]
enum Entry {
    Gone,
    Full,
}

/// Opens a directory whose contents are to be deleted, and gives its owner the bits that this takes.
fn open(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let directory = match resolve::directory_without_links(parent, name) {
        Err(Errno::ACCESS) => {
            make_passable(parent, name)?;
            resolve::directory_without_links(parent, name)?
        }
        opened => opened?,
    };
    if Node::of(directory.as_fd())?.mode & 0o700 != 0o700 {
        fchmod(&directory, Mode::RWXU)?;
    }
    Ok(directory)
}

/// Gives the owner all bits of a directory that cannot be opened as it is. The descriptor's own place under `/proc`
/// names exactly what was found; a name could be a link by now.
fn make_passable(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let found = resolve::directory_reference(parent, name)?;
    chmodat(CWD, format!("/proc/self/fd/{}", found.as_raw_fd()), Mode::RWXU, AtFlags::empty())
}
