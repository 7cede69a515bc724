//! Whatever is changed at or before the last checkpoint is found.

use std::path::Path;

use codegen_audit::{Audit, Fault, Hash, OpenError, Verdict, repair, verify, verify_with};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::stored::{self, Stored};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

fn found(stored: &Stored) -> bool {
    verify(stored.dir(), None).verdict != Verdict::Whole
}

fn check(cases: u32, test: impl Fn(&[u64]) -> Result<(), TestCaseError>) {
    let numbers = prop::collection::vec(any::<u64>(), 4);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&numbers, |numbers| test(&numbers)).unwrap();
}

/// One of `count` things, by a random number.
fn pick(number: u64, count: usize) -> usize {
    usize::try_from(number % count as u64).unwrap()
}

fn lines(contents: &[u8]) -> Vec<Vec<u8>> {
    contents.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

#[test]
fn every_single_byte_of_a_small_log_is_covered() {
    let stored = runtime().block_on(stored::closed(1, 1 << 20));
    let (name, whole) = stored.segments().remove(0);
    assert!(!found(&stored));
    for place in 0..whole.len() {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        stored.write(&name, &changed);
        assert!(found(&stored), "byte {place}");
    }
}

#[test]
fn a_change_of_any_byte_to_any_other_is_found_in_every_segment() {
    let stored = runtime().block_on(stored::closed(12, 2_000));
    let segments = stored.segments();
    assert!(segments.len() > 3);
    check(300, |numbers| {
        let (name, whole) = &segments[pick(numbers[0], segments.len())];
        let mut changed = whole.clone();
        let place = pick(numbers[1], whole.len());
        let other = u8::try_from(numbers[2] % 255 + 1).unwrap();
        changed[place] ^= other;
        stored.write(name, &changed);
        let seen = found(&stored);
        stored.write(name, whole);
        prop_assert!(seen, "{name:?} byte {place} xor {other}");
        Ok(())
    });
}

#[test]
fn deleted_swapped_and_duplicated_records_are_found() {
    let stored = runtime().block_on(stored::closed(12, 2_000));
    let segments = stored.segments();
    check(200, |numbers| {
        let (name, whole) = &segments[pick(numbers[0], segments.len())];
        let before = lines(whole);
        let (one, two) = (pick(numbers[1], before.len()), pick(numbers[2], before.len()));
        let mut after = before.clone();
        match numbers[3] % 3 {
            0 => drop(after.drain(one.min(two)..=one.max(two))),
            1 => after.swap(one, two),
            _ => after.insert(one, before[two].clone()),
        }
        prop_assume!(after != before);
        stored.write(name, &after.concat());
        let seen = found(&stored);
        stored.write(name, whole);
        prop_assert!(seen, "{name:?} {one} {two} {}", numbers[3] % 3);
        Ok(())
    });
}

#[test]
fn a_missing_or_renamed_segment_is_found() {
    let stored = runtime().block_on(stored::closed(12, 2_000));
    let segments = stored.segments();
    for (name, _) in &segments[1..] {
        std::fs::remove_file(stored.dir().join(name)).unwrap();
        assert!(found(&stored), "{name:?} removed");
        stored.restore();
    }
    std::fs::rename(stored.dir().join(&segments[1].0), stored.dir().join("segment-00000000000000009999.jsonl"))
        .unwrap();
    assert!(found(&stored));
}

#[test]
fn a_segment_that_is_missing_between_others_keeps_the_log_closed() {
    let stored = runtime().block_on(stored::closed(12, 2_000));
    let segments = stored.segments();
    for (name, _) in &segments[1..segments.len() - 1] {
        std::fs::remove_file(stored.dir().join(name)).unwrap();
        let error = runtime().block_on(Audit::open(stored::options(stored.dir(), 2_000))).err().unwrap();
        assert!(matches!(&error, OpenError::Corrupt { fault: Fault::Segment { .. }, .. }), "{name:?}: {error}");
        stored.restore();
    }
}

#[test]
fn a_checkpoint_behind_which_no_segment_could_be_begun_keeps_no_log_closed() {
    let stored = runtime().block_on(stored::closed(2, 2_000));
    let notes = || std::fs::read_dir(stored.dir().join("checkpoints")).unwrap().map(|note| note.unwrap().path());
    let last = notes().find(|note| !note.to_str().unwrap().contains("-segment")).unwrap();
    // Its disk was full then, and the next writer went on in the same segment.
    std::fs::rename(&last, last.with_file_name(format!("{}-segment.note", last.file_stem().unwrap().display())))
        .unwrap();
    runtime().block_on(async {
        for _ in 0..2 {
            let (audit, _) = stored::open(stored.dir(), 2_000).await;
            for task in 0..12 {
                audit.append(stored::attempt(task)).await.unwrap();
            }
            audit.close().await;
        }
    });
    assert_eq!(verify(stored.dir(), None).verdict, Verdict::Whole);
}

#[test]
fn the_first_bad_record_is_named_by_place() {
    let stored = runtime().block_on(stored::closed(6, 1 << 20));
    let (name, whole) = stored.segments().remove(0);
    let third_line = lines(&whole)[..2].concat().len();
    let mut changed = whole;
    changed[third_line + 20] ^= 1;
    stored.write(&name, &changed);
    let Verdict::Tampered { at, .. } = verify(stored.dir(), None).verdict else { panic!("not found") };
    assert_eq!((at.seq.0, at.line, at.offset), (3, 3, third_line as u64));
    assert_eq!(Path::new(&at.file), name);
}

/// Someone who knows the format rewrites a record and computes every hash behind it anew.
fn rechained(whole: &[u8]) -> Vec<u8> {
    let mut prev = Hash::GENESIS;
    let mut out = Vec::new();
    for line in lines(whole) {
        let text = String::from_utf8(line).unwrap();
        let body = &text[..text.rfind(",\"prev\":").unwrap()];
        let body = format!("{},\"prev\":\"{prev}\"", body.replacen("print(1)", "print(9)", 1));
        prev = Hash::of_record(&prev, body.as_bytes());
        out.extend_from_slice(format!("{body},\"hash\":\"{prev}\"}}\n").as_bytes());
    }
    out
}

#[test]
fn a_history_rewritten_with_all_its_hashes_does_not_match_the_checkpoint() {
    let stored = runtime().block_on(stored::closed(4, 1 << 20));
    let (name, whole) = stored.segments().remove(0);
    stored.write(&name, &rechained(&whole));
    let Verdict::Tampered { fault, .. } = verify(stored.dir(), None).verdict else { panic!("not found") };
    assert!(fault.contains("checkpoint"), "{fault}");
    let error = runtime().block_on(Audit::open(stored::options(stored.dir(), 1 << 20))).err().unwrap();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

#[test]
fn a_checkpoint_of_another_key_or_a_changed_one_is_found() {
    let stored = runtime().block_on(stored::closed(2, 1 << 20));
    let stranger = runtime().block_on(stored::closed(2, 1 << 20));
    let note = std::fs::read_dir(stored.dir().join("checkpoints")).unwrap().next().unwrap().unwrap().path();
    let theirs = stranger.dir().join("checkpoints").join(note.file_name().unwrap());
    std::fs::copy(theirs, &note).unwrap();
    assert!(matches!(verify(stored.dir(), None).verdict, Verdict::Tampered { .. }));
    stored.restore();
    let text = std::fs::read_to_string(&note).unwrap();
    std::fs::write(&note, text.replacen("head ", "Head ", 1)).unwrap();
    assert!(matches!(verify(stored.dir(), None).verdict, Verdict::Tampered { .. }));
    std::fs::remove_file(stored.dir().join("keys/checkpoint.vkey")).unwrap();
    assert!(matches!(verify(stored.dir(), None).verdict, Verdict::Unreadable { .. }));
}

#[test]
fn what_a_checkpoint_kept_elsewhere_covers_cannot_be_cut_off() {
    let stored = runtime().block_on(stored::closed(4, 1 << 20));
    let elsewhere = tempfile::tempdir().unwrap();
    let (kept, key) = (elsewhere.path().join("note"), elsewhere.path().join("vkey"));
    std::fs::write(&kept, codegen_audit::latest_note(stored.dir()).unwrap().unwrap()).unwrap();
    std::fs::copy(stored.dir().join("keys/checkpoint.vkey"), &key).unwrap();
    std::fs::remove_dir_all(stored.dir().join("checkpoints")).unwrap();
    std::fs::remove_dir_all(stored.dir().join("keys")).unwrap();
    let options = codegen_audit::VerifyOptions { checkpoint: Some(kept), key: Some(key) };
    assert_eq!(verify_with(stored.dir(), &options).verdict, Verdict::Whole, "the log and the public key are enough");
    let (name, whole) = stored.segments().remove(0);
    let before = lines(&whole);
    stored.write(&name, &before[..before.len() - 1].concat());
    assert!(matches!(verify_with(stored.dir(), &options).verdict, Verdict::CutAfterCheckpoint { .. }));
}

#[test]
fn archived_segments_leave_a_log_that_verifies_and_goes_on() {
    let stored = runtime().block_on(stored::closed(12, 2_000));
    let segments = stored.segments();
    for (name, _) in &segments[..2] {
        std::fs::remove_file(stored.dir().join(name)).unwrap();
    }
    let verified = verify(stored.dir(), None);
    assert_eq!(verified.verdict, Verdict::Whole);
    assert!(verified.first.0 > 1);
    runtime().block_on(async {
        let (audit, _) = stored::open(stored.dir(), 2_000).await;
        audit.append(stored::attempt(99)).await.unwrap();
        audit.close().await;
    });
    assert_eq!(verify(stored.dir(), None).verdict, Verdict::Whole);
}

#[test]
fn a_damaged_log_opens_only_after_a_repair_that_deletes_nothing_and_is_on_record() {
    let stored = runtime().block_on(stored::closed(12, 2_000));
    let segments = stored.segments();
    let (name, whole) = &segments[1];
    let first_line = lines(whole)[0].len();
    let mut changed = whole.clone();
    changed[first_line + 30] ^= 1;
    stored.write(name, &changed);
    let last_start = runtime().block_on(Audit::open(stored::options(stored.dir(), 2_000)));
    let (audit, _) = last_start.expect("starting looks at the last segment only");
    runtime().block_on(audit.close());
    let done = repair(stored.dir()).unwrap();
    assert!(done.changed_anything() && done.damage.is_some());
    let aside: Vec<Vec<u8>> =
        done.set_aside.iter().map(|path| std::fs::read(stored.dir().join(path)).unwrap()).collect();
    assert!(aside.contains(&changed[first_line..].to_vec()), "the damaged rest is there");
    assert!(aside.contains(&segments[2].1), "whole segments behind it are there");
    runtime().block_on(async {
        let (audit, opened) = stored::open(stored.dir(), 2_000).await;
        assert!(opened.recovered.unwrap().repair.is_some());
        audit.close().await;
    });
    assert_eq!(verify(stored.dir(), None).verdict, Verdict::Whole);
    let next = stored::all(stored.dir()).into_iter().find(|record| record.seq.0 == done.kept_through.0 + 1).unwrap();
    assert_eq!(next.kind, codegen_audit::EventKind::LogRecovered);
    assert!(!repair(stored.dir()).unwrap().changed_anything());
}

#[test]
fn a_bad_record_in_the_last_segment_keeps_the_log_closed() {
    let stored = runtime().block_on(stored::crashed(4));
    let (name, whole) = stored.segments().remove(0);
    let mut changed = whole.clone();
    let place = whole.len() - 20;
    changed[place] = if whole[place] == b'0' { b'1' } else { b'0' };
    stored.write(&name, &changed);
    let error = runtime().block_on(Audit::open(stored::options(stored.dir(), 64 << 10))).err().unwrap();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    assert_eq!(std::fs::read(stored.dir().join(&name)).unwrap(), changed, "nothing was touched");
    repair(stored.dir()).unwrap();
    let (audit, _) = runtime().block_on(stored::open(stored.dir(), 64 << 10));
    runtime().block_on(audit.close());
    assert_eq!(verify(stored.dir(), None).verdict, Verdict::Whole);
}

#[test]
fn a_lost_key_is_replaced_by_a_repair_only() {
    let stored = runtime().block_on(stored::closed(3, 1 << 20));
    std::fs::remove_file(stored.dir().join("keys/checkpoint.key")).unwrap();
    let error = runtime().block_on(Audit::open(stored::options(stored.dir(), 1 << 20))).err().unwrap();
    assert!(matches!(error, OpenError::KeyMissing), "{error}");
    assert!(repair(stored.dir()).unwrap().new_key);
    let before = stored::last_seq(stored.dir());
    let (audit, opened) = runtime().block_on(stored::open(stored.dir(), 1 << 20));
    runtime().block_on(audit.close());
    assert_eq!(opened.last_seq, before);
    assert_eq!(verify(stored.dir(), None).verdict, Verdict::Whole);
}
