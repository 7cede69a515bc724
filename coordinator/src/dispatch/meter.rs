//! Bounds what one task may send, whatever its worker lets it.

use codegen_types::EventBody;

/// Counts down what a task may still send.
#[derive(Debug)]
pub(super) struct Meter {
    output_bytes_left: u64,
    display_bytes_left: u64,
    progress_left: u32,
    started: bool,
    exceeded: bool,
}

impl Meter {
    pub(super) fn new(output_bytes_max: u64, display_bytes_max: u64, progress_events_max: u32) -> Self {
        Self {
            output_bytes_left: output_bytes_max,
            display_bytes_left: display_bytes_max,
            progress_left: progress_events_max,
            started: false,
            exceeded: false,
        }
    }

    /// Whether the task sent more than it may.
    pub(super) fn is_exceeded(&self) -> bool {
        self.exceeded
    }

    /// What is passed on of an event that is not the last: all of it, its first bytes, or nothing.
    pub(super) fn pass(&mut self, body: EventBody) -> Option<EventBody> {
        match body {
            EventBody::Started => (!std::mem::replace(&mut self.started, true)).then_some(EventBody::Started),
            EventBody::Output { stream, mut bytes } => {
                self.exceeded |= take(&mut self.output_bytes_left, &mut bytes);
                (!bytes.is_empty()).then_some(EventBody::Output { stream, bytes })
            }
            EventBody::Display(mut display) => {
                // A picture cut short is none.
                let cut = take(&mut self.display_bytes_left, &mut display.data);
                self.exceeded |= cut;
                (!cut).then_some(EventBody::Display(display))
            }
            EventBody::Progress { message } => {
                self.progress_left = self.progress_left.checked_sub(1)?;
                Some(EventBody::Progress { message })
            }
            EventBody::FilesChanged(changes) => {
                self.progress_left = self.progress_left.checked_sub(1)?;
                Some(EventBody::FilesChanged(changes))
            }
            last @ (EventBody::Finished(_) | EventBody::Failed { .. }) => Some(last),
        }
    }
}

/// Takes what is left and says whether something was cut off.
fn take(left: &mut u64, bytes: &mut Vec<u8>) -> bool {
    let wanted = bytes.len() as u64;
    let granted = wanted.min(*left);
    *left -= granted;
    bytes.truncate(usize::try_from(granted).expect("no more than the length"));
    granted < wanted
}

#[cfg(test)]
mod tests {
    use codegen_types::{Display, OutputStream};

    use super::*;

    fn output(bytes: &[u8]) -> EventBody {
        EventBody::Output { stream: OutputStream::Stdout, bytes: bytes.to_vec() }
    }

    #[test]
    fn output_is_passed_up_to_the_last_byte_allowed() {
        let mut meter = Meter::new(5, 0, 0);
        assert_eq!(meter.pass(output(b"abc")), Some(output(b"abc")));
        assert_eq!(meter.pass(output(b"")), None);
        assert_eq!(meter.pass(output(b"de")), Some(output(b"de")));
        assert!(!meter.is_exceeded(), "exactly as much as allowed");
        assert_eq!(meter.pass(output(b"f")), None);
        assert!(meter.is_exceeded());
    }

    #[test]
    fn displays_notes_and_beginnings_are_bounded_too() {
        let mut meter = Meter::new(0, 3, 1);
        let display =
            |data: &[u8]| EventBody::Display(Display { mime: "image/png".to_owned(), path: None, data: data.to_vec() });
        let note = || EventBody::Progress { message: "half".to_owned() };
        assert_eq!(meter.pass(EventBody::Started), Some(EventBody::Started));
        assert_eq!(meter.pass(EventBody::Started), None);
        assert_eq!(meter.pass(note()), Some(note()));
        assert_eq!(meter.pass(note()), None);
        assert_eq!(meter.pass(display(b"abc")), Some(display(b"abc")));
        assert!(!meter.is_exceeded());
        assert_eq!(meter.pass(display(b"d")), None);
        assert!(meter.is_exceeded());
    }
}
