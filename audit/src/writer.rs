//! The one writer: takes batches, makes them durable, answers, and after a failure finds back by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use codegen_types::{ErrorCode, LogSeq};
use serde_json::json;

use crate::entry::{Entry, EventKind, Outcome};
use crate::handle::{AuditUnavailable, Health};
use crate::log::Log;
use crate::queue::{Queue, Request, Wake, Wish};
use crate::record::EncodedEvent;
use crate::redact::Redactor;
use crate::sink::CheckpointPlace;

const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_LAST: Duration = Duration::from_secs(2);

/// So many callers of one batch are a crowd, most of whom come again at once.
const MANY: usize = 9;

/// What was written at once.
struct Batch {
    last_ticket: u64,
    requests: usize,
}

pub(crate) struct Writer {
    pub(crate) log: Log,
    pub(crate) queue: Arc<Queue>,
    pub(crate) redactor: Arc<Redactor>,
    failure: Option<String>,
}

impl Writer {
    pub(crate) const fn new(log: Log, queue: Arc<Queue>, redactor: Arc<Redactor>) -> Self {
        Self { log, queue, redactor, failure: None }
    }

    /// Writes until the queue closes; the body of the writer's thread.
    pub(crate) fn run(mut self) {
        loop {
            match self.queue.wait(self.log.checkpoint_due()) {
                Wake::Work => self.drain(),
                Wake::Due => self.checkpoint(),
                Wake::Closing => break,
            }
            if self.failure.is_some() && self.retry_until_recovered() {
                break;
            }
        }
        self.close();
    }

    /// Writes all that waits, unless the log is failing.
    pub(crate) fn drain(&mut self) {
        while self.failure.is_none()
            && let Some(batch) = self.commit_batch()
        {
            self.queue.done(batch.last_ticket, self.health());
            match batch.requests {
                ..=1 => {}
                // Several callers shared it. Those who come next do so as well when whoever wants the processor has it
                // first; where nobody does, this costs nothing.
                2..MANY => std::thread::yield_now(),
                _ => self.queue.gather(MANY),
            }
        }
    }

    /// Writes what waits, up to the bound of a batch; `None` when nothing waits.
    fn commit_batch(&mut self) -> Option<Batch> {
        let batch = self.queue.take_batch();
        let (last_ticket, requests) = (batch.iter().map(Request::ticket).max()?, batch.len());
        self.commit(batch);
        Some(Batch { last_ticket, requests })
    }

    fn commit(&mut self, mut batch: Vec<Request>) {
        batch.retain(|request| !request.is_moot());
        if batch.is_empty() {
            return;
        }
        match self.log.append(batch.iter().flat_map(Request::events)) {
            Ok(first) => self.release(batch, first),
            Err(error) => self.fail(batch, &error),
        }
    }

    /// Tells every caller, and says in the log of whom had been told otherwise, or had left, that they did not act.
    fn release(&mut self, batch: Vec<Request>, first: LogSeq) {
        let mut withdrawn = Vec::new();
        let mut next = first;
        for mut request in batch {
            let seq = LogSeq(next.0 + u64::from(request.preceding.is_some()));
            next = LogSeq(seq.0 + 1);
            if !request.answer(Ok(seq)) && request.wish == Wish::DurableOrNothing {
                withdrawn.push(Entry {
                    kind: EventKind::LogWithdrawn,
                    session: request.session,
                    task: request.task,
                    outcome: Some(Outcome::Refused),
                    code: Some(ErrorCode::AuditUnavailable),
                    cites: Some(seq),
                    ..Entry::default()
                });
            }
        }
        if !withdrawn.is_empty() {
            self.append_own(&withdrawn);
        }
    }

    fn fail(&mut self, batch: Vec<Request>, error: &std::io::Error) {
        self.failure = Some(error.to_string());
        let mut kept = Vec::new();
        for mut request in batch {
            request.answer(Err(AuditUnavailable::Failing(error.to_string())));
            if request.wish == Wish::Kept {
                kept.push(request);
            }
        }
        self.queue.put_back(kept);
    }

    /// Writes records of the log about itself.
    fn append_own(&mut self, entries: &[Entry]) {
        let events: Vec<EncodedEvent> = entries.iter().map(|entry| EncodedEvent::new(entry, &self.redactor)).collect();
        if let Err(error) = self.log.append(events.iter()) {
            self.failure = Some(error.to_string());
        }
    }

    /// Retries with growing pauses; true when the queue closed meanwhile.
    fn retry_until_recovered(&mut self) -> bool {
        let mut pause = RETRY_FIRST;
        while self.failure.is_some() {
            if self.queue.pause(Instant::now() + pause) {
                return true;
            }
            self.try_recover();
            pause = (pause * 2).min(RETRY_LAST);
        }
        false
    }

    /// One try to find back: a fresh descriptor, the tail checked, a record that says so, and what had to be kept.
    pub(crate) fn try_recover(&mut self) {
        let Some(why) = self.failure.clone() else { return };
        for mut request in self.queue.take_unkept() {
            request.answer(Err(AuditUnavailable::Failing(why.clone())));
        }
        match self.log.recover() {
            Ok(cut_bytes) => {
                self.failure = None;
                let lost = self.queue.take_lost();
                let detail =
                    json!({ "after": "write failure", "why": why, "cut_bytes": cut_bytes, "lost_records": lost });
                self.append_own(&[Entry { kind: EventKind::LogRecovered, detail: Some(detail), ..Entry::default() }]);
                // Only when all that was kept is written may callers take the log for writable again.
                let mut last = 0;
                while self.failure.is_none()
                    && let Some(batch) = self.commit_batch()
                {
                    last = batch.last_ticket.max(last);
                }
                self.queue.done(last, self.health());
            }
            Err(error) => tracing::debug!(%error, "the audit log cannot be recovered yet"),
        }
    }

    pub(crate) const fn is_failing(&self) -> bool {
        self.failure.is_some()
    }

    fn checkpoint(&mut self) {
        if let Err(error) = self.log.checkpoint(CheckpointPlace::Within) {
            tracing::warn!(%error, "no checkpoint of the audit log could be kept; it is tried again");
        }
    }

    fn close(mut self) {
        if self.failure.is_some() {
            self.try_recover();
        }
        self.drain();
        if self.failure.is_none() {
            self.append_own(&[Entry { kind: EventKind::LogClosed, ..Entry::default() }]);
        }
        if self.failure.is_none()
            && let Err(error) = self.log.finish()
        {
            self.failure = Some(error.to_string());
        }
        if let Some(why) = &self.failure {
            tracing::error!(why, "the audit log was not closed in good order");
        }
    }

    fn health(&self) -> Health {
        self.failure.as_ref().map_or(Health::Writable, |why| Health::unavailable(why))
    }
}

#[cfg(test)]
mod tests;
