//! One who changes a stored log, as well as the format can be known.

use codegen_audit::{Entry, EventKind, Hash, Verdict, verify};

use crate::stored::{self, Stored};

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A log whose records are as short as can be, since each of their bits costs a verification.
pub fn small(records: u64, segment_bytes_max: u64) -> Stored {
    runtime().block_on(async {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let (audit, _) = stored::open(dir.path(), segment_bytes_max).await;
        for n in 0..records {
            audit.append(Entry { kind: EventKind::CallServed, bytes: Some(n), ..Entry::default() }).await.unwrap();
        }
        audit.close().await;
        Stored::copy_of(dir.path())
    })
}

/// Whether a change at or before the last checkpoint is told as what it is: a torn end would be cut by the next start, and
/// what cannot be read is nobody's guilt.
pub fn is_found(stored: &Stored) -> bool {
    matches!(verify(stored.dir(), None).verdict, Verdict::Tampered { .. } | Verdict::CutAfterCheckpoint { .. })
}

pub fn is_whole(stored: &Stored) -> bool {
    verify(stored.dir(), None).verdict == Verdict::Whole
}

pub fn notes(stored: &Stored) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(stored.dir().join("checkpoints")).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// A record's line with its newline, and the segment in which it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub segment: usize,
    pub bytes: Vec<u8>,
}

pub fn lines_of(stored: &Stored) -> Vec<Line> {
    let split = |(segment, (_, contents)): (usize, (_, Vec<u8>))| {
        let lines = contents.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
        lines.into_iter().map(move |bytes| Line { segment, bytes })
    };
    stored.segments().into_iter().enumerate().flat_map(split).collect()
}

/// How much the one who changes a log knows of its format.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Skill {
    /// Nothing: lines are moved as they are.
    Bytes,
    /// Every `prev` and `hash` is computed anew.
    Hashes,
    /// So is every `seq`, and segments are renamed after their first record.
    Numbers,
}

pub const SKILLS: [Skill; 3] = [Skill::Bytes, Skill::Hashes, Skill::Numbers];

/// Makes the chain of changed lines as good as `skill` can; what is no record is left as it is.
pub fn rechained(lines: &[Line], skill: Skill) -> Vec<Line> {
    let (mut prev, mut seq) = (Hash::GENESIS, 0_u64);
    let mut again = lines.to_vec();
    for line in again.iter_mut().filter(|_| skill != Skill::Bytes) {
        let Ok(text) = std::str::from_utf8(&line.bytes) else { continue };
        let (Some(end), Some(number)) = (text.rfind(",\"prev\":"), text.find("\"seq\":")) else { continue };
        seq += 1;
        let mut body = text[..end].to_owned();
        if skill == Skill::Numbers {
            let digits = number + 6..body[number + 6..].find(',').unwrap() + number + 6;
            body.replace_range(digits, &seq.to_string());
        }
        let body = format!("{body},\"prev\":\"{prev}\"");
        prev = Hash::of_record(&prev, body.as_bytes());
        line.bytes = format!("{body},\"hash\":\"{prev}\"}}\n").into_bytes();
    }
    again
}

pub fn seq_of(line: &Line) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(&line.bytes).ok()?["seq"].as_u64()
}

/// Puts the lines where the log's segments were.
pub fn write(stored: &Stored, lines: &[Line], skill: Skill) {
    let segments = stored.segments();
    segments.iter().for_each(|(name, _)| std::fs::remove_file(stored.dir().join(name)).unwrap());
    for (index, (name, _)) in segments.iter().enumerate() {
        let own: Vec<&Line> = lines.iter().filter(|line| line.segment == index).collect();
        let contents: Vec<u8> = own.iter().flat_map(|line| line.bytes.clone()).collect();
        let first = own.first().and_then(|line| seq_of(line));
        match (skill, first) {
            (Skill::Numbers, Some(first)) => stored.write(format!("segment-{first:020}.jsonl").as_ref(), &contents),
            (Skill::Numbers, None) if contents.is_empty() => {}
            _ => stored.write(name, &contents),
        }
    }
}

/// Whether all these records are still there, so that others were added behind the last checkpoint at most.
pub fn begins_with(lines: &[Line], covered: &[Line]) -> bool {
    lines.len() >= covered.len() && lines.iter().zip(covered).all(|(line, before)| line.bytes == before.bytes)
}

/// Whether changing the log to these lines is found, by all who may have changed it. The log is put back afterwards.
pub fn is_found_by_any_skill(stored: &Stored, before: &[Line], after: &[Line], what: &str) {
    for skill in SKILLS {
        let changed = rechained(after, skill);
        if begins_with(&changed, before) {
            continue;
        }
        write(stored, &changed, skill);
        assert!(is_found(stored), "{what}, {skill:?}");
        stored.restore();
    }
}
