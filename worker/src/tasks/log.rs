//! The events of one task, kept for any number of readers from any place.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use codegen_proto::v1::TaskEvent;
use codegen_types::event::{Edited, TaskTimes};
use codegen_types::{Event, EventBody, OperationResult};
use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::wrappers::WatchStream;

/// What an event costs beside its payload, in bytes.
const EVENT_BYTES: usize = 160;

/// The events of one task. They are kept in their wire form, whose payload is shared and not copied per reader; the
/// executor bounds what a program writes by the task's output limit, and what it shows and which files change by limits
/// of their own.
#[derive(Debug)]
pub(crate) struct EventLog {
    arrived: Instant,
    state: Mutex<State>,
    /// The number of the newest event.
    newest: watch::Sender<u64>,
    /// Whether somebody read it to its end.
    read_out: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    events: Vec<TaskEvent>,
    bytes: usize,
    started: Option<Instant>,
    ended: bool,
}

impl Default for EventLog {
    fn default() -> Self {
        Self {
            arrived: Instant::now(),
            state: Mutex::default(),
            newest: watch::Sender::new(0),
            read_out: watch::Sender::new(false),
        }
    }
}

impl EventLog {
    /// Adds an event; what comes after the last one is dropped.
    pub fn push(&self, body: EventBody) {
        let mut state = self.state.lock();
        if state.ended {
            return;
        }
        state.ended = body.is_last();
        if matches!(body, EventBody::Started) {
            state.started.get_or_insert_with(Instant::now);
        }
        let times = state.ended.then(|| self.times(state.started).into());
        state.bytes += EVENT_BYTES + payload_bytes(&body);
        let seq = state.events.len() as u64 + 1;
        state.events.push(TaskEvent { times, ..Event { seq, body }.into() });
        drop(state);
        self.newest.send_replace(seq);
    }

    /// Adds the event that it has begun, unless that was said.
    pub fn begin(&self) {
        let has_begun = self.state.lock().started.is_some();
        if !has_begun {
            self.push(EventBody::Started);
        }
    }

    fn times(&self, started: Option<Instant>) -> TaskTimes {
        let now = Instant::now();
        let started = started.unwrap_or(now);
        TaskTimes { waited: started - self.arrived, ran: now - started }
    }

    /// What is kept, in bytes.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Whether the last event is there.
    pub fn has_ended(&self) -> bool {
        self.state.lock().ended
    }

    /// Reads from an event on, to the last one, waiting for those that are still to come. A slow reader costs nothing:
    /// it takes the next event when it asks for it.
    pub fn read(self: &Arc<Self>, from_seq: u64) -> EventStream {
        EventStream { next: from_seq.max(1), news: WatchStream::new(self.newest.subscribe()), log: self.clone() }
    }

    /// Waits until somebody has read it to its end.
    pub async fn was_read(&self) {
        // The sender lives as long as this.
        self.read_out.subscribe().wait_for(|read| *read).await.map(drop).unwrap_or_default();
    }

    /// The event of that number, or whether there will be none.
    fn get(&self, seq: u64) -> Result<TaskEvent, bool> {
        let state = self.state.lock();
        let index = usize::try_from(seq - 1).unwrap_or(usize::MAX);
        state.events.get(index).cloned().ok_or(state.ended)
    }
}

fn payload_bytes(body: &EventBody) -> usize {
    match body {
        EventBody::Started => 0,
        EventBody::Output { bytes, .. } => bytes.len(),
        EventBody::Progress { message } => message.len(),
        EventBody::Display(display) => display.mime.len() + display.data.len(),
        EventBody::FilesChanged(changes) => changes.len() * EVENT_BYTES,
        EventBody::Finished(result) => match result {
            OperationResult::Read { contents, .. } => contents.len(),
            OperationResult::List { entries, .. } => entries.iter().map(|entry| EVENT_BYTES + entry.path.len()).sum(),
            OperationResult::Exec(exit) => exit.files_changed.len() * EVENT_BYTES,
            OperationResult::Write { .. }
            | OperationResult::Stat { .. }
            | OperationResult::Move { .. }
            | OperationResult::Remove { .. } => 0,
            OperationResult::Search(found) => {
                found.files.iter().flat_map(|file| &file.lines).map(|line| EVENT_BYTES + line.text.len()).sum()
            }
            OperationResult::Edit(Edited { diff, .. }) => diff.len(),
            OperationResult::Kernels { kernels } => kernels.len() * EVENT_BYTES,
        },
        EventBody::Failed { failure, .. } => failure.message.len(),
    }
}

/// The events of a task in order. Dropping it changes nothing for the task.
pub(crate) struct EventStream {
    log: Arc<EventLog>,
    next: u64,
    news: WatchStream<u64>,
}

impl Stream for EventStream {
    type Item = Result<TaskEvent, tonic::Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.log.get(self.next) {
                Ok(event) => {
                    self.next += 1;
                    return Poll::Ready(Some(Ok(event)));
                }
                Err(true) => {
                    self.log.read_out.send_replace(true);
                    return Poll::Ready(None);
                }
                Err(false) => match Pin::new(&mut self.news).poll_next(context) {
                    Poll::Ready(Some(_)) => {}
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use codegen_types::{Exit, OutputStream};
    use futures::StreamExt;

    use super::*;

    fn output(text: &str) -> EventBody {
        EventBody::Output { stream: OutputStream::Stdout, bytes: text.into() }
    }

    #[tokio::test]
    async fn every_reader_sees_the_same_events_from_where_it_starts() {
        let log = Arc::new(EventLog::default());
        log.push(EventBody::Started);
        let early = tokio::spawn(log.read(1).collect::<Vec<_>>());
        let late = tokio::spawn(log.read(3).collect::<Vec<_>>());
        log.push(output("a"));
        log.push(output("b"));
        log.push(EventBody::Finished(OperationResult::Exec(Exit::default())));
        log.push(output("after the end"));
        let all: Vec<TaskEvent> = early.await.unwrap().into_iter().map(Result::unwrap).collect();
        assert_eq!(all.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
        let tail: Vec<TaskEvent> = late.await.unwrap().into_iter().map(Result::unwrap).collect();
        assert_eq!(tail, all[2..]);
        assert_eq!(log.read(9).count().await, 0, "a place behind the end has no events");
    }

    #[tokio::test]
    async fn it_is_known_whether_the_end_was_read() {
        let log = Arc::new(EventLog::default());
        log.push(EventBody::Started);
        let mut reading = log.read(1);
        assert!(reading.next().await.is_some());
        log.push(EventBody::Finished(OperationResult::Exec(Exit::default())));
        assert!(reading.next().await.is_some());
        assert!(futures::FutureExt::now_or_never(log.was_read()).is_none(), "the last event may yet be lost");
        assert!(reading.next().await.is_none());
        log.was_read().await;
    }
}
