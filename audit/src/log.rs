//! The chain's end: gives records their place, writes them through a sink, rotates segments and signs checkpoints.

use std::io;
use std::time::{Duration, Instant};

use codegen_types::LogSeq;
use signed_note::StandardSigner;

use crate::checkpoint::Checkpoint;
use crate::hash::Hash;
use crate::lines::{Lines, Next};
use crate::merkle::Frontier;
use crate::record::{self, EncodedEvent, Place};
use crate::redact::Redactor;
use crate::sink::{CheckpointPlace, Sink};
use crate::times::{self, Moment, Times};

/// Where a chain stands: its last hash, and the tree over all its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tip {
    pub(crate) head: Hash,
    pub(crate) frontier: Frontier,
}

impl Tip {
    pub(crate) fn genesis() -> Self {
        Self { head: Hash::GENESIS, frontier: Frontier::default() }
    }

    /// The place of the next record.
    pub(crate) const fn next_seq(&self) -> LogSeq {
        LogSeq(self.frontier.size() + 1)
    }

    /// Checks that a line is the next record and takes it in.
    pub(crate) fn follow(&mut self, line: &[u8], log_id: Option<&str>) -> Result<(), record::BadLine> {
        self.head = record::check_line(line, log_id, self.next_seq(), &self.head)?;
        self.frontier.push(line);
        Ok(())
    }
}

/// The segment that is being written.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) first: LogSeq,
    /// The hash of the record before its first one.
    pub(crate) prev: Hash,
    /// How much of it is known to be durable.
    pub(crate) durable_bytes: u64,
}

/// When segments end and checkpoints are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cadence {
    pub(crate) segment_bytes_max: u64,
    pub(crate) checkpoint_records: u64,
    pub(crate) checkpoint_interval: Duration,
}

pub(crate) struct Log {
    sink: Box<dyn Sink>,
    log_id: String,
    pub(crate) times: Times,
    signer: Option<StandardSigner>,
    cadence: Cadence,
    tip: Tip,
    segment: Segment,
    checkpointed_size: u64,
    checkpoint_tried_at: Instant,
    /// Whether the last try kept none: the next one has time then, however many records are uncovered.
    checkpoint_failed: bool,
    buffer: Vec<u8>,
}

impl Log {
    /// A log that goes on at `tip`, in a segment that the sink has open. Without a signer it makes no checkpoints.
    pub(crate) fn new(
        sink: Box<dyn Sink>,
        log_id: String,
        signer: Option<StandardSigner>,
        cadence: Cadence,
        tip: Tip,
        segment: Segment,
    ) -> Self {
        let checkpointed_size = tip.frontier.size();
        Self {
            sink,
            log_id,
            times: Times::new(),
            signer,
            cadence,
            tip,
            segment,
            checkpointed_size,
            checkpoint_tried_at: Instant::now(),
            checkpoint_failed: false,
            buffer: Vec::new(),
        }
    }

    /// Puts something between the log and its sink.
    #[cfg(test)]
    pub(crate) fn wrap_sink(&mut self, wrap: impl FnOnce(Box<dyn Sink>) -> Box<dyn Sink>) {
        let sink = std::mem::replace(&mut self.sink, Box::new(crate::sink::MemorySink::default()));
        self.sink = wrap(sink);
    }

    /// Makes the events durable as the next records and gives the place of the first. After an error nothing more is
    /// accepted until [`Log::recover`].
    pub(crate) fn append<'a>(&mut self, events: impl Iterator<Item = &'a EncodedEvent>) -> io::Result<LogSeq> {
        let turn = self.times.look();
        let note = turn.set_by.map(|by| {
            // It holds no text, so that nothing of it is shortened by a key.
            EncodedEvent::new(&times::clock_set(by, LogSeq(self.tip.frontier.size())), &Redactor::new([0; 32]))
        });
        let first = LogSeq(self.tip.next_seq().0 + u64::from(note.is_some()));
        let mut last = self.times.last.filter(|_| !turn.is_back);
        let mut tip = self.tip.clone();
        self.buffer.clear();
        let mut add = |event: &EncodedEvent| {
            let start = self.buffer.len();
            let Moment { ts, mono_ns } = self.times.next(&mut last);
            let place = Place { log_id: &self.log_id, seq: tip.next_seq(), boot_id: self.times.boot_id(), ts, mono_ns };
            tip.head = record::write_line(&mut self.buffer, &place, event, &tip.head);
            tip.frontier.push(&self.buffer[start..]);
            self.buffer.push(b'\n');
        };
        note.iter().for_each(&mut add);
        events.for_each(add);
        let batch_bytes = self.buffer.len() as u64;
        let is_full = self.segment.durable_bytes + batch_bytes > self.cadence.segment_bytes_max;
        if self.segment.durable_bytes > 0 && (is_full || turn.is_back) {
            self.rotate()?;
        }
        self.sink.write(&self.buffer)?;
        self.sink.sync()?;
        self.segment.durable_bytes += batch_bytes;
        self.tip = tip;
        self.times.last = last;
        Ok(first)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.checkpoint(CheckpointPlace::SegmentEnd)?;
        self.sink.finish_segment()?;
        self.sink.start_segment(self.tip.next_seq())?;
        self.segment = Segment { first: self.tip.next_seq(), prev: self.tip.head, durable_bytes: 0 };
        Ok(())
    }

    /// After a failure: opens the segment anew, cuts what was never acknowledged, checks what is left and goes on in a
    /// new segment. Gives how many bytes were cut.
    pub(crate) fn recover(&mut self) -> io::Result<u64> {
        let salvaged = self.sink.salvage(self.segment.durable_bytes)?;
        let mut tip = Tip { head: self.segment.prev, frontier: Frontier::default() };
        let mut lines = Lines::new(salvaged.contents);
        let mut seq = self.segment.first;
        let clean = loop {
            match lines.next()? {
                Next::Line(line) => match record::check_line(line, Some(&self.log_id), seq, &tip.head) {
                    Ok(hash) => tip.head = hash,
                    Err(_) => break false,
                },
                Next::End => break true,
                Next::Rest { .. } => break false,
            }
            seq = LogSeq(seq.0 + 1);
        };
        if !clean || tip.head != self.tip.head {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "acknowledged records are not what was written"));
        }
        if self.segment.durable_bytes > 0 {
            self.rotate()?;
        }
        Ok(salvaged.cut_bytes)
    }

    /// When the next checkpoint is due; `None` when all records are covered.
    pub(crate) fn checkpoint_due(&self) -> Option<Instant> {
        let uncovered = self.tip.frontier.size().saturating_sub(self.checkpointed_size);
        if self.signer.is_none() || uncovered == 0 {
            return None;
        }
        let earliest = if uncovered >= self.cadence.checkpoint_records && !self.checkpoint_failed {
            Duration::ZERO
        } else {
            self.cadence.checkpoint_interval
        };
        Some(self.checkpoint_tried_at + earliest)
    }

    /// Signs and keeps a checkpoint over all records so far.
    pub(crate) fn checkpoint(&mut self, place: CheckpointPlace) -> io::Result<()> {
        self.checkpoint_tried_at = Instant::now();
        let Some(signer) = &self.signer else { return Ok(()) };
        if self.tip.frontier.size() == 0 {
            return Ok(());
        }
        let checkpoint = Checkpoint {
            log_id: self.log_id.clone(),
            head: self.tip.head,
            time: jiff::Timestamp::now(),
            frontier: self.tip.frontier.clone(),
        };
        self.checkpoint_failed = true;
        let note = checkpoint.sign(signer).map_err(io::Error::other)?;
        self.sink.put_checkpoint(checkpoint.through().0, &note, place)?;
        self.checkpointed_size = checkpoint.through().0;
        self.checkpoint_failed = false;
        Ok(())
    }

    /// Ends the log in good order: a last checkpoint, and nothing allocated ahead.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.checkpoint(CheckpointPlace::Within)?;
        self.sink.finish_segment()
    }
}
