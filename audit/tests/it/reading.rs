//! What a reader says of a log that is damaged or not there.

use std::path::Path;

use codegen_audit::{BadLine, ReadError, last_segment_start, records};
use codegen_types::LogSeq;

use crate::stored;

/// Spoils the first bytes of one line of a segment.
fn spoil(contents: &mut [u8], line: usize, with: &[u8]) -> usize {
    let begins = contents.split_inclusive(|byte| *byte == b'\n').take(line - 1).map(<[u8]>::len).sum();
    contents[begins..begins + with.len()].copy_from_slice(with);
    begins
}

#[tokio::test]
async fn a_line_that_is_no_record_is_named_by_place_and_reading_goes_on_behind_it() {
    let stored = stored::closed(30, 3_000).await;
    let (name, original) = stored.segments().swap_remove(1);
    let whole: Vec<LogSeq> = stored::all(stored.dir()).iter().map(|record| record.seq).collect();
    let first: u64 = whole.iter().position(|seq| *seq == first_of(&original)).unwrap() as u64;
    for damage in [&b"not a record"[..], &[0xff, 0xfe]] {
        let mut contents = original.clone();
        let begins = spoil(&mut contents, 2, damage);
        stored.write(&name, &contents);
        let (good, bad): (Vec<_>, Vec<_>) = records(stored.dir(), None).partition(Result::is_ok);
        let [Err(ReadError::Bad { file, line, offset, .. })] = &bad[..] else { panic!("{bad:?}") };
        assert_eq!((file.as_str(), *line, *offset), (name.to_str().unwrap(), 2, begins as u64));
        let mut left = whole.clone();
        left.remove(usize::try_from(first).unwrap() + 1);
        assert_eq!(good.into_iter().map(|record| record.unwrap().seq).collect::<Vec<_>>(), left);
    }
}

#[tokio::test]
async fn a_segment_cut_short_within_the_log_ends_the_reading_there() {
    let stored = stored::closed(30, 3_000).await;
    let (name, contents) = stored.segments().swap_remove(1);
    stored.write(&name, &contents[..contents.len() - 10]);
    let mut reader = records(stored.dir(), None);
    let given: Vec<_> = reader.by_ref().collect();
    let Some((Err(ReadError::Bad { bad, file, .. }), good)) = given.split_last() else { panic!("{given:?}") };
    assert_eq!((bad, Path::new(file)), (&BadLine::NotWhole, name.as_path()));
    assert!(good.iter().all(Result::is_ok));
    let next = stored.segments().swap_remove(2).1;
    let last = good.last().unwrap().as_ref().unwrap().seq;
    assert_eq!(last.0 + 2, first_of(&next).0, "only the cut record is missing");
    assert!(reader.next().is_none(), "what is behind the cut is not given as if nothing were missing");
}

fn first_of(segment: &[u8]) -> LogSeq {
    let line = segment.split(|byte| *byte == b'\n').next().unwrap();
    serde_json::from_slice::<serde_json::Value>(line).unwrap()["seq"].as_u64().map(LogSeq).unwrap()
}

#[tokio::test]
async fn the_last_segment_can_be_read_alone() {
    let stored = stored::closed(30, 3_000).await;
    let last = stored.segments().pop().unwrap().1;
    let start = last_segment_start(stored.dir()).unwrap();
    assert_eq!(start, Some(first_of(&last)));
    let seqs: Vec<LogSeq> = records(stored.dir(), start).map(|record| record.unwrap().seq).collect();
    assert_eq!((seqs.first(), seqs.last()), (start.as_ref(), Some(&stored::last_seq(stored.dir()))));
}

#[test]
fn an_empty_directory_has_no_records() {
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(last_segment_start(empty.path()).unwrap(), None);
    assert!(records(empty.path(), None).next().is_none());
}

#[test]
fn what_cannot_be_read_is_an_error_and_the_end_of_reading() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log");
    std::fs::write(&file, "").unwrap();
    let error = last_segment_start(&file).unwrap_err();
    assert!(matches!(&error, ReadError::Io { path, .. } if *path == file), "{error}");
    let mut reader = records(&file, None);
    assert!(matches!(reader.next(), Some(Err(ReadError::Io { path, .. })) if path == file));
    assert!(reader.next().is_none());
}
