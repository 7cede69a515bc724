//! The log on a disk: segments allocated ahead, so that a sync has no file size to write, and signed notes beside them.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufReader, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use codegen_types::LogSeq;
use rustix::fs::{AtFlags, CWD, FallocateFlags, Statx, StatxFlags, fallocate, statx};
use rustix::io::Errno;

use crate::layout::{self, CHECKPOINT_DIR, WriterLock};
use crate::sink::{CheckpointPlace, Salvaged, Sink};

/// Space is allocated in steps of so many bytes.
const ALLOCATION_BYTES: u64 = 4 << 20;
/// Notes within segments that are kept, the newest ones.
const NOTES_KEPT: usize = 8;

/// The metric of how long the syncs take that make records durable, a histogram in seconds.
pub const SYNC_SECONDS: &str = "codegen_log_sync_duration_seconds";

/// Syncs of this process's logs so far, and how long they took together, in microseconds.
static SYNCS: AtomicU64 = AtomicU64::new(0);
static SYNC_MICROS: AtomicU64 = AtomicU64::new(0);

/// How many syncs of its logs this process has done, and how long they took together.
pub fn syncs() -> (u64, Duration) {
    (SYNCS.load(Ordering::Relaxed), Duration::from_micros(SYNC_MICROS.load(Ordering::Relaxed)))
}

pub(crate) struct DiskSink {
    dir: PathBuf,
    current: Option<OpenSegment>,
    allocation_bytes: u64,
    /// Held for as long as the sink lives: there is one writer.
    lock: WriterLock,
}

struct OpenSegment {
    path: PathBuf,
    file: File,
    end: u64,
    allocated: u64,
    /// The file is at least so long, unless somebody cuts it.
    length: u64,
}

impl DiskSink {
    /// A sink in a directory whose lock the caller holds, with no segment open yet.
    pub(crate) fn new(dir: PathBuf, lock: WriterLock, segment_bytes_max: u64) -> Self {
        Self { dir, current: None, allocation_bytes: ALLOCATION_BYTES.min(segment_bytes_max.max(4_096)), lock }
    }

    /// Goes on in a segment whose first `end` bytes are good; what follows is cut.
    pub(crate) fn resume(&mut self, path: PathBuf, end: u64) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        file.set_len(end)?;
        file.sync_all()?;
        self.current = Some(OpenSegment { path, file, end, allocated: end, length: end });
        Ok(())
    }

    /// Becomes the one writer of a directory that was put in the place of the one that is locked.
    fn keep_lock(&mut self) -> io::Result<()> {
        if !self.lock.is_of(&self.dir)? {
            let taken = |holder| io::Error::other(format!("another writer has the log that is here now: {holder}"));
            self.lock = layout::lock(&self.dir)?.map_err(taken)?;
        }
        Ok(())
    }

    fn current(&mut self) -> io::Result<&mut OpenSegment> {
        self.current.as_mut().ok_or_else(|| io::Error::other("no segment is open"))
    }
}

impl Sink for DiskSink {
    fn start_segment(&mut self, first: LogSeq) -> io::Result<()> {
        // Until the new one is there the old one stays, since a failure on the way is recovered from in that.
        let path = self.dir.join(layout::segment_name(first));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        // An attempt that failed half-way may have left the file, and nothing in it.
        if !is_blank(&file)? {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a segment of that name holds records already"));
        }
        file.set_len(0)?;
        let mut segment = OpenSegment { path, file, end: 0, allocated: 0, length: 0 };
        segment.allocate(self.allocation_bytes)?;
        segment.file.sync_all()?;
        layout::sync_dir(&self.dir)?;
        self.current = Some(segment);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let step = self.allocation_bytes;
        let segment = self.current()?;
        let end = segment.end + bytes.len() as u64;
        if end > segment.allocated {
            segment.allocate(end.next_multiple_of(step))?;
        }
        segment.file.write_all_at(bytes, segment.end)?;
        segment.end = end;
        segment.length = segment.length.max(end);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        let segment = self.current()?;
        let synced = segment.file.sync_data().and_then(|()| segment.check_place());
        let took = begun.elapsed();
        metrics::histogram!(SYNC_SECONDS).record(took);
        SYNCS.fetch_add(1, Ordering::Relaxed);
        SYNC_MICROS.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        synced
    }

    fn finish_segment(&mut self) -> io::Result<()> {
        let segment = self.current()?;
        segment.file.set_len(segment.end)?;
        (segment.allocated, segment.length) = (segment.end, segment.end);
        segment.file.sync_all()
    }

    fn salvage(&mut self, durable_bytes: u64) -> io::Result<Salvaged> {
        self.keep_lock()?;
        let path = self.current()?.path.clone();
        let mut fresh = File::open(&path)?;
        let cut_bytes = used_bytes(&mut fresh, durable_bytes)?;
        self.resume(path, durable_bytes)?;
        fresh.seek(io::SeekFrom::Start(0))?;
        Ok(Salvaged { contents: Box::new(BufReader::new(fresh.take(durable_bytes))), cut_bytes })
    }

    fn put_checkpoint(&mut self, size: u64, note: &[u8], place: CheckpointPlace) -> io::Result<()> {
        let dir = self.dir.join(CHECKPOINT_DIR);
        let temporary = dir.join(".new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(note)?;
        file.sync_all()?;
        std::fs::rename(&temporary, dir.join(layout::note_name(size, place)))?;
        layout::sync_dir(&dir)?;
        let within: Vec<_> = layout::notes(&self.dir)?.into_iter().filter(|note| note.within).collect();
        for old in within.iter().rev().skip(NOTES_KEPT) {
            std::fs::remove_file(&old.path)?;
        }
        Ok(())
    }
}

impl OpenSegment {
    /// Whether what was written can be found: somebody may have taken the file away, cut it, or put another in its place.
    fn check_place(&self) -> io::Result<()> {
        let (written, found) = (Seen::of_open(&self.file)?, Seen::at(&self.path)?);
        if written.identity != found.identity {
            return Err(io::Error::other("the segment is not the file that was being written"));
        }
        if written.length < self.length {
            return Err(io::Error::other("the segment was cut"));
        }
        Ok(())
    }

    /// Allocates the file up to `end`. File systems that cannot do that are written without.
    fn allocate(&mut self, end: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::empty(), self.allocated, end - self.allocated) {
            Ok(()) => (self.allocated, self.length) = (end, end),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.allocated = end,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// What tells a file from others, and how long it is.
///
/// Its times are not asked for. Whoever asks for them makes the next write change them (Linux 6.13, multigrain timestamps),
/// and the sync after it may then have to write the inode, too: half as long again on ext4 without a journal.
struct Seen {
    /// Its device and inode.
    identity: (u64, u64),
    length: u64,
}

impl Seen {
    fn of_open(file: &File) -> io::Result<Self> {
        match statx(file, c"", AtFlags::EMPTY_PATH, Self::wanted()) {
            Err(error) if is_unknown(error) => file.metadata().map(|found| Self::from(&found)),
            found => Ok(Self::from(&found?)),
        }
    }

    fn at(path: &Path) -> io::Result<Self> {
        match statx(CWD, path, AtFlags::empty(), Self::wanted()) {
            Err(error) if is_unknown(error) => std::fs::metadata(path).map(|found| Self::from(&found)),
            found => Ok(Self::from(&found?)),
        }
    }

    fn wanted() -> StatxFlags {
        StatxFlags::INO | StatxFlags::SIZE
    }
}

impl From<&Statx> for Seen {
    fn from(found: &Statx) -> Self {
        let device = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
        Self { identity: (device, found.stx_ino), length: found.stx_size }
    }
}

impl From<&Metadata> for Seen {
    fn from(found: &Metadata) -> Self {
        Self { identity: (found.dev(), found.ino()), length: found.len() }
    }
}

/// Whether the kernel has no such call, or something between says so.
fn is_unknown(error: Errno) -> bool {
    matches!(error, Errno::NOSYS | Errno::PERM)
}

fn is_blank(file: &File) -> io::Result<bool> {
    let mut reader = file;
    Ok(used_bytes(&mut reader, 0)? == 0)
}

/// How many bytes there are from `offset` to the last one that is not NUL.
fn used_bytes(file: &mut (impl io::Read + io::Seek), offset: u64) -> io::Result<u64> {
    file.seek(io::SeekFrom::Start(offset))?;
    let (mut used, mut place) = (0, 0);
    let mut chunk = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(used);
        }
        if let Some(last) = chunk[..read].iter().rposition(|byte| *byte != 0) {
            used = place + last as u64 + 1;
        }
        place += read as u64;
    }
}
