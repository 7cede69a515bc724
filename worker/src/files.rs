//! File operations and looks at a workspace, off the event loop: they block on the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use codegen_types::operation::{Pictures, Read};
use codegen_types::{ErrorCode, Failure, Operation, OperationResult, WorkspacePath};
use sandbox::files::{Scan, Workspace};
use tokio::time::Instant;

/// How often a workspace is counted while a program runs, at most.
const COUNT_INTERVAL_MIN: Duration = Duration::from_millis(250);
/// How often in a row it may be that a workspace cannot be counted.
const UNREAD_MAX: u32 = 2;

/// Carries out an operation on files. A search ends soon after this is dropped; everything else is short and goes on.
pub(crate) async fn perform(workspace: &Arc<Workspace>, operation: Operation) -> Result<OperationResult, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let _stop_when_dropped = StopGuard(stop.clone());
    blocking(workspace, move |workspace| match &operation {
        Operation::Exec(_) | Operation::Kernels(_) => {
            Err(Failure::new(ErrorCode::Internal, "A program is no operation on files."))
        }
        Operation::Search(search) => workspace.search(search, &stop),
        Operation::Edit(edit) => workspace.edit(edit),
        Operation::Read(read) => workspace.read(read),
        Operation::Write(write) => workspace.write(write),
        Operation::List(list) => workspace.list(list),
        Operation::Stat(stat) => workspace.stat(stat),
        Operation::Move(rename) => workspace.mv(rename),
        Operation::Remove(remove) => workspace.remove(remove),
    })
    .await
}

/// Ends a search that nobody waits for any more.
struct StopGuard(Arc<AtomicBool>);

impl Drop for StopGuard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Fails unless there is a plain file that could be read.
pub(crate) async fn expect_file(workspace: &Arc<Workspace>, path: &WorkspacePath) -> Result<(), Failure> {
    let nothing_of_it = Read { path: path.clone(), offset: 0, limit: Some(0), pictures: Pictures::AsBytes };
    blocking(workspace, move |workspace| workspace.read(&nothing_of_it).map(drop)).await
}

/// Looks at all files, to be compared with a later look.
pub(crate) async fn scan(workspace: &Arc<Workspace>) -> Result<Scan, Failure> {
    // Most workspaces are looked through sooner than another thread would begin.
    match workspace.glance()? {
        Some(scan) => Ok(scan),
        None => blocking(workspace, Workspace::scan).await,
    }
}

/// What a workspace has too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outgrown {
    Bytes,
    Files,
    /// Its temporary files, where no file system of their own bounds them.
    Scratch,
}

/// Temporary files that nothing but looking bounds.
#[derive(Debug, Clone)]
pub(crate) struct Scratch {
    pub directory: PathBuf,
    pub bytes_max: u64,
}

impl Scratch {
    /// As many as a file system of their own would have room for.
    const FILES_MAX: u64 = 65_536;

    fn is_outgrown(&self) -> bool {
        // One that is gone holds nothing; one that cannot be counted holds too much.
        match sandbox::files::scratch_usage(&self.directory) {
            Ok(usage) => usage.bytes > self.bytes_max || usage.files > Self::FILES_MAX || !usage.complete,
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        }
    }
}

/// Waits until the workspace holds more than so many bytes, or more files than it may, or scratch too much. The count is repeated
/// more rarely the longer it takes, so that it never takes more than a tenth of the time.
pub(crate) async fn outgrown(workspace: &Arc<Workspace>, bytes_max: u64, scratch: Option<Scratch>) -> Outgrown {
    let (mut pause, mut unread) = (COUNT_INTERVAL_MIN, 0);
    loop {
        tokio::time::sleep(pause).await;
        let began = Instant::now();
        match blocking(workspace, Workspace::usage).await {
            Ok(usage) if usage.bytes > bytes_max => return Outgrown::Bytes,
            Ok(usage) if !usage.complete => return Outgrown::Files,
            Ok(_) => unread = 0,
            // One that cannot be read just now is looked at again, but not for ever.
            Err(_) if unread == UNREAD_MAX => return Outgrown::Files,
            Err(_) => unread += 1,
        }
        if let Some(scratch) = scratch.clone()
            && tokio::task::spawn_blocking(move || scratch.is_outgrown()).await.unwrap_or(false)
        {
            return Outgrown::Scratch;
        }
        pause = COUNT_INTERVAL_MIN.max(began.elapsed() * 10);
    }
}

async fn blocking<T: Send + 'static>(
    workspace: &Arc<Workspace>,
    work: impl FnOnce(&Workspace) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let workspace = workspace.clone();
    tokio::task::spawn_blocking(move || work(&workspace)).await.unwrap_or_else(|error| {
        tracing::error!(%error, "an operation on files panicked");
        Err(Failure::new(ErrorCode::Internal, "The worker failed while it worked on files."))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_files_that_cannot_be_counted_are_too_many_and_those_that_are_gone_are_none() {
        let directory = tempfile::tempdir().unwrap();
        let scratch = |name| Scratch { directory: directory.path().join(name), bytes_max: 1 << 20 };
        std::fs::create_dir(directory.path().join("empty")).unwrap();
        std::fs::write(directory.path().join("no-directory"), "").unwrap();
        assert!(scratch("no-directory").is_outgrown());
        assert!(!scratch("empty").is_outgrown());
        assert!(!scratch("gone").is_outgrown());
    }
}
