//! The events of one stream: what its client has not got yet, and what it may ask for again by `Last-Event-ID`.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use futures::Stream;
use parking_lot::Mutex;
use rmcp::model::ServerJsonRpcMessage;
use rmcp::transport::streamable_http_server::session::ServerSseMessage;
use tokio::sync::Notify;

use crate::byte_room::Held;
use crate::mcp::unread::Counted;

/// Events of a stream that are kept. Full means that the oldest goes: on streams of requests only progress can be that
/// many, and a listener that missed notices asks anew.
pub(super) const EVENTS_MAX: usize = 128;
/// Bytes of them that are kept. The newest is, however long.
const BYTES_MAX: usize = 1 << 20;
/// Connections that wait for one stream. One more ends the one that waited longest.
const READERS_MAX: usize = 8;

/// Which event of which stream, as it stands in `id:` and `Last-Event-ID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EventId {
    pub(super) stream: u64,
    pub(super) index: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.stream, self.index)
    }
}

/// A text that is no event's id.
#[derive(Debug, thiserror::Error)]
#[error("there is no such event")]
pub(super) struct UnknownEvent;

impl FromStr for EventId {
    type Err = UnknownEvent;

    fn from_str(text: &str) -> Result<Self, UnknownEvent> {
        let (stream, index) = text.split_once('-').ok_or(UnknownEvent)?;
        match (stream.parse(), index.parse()) {
            (Ok(stream), Ok(index)) => Ok(Self { stream, index }),
            _ => Err(UnknownEvent),
        }
    }
}

/// One stream.
#[derive(Debug)]
pub(super) struct EventLog {
    stream: u64,
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// With the bytes of each, and the room of an answer.
    events: VecDeque<(ServerSseMessage, usize, Option<Held>)>,
    bytes: usize,
    /// The index of the first event that is kept.
    first: u64,
    /// The index of the next event that a reader gets.
    position: u64,
    is_over: bool,
    /// Connections that read; the first gets events, and the next when that one is gone.
    readers: VecDeque<u64>,
    last_reader: u64,
}

impl State {
    fn next_index(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    fn add(&mut self, event: ServerSseMessage, bytes: usize, room: Option<Held>) {
        self.events.push_back((event, bytes, room));
        self.bytes += bytes;
        while self.events.len() > EVENTS_MAX || (self.bytes > BYTES_MAX && self.events.len() > 1) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, bytes, _room)) = self.events.pop_front() {
            self.bytes -= bytes;
            self.first += 1;
        }
    }
}

/// Where a connection begins to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// With what nobody has got yet, once every other connection has ended.
    WhereOthersEnd,
    /// At this index, at once: the client says that it lost its connection.
    At(u64),
}

impl EventLog {
    pub(super) fn new(stream: u64) -> Arc<Self> {
        Arc::new(Self { stream, state: Mutex::default(), news: Notify::new() })
    }

    /// Adds a message. After the end of the stream nothing is added.
    pub(super) fn push(&self, message: ServerJsonRpcMessage) {
        self.put(message, None);
    }

    fn put(&self, message: ServerJsonRpcMessage, room: Option<Held>) {
        let bytes = Counted::of(&message);
        self.add(bytes, room, |id| ServerSseMessage::new(id.to_string(), message));
    }

    /// Adds the answer, with its room, and ends the stream. What came before it stays, within the bounds of a stream, for
    /// clients that lost the connection in the middle of it. Gives the bytes of the stream.
    pub(super) fn finish(&self, answer: ServerJsonRpcMessage, room: Option<Held>) -> usize {
        self.put(answer, room);
        self.end();
        self.state.lock().bytes
    }

    /// Adds an event without a message, which gives the client an id to resume from.
    pub(super) fn prime(&self, retry: std::time::Duration) {
        self.add(0, None, |id| ServerSseMessage::priming(id.to_string(), retry));
    }

    fn add(&self, bytes: usize, room: Option<Held>, event: impl FnOnce(EventId) -> ServerSseMessage) {
        let mut state = self.state.lock();
        if state.is_over {
            return;
        }
        let index = state.next_index();
        state.add(event(EventId { stream: self.stream, index }), bytes, room);
        drop(state);
        self.news.notify_waiters();
    }

    /// Ends the stream: readers end when they have got everything.
    pub(super) fn end(&self) {
        self.state.lock().is_over = true;
        self.news.notify_waiters();
    }

    /// The index of the event that comes next.
    pub(super) fn next_index(&self) -> u64 {
        self.state.lock().next_index()
    }

    /// Whether a connection waits for what comes.
    pub(super) fn is_read(&self) -> bool {
        !self.state.lock().readers.is_empty()
    }

    /// Waits until there is a message, or the stream is over.
    pub(super) async fn spoken(&self) {
        loop {
            // It is told of what comes from here on, so that nothing between the look and the wait is missed.
            let news = self.news.notified();
            let silent = {
                let state = self.state.lock();
                !state.is_over && state.events.iter().all(|(event, ..)| event.message.is_none())
            };
            if !silent {
                return;
            }
            news.await;
        }
    }

    /// Reads the stream, for one connection.
    pub(super) fn read(self: &Arc<Self>, begin: Begin) -> impl Stream<Item = ServerSseMessage> + Send + Sync + use<> {
        let reader = Reader { number: self.enter(begin), log: Arc::clone(self) };
        futures::stream::unfold(reader, |reader| async move { reader.next().await.map(|event| (event, reader)) })
    }

    fn enter(&self, begin: Begin) -> u64 {
        let mut state = self.state.lock();
        state.last_reader += 1;
        let number = state.last_reader;
        match begin {
            Begin::WhereOthersEnd => state.readers.push_back(number),
            Begin::At(index) => {
                state.readers.push_front(number);
                state.position = index;
            }
        }
        if state.readers.len() > READERS_MAX {
            let waited_longest = if begin == Begin::WhereOthersEnd { 0 } else { state.readers.len() - 1 };
            state.readers.remove(waited_longest);
        }
        drop(state);
        self.news.notify_waiters();
        number
    }
}

/// One connection's place at a stream.
struct Reader {
    number: u64,
    log: Arc<EventLog>,
}

/// What a reader is to do.
enum Turn {
    Take(ServerSseMessage),
    Wait,
    End,
}

impl Reader {
    async fn next(&self) -> Option<ServerSseMessage> {
        loop {
            // It is told of what comes from here on, so that nothing between the look and the wait is missed.
            let news = self.log.news.notified();
            match self.turn() {
                Turn::Take(event) => return Some(event),
                Turn::End => return None,
                Turn::Wait => news.await,
            }
        }
    }

    fn turn(&self) -> Turn {
        let mut state = self.log.state.lock();
        if !state.readers.contains(&self.number) {
            return Turn::End;
        }
        if state.readers.front() != Some(&self.number) {
            return if state.is_over { Turn::End } else { Turn::Wait };
        }
        let position = state.position.max(state.first);
        let event = usize::try_from(position - state.first)
            .ok()
            .and_then(|at| state.events.get(at).map(|(event, ..)| event.clone()));
        match event {
            Some(event) => {
                state.position = position + 1;
                Turn::Take(event)
            }
            None if state.is_over => Turn::End,
            None => Turn::Wait,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.log.state.lock().readers.retain(|number| *number != self.number);
        self.log.news.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};
    use rmcp::model::{RequestId, ServerResult};

    use super::*;

    fn message(number: i64) -> ServerJsonRpcMessage {
        ServerJsonRpcMessage::response(ServerResult::empty(()), RequestId::Number(number))
    }

    /// The ids of the events that are there to be read at once.
    fn ready(stream: &mut (impl Stream<Item = ServerSseMessage> + Unpin)) -> Vec<String> {
        let mut ids = Vec::new();
        while let Some(Some(event)) = stream.next().now_or_never() {
            ids.push(event.event_id.unwrap());
        }
        ids
    }

    fn reading(log: &Arc<EventLog>, begin: Begin) -> impl Stream<Item = ServerSseMessage> + Unpin + use<> {
        Box::pin(log.read(begin).fuse())
    }

    #[test]
    fn a_lost_connection_gets_what_came_after_the_event_that_it_names() {
        let log = EventLog::new(7);
        (0..4).for_each(|number| log.push(message(number)));
        let mut first = reading(&log, Begin::WhereOthersEnd);
        assert_eq!(ready(&mut first), ["7-0", "7-1", "7-2", "7-3"]);
        let mut again = reading(&log, Begin::At(2));
        log.push(message(4));
        log.end();
        assert_eq!(ready(&mut again), ["7-2", "7-3", "7-4"]);
        assert!(matches!(again.next().now_or_never(), Some(None)));
        assert!(ready(&mut first).is_empty());
    }

    #[test]
    fn a_stream_that_has_ended_is_read_again_from_the_middle_with_what_came_before_the_answer() {
        let log = EventLog::new(3);
        (0..3).for_each(|number| log.push(message(number)));
        let mut first = reading(&log, Begin::WhereOthersEnd);
        assert_eq!(ready(&mut first), ["3-0", "3-1", "3-2"]);
        let bytes = log.finish(message(3), None);
        assert_eq!(ready(&mut first), ["3-3"]);
        assert_eq!(bytes, (0..4).map(|number| Counted::of(&message(number))).sum::<usize>());
        let mut again = reading(&log, Begin::At(1));
        assert_eq!(ready(&mut again), ["3-1", "3-2", "3-3"]);
    }

    #[test]
    fn no_event_goes_to_two_connections_and_none_is_lost_between_them() {
        let log = EventLog::new(0);
        let mut first = reading(&log, Begin::WhereOthersEnd);
        let mut second = reading(&log, Begin::WhereOthersEnd);
        log.push(message(0));
        assert!(ready(&mut second).is_empty());
        assert_eq!(ready(&mut first), ["0-0"]);
        log.push(message(1));
        drop(first);
        assert_eq!(ready(&mut second), ["0-1"]);
    }

    #[test]
    fn what_is_kept_and_who_waits_is_bounded() {
        let log = EventLog::new(1);
        (0..EVENTS_MAX as i64 + 5).for_each(|number| log.push(message(number)));
        let mut reader = reading(&log, Begin::At(0));
        assert_eq!(ready(&mut reader).first().unwrap(), "1-5");
        let mut waiting: Vec<_> = (0..READERS_MAX).map(|_| reading(&log, Begin::WhereOthersEnd)).collect();
        assert!(matches!(reader.next().now_or_never(), Some(None)), "the oldest was ended");
        assert!(waiting.iter_mut().all(|one| one.next().now_or_never().is_none()));
    }

    #[test]
    fn what_is_kept_of_long_events_is_bounded_and_the_answer_is_always_there() {
        use rmcp::model::{Notification, ProgressNotificationParam, ProgressToken, RequestId as Id};
        let long = |bytes: usize| {
            let param =
                ProgressNotificationParam::new(ProgressToken(Id::Number(1)), 1.0).with_message("x".repeat(bytes));
            ServerJsonRpcMessage::notification(rmcp::model::ServerNotification::ProgressNotification(
                Notification::new(param),
            ))
        };
        let log = EventLog::new(1);
        (0..8).for_each(|_| log.push(long(BYTES_MAX / 4)));
        assert!(log.state.lock().bytes <= BYTES_MAX && log.state.lock().events.len() == 3);
        let mut reader = reading(&log, Begin::WhereOthersEnd);
        reader.next().now_or_never().unwrap().unwrap();
        let kept = log.finish(long(2 * BYTES_MAX), None);
        assert!(kept > 2 * BYTES_MAX && log.state.lock().events.len() == 1, "{kept}");
        assert_eq!(ready(&mut reader), ["1-8"]);
        assert!(matches!(reader.next().now_or_never(), Some(None)));
    }

    #[test]
    fn only_ids_that_were_given_out_are_read() {
        let id = EventId { stream: 12, index: 3 };
        assert_eq!(id.to_string().parse::<EventId>().unwrap(), id);
        for bad in ["", "12", "12-", "-3", "a-b", "1-2-3", "99999999999999999999-1"] {
            assert!(bad.parse::<EventId>().is_err(), "{bad}");
        }
    }
}
