//! Durability, order, rotation and the one writer.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use codegen_audit::{Audit, AuditUnavailable, EventKind, OpenError, Options, Verdict, records, verify};
use codegen_types::LogSeq;

use crate::stored;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_acknowledged_record_of_64_appenders_is_on_disk_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (audit, _) = stored::open(dir.path(), 100_000).await;
    let appenders = (0..64_u64).map(|appender| {
        let audit = audit.clone();
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for n in 0..20 {
                acknowledged
                    .push((audit.append(stored::attempt(appender * 100 + n)).await.unwrap(), appender * 100 + n));
            }
            assert!(acknowledged.is_sorted(), "an appender's records are in its order");
            acknowledged
        })
    });
    let mut acknowledged = Vec::new();
    for appender in appenders.collect::<Vec<_>>() {
        acknowledged.extend(appender.await.unwrap());
    }
    // Before closing: what was acknowledged must not depend on it.
    let on_disk: BTreeSet<(LogSeq, u64)> =
        stored::all(dir.path()).iter().filter_map(|record| Some((record.seq, record.bytes?))).collect();
    assert_eq!(on_disk, acknowledged.into_iter().collect());
    assert_eq!(verify(dir.path(), None).verdict, Verdict::Whole);
    audit.close().await;
    let verified = verify(dir.path(), None);
    assert_eq!((verified.verdict, verified.covered), (Verdict::Whole, verified.last));
}

#[tokio::test]
async fn the_order_of_queueing_is_the_order_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (audit, _) = stored::open(dir.path(), 1 << 20).await;
    let pending: Vec<_> = (0..200).map(|n| audit.queue(stored::attempt(n))).collect();
    let mut last = LogSeq(0);
    for one in pending {
        let seq = one.await.unwrap();
        assert!(seq > last);
        last = seq;
    }
    let order: Vec<u64> = stored::all(dir.path()).iter().filter_map(|record| record.bytes).collect();
    assert_eq!(order, (0..200).collect::<Vec<u64>>());
    audit.close().await;
}

#[tokio::test]
async fn a_record_queued_and_forgotten_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (audit, _) = stored::open(dir.path(), 1 << 20).await;
    drop(audit.queue(stored::attempt(7)));
    audit.close().await;
    assert!(stored::all(dir.path()).iter().any(|record| record.bytes == Some(7)));
}

#[tokio::test]
async fn segments_rotate_and_each_begins_with_the_last_ones_hash() {
    let stored = stored::closed(30, 3_000).await;
    let segments = stored.segments();
    assert!(segments.len() > 4);
    let records = stored::all(stored.dir());
    for pair in records.windows(2) {
        assert_eq!((pair[1].prev, pair[1].seq.0), (pair[0].hash, pair[0].seq.0 + 1));
    }
    for (name, contents) in &segments {
        assert!(contents.len() <= 3_000 && stored.dir().join(name).metadata().unwrap().len() == contents.len() as u64);
    }
    let from_the_middle: Vec<u64> = records_from(stored.dir(), 17);
    assert_eq!(from_the_middle, (17..=32).collect::<Vec<u64>>());
}

/// What is in the way of the next segment, as a full disk or a spent table of files would be.
#[tokio::test]
async fn a_segment_that_cannot_be_made_fails_closed_and_the_log_recovers_when_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let (audit, _) = stored::open(dir.path(), 1_500).await;
    let obstacles: Vec<_> = (2..20).map(|n| dir.path().join(format!("segment-{n:020}.jsonl"))).collect();
    obstacles.iter().for_each(|path| std::fs::create_dir(path).unwrap());
    let mut acknowledged = 0;
    let refused = loop {
        match audit.append(stored::attempt(acknowledged)).await {
            Ok(_) => acknowledged += 1,
            Err(refused) => break refused,
        }
    };
    assert!(acknowledged > 0 && matches!(refused, AuditUnavailable::Failing(_)), "{acknowledged} {refused}");
    obstacles.iter().for_each(|path| std::fs::remove_dir(path).unwrap());
    let mut health = audit.health();
    let writable = health.wait_for(|health| *health == codegen_audit::Health::Writable);
    tokio::time::timeout(Duration::from_secs(20), writable).await.expect("it recovers").unwrap();
    audit.append(stored::attempt(99)).await.unwrap();
    audit.close().await;
    let kept: Vec<u64> = stored::all(dir.path()).iter().filter_map(|record| record.bytes).collect();
    let attempts: Vec<u64> = (0..acknowledged).chain([99]).collect();
    assert_eq!(kept, attempts);
    assert_eq!(verify(dir.path(), None).verdict, Verdict::Whole);
}

fn records_from(dir: &Path, from: u64) -> Vec<u64> {
    records(dir, Some(LogSeq(from))).map(|record| record.unwrap().seq.0).collect()
}

#[tokio::test]
async fn a_reader_follows_a_live_log_across_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (audit, _) = stored::open(dir.path(), 3_000).await;
    let mut reader = records(dir.path(), None);
    let mut read = Vec::new();
    for n in 0..40 {
        audit.append(stored::attempt(n)).await.unwrap();
        read.extend(reader.by_ref().map(|record| record.unwrap().seq.0));
        assert_eq!(read.last(), Some(&(n + 2)), "an acknowledged record can be read at once");
    }
    assert_eq!(read, (1..=41).collect::<Vec<u64>>());
    let verified = verify(dir.path(), None);
    assert_eq!((verified.verdict, verified.live), (Verdict::Whole, true));
    audit.close().await;
}

#[tokio::test]
async fn a_second_writer_is_refused_until_the_first_lets_go() {
    let dir = tempfile::tempdir().unwrap();
    let (audit, _) = stored::open(dir.path(), 1 << 20).await;
    let error = Audit::open(Options::new(dir.path())).await.err().unwrap();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    audit.close().await;
    assert_eq!(audit.append(stored::attempt(1)).await, Err(AuditUnavailable::Closed));
    assert!(matches!(*audit.health().borrow(), codegen_audit::Health::Unavailable { .. }), "closed for good");
    let (again, opened) = stored::open(dir.path(), 1 << 20).await;
    assert_eq!((opened.recovered, opened.last_seq), (None, LogSeq(2)));
    again.close().await;
    let kinds: Vec<EventKind> = stored::all(dir.path()).iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [EventKind::LogOpened, EventKind::LogClosed, EventKind::LogOpened, EventKind::LogClosed]);
}

#[tokio::test]
async fn files_and_directories_are_the_owners_alone() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("audit");
    let (audit, _) = stored::open(&dir, 1 << 20).await;
    audit.close().await;
    let mut pending = vec![dir];
    while let Some(path) = pending.pop() {
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        if path.is_dir() {
            assert_eq!(mode, 0o700, "{path:?}");
            pending.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            assert_eq!(mode, 0o600, "{path:?}");
        }
    }
}

#[tokio::test]
async fn checkpoints_come_after_so_many_records_and_so_much_time_and_old_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { checkpoint_records: 5, ..stored::options(dir.path(), 1 << 20) };
    let (audit, _) = Audit::open(options).await.unwrap();
    for n in 0..80 {
        audit.append(stored::attempt(n)).await.unwrap();
    }
    audit.close().await;
    let verified = verify(dir.path(), None);
    assert_eq!((verified.verdict, verified.checkpoints), (Verdict::Whole, 8));

    let options = Options { checkpoint_interval: Duration::from_millis(1), ..stored::options(dir.path(), 1 << 20) };
    let (audit, _) = Audit::open(options).await.unwrap();
    let seq = audit.append(stored::attempt(0)).await.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while verify(dir.path(), None).covered < seq {
        assert!(std::time::Instant::now() < deadline, "no checkpoint was made");
        tokio::task::yield_now().await;
    }
    audit.close().await;
}

#[tokio::test]
async fn a_log_in_memory_has_the_same_chain_and_fails_on_demand() {
    let audit = Audit::in_memory();
    audit.append(stored::attempt(1)).await.unwrap();
    audit.set_memory_fault(Some("full"));
    assert!(matches!(audit.append(stored::attempt(2)).await, Err(AuditUnavailable::Failing(_))));
    assert!(matches!(audit.append(stored::attempt(3)).await, Err(AuditUnavailable::Failing(_))));
    assert!(matches!(audit.queue(stored::attempt(4)).await, Err(AuditUnavailable::Failing(_))));
    assert!(matches!(*audit.health().borrow(), codegen_audit::Health::Unavailable { .. }));
    audit.set_memory_fault(None);
    assert_eq!(*audit.health().borrow(), codegen_audit::Health::Writable);
    audit.append(stored::attempt(5)).await.unwrap();
    let records = audit.memory_records();
    let bytes: Vec<u64> = records.iter().filter_map(|record| record.bytes).collect();
    assert_eq!(bytes, [1, 4, 5], "what had to be kept was kept, what was refused is not there");
    assert_eq!(records[1].kind, EventKind::LogRecovered);
    assert!(records.windows(2).all(|pair| pair[1].prev == pair[0].hash));
}
