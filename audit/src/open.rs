//! Opening a log: one writer, keys, the tail verified, what a crash left set aside and put on record.

use std::io;
use std::path::Path;

use codegen_types::LogSeq;
use serde_json::{Value, json};

use crate::disk::DiskSink;
use crate::entry::{Entry, EventKind};
use crate::handle::Options;
use crate::hash::Hash;
use crate::keys::{KeyError, Keys};
use crate::layout::{self, NoteFile, REPAIR_MARK, SegmentFile, WriterLock};
use crate::log::{Cadence, Log, Segment, Tip};
use crate::reader;
use crate::record::{EncodedEvent, Record};
use crate::redact::Redactor;
use crate::scan::{self, Checkpoints, End, Fault, Position, Scan};
use crate::sink::Sink as _;

/// What was found when the log was opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Opened {
    /// Which log this is.
    pub log_id: String,
    /// The last record that was there before this opening wrote its own.
    pub last_seq: LogSeq,
    /// What had to be put right, if anything.
    pub recovered: Option<Recovered>,
}

/// What had to be put right. It is in the log, as a `log.recovered` record.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovered {
    /// Bytes of an unfinished record that were set aside and cut.
    pub torn_bytes: u64,
    /// NUL bytes, allocated ahead of a crash, that were cut.
    pub padding_bytes: u64,
    /// Where the torn bytes are now, below the log's directory.
    pub aside: Option<String>,
    /// What `audit repair` had done before.
    pub repair: Option<Value>,
}

/// Why a log cannot be opened for writing.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another handle in this one, writes it.
    #[error("another writer has this audit log: {holder}")]
    Locked {
        /// Who.
        holder: String,
    },
    /// A record is not what was written. Nothing was touched.
    #[error("the audit log is damaged at record {} ({}, line {}, byte {}): {fault}; `audit verify` tells more, `audit repair` sets the damaged part aside", at.seq, at.file, at.line, at.offset)]
    Corrupt {
        /// Where the first bad record is.
        at: Position,
        /// What is wrong with it.
        fault: Fault,
    },
    /// Records that a signed checkpoint covers are gone. Nothing was touched.
    #[error(
        "the audit log ends at record {last}, and a signed checkpoint covers {covered}; `audit repair` accepts the loss and puts it on record"
    )]
    Cut {
        /// The last record that is there.
        last: LogSeq,
        /// The last record that the checkpoint covers.
        covered: LogSeq,
    },
    /// A stored checkpoint is not what was signed.
    #[error("a stored checkpoint is damaged; `audit repair` sets it aside: {0}")]
    Checkpoint(String),
    /// There is a log and no key for it.
    #[error("the audit log's signing key is gone; restore `keys/`, or let `audit repair` make a new one")]
    KeyMissing,
    /// A key cannot be used.
    #[error("the audit log's keys cannot be used")]
    Key(#[from] KeyError),
    /// The directory cannot be used.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// A log ready for its writer's thread.
pub(crate) struct Prepared {
    pub(crate) log: Log,
    pub(crate) redactor: Redactor,
    pub(crate) opened: Opened,
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { what, source }
}

/// Opens the log, blocking, and puts on record that and how it was opened.
pub(crate) fn open(options: &Options) -> Result<Prepared, OpenError> {
    let lock = claim(&options.dir)?;
    let keys = keys_of(&options.dir)?;
    let log_id = keys.log_id().to_owned();
    let found = examine(&options.dir, &keys)?;
    let repair = read_repair_mark(&options.dir)?;
    let mut sink = DiskSink::new(options.dir.clone(), lock, options.segment_bytes_max);
    let (segment, recovered) = settle(&options.dir, &mut sink, &found, repair)?;
    let cadence = Cadence {
        segment_bytes_max: options.segment_bytes_max,
        checkpoint_records: options.checkpoint_records.max(1),
        checkpoint_interval: options.checkpoint_interval,
    };
    let redactor = Redactor::new(keys.redaction());
    let opened = Opened { log_id: log_id.clone(), last_seq: LogSeq(found.tip.frontier.size()), recovered };
    let mut log = Log::new(Box::new(sink), log_id, Some(keys.into_signer()), cadence, found.tip, segment);
    if let Some(last) = last_record(&options.dir).map_err(io_error("read the last record"))? {
        log.times.resume(&last);
    }
    put_on_record(&mut log, &redactor, opened.recovered.as_ref())
        .map_err(io_error("write the audit log's first record"))?;
    if opened.recovered.as_ref().is_some_and(|recovered| recovered.repair.is_some()) {
        clear_repair_mark(&options.dir)?;
    }
    Ok(Prepared { log, redactor, opened })
}

/// The newest record; a segment may have been begun and not have one yet.
fn last_record(dir: &Path) -> io::Result<Option<Record>> {
    let (segments, _) = scan::inventory(dir)?;
    segments.iter().rev().find_map(|segment| reader::last_record(&segment.path).transpose()).transpose()
}

/// Makes the directories and becomes the one writer.
pub(crate) fn claim(dir: &Path) -> Result<WriterLock, OpenError> {
    layout::make_dir(dir).map_err(io_error("make the audit log's directory"))?;
    layout::make_dir(&dir.join(layout::CHECKPOINT_DIR)).map_err(io_error("make the checkpoint directory"))?;
    layout::lock(dir).map_err(io_error("lock the audit log"))?.map_err(|holder| OpenError::Locked { holder })
}

fn keys_of(dir: &Path) -> Result<Keys, OpenError> {
    if let Some(keys) = Keys::load(dir)? {
        return Ok(keys);
    }
    let (segments, notes) = scan::inventory(dir).map_err(io_error("list the audit log"))?;
    if !segments.is_empty() || !notes.is_empty() {
        return Err(OpenError::KeyMissing);
    }
    let keys = Keys::mint()?;
    keys.store(dir)?;
    Ok(keys)
}

/// Verifies the log from the last place at which its state is signed, which is the last segment's beginning.
fn examine(dir: &Path, keys: &Keys) -> Result<Scan, OpenError> {
    let (segments, notes) = scan::inventory(dir).map_err(io_error("list the audit log"))?;
    let known = Checkpoints::load(&notes, keys.vkey()).map_err(|error| OpenError::Checkpoint(with_cause(&error)))?;
    let found = match (segments.first(), scan::known_tail(&segments, &known)) {
        (None, _) => Scan { tip: Tip::genesis(), segment: None, end: End::Whole },
        (Some(first), None) => {
            let at = Position { seq: first.first, file: first.name(), line: 1, offset: 0 };
            return Err(OpenError::Corrupt { at, fault: Fault::Start(first.first) });
        }
        (Some(_), Some((tail, start))) => {
            scan::scan(tail, start, Some(keys.log_id()), &known).map_err(io_error("read the audit log"))?
        }
    };
    if let Some((at, fault)) = missing(&segments, &notes).map_err(io_error("read the audit log"))? {
        return Err(OpenError::Corrupt { at, fault });
    }
    let last = LogSeq(found.tip.frontier.size());
    match &found.end {
        End::Bad { at, fault } => return Err(OpenError::Corrupt { at: at.clone(), fault: fault.clone() }),
        End::Rest { at, only_nul_follows: false, .. } => {
            return Err(OpenError::Corrupt { at: at.clone(), fault: Fault::Line(crate::BadLine::NotWhole) });
        }
        End::Whole | End::Rest { .. } => {}
    }
    match known.last() {
        Some(checkpoint) if checkpoint.through() > last => Err(OpenError::Cut { last, covered: checkpoint.through() }),
        _ => Ok(found),
    }
}

/// The first segment that is missing between others, as the checkpoints at the ends of segments tell. Where one could not be
/// made at its time, its records are in the segment before it.
fn missing(segments: &[SegmentFile], notes: &[NoteFile]) -> io::Result<Option<(Position, Fault)>> {
    for pair in segments.windows(2) {
        let (before, behind) = (pair[0].first, pair[1].first);
        let is_between = |note: &&NoteFile| !note.within && before.0 <= note.size && note.size + 1 < behind.0;
        let Some(note) = notes.iter().find(is_between) else { continue };
        let last = reader::last_record(&pair[0].path)?.map_or(LogSeq(note.size), |record| record.seq);
        let expected = LogSeq(last.0 + 1);
        if expected != behind {
            let at = Position { seq: expected, file: pair[1].name(), line: 1, offset: 0 };
            return Ok(Some((at, Fault::Segment { expected, found: behind })));
        }
    }
    Ok(None)
}

/// Sets a torn tail aside, cuts it, and leaves the sink where the next record belongs.
fn settle(
    dir: &Path,
    sink: &mut DiskSink,
    found: &Scan,
    repair: Option<Value>,
) -> Result<(Segment, Option<Recovered>), OpenError> {
    let mut recovered = Recovered { torn_bytes: 0, padding_bytes: 0, aside: None, repair };
    let Some((file, segment)) = &found.segment else {
        sink.start_segment(LogSeq(1)).map_err(io_error("make the first segment"))?;
        let segment = Segment { first: LogSeq(1), prev: Hash::GENESIS, durable_bytes: 0 };
        return Ok((segment, recovered.repair.is_some().then_some(recovered)));
    };
    if let End::Rest { torn_bytes, .. } = found.end {
        let length = file.path.metadata().map_err(io_error("read the last segment"))?.len();
        let aside =
            layout::copy_aside(dir, &file.path, segment.durable_bytes).map_err(io_error("set the torn tail aside"))?;
        recovered.torn_bytes = torn_bytes;
        recovered.padding_bytes = length.saturating_sub(segment.durable_bytes + torn_bytes);
        recovered.aside = aside.and_then(|path| Some(path.strip_prefix(dir).ok()?.to_string_lossy().into_owned()));
    }
    sink.resume(file.path.clone(), segment.durable_bytes).map_err(io_error("take up the last segment"))?;
    let happened = recovered.repair.is_some() || !matches!(found.end, End::Whole);
    Ok((segment.clone(), happened.then_some(recovered)))
}

fn put_on_record(log: &mut Log, redactor: &Redactor, recovered: Option<&Recovered>) -> io::Result<()> {
    let recovered = recovered.map(|recovered| Entry {
        kind: EventKind::LogRecovered,
        bytes: Some(recovered.torn_bytes),
        detail: Some(json!({
            "after": if recovered.repair.is_some() { "repair" } else { "crash" },
            "torn_bytes": recovered.torn_bytes,
            "padding_bytes": recovered.padding_bytes,
            "aside": recovered.aside,
            "repair": recovered.repair,
        })),
        ..Entry::default()
    });
    let detail = json!({ "program": "codegen-mcp", "version": env!("CARGO_PKG_VERSION"), "pid": std::process::id() });
    let opened = Entry { kind: EventKind::LogOpened, detail: Some(detail), ..Entry::default() };
    let events: Vec<EncodedEvent> =
        recovered.iter().chain([&opened]).map(|entry| EncodedEvent::new(entry, redactor)).collect();
    log.append(events.iter()).map(drop)
}

fn read_repair_mark(dir: &Path) -> Result<Option<Value>, OpenError> {
    match std::fs::read(dir.join(REPAIR_MARK)) {
        Ok(text) => {
            let unreadable = || Value::String(String::from_utf8_lossy(&text).into_owned());
            Ok(Some(serde_json::from_slice(&text).unwrap_or_else(|_| unreadable())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read the repair's mark")(error)),
    }
}

fn clear_repair_mark(dir: &Path) -> Result<(), OpenError> {
    let removed = std::fs::remove_file(dir.join(REPAIR_MARK)).and_then(|()| layout::sync_dir(dir));
    removed.map_err(io_error("clear the repair's mark"))
}

/// An error and what caused it, on one line.
pub(crate) fn with_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
