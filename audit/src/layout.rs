//! What lies where in a log's directory, and who may write it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use codegen_types::LogSeq;
use rustix::fs::{FlockOperation, flock};

use crate::sink::CheckpointPlace;

/// Signed notes.
pub(crate) const CHECKPOINT_DIR: &str = "checkpoints";
/// What was cut or set aside; nothing here is ever read or deleted by the log.
pub(crate) const ASIDE_DIR: &str = "aside";
/// Says what a repair did, until the next opening has put it on record.
pub(crate) const REPAIR_MARK: &str = "repaired.json";
const LOCK_FILE: &str = "writer.lock";
const SEGMENT_PREFIX: &str = "segment-";
const SEGMENT_SUFFIX: &str = ".jsonl";
const NOTE_SUFFIX: &str = ".note";
const SEGMENT_END_SUFFIX: &str = "-segment.note";
/// A reader that asks whether the log is live holds the lock for an instant; the writer outwaits it.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);

/// A segment, by the name that carries its first record's place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentFile {
    pub(crate) first: LogSeq,
    pub(crate) path: PathBuf,
}

impl SegmentFile {
    /// The file's name, for people.
    pub(crate) fn name(&self) -> String {
        segment_name(self.first)
    }
}

/// A stored checkpoint, by the name that carries how many records it covers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NoteFile {
    pub(crate) size: u64,
    pub(crate) path: PathBuf,
    pub(crate) within: bool,
}

pub(crate) fn segment_name(first: LogSeq) -> String {
    format!("{SEGMENT_PREFIX}{:020}{SEGMENT_SUFFIX}", first.0)
}

pub(crate) fn note_name(size: u64, place: CheckpointPlace) -> String {
    match place {
        CheckpointPlace::SegmentEnd => format!("{size:020}{SEGMENT_END_SUFFIX}"),
        CheckpointPlace::Within => format!("{size:020}{NOTE_SUFFIX}"),
    }
}

/// The segments of a log, oldest first. No directory, no segments.
pub(crate) fn segments(dir: &Path) -> io::Result<Vec<SegmentFile>> {
    let mut found = Vec::new();
    for name in names(dir)? {
        let digits = name.strip_prefix(SEGMENT_PREFIX).and_then(|rest| rest.strip_suffix(SEGMENT_SUFFIX));
        if let Some(first) = digits.and_then(number) {
            found.push(SegmentFile { first: LogSeq(first), path: dir.join(&name) });
        }
    }
    found.sort();
    Ok(found)
}

/// The stored checkpoints of a log, oldest first.
pub(crate) fn notes(dir: &Path) -> io::Result<Vec<NoteFile>> {
    let dir = dir.join(CHECKPOINT_DIR);
    let mut found = Vec::new();
    for name in names(&dir)? {
        let segment_end = name.strip_suffix(SEGMENT_END_SUFFIX);
        let digits = segment_end.or_else(|| name.strip_suffix(NOTE_SUFFIX));
        if let Some(size) = digits.and_then(number) {
            found.push(NoteFile { size, path: dir.join(&name), within: segment_end.is_none() });
        }
    }
    found.sort();
    Ok(found)
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok())).collect::<io::Result<Vec<_>>>()?;
    Ok(names.into_iter().flatten().collect())
}

fn number(digits: &str) -> Option<u64> {
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// Makes a directory that only its owner may enter, if it is not there.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a directory's names durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Held by the one who writes a log. The directory is locked as well as the file in it, which somebody may take away.
#[derive(Debug)]
pub(crate) struct WriterLock {
    file: File,
    /// `None` where the file system locks no directories.
    dir: Option<File>,
}

impl WriterLock {
    /// Whether what is locked is still what is there.
    ///
    /// # Errors
    /// What the operating system says when there is nothing.
    pub(crate) fn is_of(&self, dir: &Path) -> io::Result<bool> {
        let (locked, found) = match &self.dir {
            Some(locked) => (locked.metadata()?, std::fs::metadata(dir)?),
            None => (self.file.metadata()?, std::fs::metadata(dir.join(LOCK_FILE))?),
        };
        Ok((locked.dev(), locked.ino()) == (found.dev(), found.ino()))
    }
}

/// Becomes the log's one writer, for as long as the lock lives, or says who is.
pub(crate) fn lock(dir: &Path) -> io::Result<Result<WriterLock, String>> {
    let path = dir.join(LOCK_FILE);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let directory = File::open(dir)?;
    let give_up = Instant::now() + LOCK_PATIENCE;
    let locked = match lock_until(&directory, give_up)? {
        Locking::Done => Some(directory),
        Locking::Impossible => None,
        Locking::Taken => return Ok(Err(holder_of(&directory)?)),
    };
    match lock_until(&file, give_up)? {
        Locking::Done => Ok(Ok(WriterLock { file, dir: locked })),
        Locking::Impossible => Err(rustix::io::Errno::OPNOTSUPP.into()),
        Locking::Taken => Ok(Err(holder_of(&file)?)),
    }
}

enum Locking {
    Done,
    Taken,
    Impossible,
}

fn lock_until(file: &File, give_up: Instant) -> io::Result<Locking> {
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Locking::Done),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < give_up => {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Locking::Taken),
            Err(rustix::io::Errno::BADF | rustix::io::Errno::OPNOTSUPP) => return Ok(Locking::Impossible),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Who holds a lock, by the kernel's list.
fn holder_of(locked: &File) -> io::Result<String> {
    let inode = format!(":{}", locked.metadata()?.ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let holder = |line: &str| -> Option<u32> {
        // 1: FLOCK ADVISORY WRITE 4711 08:02:1234567 0 EOF
        let mut fields = line.split_whitespace().skip(1);
        (fields.next()? == "FLOCK").then_some(())?;
        let pid = fields.nth(2)?.parse().ok().filter(|pid| *pid > 0)?;
        fields.next()?.ends_with(&inode).then_some(pid)
    };
    let process = locks.lines().find_map(holder);
    Ok(process.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")))
}

/// Whether a writer has the log.
pub(crate) fn is_live(dir: &Path) -> bool {
    let is_locked = |path: &Path| {
        File::open(path)
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK))
    };
    is_locked(dir) || is_locked(&dir.join(LOCK_FILE))
}

/// A name below the directory of things set aside that nothing has yet; the directory is made.
pub(crate) fn aside(dir: &Path, name: &str) -> io::Result<PathBuf> {
    let aside = dir.join(ASIDE_DIR);
    make_dir(&aside)?;
    let stamp = jiff::Timestamp::now().as_millisecond();
    (0_u32..)
        .map(|n| aside.join(if n == 0 { format!("{stamp}-{name}") } else { format!("{stamp}.{n}-{name}") }))
        .find(|path| !path.exists())
        .ok_or_else(|| io::Error::from(io::ErrorKind::AlreadyExists))
}

/// Copies a file's bytes from `offset` on into a new file among the things set aside, durably. Trailing NUL bytes are
/// left out; `None` when there is nothing else.
pub(crate) fn copy_aside(dir: &Path, from: &Path, offset: u64) -> io::Result<Option<PathBuf>> {
    use std::io::{Read as _, Seek as _, Write as _};
    let mut source = File::open(from)?;
    source.seek(io::SeekFrom::Start(offset))?;
    let name = from.file_name().map_or_else(|| "unnamed".into(), |name| name.to_string_lossy().into_owned());
    let (mut target, mut nul_bytes) = (None::<(PathBuf, File)>, 0_usize);
    let mut chunk = vec![0; 64 << 10];
    loop {
        let read = source.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        let used = chunk[..read].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if used > 0 {
            let (_, file) = match &mut target {
                Some(target) => target,
                none => {
                    let path = aside(dir, &name)?;
                    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
                    none.insert((path, file))
                }
            };
            io::copy(&mut io::Read::take(io::repeat(0), nul_bytes as u64), file)?;
            file.write_all(&chunk[..used])?;
            nul_bytes = 0;
        }
        nul_bytes += read - used;
    }
    let Some((path, file)) = target else { return Ok(None) };
    file.sync_all()?;
    sync_dir(&dir.join(ASIDE_DIR))?;
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_in_order_and_strangers_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        make_dir(&dir.path().join(CHECKPOINT_DIR)).unwrap();
        for name in [segment_name(LogSeq(10)), segment_name(LogSeq(1)), "segment-1.jsonl".into(), "x".into()] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        for name in [note_name(9, CheckpointPlace::SegmentEnd), note_name(4, CheckpointPlace::Within)] {
            std::fs::write(dir.path().join(CHECKPOINT_DIR).join(name), "").unwrap();
        }
        let firsts: Vec<u64> = segments(dir.path()).unwrap().iter().map(|segment| segment.first.0).collect();
        assert_eq!(firsts, [1, 10]);
        let notes: Vec<(u64, bool)> = notes(dir.path()).unwrap().iter().map(|note| (note.size, note.within)).collect();
        assert_eq!(notes, [(4, true), (9, false)]);
    }

    #[test]
    fn one_writer_has_the_lock_and_readers_see_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_live(dir.path()));
        let held = lock(dir.path()).unwrap().unwrap();
        assert!(is_live(dir.path()));
        let refused = lock(dir.path()).unwrap().unwrap_err();
        assert_eq!(refused, format!("process {}", std::process::id()));
        std::fs::remove_file(dir.path().join(LOCK_FILE)).unwrap();
        assert!(is_live(dir.path()), "also when somebody took the file away");
        assert_eq!(lock(dir.path()).unwrap().unwrap_err(), refused);
        drop(held);
        assert!(!is_live(dir.path()));
    }

    #[test]
    fn what_is_set_aside_is_the_bytes_without_the_padding() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("segment-x");
        let mut bytes = b"good\nto\0rn".to_vec();
        bytes.extend_from_slice(&[0; 100_000]);
        std::fs::write(&file, &bytes).unwrap();
        let copy = copy_aside(dir.path(), &file, 5).unwrap().unwrap();
        assert_eq!(std::fs::read(copy).unwrap(), b"to\0rn");
        assert_eq!(copy_aside(dir.path(), &file, 10).unwrap(), None);
    }
}
