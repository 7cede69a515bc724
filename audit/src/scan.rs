//! Walks over the segments of a log and checks the chain, record by record, in bounded memory.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use codegen_types::LogSeq;

use crate::checkpoint::{BadCheckpoint, Checkpoint};
use crate::layout::{self, NoteFile, SegmentFile};
use crate::lines::{Lines, Next};
use crate::log::{Segment, Tip};
use crate::record::BadLine;

const READ_BYTES: usize = 256 << 10;

/// Where in the log something is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Position {
    /// The place that the record has or should have.
    pub seq: LogSeq,
    /// The segment's file name.
    pub file: String,
    /// The line in it, counted from 1.
    pub line: u64,
    /// The line's first byte in it.
    pub offset: u64,
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The line is not the record that should be there.
    #[error("{0}")]
    Line(BadLine),
    /// The chain is in order, and not the one that was signed.
    #[error("records {from} to {to} are not those that the checkpoint over {to} records was made of")]
    Rewritten {
        /// The first record that may be another one.
        from: LogSeq,
        /// The last record that may be another one.
        to: LogSeq,
    },
    /// A segment is missing, or has another one's name.
    #[error("the segment that begins with record {expected} should be here, and the next one begins with {found}")]
    Segment {
        /// The record with which a segment should begin.
        expected: LogSeq,
        /// The record with which the next one begins, by its name.
        found: LogSeq,
    },
    /// The beginning of the log is missing, and no checkpoint covers it.
    #[error("the records before {0} are missing, and no signed checkpoint covers exactly them")]
    Start(LogSeq),
}

/// How a walk ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Behind a whole record.
    Whole,
    /// In the last segment, at something that is no line.
    Rest {
        at: Position,
        /// Bytes that are not padding.
        torn_bytes: u64,
        only_nul_follows: bool,
    },
    /// At a record that is not what it should be.
    Bad { at: Position, fault: Fault },
}

/// What a walk found.
pub(crate) struct Scan {
    /// Behind the last good record.
    pub(crate) tip: Tip,
    /// The last segment that was walked into, and how much of it is good.
    pub(crate) segment: Option<(SegmentFile, Segment)>,
    pub(crate) end: End,
}

/// Stored checkpoints whose signatures were checked, by size.
#[derive(Default)]
pub(crate) struct Checkpoints(pub(crate) Vec<Checkpoint>);

/// A stored checkpoint that cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoteError {
    #[error("the checkpoint `{0}` cannot be read")]
    Io(PathBuf, #[source] io::Error),
    #[error("the checkpoint `{0}` cannot be trusted")]
    Bad(PathBuf, #[source] BadCheckpoint),
}

impl Checkpoints {
    pub(crate) fn load(notes: &[NoteFile], vkey: &str) -> Result<Self, NoteError> {
        let mut loaded = Self::default();
        for note in notes {
            let checkpoint = read_note(&note.path, vkey)?;
            if checkpoint.through().0 != note.size {
                return Err(NoteError::Bad(note.path.clone(), BadCheckpoint::Format("its name says another size")));
            }
            loaded.add(checkpoint);
        }
        Ok(loaded)
    }

    pub(crate) fn add(&mut self, checkpoint: Checkpoint) {
        self.0.push(checkpoint);
        self.0.sort_by_key(Checkpoint::through);
    }

    /// Where the chain stands before a segment, as far as that is known.
    pub(crate) fn start_of(&self, segment: &SegmentFile) -> Option<Tip> {
        if segment.first == LogSeq(1) {
            return Some(Tip::genesis());
        }
        let before = self.0.iter().find(|checkpoint| checkpoint.through().0 + 1 == segment.first.0)?;
        Some(Tip { head: before.head, frontier: before.frontier.clone() })
    }

    pub(crate) fn last(&self) -> Option<&Checkpoint> {
        self.0.last()
    }
}

/// Reads a signed note, whose size is bounded.
pub(crate) fn read_note(path: &Path, vkey: &str) -> Result<Checkpoint, NoteError> {
    const NOTE_BYTES_MAX: u64 = 64 << 10;
    let mut note = Vec::new();
    let read =
        File::open(path).and_then(|file| io::Read::read_to_end(&mut io::Read::take(file, NOTE_BYTES_MAX), &mut note));
    read.map_err(|error| NoteError::Io(path.to_owned(), error))?;
    Checkpoint::verify(&note, vkey).map_err(|error| NoteError::Bad(path.to_owned(), error))
}

/// Walks over `segments` from `start`, which stands before the first of them, comparing with every checkpoint passed.
pub(crate) fn scan(
    segments: &[SegmentFile],
    start: Tip,
    log_id: Option<&str>,
    known: &Checkpoints,
) -> io::Result<Scan> {
    let mut walk = Walk { tip: start, log_id, known, confirmed: LogSeq(0), segment: None };
    walk.confirmed = LogSeq(walk.tip.frontier.size());
    for (index, file) in segments.iter().enumerate() {
        if file.first != walk.tip.next_seq() {
            let at = Position { seq: walk.tip.next_seq(), file: file.name(), line: 1, offset: 0 };
            let fault = Fault::Segment { expected: walk.tip.next_seq(), found: file.first };
            return Ok(walk.ended(End::Bad { at, fault }));
        }
        let end = walk.segment(file, index + 1 == segments.len())?;
        if end != End::Whole {
            return Ok(walk.ended(end));
        }
    }
    Ok(walk.ended(End::Whole))
}

struct Walk<'a> {
    tip: Tip,
    log_id: Option<&'a str>,
    known: &'a Checkpoints,
    /// The last record that a checkpoint confirmed.
    confirmed: LogSeq,
    segment: Option<(SegmentFile, Segment)>,
}

impl Walk<'_> {
    fn segment(&mut self, file: &SegmentFile, is_last: bool) -> io::Result<End> {
        let handle = File::open(&file.path)?;
        let mut lines = Lines::new(BufReader::with_capacity(READ_BYTES, handle));
        let mut segment = Segment { first: file.first, prev: self.tip.head, durable_bytes: 0 };
        let mut line_number = 0;
        let end = loop {
            line_number += 1;
            let offset = lines.offset();
            let at = || Position { seq: self.tip.next_seq(), file: file.name(), line: line_number, offset };
            match lines.next()? {
                Next::End => break End::Whole,
                Next::Rest { begin, only_nul_follows } if is_last && begin.len() <= crate::RECORD_BYTES_MAX => {
                    break End::Rest { at: at(), torn_bytes: begin.len() as u64, only_nul_follows };
                }
                Next::Rest { .. } => break End::Bad { at: at(), fault: Fault::Line(BadLine::NotWhole) },
                Next::Line(line) => {
                    let at = at();
                    // A record counts as good only with the checkpoint that covers it, so that a cut never keeps a rewritten one.
                    let mut next = self.tip.clone();
                    if let Err(bad) = next.follow(line, self.log_id) {
                        break End::Bad { at, fault: Fault::Line(bad) };
                    }
                    if let Err(fault) = self.compare(&next) {
                        break End::Bad { at, fault };
                    }
                    self.tip = next;
                }
            }
            segment.durable_bytes = lines.offset();
        };
        self.segment = Some((file.clone(), segment));
        Ok(end)
    }

    fn compare(&mut self, tip: &Tip) -> Result<(), Fault> {
        let size = tip.frontier.size();
        let from = self.known.0.partition_point(|checkpoint| checkpoint.through().0 < size);
        for checkpoint in self.known.0[from..].iter().take_while(|checkpoint| checkpoint.through().0 == size) {
            if checkpoint.head != tip.head || checkpoint.frontier != tip.frontier {
                return Err(Fault::Rewritten { from: LogSeq(self.confirmed.0 + 1), to: LogSeq(size) });
            }
            self.confirmed = LogSeq(size);
        }
        Ok(())
    }

    fn ended(self, end: End) -> Scan {
        Scan { tip: self.tip, segment: self.segment, end }
    }
}

/// The shortest tail of the segments before which the chain's state is known.
pub(crate) fn known_tail<'a>(segments: &'a [SegmentFile], known: &Checkpoints) -> Option<(&'a [SegmentFile], Tip)> {
    (0..segments.len()).rev().find_map(|index| Some((&segments[index..], known.start_of(&segments[index])?)))
}

/// All that is needed to walk over a stored log. The notes come first, so that a live log never has one that covers
/// more than the segments listed after it.
pub(crate) fn inventory(dir: &Path) -> io::Result<(Vec<SegmentFile>, Vec<NoteFile>)> {
    let notes = layout::notes(dir)?;
    Ok((layout::segments(dir)?, notes))
}
