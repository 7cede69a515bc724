//! Events of a task, and failures.

use std::time::Duration;

use codegen_types::event::{FileChange, TaskTimes};
use codegen_types::{Display, Event, EventBody, Exit, Failure, OutputStream};

use crate::bounds::{CONTENTS_BYTES_MAX, FILE_CHANGES_MAX, MESSAGE_BYTES_MAX, NAME_BYTES_MAX};
use crate::field::{contents, cut, list, path, required, text, word, word_text};
use crate::invalid::InvalidMessage;
use crate::v1;
use crate::v1::task_event::Body;

const STREAMS: [(&str, OutputStream); 2] = [("stdout", OutputStream::Stdout), ("stderr", OutputStream::Stderr)];

impl From<Event> for v1::TaskEvent {
    fn from(event: Event) -> Self {
        Self { seq: event.seq, body: Some(event.body.into()), times: None }
    }
}

impl TryFrom<v1::TaskEvent> for Event {
    type Error = InvalidMessage;

    fn try_from(wire: v1::TaskEvent) -> Result<Self, InvalidMessage> {
        if wire.seq == 0 {
            return Err(InvalidMessage::OutOfRange { field: "TaskEvent.seq", expected: "at least 1" });
        }
        Ok(Self { seq: wire.seq, body: required(wire.body, "TaskEvent.body")?.try_into()? })
    }
}

impl From<TaskTimes> for v1::TaskTimes {
    fn from(times: TaskTimes) -> Self {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self { waited_us: us(times.waited), ran_us: us(times.ran) }
    }
}

/// Every number is a time.
impl From<v1::TaskTimes> for TaskTimes {
    fn from(wire: v1::TaskTimes) -> Self {
        Self { waited: Duration::from_micros(wire.waited_us), ran: Duration::from_micros(wire.ran_us) }
    }
}

impl From<EventBody> for Body {
    fn from(body: EventBody) -> Self {
        match body {
            EventBody::Started => Self::Started(v1::Started {}),
            EventBody::Output { stream, bytes } => {
                Self::Output(v1::Output { stream: word_text(&stream, &STREAMS), data: bytes.into() })
            }
            EventBody::Progress { message } => Self::Progress(v1::Progress { message: cut(message) }),
            EventBody::Display(Display { mime, path, data }) => {
                Self::Display(v1::Display { mime, data: data.into(), path: path.map(String::from) })
            }
            EventBody::FilesChanged(changes) => Self::FilesChanged(v1::FilesChanged {
                changes: changes.into_iter().map(v1::FileChange::from).collect(),
            }),
            EventBody::Finished(result) => Self::Finished(result.into()),
            EventBody::Failed { failure, exit } => Self::Failed(failed(failure, exit)),
        }
    }
}

impl TryFrom<Body> for EventBody {
    type Error = InvalidMessage;

    fn try_from(wire: Body) -> Result<Self, InvalidMessage> {
        Ok(match wire {
            Body::Started(v1::Started {}) => Self::Started,
            Body::Output(v1::Output { stream, data }) => Self::Output {
                stream: word(&stream, &STREAMS, "Output.stream")?,
                bytes: contents(data, CONTENTS_BYTES_MAX, "Output.data")?,
            },
            Body::Progress(v1::Progress { message }) => {
                Self::Progress { message: text(message, MESSAGE_BYTES_MAX, "Progress.message")? }
            }
            Body::FilesChanged(v1::FilesChanged { changes }) => {
                Self::FilesChanged(list(changes, FILE_CHANGES_MAX, "FilesChanged.changes", FileChange::try_from)?)
            }
            Body::Display(v1::Display { mime, data, path: of }) => Self::Display(Display {
                mime: text(mime, NAME_BYTES_MAX, "Display.mime")?,
                path: of.map(|of| path(&of, "Display.path")).transpose()?,
                data: contents(data, CONTENTS_BYTES_MAX, "Display.data")?,
            }),
            Body::Finished(finished) => Self::Finished(finished.try_into()?),
            Body::Failed(v1::Failed { code, message, exit }) => Self::Failed {
                failure: Failure::new(
                    code.parse().map_err(|_| InvalidMessage::UnknownWord { field: "Failed.code" })?,
                    text(message, MESSAGE_BYTES_MAX, "Failed.message")?,
                ),
                exit: exit.map(Exit::try_from).transpose()?,
            },
        })
    }
}

fn failed(failure: Failure, exit: Option<Exit>) -> v1::Failed {
    v1::Failed { code: failure.code.as_str().to_owned(), message: cut(failure.message), exit: exit.map(v1::Exit::from) }
}
