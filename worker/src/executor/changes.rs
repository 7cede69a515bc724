//! Telling which files change while a program still runs.

use std::sync::Arc;
use std::time::Duration;

use codegen_types::EventBody;
use codegen_types::event::FileChange;
use sandbox::files::{Scan, Workspace};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::files;
use crate::tasks::Task;

/// The first look comes after so long, and no two come closer together. What runs for less is told by its outcome.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Looking never takes more than this part of the time.
const SHARE: u32 = 20;
/// A program that has run for so long is looked at only once per [`INTERVAL_MIN`]; ten times as long, ten times as
/// rarely. So an hour gives fewer than a thousand events.
const STEADY: u32 = 240;
/// The names of changed files that one task's events may hold together, in bytes: the events are kept as long as the
/// task's outcome.
const NAMES_BYTES_MAX: usize = 512 << 10;
/// What a change costs beside its name, in bytes.
const CHANGE_BYTES: usize = 64;

/// Looks at the workspace again and again until the program has `exited`, and tells what changed since `before` or the
/// last look. When names would take too much, an empty list says that something changed.
pub(super) async fn tell(task: &Task, workspace: &Arc<Workspace>, before: &Scan, exited: &CancellationToken) {
    let looking = async {
        let began = Instant::now();
        let (mut names, mut pause) = (Names { bytes_left: NAMES_BYTES_MAX }, INTERVAL_MIN);
        let mut last: Option<Scan> = None;
        loop {
            tokio::time::sleep(pause).await;
            let look = Instant::now();
            // A workspace that cannot be read just now is looked at again.
            if let Ok(now) = files::scan(workspace).await {
                let (changes, truncated) = last.as_ref().unwrap_or(before).changes_to(&now);
                if !changes.is_empty() || (truncated && last.as_ref().unwrap_or(before) != &now) {
                    task.push(EventBody::FilesChanged(names.within_bounds(changes, truncated)));
                }
                last = Some(now);
            }
            pause = INTERVAL_MIN.max(look.elapsed() * SHARE).max(began.elapsed() / STEADY);
        }
    };
    tokio::select! {
        () = exited.cancelled() => {}
        () = looking => {}
    }
}

/// What may still be named.
struct Names {
    bytes_left: usize,
}

impl Names {
    /// The changes, or an empty list when they are not all known or are too many to keep.
    fn within_bounds(&mut self, changes: Vec<FileChange>, truncated: bool) -> Vec<FileChange> {
        let bytes = changes.iter().map(|change| CHANGE_BYTES + change.path.as_str().len()).sum();
        match self.bytes_left.checked_sub(bytes) {
            Some(left) if !truncated => {
                self.bytes_left = left;
                changes
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use codegen_types::WorkspacePath;
    use codegen_types::event::ChangeKind;

    use super::*;

    fn changes(count: usize) -> Vec<FileChange> {
        let path = WorkspacePath::parse(&"x".repeat(200)).unwrap();
        vec![FileChange { path, change: ChangeKind::Modified, size: 1 }; count]
    }

    #[test]
    fn names_are_told_as_long_as_they_are_few() {
        let mut names = Names { bytes_left: NAMES_BYTES_MAX };
        let told = (0..1_000).map(|_| names.within_bounds(changes(100), false)).filter(|told| !told.is_empty());
        assert_eq!(told.count(), NAMES_BYTES_MAX / (100 * (200 + CHANGE_BYTES)));
        assert!(names.within_bounds(changes(1), true).is_empty(), "what is not all is told as unknown");
    }

    #[test]
    fn an_hour_gives_fewer_than_a_thousand_events() {
        let (mut at, mut events) = (INTERVAL_MIN, 1);
        while at < Duration::from_secs(3_600) {
            at += INTERVAL_MIN.max(at / STEADY);
            events += 1;
        }
        assert!(events < 1_000, "{events}");
    }
}
