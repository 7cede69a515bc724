//! How long a search goes on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Until when a search goes on.
#[derive(Debug, Clone)]
pub struct Patience {
    /// Set when whoever asked for it does not want it any more.
    pub stop: Arc<AtomicBool>,
    /// The end of its time.
    pub until: Instant,
}

/// Why a search does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
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

impl Patience {
    /// Whether the search goes on.
    ///
    /// # Errors
    /// Why it does not.
    pub fn look(&self) -> Result<(), Ended> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Ended::Stopped);
        }
        if Instant::now() < self.until { Ok(()) } else { Err(Ended::TimedOut) }
    }
}

/// A file that is read only while patience lasts.
#[derive(Debug)]
pub struct Patient<'a, R> {
    /// The file.
    pub from: R,
    /// How long it is read.
    pub patience: &'a Patience,
    /// Whether the file itself could not be read.
    pub failed: bool,
}

impl<R: io::Read> io::Read for Patient<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.patience.look().map_err(io::Error::other)?;
        self.from.read(buffer).inspect_err(|error| self.failed |= error.kind() != io::ErrorKind::Interrupted)
    }
}
