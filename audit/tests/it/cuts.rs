//! Every way to cut a small log short is tried.

use codegen_audit::{Audit, EventKind, OpenError, Verdict, verify};

use crate::forger::{is_whole, lines_of, notes, runtime, small};
use crate::stored::{self, Stored};

/// Leaves of a log what a crash leaves whose last durable byte is the one before `cut`, counted over all segments.
fn cut_at(stored: &Stored, cut: usize, padding: usize) {
    stored.restore();
    let mut left = cut;
    for (index, (name, whole)) in stored.segments().iter().enumerate() {
        if left == 0 && index > 0 {
            std::fs::remove_file(stored.dir().join(name)).unwrap();
            continue;
        }
        let kept = left.min(whole.len());
        left -= kept;
        let mut contents = whole[..kept].to_vec();
        contents.resize(kept + if left == 0 { padding } else { 0 }, 0);
        stored.write(name, &contents);
    }
}

#[test]
fn a_cut_at_any_byte_of_any_segment_recovers_the_whole_records_before_it() {
    let stored = small(4, 1_000);
    let runtime = runtime();
    let lines = lines_of(&stored);
    let ends: Vec<usize> = lines
        .iter()
        .scan(0, |end, line| {
            *end += line.bytes.len();
            Some(*end)
        })
        .collect();
    let segments = stored.segments();
    assert!(segments.len() > 2);
    for cut in 0..=*ends.last().unwrap() {
        let padding = [0, 1, 4_096][cut % 3];
        cut_at(&stored, cut, padding);
        let whole = ends.iter().filter(|end| **end <= cut).count();
        // What had not been written yet had no checkpoint either.
        for (path, _) in notes(&stored) {
            let size: usize = path.file_name().unwrap().to_string_lossy()[..20].parse().unwrap();
            if size > whole {
                std::fs::remove_file(path).unwrap();
            }
        }
        let torn = cut - whole.checked_sub(1).map_or(0, |last| ends[last]);
        let (audit, opened) = runtime.block_on(Audit::open(stored::options(stored.dir(), 1_000))).unwrap();
        runtime.block_on(audit.close());
        assert_eq!(opened.last_seq.0, whole as u64, "cut at byte {cut}");
        let recovered = opened.recovered.map(|found| (found.torn_bytes, found.padding_bytes));
        let expected = (torn + padding > 0).then_some((torn as u64, padding as u64));
        assert_eq!(recovered, expected, "cut at byte {cut}");
        let after = stored::all(stored.dir());
        assert!(
            after
                .iter()
                .zip(&lines)
                .take(whole)
                .all(|(record, line)| record.line.as_bytes() == line.bytes.trim_ascii_end())
        );
        assert_eq!(after.get(whole).map(|record| record.kind == EventKind::LogRecovered), Some(expected.is_some()));
        assert!(is_whole(&stored), "cut at byte {cut}");
    }
}

#[test]
fn a_cut_at_any_byte_that_a_checkpoint_covers_is_refused_and_nothing_is_touched() {
    let stored = small(4, 1_000);
    let runtime = runtime();
    let total: usize = stored.segments().iter().map(|(_, whole)| whole.len()).sum();
    for cut in 0..total {
        cut_at(&stored, cut, [0, 1, 4_096][cut % 3]);
        assert!(matches!(verify(stored.dir(), None).verdict, Verdict::CutAfterCheckpoint { .. }), "cut at byte {cut}");
        let before = Stored::copy_of(stored.dir());
        let error = runtime.block_on(Audit::open(stored::options(stored.dir(), 1_000))).err();
        assert!(matches!(error, Some(OpenError::Cut { .. })), "cut at byte {cut}: {error:?}");
        assert_eq!(before, Stored::copy_of(stored.dir()), "cut at byte {cut}");
    }
}
