//! Answers that were given, kept for a while for clients that lost the connection before they had all of them.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rmcp::model::ServerJsonRpcMessage;
use tokio::time::Instant;

use super::session::ProtocolSession;

/// How long an answer can be asked for again.
const LIFETIME: Duration = Duration::from_secs(60);
/// Bytes of answers that are kept, of all sessions together. Full means that the oldest go.
const BYTES_MAX: usize = 64 << 20;
/// Answers that are kept, of all sessions together.
const ANSWERS_MAX: usize = 8_192;

/// The answers of all sessions.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    answers: VecDeque<Answer>,
    bytes: usize,
}

#[derive(Debug)]
struct Answer {
    session: Weak<ProtocolSession>,
    stream: u64,
    bytes: usize,
    until: Instant,
}

impl Kept {
    /// Keeps the stream that ends with this answer, and forgets those for which it is time.
    pub(super) fn keep(&self, session: &Arc<ProtocolSession>, stream: u64, answer: &ServerJsonRpcMessage) {
        let bytes = Counted::of(answer);
        let until = Instant::now() + LIFETIME;
        let mut queue = self.0.lock();
        queue.bytes += bytes;
        queue.answers.push_back(Answer { session: Arc::downgrade(session), stream, bytes, until });
        let gone = queue.overdue(Instant::now());
        drop(queue);
        gone.into_iter().for_each(Answer::forget);
    }

    /// Forgets what is too old.
    pub(super) fn sweep(&self) {
        let gone = self.0.lock().overdue(Instant::now());
        gone.into_iter().for_each(Answer::forget);
    }
}

impl Queue {
    /// Takes out what is too old or too much.
    fn overdue(&mut self, now: Instant) -> Vec<Answer> {
        let mut gone = Vec::new();
        while let Some(oldest) = self.answers.front() {
            let is_too_much = self.bytes > BYTES_MAX || self.answers.len() > ANSWERS_MAX;
            if oldest.until > now && !is_too_much {
                break;
            }
            self.bytes -= oldest.bytes;
            gone.extend(self.answers.pop_front());
        }
        gone
    }
}

impl Answer {
    fn forget(self) {
        if let Some(session) = self.session.upgrade() {
            session.forget(self.stream);
        }
    }
}

/// How many bytes a message has on the wire.
struct Counted(usize);

impl Counted {
    fn of(message: &ServerJsonRpcMessage) -> usize {
        let mut counted = Self(0);
        // What cannot be written cannot be sent either.
        let _unwritable = serde_json::to_writer(&mut counted, message);
        counted.0
    }
}

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
