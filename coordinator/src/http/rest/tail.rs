//! The end of the log, read by one reader for everybody who follows what happens.
//!
//! It reads while somebody follows, and nobody else looks at the log but to catch up with what was missed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use codegen_audit::{BadLine, EventKind, ReadError, Record, Records, last_segment_start, records};
use codegen_types::{ErrorCode, Failure, LogSeq, Principal, SessionId};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

/// How often the log is looked at for more.
const INTERVAL: Duration = Duration::from_millis(200);
/// Records that are read at once.
const BATCH_MAX: usize = 256;
/// Events that wait for the slowest follower. More than that, and it is told that it missed some.
const NEWS: usize = 1_024;
/// A client that missed more records than this is told to look anew.
const MISSED_MAX: u64 = 10_000;

/// Something in the log that is told.
#[derive(Debug)]
pub(super) struct Happened {
    /// Its number in the log.
    pub(super) seq: u64,
    /// The session whose readers are told of it.
    pub(super) session: Option<SessionId>,
    /// Who is told where there is no session.
    pub(super) principal: Option<Principal>,
    /// The event's name.
    pub(super) name: &'static str,
    /// The file it was about, which not everybody may see.
    pub(super) path: Option<String>,
    /// Everything else.
    pub(super) data: Value,
}

/// What a follower hears of the log.
#[derive(Debug, Clone)]
pub(super) enum Heard {
    /// Something happened.
    Happened(Arc<Happened>),
    /// Something may have happened that cannot be told.
    Gap,
    /// The log cannot be read any further.
    Broken,
}

/// The end of the log. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail(Arc<Mutex<Option<Running>>>);

/// The reader, while somebody follows.
#[derive(Debug)]
struct Running {
    news: broadcast::Sender<Heard>,
    end: watch::Receiver<Option<u64>>,
}

/// A follower's place.
#[derive(Debug)]
pub(super) struct Follower {
    /// What comes from now on.
    pub(super) news: broadcast::Receiver<Heard>,
    /// The number of the last record before.
    pub(super) end: u64,
}

/// Some of the log.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) heard: Vec<Heard>,
    /// The number of the last record that was looked at.
    pub(super) last: Option<u64>,
    /// Whether there may be more just now.
    pub(super) more: bool,
}

impl Tail {
    /// Follows the log from now on.
    ///
    /// # Errors
    /// `INTERNAL` when it cannot be read.
    pub(super) async fn follow(&self, dir: PathBuf) -> Result<Follower, Failure> {
        let (news, mut end) = self.join(dir);
        let end = end.wait_for(Option::is_some).await.map_err(|_| unreadable())?;
        Ok(Follower { news, end: end.unwrap_or_default() })
    }

    fn join(&self, dir: PathBuf) -> (broadcast::Receiver<Heard>, watch::Receiver<Option<u64>>) {
        let mut running = self.0.lock();
        let running = running.get_or_insert_with(|| {
            let (news, (said, end)) = (broadcast::Sender::new(NEWS), watch::channel(None));
            tokio::spawn(self.clone().run(dir, news.clone(), said));
            Running { news, end }
        });
        (running.news.subscribe(), running.end.clone())
    }

    /// Reads until nobody follows any more, or the log cannot be read.
    async fn run(self, dir: PathBuf, news: broadcast::Sender<Heard>, end: watch::Sender<Option<u64>>) {
        let begun = tokio::task::spawn_blocking(move || at_end(&dir)).await;
        let Ok(Ok((mut log, last))) = begun else {
            *self.0.lock() = None;
            return;
        };
        end.send_replace(Some(last));
        loop {
            let Ok((back, batch)) = tokio::task::spawn_blocking(move || read(log)).await else {
                *self.0.lock() = None;
                return;
            };
            log = back;
            let is_broken = batch.is_broken();
            if is_broken {
                // Whoever comes now begins anew.
                *self.0.lock() = None;
            }
            for heard in batch.heard {
                // Those who followed may have left.
                let _ = news.send(heard);
            }
            if let Some(last) = batch.last {
                end.send_replace(Some(last));
            }
            if is_broken {
                return;
            }
            if batch.more {
                continue;
            }
            tokio::time::sleep(INTERVAL).await;
            let mut running = self.0.lock();
            if news.receiver_count() == 0 {
                *running = None;
                return;
            }
        }
    }
}

impl Batch {
    fn is_broken(&self) -> bool {
        matches!(self.heard.last(), Some(Heard::Broken))
    }
}

impl Happened {
    /// What is told of a record, when it is one of those that are.
    fn of(record: Record) -> Option<Self> {
        let (name, what) = name_of(record.kind)?;
        let mut data = json!({
            "what": what, "at": record.ts, "session_id": record.session, "task_id": record.task, "tool": record.tool,
            "outcome": record.outcome, "code": record.code,
        });
        if let Some(caller) = asked_by(&record) {
            data["approval"] = json!(record.detail.as_ref().and_then(|detail| detail.get("approval")));
            let principal = Some(Principal::from_stored(caller));
            return Some(Self { seq: record.seq.0, session: None, principal, name, path: None, data });
        }
        let Record { seq, session, principal, path, .. } = record;
        Some(Self { seq: seq.0, session, principal, name, path, data })
    }
}

/// Whose call an approval is about: that principal alone is told of it, since the call names any session it likes.
fn asked_by(record: &Record) -> Option<String> {
    let detail = |name: &str| record.detail.as_ref().and_then(|detail| Some(detail.get(name)?.as_str()?.to_owned()));
    match record.kind {
        EventKind::ApprovalRequested => Some(record.principal.as_ref().map(ToString::to_string).unwrap_or_default()),
        EventKind::ApprovalDecided => Some(detail("caller").unwrap_or_default()),
        _ => None,
    }
}

/// The log behind its last record, and that one's number.
fn at_end(dir: &Path) -> Result<(Records, u64), ReadError> {
    let told = |error: ReadError| {
        let shown: &(dyn std::error::Error + 'static) = &error;
        tracing::error!(error = shown, "the log could not be followed");
        error
    };
    let mut log = records(dir, last_segment_start(dir).map_err(told)?);
    let mut end = 0;
    for record in log.by_ref() {
        match record {
            Ok(record) => end = record.seq.0,
            Err(error) if is_over(&error) => return Err(told(error)),
            Err(_) => {}
        }
    }
    Ok((log, end))
}

/// The log behind the last event that a client saw; none when that is none of the log's, or too long ago.
pub(super) fn behind(dir: &Path, seen: u64, end: u64) -> Option<Records> {
    if seen.abs_diff(end) > MISSED_MAX {
        return None;
    }
    if seen == 0 {
        return Some(records(dir, None));
    }
    let mut log = records(dir, Some(LogSeq(seen)));
    let first = log.next()?.ok()?;
    (first.seq.0 == seen).then_some(log)
}

/// Reads some of the log.
pub(super) fn read(mut log: Records) -> (Records, Batch) {
    let mut batch = Batch::default();
    for looked_at in 0..BATCH_MAX {
        batch.more = looked_at + 1 == BATCH_MAX;
        match log.next() {
            None => break,
            Some(Ok(record)) => {
                batch.last = Some(record.seq.0);
                batch.heard.extend(Happened::of(record).map(|happened| Heard::Happened(Arc::new(happened))));
            }
            Some(Err(error)) if is_over(&error) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::error!(error, "the log could not be followed");
                batch.heard.push(Heard::Broken);
                break;
            }
            Some(Err(_)) => batch.heard.push(Heard::Gap),
        }
    }
    (log, batch)
}

/// Whether nothing can be read behind this.
fn is_over(error: &ReadError) -> bool {
    matches!(error, ReadError::Io { .. } | ReadError::Bad { bad: BadLine::NotWhole, .. })
}

pub(super) fn unreadable() -> Failure {
    Failure::new(ErrorCode::Internal, "the log could not be followed")
}

/// How a record's kind is told: the event's name, and what happened. Only what happens in sessions is.
const fn name_of(kind: EventKind) -> Option<(&'static str, &'static str)> {
    match kind {
        EventKind::SessionCreated => Some(("session", "created")),
        EventKind::SessionOpening => Some(("session", "opening")),
        EventKind::SessionOpened => Some(("session", "opened")),
        EventKind::SessionSuspended => Some(("session", "suspended")),
        EventKind::SessionLost => Some(("session", "lost")),
        EventKind::SessionUpdated => Some(("session", "updated")),
        EventKind::SessionShared => Some(("session", "shared")),
        EventKind::SessionUnshared => Some(("session", "unshared")),
        EventKind::SessionClosing => Some(("session", "closing")),
        EventKind::SessionClosed => Some(("session", "closed")),
        EventKind::SessionExpired => Some(("session", "expired")),
        EventKind::ApprovalRequested => Some(("approval", "requested")),
        EventKind::ApprovalDecided => Some(("approval", "decided")),
        EventKind::TaskAttempt => Some(("task", "started")),
        EventKind::TaskOutcome | EventKind::TaskUnknown => Some(("task", "ended")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use codegen_audit::{Audit, Entry, Options};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn one_reader_tells_everybody_and_ends_when_nobody_follows() {
        let dir = tempfile::tempdir().unwrap();
        let (audit, _) = Audit::open(Options::new(dir.path())).await.unwrap();
        let created = || Entry { kind: EventKind::SessionCreated, ..Entry::default() };
        let before = audit.append(created()).await.unwrap();
        let tail = Tail::default();
        let mut followers = Vec::new();
        for _ in 0..3 {
            followers.push(tail.follow(dir.path().to_owned()).await.unwrap());
        }
        let after = audit.append(created()).await.unwrap();
        for follower in &mut followers {
            assert_eq!(follower.end, before.0);
            let heard = tokio::time::timeout(PATIENCE, follower.news.recv()).await.unwrap().unwrap();
            assert!(matches!(heard, Heard::Happened(happened) if happened.seq == after.0));
        }
        drop(followers);
        let begun = std::time::Instant::now();
        while tail.0.lock().is_some() {
            assert!(begun.elapsed() < PATIENCE, "the reader ends");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn only_what_is_in_the_log_and_not_too_long_ago_is_caught_up_with() {
        let dir = tempfile::tempdir().unwrap();
        let (audit, _) = Audit::open(Options::new(dir.path())).await.unwrap();
        for _ in 0..5 {
            audit.append(Entry { kind: EventKind::SessionCreated, ..Entry::default() }).await.unwrap();
        }
        let end = at_end(dir.path()).unwrap().1;
        let left = |seen: u64| behind(dir.path(), seen, end).map(|log| read(log).1.heard.len());
        assert_eq!(left(end - 2), Some(2));
        assert_eq!(left(end), Some(0));
        assert_eq!((left(0), left(end + 1), left(u64::MAX)), (Some(5), None, None));
        assert!(behind(dir.path(), 1, MISSED_MAX + 2).is_none());
    }
}
