//! Replacing text in a file: exactly, atomically, and with an answer that helps when it cannot be done.

mod diff;
mod mismatch;

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;

use codegen_types::event::Edited;
use codegen_types::operation::{self, WriteMode};
use codegen_types::{ErrorCode, Failure, OperationResult, WorkspacePath};
use memchr::memmem;
use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;

use super::describe::Node;
use super::resolve::Place;
use super::temporary::Temporary;
use super::workspace::Workspace;
use super::write::io_fault;
use super::{fault, resolve};

/// Places in which one edit replaces text.
const REPLACED_MAX: usize = 100_000;

impl Workspace {
    /// Replaces text in a file, or nothing at all: readers see the old contents or the new, and what another call or a
    /// program changed meanwhile is never lost. Works on bytes, so a file need not be UTF-8. Permission bits stay.
    ///
    /// # Errors
    /// `PRECONDITION_FAILED` when the text is not there, is there several times, or the file is or becomes another than
    /// `if_match` names or than was read; `INVALID_ARGUMENT`; `NOT_FOUND`, `NOT_A_FILE`, `PATH_VIOLATION`,
    /// `PERMISSION_DENIED`, `FILE_TOO_LARGE`, `DISK_LIMIT`.
    pub fn edit(&self, edit: &operation::Edit) -> Result<OperationResult, Failure> {
        let path = &edit.path;
        require_change(edit)?;
        let _turn = self.take_turn();
        let (place, node, contents) = self.look_into(edit)?;
        let found = occurrences(edit, &contents)?;
        let size = new_size(edit, &contents, found.len()).unwrap_or(u64::MAX);
        self.require_file_size(path, size)?;
        self.require_room(size, node.allocated)?;

        let _identity = self.assume()?;
        let fault = |errno| fault::of_errno(errno, path);
        let mut temporary = Temporary::create(place.directory.as_fd()).map_err(|error| io_fault(&error, path))?;
        write_edited(&mut temporary.file, edit, &contents, &found).map_err(|error| io_fault(&error, path))?;
        fchmod(&temporary.file, Mode::from_raw_mode(node.permissions())).map_err(fault)?;
        // Programs of the session do not take turns with us: look again at the last moment.
        if place.present(path)?.and_then(|now| now.etag()) != node.etag() {
            return Err(changed_meanwhile(path));
        }
        let file = temporary.rename_to(&place, WriteMode::Overwrite, self).map_err(fault)?;
        self.count_written(size);
        let stat = Node::of(file.as_fd()).map_err(fault)?.stat(path.as_str().to_owned());
        let diff = diff::of(&contents, &found, edit.old.len(), edit.new.as_bytes());
        Ok(OperationResult::Edit(Edited { stat, replaced: found.len() as u64, diff }))
    }

    /// Reads the file, as the version that it was before reading.
    fn look_into(&self, edit: &operation::Edit) -> Result<(Place, Node, Vec<u8>), Failure> {
        let path = &edit.path;
        let _identity = self.assume()?;
        let fault = |errno| fault::of_errno(errno, path);
        let place = Place::find(self.root(), path)?.ok_or_else(|| fault(Errno::ISDIR))?;
        // A link is described before it is refused, since opening it would only say that there is one.
        let present = place.present(path)?.ok_or_else(|| fault(Errno::NOENT))?;
        fault::require_plain_file(&present, path)?;
        let file = resolve::file_in(place.directory.as_fd(), &place.name).map_err(fault)?;
        let node = Node::of(file.as_fd()).map_err(fault)?;
        fault::require_plain_file(&node, path)?;
        if edit.if_match.is_some() && node.etag() != edit.if_match {
            return Err(fault::not_matching(path));
        }
        self.require_file_size(path, node.size)?;
        let mut contents = Vec::new();
        let read = File::from(file).take(node.size).read_to_end(&mut contents);
        read.map_err(|error| io_fault(&error, path))?;
        Ok((place, node, contents))
    }
}

fn write_edited(file: &mut File, edit: &operation::Edit, contents: &[u8], found: &[usize]) -> io::Result<()> {
    let mut file = BufWriter::new(file);
    let mut kept_from = 0;
    for at in found {
        file.write_all(&contents[kept_from..*at])?;
        file.write_all(edit.new.as_bytes())?;
        kept_from = at + edit.old.len();
    }
    file.write_all(&contents[kept_from..])?;
    file.flush()
}

fn require_change(edit: &operation::Edit) -> Result<(), Failure> {
    let why = if edit.old.is_empty() {
        "`old`: it is empty; give the text to replace, or write the whole file with fs_write"
    } else if edit.old == edit.new {
        "`new`: it is the same as `old`, so nothing would change"
    } else {
        return Ok(());
    };
    Err(Failure::new(ErrorCode::InvalidArgument, why))
}

/// Where the text to replace begins, each time.
fn occurrences(edit: &operation::Edit, contents: &[u8]) -> Result<Vec<usize>, Failure> {
    let finder = memmem::Finder::new(&edit.old);
    let found: Vec<usize> = match edit.replace_all {
        true => finder.find_iter(contents).take(REPLACED_MAX + 1).collect(),
        // Overlapping occurrences leave it open which one is meant, too.
        false => {
            let mut next = 0;
            let overlapping = std::iter::from_fn(|| {
                let at = next + finder.find(&contents[next..])?;
                next = at + 1;
                Some(at)
            });
            overlapping.take(mismatch::NAMED_MAX + 1).collect()
        }
    };
    match found.len() {
        0 => Err(mismatch::absent(edit, contents)),
        1 => Ok(found),
        count if count > REPLACED_MAX => Err(mismatch::too_often(edit, REPLACED_MAX)),
        _ if edit.replace_all => Ok(found),
        _ => Err(mismatch::ambiguous(edit, contents, &found)),
    }
}

fn new_size(edit: &operation::Edit, contents: &[u8], count: usize) -> Option<u64> {
    let removed = edit.old.len().checked_mul(count)?;
    let added = edit.new.len().checked_mul(count)?;
    u64::try_from(contents.len().checked_sub(removed)?.checked_add(added)?).ok()
}

fn changed_meanwhile(path: &WorkspacePath) -> Failure {
    let shown = fault::shown(path);
    let message =
        format!("{shown} was changed by someone else at the same moment; nothing was edited, so edit it again");
    Failure::new(ErrorCode::PreconditionFailed, message)
}
