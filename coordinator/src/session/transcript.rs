//! Everything that a task writes and shows while it runs, within bounds.

use codegen_types::{Display, EventBody, OutputStream};

use super::call::{Captured, Completed};
use super::capture::Capture;

/// The most that is kept of things shown, in bytes.
const DISPLAY_BYTES_MAX: usize = 8 << 20;

/// What was written and shown so far.
#[derive(Default)]
pub(super) struct Transcript {
    stdout: Capture,
    stderr: Capture,
    /// Both in the order of arrival, from the moment at which there are both.
    both: Option<Capture>,
    displays: Vec<Display>,
    display_bytes: usize,
    bytes: u64,
}

impl Transcript {
    pub(super) fn add(&mut self, event: &EventBody) {
        match event {
            EventBody::Output { stream, bytes } => {
                self.bytes += bytes.len() as u64;
                self.write(*stream, bytes);
            }
            EventBody::Display(display) if self.display_bytes + display.data.len() <= DISPLAY_BYTES_MAX => {
                self.display_bytes += display.data.len();
                self.displays.push(display.clone());
            }
            EventBody::Display(_)
            | EventBody::FilesChanged(_)
            | EventBody::Started
            | EventBody::Progress { .. }
            | EventBody::Finished(_)
            | EventBody::Failed { .. } => {}
        }
    }

    fn write(&mut self, stream: OutputStream, bytes: &[u8]) {
        let (this, other) = match stream {
            OutputStream::Stdout => (&mut self.stdout, &self.stderr),
            OutputStream::Stderr => (&mut self.stderr, &self.stdout),
        };
        if self.both.is_none() && !bytes.is_empty() && !other.is_empty() {
            self.both = Some(other.clone());
        }
        if let Some(both) = &mut self.both {
            both.push(bytes);
        }
        this.push(bytes);
    }

    /// Both streams so far, in the order of arrival.
    pub(super) fn log(&self) -> Captured {
        let only = if self.stderr.is_empty() { &self.stdout } else { &self.stderr };
        self.both.as_ref().unwrap_or(only).clone().finish()
    }

    /// Bytes written to both streams together, kept or not.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was captured, still without the operation's result. Whoever looks on still finds the log.
    pub(super) fn completed(&mut self) -> Completed {
        let both = self.both.clone().map(Capture::finish).unwrap_or_default();
        let log = self.log();
        self.both = Some(Capture::of(log));
        Completed {
            result: None,
            stdout: std::mem::take(&mut self.stdout).finish(),
            stderr: std::mem::take(&mut self.stderr).finish(),
            both,
            displays: std::mem::take(&mut self.displays),
            overlapped: Vec::new(),
        }
    }
}
