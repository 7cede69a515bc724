//! A stored log in which anything may stand.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use codegen_audit::{
    Audit, Checkpoint, Entry, EventKind, OpenError, Options, Record, Verdict, records, repair, verify,
};

/// A log as a crash leaves it, and how much of its segments the last checkpoint covers.
struct Good {
    files: Vec<(PathBuf, Vec<u8>)>,
    vkey: String,
    covered: Vec<Record>,
}

/// The first byte says which file is changed, the second how: it is replaced by the rest, or each four bytes of the rest
/// change one byte of it.
///
/// # Panics
/// When reading, verifying or opening panics; when a log whose covered records are not those that were written is said
/// to be whole; when a repaired log cannot be opened; or when an opened one does not verify.
pub fn audit_log(data: &[u8]) {
    let good = good();
    drop(std::str::from_utf8(data).map(Record::parse));
    drop(Checkpoint::verify(data, &good.vkey));
    let [file, how, rest @ ..] = data else { return };
    let root = crate::scratch();
    let dir = root.path().join("audit");
    let changed = usize::from(*file) % good.files.len();
    for (index, (path, contents)) in good.files.iter().enumerate() {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("below the log")).expect("a directory");
        let contents = if index == changed { change(contents, *how, rest) } else { contents.clone() };
        fs::write(path, contents).expect("a file of the log");
    }
    check(good, &dir);
}

fn change(before: &[u8], how: u8, with: &[u8]) -> Vec<u8> {
    let mut after = before.to_vec();
    match how % 3 {
        0 => return with.to_vec(),
        1 => after.extend_from_slice(with),
        _ => {
            for edit in with.chunks_exact(4) {
                let place = usize::from(u16::from_le_bytes([edit[0], edit[1]]));
                match after.get_mut(place) {
                    Some(byte) if edit[2] % 2 == 0 => *byte = edit[3],
                    Some(_) => drop(after.remove(place)),
                    None => after.push(edit[3]),
                }
            }
        }
    }
    after
}

fn check(good: &Good, dir: &Path) {
    let found = records(dir, None).take(1_000).count();
    assert!(found < 1_000, "reading does not end");
    let verified = verify(dir, None);
    let is_whole = matches!(verified.verdict, Verdict::Whole | Verdict::TornTail { .. });
    if is_whole && verified.covered >= good.covered.last().map_or_else(Default::default, |last| last.seq) {
        let now: Vec<Record> = records(dir, None).filter_map(Result::ok).take(good.covered.len()).collect();
        assert_eq!(now, good.covered, "a changed log is said to be whole");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let opened = match runtime.block_on(Audit::open(options(dir))) {
        Err(OpenError::Locked { .. }) => panic!("nobody else has it"),
        Err(_) => {
            repair(dir).expect("what cannot be opened is repaired");
            runtime.block_on(Audit::open(options(dir)))
        }
        opened => opened,
    };
    let (audit, _) = opened.expect("a repaired log is opened");
    runtime.block_on(audit.close());
    drop(audit);
    let after = verify(dir, None).verdict;
    // A start looks at the last segment only, and at every checkpoint.
    assert!(after == Verdict::Whole || !is_whole, "{after:?}");
}

fn options(dir: &Path) -> Options {
    Options {
        segment_bytes_max: 1_500,
        checkpoint_records: 1_000_000,
        checkpoint_interval: Duration::from_secs(3_600),
        ..Options::new(dir)
    }
}

fn good() -> &'static Good {
    static GOOD: OnceLock<Good> = OnceLock::new();
    GOOD.get_or_init(|| {
        let root = crate::scratch();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut files = Vec::new();
        runtime.block_on(async {
            let (audit, _) = Audit::open(options(root.path())).await.expect("a new log");
            for n in 0..6 {
                let entry = Entry { kind: EventKind::CallServed, bytes: Some(n), ..Entry::default() };
                audit.append(entry).await.expect("room for a record");
            }
            collect(root.path(), Path::new(""), &mut files);
            audit.close().await;
        });
        files.sort();
        for (_, contents) in &mut files {
            contents.truncate(contents.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        }
        let vkey = fs::read_to_string(root.path().join("keys/checkpoint.vkey")).expect("the public key");
        // Segments that have a successor are covered by the checkpoint at their end.
        let covered = records(root.path(), None).map(|record| record.expect("a record"));
        let last_segment = codegen_audit::last_segment_start(root.path()).expect("the log").unwrap_or_default();
        Good { files, vkey, covered: covered.take_while(|record| record.seq < last_segment).collect() }
    })
}

fn collect(root: &Path, below: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(root.join(below)).expect("a directory of the log") {
        let path = below.join(entry.expect("an entry").file_name());
        if root.join(&path).is_dir() {
            collect(root, &path, files);
        } else {
            let contents = fs::read(root.join(&path)).expect("a file of the log");
            files.push((path, contents));
        }
    }
}
