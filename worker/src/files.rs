//! File operations and looks at a workspace, off the event loop: they block on the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use codegen_types::operation::{Pictures, Read};
use codegen_types::{ErrorCode, Failure, Operation, OperationResult, WorkspacePath};
use sandbox::files::{Scan, Workspace};
use tokio::runtime::{Handle, RuntimeFlavor};

/// Carries out an operation on files. A search ends soon after this is dropped; everything else is short, and is carried
/// out by the thread that is here, which leaves its other tasks to another one.
pub(crate) async fn perform(workspace: &Arc<Workspace>, operation: Operation) -> Result<OperationResult, Failure> {
    if let Operation::Search(search) = operation {
        let stop = Arc::new(AtomicBool::new(false));
        let _stop_when_dropped = StopGuard(stop.clone());
        return blocking(workspace, move |workspace| workspace.search(&search, &stop)).await;
    }
    let carry_out = move |workspace: &Workspace| match &operation {
        Operation::Exec(_) | Operation::Kernels(_) | Operation::Search(_) => {
            Err(Failure::new(ErrorCode::Internal, "That is no short operation on files."))
        }
        Operation::Edit(edit) => workspace.edit(edit),
        Operation::Read(read) => workspace.read(read),
        Operation::Write(write) => workspace.write(write),
        Operation::List(list) => workspace.list(list),
        Operation::Stat(stat) => workspace.stat(stat),
        Operation::Move(rename) => workspace.mv(rename),
        Operation::Remove(remove) => workspace.remove(remove),
    };
    match Handle::current().runtime_flavor() {
        // There is no other thread to leave anything to.
        RuntimeFlavor::CurrentThread => blocking(workspace, carry_out).await,
        _ => tokio::task::block_in_place(|| carry_out(workspace)),
    }
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
    tokio::task::spawn_blocking(move || work(&workspace)).await.unwrap_or_else(|error| {
        tracing::error!(%error, "an operation on files panicked");
        Err(Failure::new(ErrorCode::Internal, "The worker failed while it worked on files."))
    })
}
