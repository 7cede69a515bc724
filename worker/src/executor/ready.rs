//! What is done for a program before it may begin: nothing of the session is changed by it.

use std::os::fd::OwnedFd;

use codegen_types::{ErrorCode, Failure, Operation, TaskId};
use sandbox::files::Scan;
use tokio::net::unix::pipe;

use super::stdio::{self, Stdio, Streams};
use crate::files;
use crate::session::Session;

/// A look at the files as they are before, and the program's pipes.
pub(crate) struct Ready {
    pub before: Scan,
    /// The program's ends, and ours.
    pub stdio: Stdio,
    pub streams: Streams,
    /// Where it shows things, and where that comes out.
    pub shows: OwnedFd,
    pub shown: pipe::Receiver,
}

impl Ready {
    /// Gets ready for an operation ahead of its turn, when it runs a program. What cannot be done is tried again when it
    /// begins, and told then.
    pub async fn ahead(session: &Session, task: TaskId, operation: &Operation) -> Option<Self> {
        match operation {
            Operation::Exec(exec) => Self::make(session, task, !exec.stdin.is_empty()).await.ok(),
            _ => None,
        }
    }

    pub async fn make(session: &Session, task: TaskId, with_stdin: bool) -> Result<Self, Failure> {
        let no_pipes = |error: std::io::Error| {
            tracing::error!(%task, %error, "no pipes for a program");
            Failure::new(ErrorCode::Internal, "The worker could not make pipes; nothing was run.")
        };
        let before = files::scan(session.workspace()).await?;
        let (stdio, streams) = Stdio::make(with_stdin, session.uid()).map_err(no_pipes)?;
        let (shows, shown) = stdio::one_way(session.uid()).map_err(no_pipes)?;
        Ok(Self { before, stdio, streams, shows, shown })
    }
}
