//! News of changed files, for whoever follows a session's workspace.
//!
//! Nobody waits for a follower: one that falls behind is told that anything may have changed, and looks again.

use std::sync::Arc;

use codegen_types::event::{ChangeKind, FileChange};
use codegen_types::{Operation, OperationResult, SessionId, WorkspacePath};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::call::Completed;
use crate::store::StoredOutcome;

/// News that wait for the slowest follower. More than that, and it is told that it missed some.
const NEWS: usize = 256;

/// Files of one session changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// In which session.
    pub session: SessionId,
    /// Which; `None` when they are not all known.
    pub files: Option<Vec<FileChange>>,
}

/// Where changes are told and followed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Changes {
    sender: broadcast::Sender<News>,
}

/// What a follower hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Files of one session changed.
    Changed(Arc<Changed>),
    /// The transcript of a session changed, and may go on to for a moment without a word.
    Transcript(SessionId),
    /// It fell behind: anything may have changed in any session.
    Missed,
}

/// A follower's place in the news.
#[derive(Debug)]
pub struct ChangesFollower {
    receiver: broadcast::Receiver<News>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(NEWS) }
    }
}

impl Changes {
    /// Follows what changes from now on, in all sessions.
    pub fn follow(&self) -> ChangesFollower {
        ChangesFollower { receiver: self.sender.subscribe() }
    }

    /// Tells that files changed.
    pub fn tell(&self, session: SessionId, files: Option<Vec<FileChange>>) {
        // Nobody need follow.
        let _ = self.sender.send(News::Changed(Arc::new(Changed { session, files })));
    }

    /// Tells that a session's transcript changed.
    pub fn tell_transcript(&self, session: SessionId) {
        let _ = self.sender.send(News::Transcript(session));
    }

    /// Tells what a task changed, which may have ended in any way.
    pub(super) fn tell_outcome(&self, session: SessionId, operation: &Operation, outcome: &StoredOutcome, lost: bool) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        match of_outcome(operation, outcome, lost) {
            Some(files) if files.is_empty() => {}
            files => self.tell(session, files),
        }
    }
}

impl ChangesFollower {
    /// The next news; `None` when there will be none any more. May be given up at any await.
    pub async fn next(&mut self) -> Option<News> {
        match self.receiver.recv().await {
            Ok(news) => Some(news),
            Err(RecvError::Lagged(_)) => Some(News::Missed),
            Err(RecvError::Closed) => None,
        }
    }
}

/// What a task changed; `None` when that is not all known.
fn of_outcome(operation: &Operation, outcome: &StoredOutcome, lost: bool) -> Option<Vec<FileChange>> {
    let one = |path: &WorkspacePath, change, size| FileChange { path: path.clone(), change, size };
    let completed = outcome.result.as_ref().ok().or(outcome.partial.as_ref());
    let result = completed.and_then(|completed| completed.result.as_ref());
    Some(match operation {
        Operation::Read(_) | Operation::List(_) | Operation::Stat(_) | Operation::Search(_) | Operation::Kernels(_) => {
            Vec::new()
        }
        _ if lost => return None,
        Operation::Exec(_) => return completed.map_or(Some(Vec::new()), of_program),
        Operation::Write(write) => match result {
            Some(OperationResult::Write { stat, created: true }) => {
                vec![one(&write.path, ChangeKind::Created, stat.size)]
            }
            Some(OperationResult::Write { stat, .. }) => vec![one(&write.path, ChangeKind::Modified, stat.size)],
            _ => Vec::new(),
        },
        Operation::Edit(edit) => match result {
            Some(OperationResult::Edit(edited)) => vec![one(&edit.path, ChangeKind::Modified, edited.stat.size)],
            _ => Vec::new(),
        },
        Operation::Move(rename) => match result {
            Some(OperationResult::Move { stat }) => {
                vec![one(&rename.from, ChangeKind::Deleted, 0), one(&rename.to, ChangeKind::Created, stat.size)]
            }
            _ => Vec::new(),
        },
        // One that failed may have deleted a part.
        Operation::Remove(remove) => vec![one(&remove.path, ChangeKind::Deleted, 0)],
    })
}

/// What a program changed, and what the worker kept of it beside.
fn of_program(completed: &Completed) -> Option<Vec<FileChange>> {
    let Some(OperationResult::Exec(exit)) = &completed.result else { return Some(Vec::new()) };
    if exit.files_changed_truncated {
        return None;
    }
    let mut files = exit.files_changed.clone();
    let shown = completed.displays.iter().filter_map(|display| display.path.as_ref());
    for path in shown.chain(&exit.output_file) {
        if !files.iter().any(|change| change.path == *path) {
            files.push(FileChange { path: path.clone(), change: ChangeKind::Created, size: 0 });
        }
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    use codegen_types::operation::{Exec, Pictures, Program, Read, Remove};
    use codegen_types::{ErrorCode, Exit, Failure};

    use super::*;

    fn path(text: &str) -> WorkspacePath {
        WorkspacePath::parse(text).unwrap()
    }

    fn exec() -> Operation {
        Operation::Exec(Exec::of(Program::Shell { command: String::new() }))
    }

    fn ended(exit: Option<Exit>) -> StoredOutcome {
        let failure = Failure::new(ErrorCode::TaskTimeout, "too long");
        let captured = super::super::call::Captured::default;
        let partial = exit.map(|exit| Completed {
            result: Some(OperationResult::Exec(exit)),
            stdout: captured(),
            stderr: captured(),
            both: captured(),
            displays: Vec::new(),
            overlapped: Vec::new(),
        });
        StoredOutcome { result: Err(failure), partial }
    }

    #[tokio::test]
    async fn a_follower_that_falls_behind_is_told_so_and_goes_on() {
        let (changes, session) = (Changes::default(), SessionId::mint());
        let mut follower = changes.follow();
        for _ in 0..=NEWS {
            changes.tell(session, None);
        }
        assert_eq!(follower.next().await, Some(News::Missed));
        assert!(matches!(follower.next().await, Some(News::Changed(_))));
        drop(changes);
        while follower.next().await.is_some() {}
    }

    #[test]
    fn a_program_that_was_ended_tells_what_it_had_changed() {
        let change = FileChange { path: path("a"), change: ChangeKind::Created, size: 1 };
        let exit = Exit { files_changed: vec![change.clone()], ..Exit::default() };
        assert_eq!(of_outcome(&exec(), &ended(Some(exit.clone())), false), Some(vec![change]));
        let more = Exit { files_changed_truncated: true, ..exit };
        assert_eq!(of_outcome(&exec(), &ended(Some(more)), false), None);
        assert_eq!(of_outcome(&exec(), &ended(None), false), Some(Vec::new()), "it was never started");
        assert_eq!(of_outcome(&exec(), &ended(None), true), None, "nobody knows");
    }

    #[test]
    fn reading_changes_nothing_and_a_failed_deletion_may_have() {
        let read = Operation::Read(Read { path: path("a"), offset: 0, limit: None, pictures: Pictures::AsBytes });
        assert_eq!(of_outcome(&read, &ended(None), true), Some(Vec::new()));
        let remove = Operation::Remove(Remove { path: path("a"), recursive: true });
        assert_eq!(of_outcome(&remove, &ended(None), false).map(|files| files.len()), Some(1));
    }
}
