//! Reading and describing.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;

use codegen_types::operation;
use codegen_types::{Failure, OperationResult, WorkspacePath};
use rustix::io::Errno;

use super::describe::Node;
use super::workspace::Workspace;
use super::{fault, resolve};

impl Workspace {
    /// Reads a file or a part of it. The description is of the file before it was read, so that `if_match` fails when
    /// it changed meanwhile.
    ///
    /// # Errors
    /// `NOT_FOUND`, `NOT_A_FILE`, `PATH_VIOLATION`, `PERMISSION_DENIED`; `FILE_TOO_LARGE` when more than
    /// `limits.file_bytes` would have to be read.
    pub fn read(&self, read: &operation::Read) -> Result<OperationResult, Failure> {
        let _identity = self.assume()?;
        let path = &read.path;
        let fd = resolve::for_reading(self.root(), path).map_err(|errno| fault::of_errno(errno, path))?;
        let node = Node::of(fd.as_fd()).map_err(|errno| fault::of_errno(errno, path))?;
        fault::require_plain_file(&node, path)?;
        let wanted = node.size.saturating_sub(read.offset).min(read.limit.unwrap_or(u64::MAX));
        if wanted > self.limits.file_bytes {
            return Err(fault::too_large(path, wanted, self.limits.file_bytes));
        }
        let contents = read_part(File::from(fd), read.offset, wanted, path)?;
        Ok(OperationResult::Read { contents, stat: node.stat(path.as_str().to_owned()) })
    }

    /// Describes a file or directory; a link is described itself.
    ///
    /// # Errors
    /// `NOT_FOUND`, `NOT_A_DIRECTORY`, `PATH_VIOLATION`, `PERMISSION_DENIED`.
    pub fn stat(&self, stat: &operation::Stat) -> Result<OperationResult, Failure> {
        let _identity = self.assume()?;
        let path = &stat.path;
        let node = resolve::reference(self.root(), path).and_then(|fd| Node::of(fd.as_fd()));
        let node = node.map_err(|errno| fault::of_errno(errno, path))?;
        Ok(OperationResult::Stat { stat: node.stat(path.as_str().to_owned()) })
    }
}

fn read_part(mut file: File, offset: u64, wanted: u64, path: &WorkspacePath) -> Result<Vec<u8>, Failure> {
    let mut contents = Vec::new();
    if wanted == 0 {
        return Ok(contents);
    }
    let room = usize::try_from(wanted).ok().and_then(|wanted| contents.try_reserve_exact(wanted).ok());
    if room.is_none() {
        return Err(fault::internal("the worker has no memory for the file"));
    }
    let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.take(wanted).read_to_end(&mut contents));
    read.map_err(|error| fault::of_errno(Errno::from_io_error(&error).unwrap_or(Errno::IO), path))?;
    Ok(contents)
}
