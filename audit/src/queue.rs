//! The bounded queue between callers and the writer, and the health that callers see.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use codegen_types::{LogSeq, SessionId, TaskId};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{oneshot, watch};

use crate::handle::{AuditUnavailable, Health};
use crate::record::EncodedEvent;

/// How long a crowd is given to come, at most.
const GATHERING: Duration = Duration::from_millis(2);
/// How often it is looked whether it is still coming.
const GATHERING_STEP: Duration = Duration::from_micros(500);

/// Events taken by the writer at once, in bytes: bounds the memory and the time of one write.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// All events waiting, in bytes. Full: the append is refused.
const QUEUE_BYTES_MAX: usize = 64 << 20;

pub(crate) type Reply = Result<LogSeq, AuditUnavailable>;

/// What becomes of an event whose caller was told that it is not durable, or is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// It is not to be in the log: the caller does not act.
    DurableOrNothing,
    /// It has happened: it is written as soon as that is possible.
    Kept,
}

pub(crate) struct Request {
    /// Written right before the event, which cites it.
    pub(crate) preceding: Option<EncodedEvent>,
    pub(crate) event: EncodedEvent,
    pub(crate) session: Option<SessionId>,
    pub(crate) task: Option<TaskId>,
    pub(crate) wish: Wish,
    /// `None` once the caller has its answer.
    pub(crate) reply: Option<oneshot::Sender<Reply>>,
    ticket: u64,
}

impl Request {
    /// Tells the caller; false when there is no one to tell.
    pub(crate) fn answer(&mut self, reply: Reply) -> bool {
        self.reply.take().is_some_and(|caller| caller.send(reply).is_ok())
    }

    /// What it adds to the log, in order.
    pub(crate) fn events(&self) -> impl Iterator<Item = &EncodedEvent> {
        self.preceding.iter().chain(std::iter::once(&self.event))
    }

    fn bytes(&self) -> usize {
        self.events().map(EncodedEvent::len).sum()
    }

    /// Whether nobody would act on it any more.
    pub(crate) fn is_moot(&self) -> bool {
        self.wish == Wish::DurableOrNothing && self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

/// What a caller puts into the queue.
pub(crate) struct New {
    pub(crate) preceding: Option<EncodedEvent>,
    pub(crate) event: EncodedEvent,
    pub(crate) session: Option<SessionId>,
    pub(crate) task: Option<TaskId>,
    pub(crate) wish: Wish,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Request>,
    waiting_bytes: usize,
    last_ticket: u64,
    done_ticket: u64,
    /// Kept events that found the queue full; a recovery record says how many.
    lost: u64,
    closing: bool,
}

pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    closed: Condvar,
    health: watch::Sender<Health>,
    records_max: usize,
}

/// Why the writer wakes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    Work,
    Due,
    Closing,
}

impl Queue {
    pub(crate) fn new(records_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            closed: Condvar::new(),
            health: watch::Sender::new(Health::Writable),
            records_max,
        }
    }

    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Takes an event in, at the queue's end. Gives the ticket, and where the answer will come.
    pub(crate) fn put(&self, new: New) -> Result<(u64, oneshot::Receiver<Reply>), AuditUnavailable> {
        let New { preceding, event, session, task, wish } = new;
        let mut state = self.state.lock();
        if state.closing {
            return Err(AuditUnavailable::Closed);
        }
        let failing = match &*self.health.borrow() {
            Health::Writable => None,
            Health::Unavailable { why, .. } => Some(AuditUnavailable::Failing(why.clone())),
        };
        if let (Wish::DurableOrNothing, Some(failing)) = (wish, &failing) {
            return Err(failing.clone());
        }
        // What must be kept may use twice the room, so that attempts cannot crowd out what has happened.
        let records_max = if wish == Wish::Kept { self.records_max.saturating_mul(2) } else { self.records_max };
        let (reply, answer) = oneshot::channel();
        let ticket = state.last_ticket + 1;
        let reply = failing.is_none().then_some(reply);
        let request = Request { preceding, event, session, task, wish, reply, ticket };
        if state.waiting.len() >= records_max || state.waiting_bytes + request.bytes() > QUEUE_BYTES_MAX {
            state.lost += if wish == Wish::Kept { request.events().count() as u64 } else { 0 };
            return Err(AuditUnavailable::QueueFull);
        }
        state.last_ticket = ticket;
        state.waiting_bytes += request.bytes();
        state.waiting.push_back(request);
        drop(state);
        self.wake.notify_one();
        // What is kept while the log fails is written later; its caller need not wait to learn that it is not durable.
        failing.map_or(Ok((ticket, answer)), Err)
    }

    /// The next batch, in order; empty when nothing waits.
    pub(crate) fn take_batch(&self) -> Vec<Request> {
        let mut state = self.state.lock();
        let mut batch = Vec::with_capacity(state.waiting.len().min(256));
        let mut bytes = 0;
        while bytes < BATCH_BYTES_MAX
            && let Some(request) = state.waiting.pop_front()
        {
            bytes += request.bytes();
            batch.push(request);
        }
        state.waiting_bytes -= bytes;
        batch
    }

    /// Gives a crowd of callers the time to come before the next batch is taken: fewer syncs, and more of the processor for
    /// what they want. Ends as soon as nobody came during one look, when a crowd is there twice, or after [`GATHERING`].
    pub(crate) fn gather(&self, crowd: usize) {
        let (until, mut before) = (Instant::now() + GATHERING, None);
        let mut state = self.state.lock();
        loop {
            let waiting = state.waiting.len();
            if state.closing || waiting >= 2 * crowd || before == Some(waiting) || Instant::now() >= until {
                return;
            }
            before = Some(waiting);
            // Not on `wake`, by which each caller would wake this thread.
            self.closed.wait_for(&mut state, GATHERING_STEP);
        }
    }

    /// Puts events that could not be written back at the queue's beginning, in order.
    pub(crate) fn put_back(&self, requests: Vec<Request>) {
        let mut state = self.state.lock();
        for request in requests.into_iter().rev() {
            state.waiting_bytes += request.bytes();
            state.waiting.push_front(request);
        }
    }

    /// Removes every waiting event that is not to be kept.
    pub(crate) fn take_unkept(&self) -> Vec<Request> {
        let mut state = self.state.lock();
        let (unkept, kept) =
            std::mem::take(&mut state.waiting).into_iter().partition(|r| r.wish == Wish::DurableOrNothing);
        state.waiting = kept;
        state.waiting_bytes = state.waiting.iter().map(Request::bytes).sum();
        Vec::from(unkept)
    }

    /// The writer has come to the end of a batch.
    pub(crate) fn done(&self, batch_ticket: u64, health: Health) {
        let mut state = self.state.lock();
        state.done_ticket = state.done_ticket.max(batch_ticket);
        if !state.closing {
            self.set_health(health);
        }
    }

    /// Whether the writer has come to the end of everything that was taken in.
    pub(crate) fn is_settled(&self) -> bool {
        let state = self.state.lock();
        state.waiting.is_empty() && state.done_ticket >= state.last_ticket
    }

    /// A caller waited longer than the deadline. Unless the writer has come past its event meanwhile, it is stalled.
    pub(crate) fn stalled(&self, ticket: u64) {
        let state = self.state.lock();
        if ticket > state.done_ticket && !state.closing {
            self.set_health(Health::unavailable("the disk does not answer in time"));
        }
    }

    fn set_health(&self, health: Health) {
        self.health.send_if_modified(|now| {
            let changes = std::mem::discriminant(now) != std::mem::discriminant(&health);
            match (&*now, &health) {
                (_, Health::Unavailable { why, .. }) if changes => {
                    tracing::error!(why, "the audit log cannot be written")
                }
                (_, Health::Writable) if changes => tracing::info!("the audit log can be written again"),
                _ => {}
            }
            if changes {
                *now = health;
            }
            changes
        });
    }

    /// How many events that had to be kept were lost since the last call.
    pub(crate) fn take_lost(&self) -> u64 {
        std::mem::take(&mut self.state.lock().lost)
    }

    /// From now on nothing more is taken in, and whoever waits for a writable log waits for the next one.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        self.health.send_replace(Health::unavailable("the log is closed"));
        drop(state);
        self.wake.notify_all();
        self.closed.notify_all();
    }

    /// Waits until there is work, the queue closes, or `due` has come.
    pub(crate) fn wait(&self, due: Option<Instant>) -> Wake {
        let mut state = self.state.lock();
        loop {
            if !state.waiting.is_empty() {
                return Wake::Work;
            }
            if state.closing {
                return Wake::Closing;
            }
            match due {
                Some(due) if due <= Instant::now() => return Wake::Due,
                Some(due) => drop(self.wake.wait_until(&mut state, due)),
                None => self.wake.wait(&mut state),
            }
        }
    }

    /// Waits until `due`, or until the queue closes. Gives whether it closed.
    pub(crate) fn pause(&self, due: Instant) -> bool {
        let mut state = self.state.lock();
        while !state.closing && !self.wake.wait_until(&mut state, due).timed_out() {}
        state.closing
    }
}

impl Request {
    pub(crate) const fn ticket(&self) -> u64 {
        self.ticket
    }
}
