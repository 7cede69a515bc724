//! Everything that a task writes and shows while it runs, within bounds.

use codegen_types::{Display, EventBody, OutputStream};

use super::call::Completed;
use super::capture::Capture;

/// The most that is kept of things shown, in bytes.
const DISPLAY_BYTES_MAX: usize = 8 << 20;

/// What was written and shown so far.
#[derive(Default)]
pub(super) struct Transcript {
    stdout: Capture,
    stderr: Capture,
    displays: Vec<Display>,
    display_bytes: usize,
    bytes: u64,
}

impl Transcript {
    pub(super) fn add(&mut self, event: &EventBody) {
        match event {
            EventBody::Output { stream, bytes } => {
                self.bytes += bytes.len() as u64;
                match stream {
                    OutputStream::Stdout => self.stdout.push(bytes),
                    OutputStream::Stderr => self.stderr.push(bytes),
                }
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

    /// Bytes written to both streams together, kept or not.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was captured, still without the operation's result.
    pub(super) fn completed(self) -> Completed {
        Completed {
            result: None,
            stdout: self.stdout.finish(),
            stderr: self.stderr.finish(),
            displays: self.displays,
            overlapped: Vec::new(),
        }
    }
}
