//! Logs to look at: made by the real writer, held in memory so that a test can put them back in any state.

use std::path::{Path, PathBuf};
use std::time::Duration;

use codegen_audit::{Audit, Entry, EventKind, Opened, Options, Outcome, Record, records};
use codegen_types::{LogSeq, TaskId};
use serde_json::json;
use tempfile::TempDir;

/// A directory with the files of a log.
#[derive(Debug)]
pub struct Stored {
    dir: TempDir,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Stored {
    /// Everything that is in `source` now.
    pub fn copy_of(source: &Path) -> Self {
        let mut files = Vec::new();
        collect(source, Path::new(""), &mut files);
        files.sort();
        // In memory where that is possible: some tests put a log back a thousand times.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let stored = Self { dir, files };
        stored.restore();
        stored
    }

    /// No log at all.
    pub fn empty() -> Self {
        Self::copy_of(tempfile::tempdir().unwrap().path())
    }

    /// Takes the last record's end away, as a crash in the middle of a write does.
    pub fn tear(&mut self) {
        let (name, mut contents) = self.segments().pop().unwrap();
        contents.truncate(contents.len() - 7);
        let last = self.files.iter_mut().find(|(path, _)| *path == name).unwrap();
        last.1 = contents;
        self.restore();
    }

    /// All records that are whole, without their newlines.
    pub fn whole_lines(&self) -> Vec<Vec<u8>> {
        let contents: Vec<u8> = self.segments().into_iter().flat_map(|(_, contents)| contents).collect();
        let lines = contents.split_inclusive(|byte| *byte == b'\n');
        lines.filter_map(|line| line.strip_suffix(b"\n")).map(<[u8]>::to_vec).collect()
    }

    /// Puts the same files into a directory that is made.
    pub fn copy_to(&self, dir: &Path) {
        for (path, contents) in &self.files {
            let path = dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, contents).unwrap();
        }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Puts the directory back as it was copied.
    pub fn restore(&self) {
        for entry in std::fs::read_dir(self.dir()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
        }
        self.copy_to(self.dir());
    }

    /// The segments, oldest first: name and contents without padding.
    pub fn segments(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let is_segment = |path: &Path| path.extension().is_some_and(|end| end == "jsonl");
        let mut segments: Vec<_> = self.files.iter().filter(|(path, _)| is_segment(path)).cloned().collect();
        segments.sort();
        for (_, contents) in &mut segments {
            contents.truncate(contents.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        }
        segments
    }

    pub fn write(&self, name: &Path, contents: &[u8]) {
        std::fs::write(self.dir().join(name), contents).unwrap();
    }
}

/// What is in them counts, not where they are.
impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files
    }
}

fn collect(root: &Path, below: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(root.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        if root.join(&path).is_dir() {
            collect(root, &path, files);
        } else {
            match std::fs::read(root.join(&path)) {
                Ok(contents) => files.push((path, contents)),
                // A writer takes its old checkpoints away.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => panic!("{path:?}: {error}"),
            }
        }
    }
}

/// No checkpoints but those at rotation and at the end.
pub fn options(dir: &Path, segment_bytes_max: u64) -> Options {
    Options {
        segment_bytes_max,
        checkpoint_records: 1_000_000,
        checkpoint_interval: Duration::from_secs(3_600),
        append_deadline: Duration::from_secs(30),
        ..Options::new(dir)
    }
}

pub async fn open(dir: &Path, segment_bytes_max: u64) -> (Audit, Opened) {
    Audit::open(options(dir, segment_bytes_max)).await.unwrap()
}

pub fn attempt(n: u64) -> Entry {
    Entry {
        kind: EventKind::TaskAttempt,
        task: Some(TaskId::mint()),
        tool: Some("run_python".to_owned()),
        args: Some(json!({ "code": format!("print({n})"), "hash": "\",\"hash\":\"" })),
        outcome: Some(Outcome::Ok),
        bytes: Some(n),
        ..Entry::default()
    }
}

/// A log in good order with so many records beside those that the log writes about itself.
pub async fn closed(appends: u64, segment_bytes_max: u64) -> Stored {
    let dir = tempfile::tempdir().unwrap();
    let (audit, _) = open(dir.path(), segment_bytes_max).await;
    for n in 0..appends {
        audit.append(attempt(n)).await.unwrap();
    }
    audit.close().await;
    Stored::copy_of(dir.path())
}

/// A log as `kill -9` leaves it: not closed, padding at its end.
pub async fn crashed(appends: u64) -> Stored {
    let dir = tempfile::tempdir().unwrap();
    let (audit, _) = open(dir.path(), 64 << 10).await;
    for n in 0..appends {
        audit.append(attempt(n)).await.unwrap();
    }
    let stored = Stored::copy_of(dir.path());
    audit.close().await;
    stored
}

pub fn all(dir: &Path) -> Vec<Record> {
    records(dir, None).map(Result::unwrap).collect()
}

pub fn last_seq(dir: &Path) -> LogSeq {
    all(dir).last().unwrap().seq
}
