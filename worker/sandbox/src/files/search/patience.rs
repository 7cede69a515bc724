//! How long a search goes on.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Until when a search goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience<'a> {
    pub(super) stop: &'a AtomicBool,
    pub(super) until: Instant,
}

/// Why a search does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ended {
    /// Whoever asked for it does not want it any more.
    #[error("the search was stopped")]
    Stopped,
    /// It took too long.
    #[error("the search took too long")]
    TimedOut,
    /// The automaton failed, which its limits rule out.
    #[error("the pattern could not be followed")]
    Broken,
}

impl Patience<'_> {
    /// Whether the search goes on.
    pub(super) fn look(&self) -> Result<(), Ended> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Ended::Stopped);
        }
        if Instant::now() < self.until { Ok(()) } else { Err(Ended::TimedOut) }
    }
}

/// A file that is read only while patience lasts.
pub(super) struct Patient<'a, R> {
    pub(super) from: R,
    pub(super) patience: &'a Patience<'a>,
    /// Whether the file itself could not be read.
    pub(super) failed: bool,
}

impl<R: io::Read> io::Read for Patient<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.patience.look().map_err(io::Error::other)?;
        self.from.read(buffer).inspect_err(|error| self.failed |= error.kind() != io::ErrorKind::Interrupted)
    }
}
