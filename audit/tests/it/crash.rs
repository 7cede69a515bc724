//! Whatever a crash leaves behind the last acknowledged record, the log goes on, and says so.

use codegen_audit::{Audit, EventKind, OpenError, Verdict, verify};
use codegen_types::LogSeq;

use crate::stored;

#[tokio::test]
async fn a_cut_at_any_byte_of_the_last_records_is_recovered_and_put_on_record() {
    let stored = stored::crashed(3).await;
    let (name, whole) = stored.segments().remove(0);
    let ends: Vec<usize> = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    for cut in ends[ends.len() - 3]..=whole.len() {
        // Padding behind it or not: every other cut.
        let mut contents = whole[..cut].to_vec();
        contents.resize(cut + (cut % 2) * 700, 0);
        stored.restore();
        stored.write(&name, &contents);
        let kept = ends.iter().filter(|end| **end <= cut).count() as u64;
        let torn = cut - ends.iter().filter(|end| **end <= cut).max().unwrap();
        let expected_torn = torn > 0 || cut % 2 == 1;
        assert_eq!(
            matches!(verify(stored.dir(), None).verdict, Verdict::TornTail { .. }),
            expected_torn,
            "cut at {cut}"
        );

        let (audit, opened) = stored::open(stored.dir(), 64 << 10).await;
        audit.close().await;
        assert_eq!(opened.last_seq, LogSeq(kept), "cut at {cut}");
        assert_eq!(opened.recovered.as_ref().map(|found| found.torn_bytes), expected_torn.then_some(torn as u64));
        assert_eq!(verify(stored.dir(), None).verdict, Verdict::Whole, "cut at {cut}");
        let records = stored::all(stored.dir());
        let next = &records[usize::try_from(kept).unwrap()];
        if expected_torn {
            assert_eq!((next.kind, next.bytes), (EventKind::LogRecovered, Some(torn as u64)), "cut at {cut}");
        }
        if torn > 0 {
            let aside = opened.recovered.unwrap().aside.unwrap();
            assert_eq!(std::fs::read(stored.dir().join(aside)).unwrap(), &whole[cut - torn..cut], "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn a_cut_behind_a_checkpoint_is_refused() {
    let stored = stored::closed(3, 64 << 10).await;
    let (name, whole) = stored.segments().remove(0);
    for cut in [whole.len() - 1, whole.len() - 200, 10, 0] {
        stored.write(&name, &whole[..cut]);
        let error = Audit::open(stored::options(stored.dir(), 64 << 10)).await.err().unwrap();
        assert!(matches!(error, OpenError::Cut { .. }), "{error}");
        assert!(matches!(verify(stored.dir(), None).verdict, Verdict::CutAfterCheckpoint { .. }));
        assert_eq!(std::fs::read(stored.dir().join(&name)).unwrap().len(), cut, "nothing was touched");
    }
}

#[tokio::test]
async fn a_hole_with_something_behind_it_is_corruption() {
    let stored = stored::crashed(3).await;
    let (name, mut contents) = stored.segments().remove(0);
    let at = contents.len() - 500;
    contents[at..at + 100].fill(0);
    stored.write(&name, &contents);
    assert!(matches!(verify(stored.dir(), None).verdict, Verdict::Tampered { .. }));
    let error = Audit::open(stored::options(stored.dir(), 64 << 10)).await.err().unwrap();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_crash_between_two_segments_is_no_damage() {
    let stored = stored::closed(12, 2_000).await;
    let (last, _) = stored.segments().pop().unwrap();
    let notes: Vec<_> =
        std::fs::read_dir(stored.dir().join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    notes
        .iter()
        .filter(|note| !note.to_string_lossy().contains("-segment"))
        .for_each(|note| std::fs::remove_file(note).unwrap());
    stored.write(&last, &[0; 4_096]);
    let (audit, opened) = stored::open(stored.dir(), 2_000).await;
    audit.close().await;
    assert_eq!(opened.recovered.unwrap().torn_bytes, 0);
    assert_eq!(verify(stored.dir(), None).verdict, Verdict::Whole);
}

#[tokio::test]
async fn after_a_crash_the_same_log_goes_on_without_a_gap() {
    let stored = stored::crashed(5).await;
    let before = stored::all(stored.dir());
    let (audit, opened) = stored::open(stored.dir(), 64 << 10).await;
    let next = audit.append(stored::attempt(6)).await.unwrap();
    audit.close().await;
    let after = stored::all(stored.dir());
    assert_eq!(after[..before.len()], before[..]);
    assert_eq!(opened.log_id, before[0].log_id);
    assert_eq!(next.0, opened.last_seq.0 + 3, "log.recovered and log.opened came first");
}
