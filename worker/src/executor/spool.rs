//! Keeping all that a program writes: what is short in no file at all, what is long in one of the workspace.

use std::io;
use std::sync::Arc;

use codegen_types::{Failure, TaskId, WorkspacePath};
use parking_lot::Mutex;
use sandbox::files::Workspace;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Output up to this length is in the result as it is, and gets no file.
const HELD_BYTES_MAX: usize = 32 << 10;

/// Takes in both streams of one task in the order of arrival.
#[derive(Debug)]
pub(crate) struct Spool {
    task: TaskId,
    /// Absent where no file is wanted.
    workspace: Option<Arc<Workspace>>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// So little that no file is needed yet.
    Held(Vec<u8>),
    /// A task writes what it is sent. What waits for it is bounded by the output that a task may have.
    Writing { pieces: mpsc::UnboundedSender<Vec<u8>>, end: JoinHandle<Result<WorkspacePath, NotKept>> },
}

/// Where the whole output is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The file that holds it, if it was too much for a result.
    pub file: Option<WorkspacePath>,
    /// What the client should know when that could not be.
    pub note: Option<String>,
}

/// Why output is not in a file.
#[derive(Debug, thiserror::Error)]
enum NotKept {
    #[error("{0}")]
    NotMade(Failure),
    #[error("writing it failed ({0})")]
    NotWritten(#[from] io::Error),
    #[error("the worker failed")]
    CutOff,
}

impl Spool {
    pub fn new(task: TaskId, workspace: Option<Arc<Workspace>>) -> Self {
        Self { task, workspace, state: Mutex::new(State::Held(Vec::new())) }
    }

    /// Takes in what was written next. Never waits for a disk.
    pub fn add(&self, bytes: &[u8]) {
        let Some(workspace) = &self.workspace else { return };
        let mut state = self.state.lock();
        match &mut *state {
            State::Held(held) if held.len() + bytes.len() <= HELD_BYTES_MAX => held.extend_from_slice(bytes),
            State::Held(held) => {
                held.extend_from_slice(bytes);
                *state = writing(Arc::clone(workspace), self.task, std::mem::take(held));
            }
            // A writer that has given up says so at the end.
            State::Writing { pieces, .. } => drop(pieces.send(bytes.to_vec())),
        }
    }

    /// Waits until everything is in the file, and says which that is.
    pub async fn finish(&self) -> Kept {
        let state = std::mem::replace(&mut *self.state.lock(), State::Held(Vec::new()));
        let State::Writing { pieces, end } = state else { return Kept::default() };
        drop(pieces);
        match end.await.unwrap_or(Err(NotKept::CutOff)) {
            Ok(file) => Kept { file: Some(file), note: None },
            Err(why) => {
                tracing::info!(task = %self.task, %why, "a task's whole output is not kept");
                Kept { file: None, note: Some(format!("The whole output could not be kept in the workspace: {why}.")) }
            }
        }
    }
}

fn writing(workspace: Arc<Workspace>, task: TaskId, first: Vec<u8>) -> State {
    let (pieces, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
    let end = tokio::spawn(async move {
        let mut file = blocking(move || workspace.create_output(task).map_err(NotKept::NotMade)).await?;
        let mut batch = first;
        loop {
            file = blocking(move || Ok(file.append(&batch).map(|()| file)?)).await?;
            let Some(piece) = queue.recv().await else { return Ok(file.path().clone()) };
            batch = piece;
            while let Ok(piece) = queue.try_recv() {
                batch.extend(piece);
            }
        }
    });
    State::Writing { pieces, end }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, NotKept> + Send + 'static) -> Result<T, NotKept> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(NotKept::CutOff))
}
