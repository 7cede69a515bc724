//! What a row holds.

use std::collections::BTreeMap;

use codegen_types::{Display, Failure, IsolationReport, LogSeq, Principal, SessionId, SessionNetwork, TaskId};
use coordinator_core::idempotency::ArgumentDigest;
use coordinator_core::session::{SessionState, Shares};
use coordinator_core::task::TaskState;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::session::{Captured, Completed, CreationKey, Receipt};

/// The most bytes of output and shown things that a task's row keeps.
pub const OUTCOME_BYTES_MAX: usize = TEXT_BYTES_MAX + PICTURES_BYTES_MAX;

/// The most bytes of pictures among them: as many as an answer shows, so that a task that is asked for later gives what
/// its call would have given.
const PICTURES_BYTES_MAX: usize = 4 << 20;
/// The most bytes of everything else.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// The most bytes of values and reports among that, with room for what is said of those that are not kept.
const VALUES_BYTES_MAX: usize = TEXT_BYTES_MAX / 2 - (16 << 10);

/// A session at rest.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    /// The handle.
    pub id: SessionId,
    /// Whose it is.
    pub principal: Principal,
    /// With whom it is shared.
    pub shares: Shares,
    /// A name for people.
    pub name: Option<String>,
    /// The caller's own notes.
    pub metadata: BTreeMap<String, Value>,
    /// What it may reach outside its sandbox.
    pub network: SessionNetwork,
    /// Under which idempotency key it was made.
    pub key: Option<CreationKey>,
    /// Where it stands.
    pub state: SessionState,
    /// What its sandbox had last.
    pub isolation: Option<IsolationReport>,
    /// Idle time after which its processes are ended, in milliseconds.
    pub ttl_ms: u64,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// When it was last used, in milliseconds since the Unix epoch.
    pub last_used_ms: i64,
    /// Tasks that were ever started in it.
    pub tasks: u64,
    /// Bytes that its workspace took when its processes were last ended in good order; unknown until they first are, and
    /// in a row that was made again from the log.
    pub workspace_bytes: Option<u64>,
    /// What its tasks used.
    pub receipt: Receipt,
    /// Counts the writes of this row, from 1.
    pub revision: u64,
    /// The record that this row follows.
    pub audit_seq: LogSeq,
}

/// A task at rest.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRow {
    /// The task.
    pub id: TaskId,
    /// Its session.
    pub session: SessionId,
    /// Who asked for it.
    pub principal: Principal,
    /// By which tool.
    pub tool: String,
    /// Under which idempotency key.
    pub key: Option<String>,
    /// Of its tool and arguments.
    pub digest: ArgumentDigest,
    /// Where it stands.
    pub state: TaskState,
    /// The record of its attempt.
    pub attempt: LogSeq,
    /// The record of its outcome, when it is known to be durable.
    pub outcome_seq: Option<LogSeq>,
    /// When it began, in milliseconds since the Unix epoch.
    pub begun_ms: i64,
    /// When it ended, in milliseconds since the Unix epoch.
    pub ended_ms: Option<i64>,
    /// What it gave.
    pub outcome: Option<StoredOutcome>,
    /// Counts the writes of this row, from 1.
    pub revision: u64,
}

/// What a task gave, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOutcome {
    /// What it gave, or why it did not.
    pub result: Result<Completed, Failure>,
    /// What had been written and used when it did not complete.
    pub partial: Option<Completed>,
}

impl StoredOutcome {
    /// The part with output, if there is one.
    pub fn completed(&self) -> Option<&Completed> {
        self.result.as_ref().ok().or(self.partial.as_ref())
    }

    fn completed_mut(&mut self) -> Option<&mut Completed> {
        match &mut self.result {
            Ok(completed) => Some(completed),
            Err(_) => self.partial.as_mut(),
        }
    }

    /// Bytes of output and shown things.
    pub fn bytes(&self) -> u64 {
        let count = |captured: &Captured| captured.head.len() + captured.tail.len();
        let of = |completed: &Completed| {
            let shown: usize = completed.displays.iter().map(|display| display.data.len()).sum();
            count(&completed.stdout) + count(&completed.stderr) + count(&completed.both) + shown
        };
        self.completed().map_or(0, |completed| of(completed) as u64)
    }

    /// The outcome within [`OUTCOME_BYTES_MAX`]: of shown things that do not fit only the names stay, of output the
    /// beginning and the end.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let Some(completed) = self.completed_mut() else { return self };
        keep_displays(&mut completed.displays);
        let each = if completed.both.written() == 0 { TEXT_BYTES_MAX / 4 } else { TEXT_BYTES_MAX / 8 };
        completed.stdout.cut_to(each);
        completed.stderr.cut_to(each);
        completed.both.cut_to(TEXT_BYTES_MAX / 4);
        self
    }

    /// Takes the output out, so that it can be kept beside the rest.
    pub(super) fn take_output(&mut self) -> [Vec<u8>; 6] {
        self.completed_mut().map_or_else(Default::default, |completed| {
            let (out, err, both) = (&mut completed.stdout, &mut completed.stderr, &mut completed.both);
            [&mut out.head, &mut out.tail, &mut err.head, &mut err.tail, &mut both.head, &mut both.tail]
                .map(std::mem::take)
        })
    }

    /// Puts back what [`take_output`](Self::take_output) took.
    pub(super) fn put_output(&mut self, [out_head, out_tail, err_head, err_tail, both_head, both_tail]: [Vec<u8>; 6]) {
        if let Some(completed) = self.completed_mut() {
            (completed.stdout.head, completed.stdout.tail) = (out_head, out_tail);
            (completed.stderr.head, completed.stderr.tail) = (err_head, err_tail);
            (completed.both.head, completed.both.tail) = (both_head, both_tail);
        }
    }
}

/// Empties what does not fit and leaves its type and path. Of values and reports the last ones stay, of pictures, all of
/// which the workspace keeps, the first.
fn keep_displays(displays: &mut [Display]) {
    let is_picture = |display: &&mut Display| display.mime.starts_with("image/");
    let mut room = VALUES_BYTES_MAX;
    displays.iter_mut().rev().filter(|display| !is_picture(display)).for_each(|display| keep(display, &mut room));
    let mut room = PICTURES_BYTES_MAX;
    displays.iter_mut().filter(is_picture).for_each(|display| keep(display, &mut room));
}

fn keep(display: &mut Display, room: &mut usize) {
    match room.checked_sub(display.data.len()) {
        Some(left) => *room = left,
        None if display.mime == "text/plain" => {
            display.data = format!("[a value of {} bytes, which is not kept]", display.data.len()).into_bytes();
        }
        None => display.data = Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_outcome_is_bounded_and_says_what_is_missing() {
        let stdout = Captured { head: vec![b'a'; 900_000], tail: vec![b'z'; 900_000], omitted: 7 };
        let display = |n: usize| Display { mime: "image/png".to_owned(), path: None, data: vec![0; n] };
        let report = Display { mime: "application/x+json".to_owned(), ..display(100_000) };
        let completed = Completed {
            result: None,
            stderr: stdout.clone(),
            both: stdout.clone(),
            stdout,
            displays: vec![
                display(1 << 20),
                display(1 << 20),
                display(1 << 20),
                display(1_000_000),
                display(100_000),
                report.clone(),
                Display { data: vec![0; 450_000], ..report },
                display(10),
            ],
            overlapped: vec![],
        };
        let kept = StoredOutcome { result: Ok(completed), partial: None }.bounded();
        assert!(kept.bytes() <= OUTCOME_BYTES_MAX as u64, "{}", kept.bytes());
        let completed = kept.completed().unwrap();
        let kept: Vec<usize> = completed.displays.iter().map(|display| display.data.len()).collect();
        assert_eq!(
            kept,
            [1 << 20, 1 << 20, 1 << 20, 1_000_000, 0, 0, 450_000, 10],
            "pictures have room of their own, and what is not kept is still named"
        );
        let stdout = &completed.stdout;
        assert_eq!(stdout.head.len() as u64 + stdout.tail.len() as u64 + stdout.omitted, 1_800_007);
        assert_eq!((stdout.head.first(), stdout.tail.last()), (Some(&b'a'), Some(&b'z')));
    }
}
