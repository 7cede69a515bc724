//! Where the log's bytes go: the seam between the chain and a disk, memory, or a disk that fails on demand.

use std::io;
use std::sync::Arc;

use codegen_types::LogSeq;
use parking_lot::Mutex;

/// Takes segments and checkpoints. One sink belongs to one writer.
///
/// After any error the current segment's descriptor is not used again: the next call is [`Sink::salvage`].
pub(crate) trait Sink: Send {
    /// Makes the segment that will begin with record `first`, and its name durable.
    fn start_segment(&mut self, first: LogSeq) -> io::Result<()>;
    /// Adds bytes to the current segment.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes all bytes written durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts what was allocated ahead from the current segment, for good.
    fn finish_segment(&mut self) -> io::Result<()>;
    /// Opens the current segment anew, cuts it to its first `durable_bytes`, makes that durable and gives back its
    /// contents and how many bytes of records were cut.
    fn salvage(&mut self, durable_bytes: u64) -> io::Result<Salvaged>;
    /// Keeps a signed note.
    fn put_checkpoint(&mut self, size: u64, note: &[u8], place: CheckpointPlace) -> io::Result<()>;
}

/// What was left of a segment after a failure.
pub(crate) struct Salvaged {
    pub(crate) contents: Box<dyn io::BufRead>,
    pub(crate) cut_bytes: u64,
}

/// Why a checkpoint was made, which says how long it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckpointPlace {
    /// At the end of a segment: kept, since verification can begin there.
    SegmentEnd,
    /// Anywhere else: the next ones take its place.
    Within,
}

/// A log in memory, and the switch that makes it fail.
#[derive(Clone, Default)]
pub(crate) struct MemorySink {
    state: Arc<Mutex<MemoryState>>,
}

#[derive(Default)]
struct MemoryState {
    bytes: Vec<u8>,
    /// Where the current segment begins.
    segment_at: usize,
    fault: Option<String>,
}

impl MemorySink {
    pub(crate) fn set_fault(&self, fault: Option<String>) {
        self.state.lock().fault = fault;
    }

    pub(crate) fn contents(&self) -> Vec<u8> {
        self.state.lock().bytes.clone()
    }

    fn check(&self) -> io::Result<()> {
        self.state.lock().fault.as_ref().map_or(Ok(()), |why| Err(io::Error::other(why.clone())))
    }
}

impl Sink for MemorySink {
    fn start_segment(&mut self, _first: LogSeq) -> io::Result<()> {
        self.check()?;
        let mut state = self.state.lock();
        state.segment_at = state.bytes.len();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check()?;
        self.state.lock().bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.check()
    }

    fn finish_segment(&mut self) -> io::Result<()> {
        self.check()
    }

    fn salvage(&mut self, durable_bytes: u64) -> io::Result<Salvaged> {
        self.check()?;
        let mut state = self.state.lock();
        let durable = usize::try_from(durable_bytes).unwrap_or(usize::MAX);
        let end = state.segment_at.saturating_add(durable).min(state.bytes.len());
        let cut_bytes = (state.bytes.len() - end) as u64;
        state.bytes.truncate(end);
        Ok(Salvaged { contents: Box::new(io::Cursor::new(state.bytes[state.segment_at..].to_vec())), cut_bytes })
    }

    fn put_checkpoint(&mut self, _size: u64, _note: &[u8], _place: CheckpointPlace) -> io::Result<()> {
        self.check()
    }
}
