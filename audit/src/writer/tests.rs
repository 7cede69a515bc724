//! The writer on a real disk that fails, lies or stalls when told to.

use std::path::Path;
use std::time::Duration;

use codegen_types::LogSeq;
use parking_lot::{Condvar, Mutex};
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;
use crate::sink::{Salvaged, Sink};
use crate::{Audit, Options, Record, Verdict, open, records, verify};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// Nothing is written, as on a full disk.
    NoSpace,
    /// Half of the bytes are written.
    ShortWrite,
    /// Everything is written and the sync fails.
    Sync,
    /// The sync does not return.
    Stall,
    /// No checkpoint can be kept.
    NoCheckpoint,
}

struct Disk {
    trouble: Mutex<Trouble>,
    changed: Condvar,
    syncs: Mutex<u64>,
    checkpoints: Mutex<u64>,
}

impl Disk {
    fn set(&self, trouble: Trouble) {
        *self.trouble.lock() = trouble;
        self.changed.notify_all();
    }

    fn now(&self) -> Trouble {
        *self.trouble.lock()
    }
}

struct TroubledSink {
    inner: Box<dyn Sink>,
    disk: Arc<Disk>,
}

fn no_space() -> std::io::Error {
    std::io::Error::from(std::io::ErrorKind::StorageFull)
}

impl Sink for TroubledSink {
    fn start_segment(&mut self, first: LogSeq) -> std::io::Result<()> {
        if self.disk.now() == Trouble::NoSpace { Err(no_space()) } else { self.inner.start_segment(first) }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self.disk.now() {
            Trouble::NoSpace => Err(no_space()),
            Trouble::ShortWrite => self.inner.write(&bytes[..bytes.len() / 2]).and(Err(no_space())),
            _ => self.inner.write(bytes),
        }
    }

    fn sync(&mut self) -> std::io::Result<()> {
        *self.disk.syncs.lock() += 1;
        let mut trouble = self.disk.trouble.lock();
        while *trouble == Trouble::Stall {
            self.disk.changed.wait(&mut trouble);
        }
        if *trouble == Trouble::Sync { Err(std::io::Error::other("EIO")) } else { self.inner.sync() }
    }

    fn finish_segment(&mut self) -> std::io::Result<()> {
        self.inner.finish_segment()
    }

    fn salvage(&mut self, durable_bytes: u64) -> std::io::Result<Salvaged> {
        if self.disk.now() == Trouble::None { self.inner.salvage(durable_bytes) } else { Err(no_space()) }
    }

    fn put_checkpoint(&mut self, size: u64, note: &[u8], place: CheckpointPlace) -> std::io::Result<()> {
        *self.disk.checkpoints.lock() += 1;
        if self.disk.now() == Trouble::NoCheckpoint {
            return Err(no_space());
        }
        self.inner.put_checkpoint(size, note, place)
    }
}

fn troubled(deadline: Duration, records_max: usize) -> (TempDir, Arc<Disk>, Audit) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk {
        trouble: Mutex::new(Trouble::None),
        changed: Condvar::new(),
        syncs: Mutex::default(),
        checkpoints: Mutex::default(),
    });
    let options = Options { checkpoint_records: 10, ..Options::new(dir.path()) };
    let mut prepared = open::open(&options).unwrap();
    prepared.log.wrap_sink(|inner| Box::new(TroubledSink { inner, disk: disk.clone() }));
    let queue = Arc::new(Queue::new(records_max));
    let audit = Audit::start(prepared.log, prepared.redactor, queue, deadline).unwrap();
    (dir, disk, audit)
}

fn entry(n: u64) -> Entry {
    Entry { kind: EventKind::TaskAttempt, bytes: Some(n), ..Entry::default() }
}

async fn until(health: &mut watch::Receiver<Health>, wanted: fn(&Health) -> bool) {
    tokio::time::timeout(Duration::from_secs(20), health.wait_for(wanted)).await.unwrap().unwrap();
}

fn is_writable(health: &Health) -> bool {
    *health == Health::Writable
}

fn numbers(dir: &Path) -> Vec<u64> {
    stored(dir)
        .iter()
        .filter(|record| record.kind == EventKind::TaskAttempt)
        .filter_map(|record| record.bytes)
        .collect()
}

fn stored(dir: &Path) -> Vec<Record> {
    records(dir, None).map(Result::unwrap).collect()
}

async fn fails_closed_and_recovers(trouble: Trouble) {
    let (dir, disk, audit) = troubled(Duration::from_secs(30), 100);
    let mut health = audit.health();
    audit.append(entry(1)).await.unwrap();
    disk.set(trouble);
    assert!(matches!(audit.append(entry(2)).await, Err(AuditUnavailable::Failing(_))));
    until(&mut health, |health| !is_writable(health)).await;
    assert!(matches!(audit.append(entry(3)).await, Err(AuditUnavailable::Failing(_))), "refused at once");
    assert!(matches!(audit.queue(entry(4)).await, Err(AuditUnavailable::Failing(_))), "kept, and not durable");
    assert_eq!(numbers(dir.path()).first(), Some(&1), "what was acknowledged is there all the time");
    disk.set(Trouble::None);
    until(&mut health, is_writable).await;
    assert_eq!(numbers(dir.path()), [1, 4], "what was kept is written before the log is writable again");
    audit.append(entry(5)).await.unwrap();
    audit.close().await;
    assert_eq!(numbers(dir.path()), [1, 4, 5]);
    assert_eq!(verify(dir.path(), None).verdict, Verdict::Whole);
    let recovered = stored(dir.path()).into_iter().find(|record| record.kind == EventKind::LogRecovered).unwrap();
    assert_eq!(recovered.detail.unwrap()["after"], "write failure");
    let segments = crate::layout::segments(dir.path()).unwrap();
    assert!(segments.iter().any(|segment| segment.first == recovered.seq), "it goes on in a new segment");
}

#[tokio::test]
async fn a_full_disk_fails_closed_and_recovers() {
    fails_closed_and_recovers(Trouble::NoSpace).await;
}

#[tokio::test]
async fn a_short_write_fails_closed_and_recovers() {
    fails_closed_and_recovers(Trouble::ShortWrite).await;
}

#[tokio::test]
async fn a_failed_sync_fails_closed_and_recovers() {
    fails_closed_and_recovers(Trouble::Sync).await;
}

#[tokio::test]
async fn a_stalled_disk_is_bounded_by_the_deadline_and_what_came_too_late_is_withdrawn() {
    let (dir, disk, audit) = troubled(Duration::from_millis(50), 100);
    let mut health = audit.health();
    let before = *disk.syncs.lock();
    disk.set(Trouble::Stall);
    assert_eq!(audit.append(entry(1)).await, Err(AuditUnavailable::Deadline));
    assert!(*disk.syncs.lock() > before, "it was being written");
    assert!(!is_writable(&health.borrow_and_update()));
    assert!(matches!(audit.append(entry(2)).await, Err(AuditUnavailable::Failing(_))), "refused at once");
    drop(audit.queue(entry(3)));
    disk.set(Trouble::None);
    until(&mut health, is_writable).await;
    audit.close().await;
    assert_eq!(numbers(dir.path()), [1, 3]);
    let records = stored(dir.path());
    let late = records.iter().find(|record| record.bytes == Some(1)).unwrap();
    let withdrawn = records.iter().find(|record| record.kind == EventKind::LogWithdrawn).unwrap();
    assert_eq!((withdrawn.cites, withdrawn.code), (Some(late.seq), Some(ErrorCode::AuditUnavailable)));
    assert_eq!(verify(dir.path(), None).verdict, Verdict::Whole);
}

#[tokio::test]
async fn an_append_given_up_while_it_waits_never_reaches_the_log() {
    let (dir, disk, audit) = troubled(Duration::from_secs(30), 100);
    disk.set(Trouble::Stall);
    let blocker = tokio::spawn({
        let audit = audit.clone();
        async move { audit.append(entry(1)).await }
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    while *disk.syncs.lock() == 0 {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let given_up = tokio::time::timeout(Duration::from_millis(1), audit.append(entry(2))).await;
    assert!(given_up.is_err());
    disk.set(Trouble::None);
    blocker.await.unwrap().unwrap();
    audit.close().await;
    assert_eq!(numbers(dir.path()), [1]);
}

#[tokio::test]
async fn a_full_queue_refuses_attempts_before_what_must_be_kept() {
    let (dir, disk, audit) = troubled(Duration::from_secs(30), 3);
    disk.set(Trouble::Stall);
    let first = audit.queue(entry(0));
    let deadline = Instant::now() + Duration::from_secs(10);
    while *disk.syncs.lock() == 0 {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let waiting: Vec<_> = (1..=3).map(|n| audit.queue(entry(n))).collect();
    assert_eq!(audit.append(entry(4)).await, Err(AuditUnavailable::QueueFull));
    let more: Vec<_> = (5..=7).map(|n| audit.queue(entry(n))).collect();
    assert_eq!(audit.queue(entry(8)).await, Err(AuditUnavailable::QueueFull));
    disk.set(Trouble::None);
    for pending in [first].into_iter().chain(waiting).chain(more) {
        pending.await.unwrap();
    }
    audit.close().await;
    assert_eq!(numbers(dir.path()), [0, 1, 2, 3, 5, 6, 7]);
}

#[tokio::test]
async fn many_waiting_records_cost_one_sync() {
    let (_dir, disk, audit) = troubled(Duration::from_secs(30), 1_000);
    disk.set(Trouble::Stall);
    let pending: Vec<_> = (0..500).map(|n| audit.queue(entry(n))).collect();
    disk.set(Trouble::None);
    for one in pending {
        one.await.unwrap();
    }
    assert!(*disk.syncs.lock() <= 3, "{} syncs", disk.syncs.lock());
    audit.close().await;
}

#[tokio::test]
async fn two_records_of_one_thing_stand_side_by_side_also_after_a_failure_and_cost_one_sync() {
    let (dir, disk, audit) = troubled(Duration::from_secs(30), 100);
    let mut health = audit.health();
    let before = *disk.syncs.lock();
    let pair = |n| audit.queue_after(entry(n), Entry { kind: EventKind::TaskOutcome, ..entry(n) });
    let second = pair(1).await.unwrap();
    assert_eq!(*disk.syncs.lock(), before + 1);
    audit.append(entry(2)).await.unwrap();
    disk.set(Trouble::ShortWrite);
    pair(3).await.unwrap_err();
    until(&mut health, |health| !is_writable(health)).await;
    disk.set(Trouble::None);
    until(&mut health, is_writable).await;
    audit.close().await;
    assert_eq!(numbers(dir.path()), [1, 2, 3]);
    let records = stored(dir.path());
    let ends: Vec<&Record> = records.iter().filter(|record| record.kind == EventKind::TaskOutcome).collect();
    assert_eq!((ends[0].seq, ends.len()), (second, 2));
    for end in ends {
        let cited = records.iter().find(|record| Some(record.seq) == end.cites).unwrap();
        assert_eq!((cited.kind, cited.bytes, cited.seq.0 + 1), (EventKind::TaskAttempt, end.bytes, end.seq.0));
    }
    assert_eq!(verify(dir.path(), None).verdict, Verdict::Whole);
}

#[tokio::test]
async fn records_lost_to_a_full_queue_are_counted_on_record() {
    let (dir, disk, audit) = troubled(Duration::from_secs(30), 1);
    let mut health = audit.health();
    disk.set(Trouble::NoSpace);
    audit.queue(entry(0)).await.unwrap_err();
    until(&mut health, |health| !is_writable(health)).await;
    audit.queue(entry(1)).await.unwrap_err();
    assert_eq!(audit.queue(entry(2)).await, Err(AuditUnavailable::QueueFull));
    disk.set(Trouble::None);
    until(&mut health, is_writable).await;
    audit.close().await;
    let recovered = stored(dir.path()).into_iter().find(|record| record.kind == EventKind::LogRecovered).unwrap();
    assert_eq!(recovered.detail.unwrap()["lost_records"], 1);
    assert_eq!(numbers(dir.path()), [0, 1]);
}

#[tokio::test]
async fn a_checkpoint_that_fails_is_tried_again_only_after_its_interval() {
    let (dir, disk, audit) = troubled(Duration::from_secs(30), 100);
    disk.set(Trouble::NoCheckpoint);
    for number in 0..50 {
        audit.append(entry(number)).await.unwrap();
    }
    assert!((1..=2).contains(&*disk.checkpoints.lock()), "{} tries", disk.checkpoints.lock());
    disk.set(Trouble::None);
    audit.close().await;
    assert_eq!(verify(dir.path(), None).verdict, Verdict::Whole);
}
