//! File operations and looks at a workspace, off the event loop: they block on the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use codegen_types::operation::{Pictures, Read};
use codegen_types::{ErrorCode, Failure, Operation, OperationResult, WorkspacePath};
use sandbox::files::{Scan, Workspace};
use tokio::sync::oneshot;

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

/// Works on a workspace off the event loop.
pub(crate) async fn blocking<T: Send + 'static>(
    workspace: &Arc<Workspace>,
    work: impl FnOnce(&Workspace) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let workspace = workspace.clone();
    let (tell, told) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        // Whoever asked may be gone.
        let _ = tell.send(work(&workspace));
        workspace.let_go();
    });
    told.await.unwrap_or_else(|_| {
        tracing::error!("an operation on files panicked");
        Err(Failure::new(ErrorCode::Internal, "The worker failed while it worked on files."))
    })
}
