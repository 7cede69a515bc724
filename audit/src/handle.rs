//! The handle by which the rest of the program appends to the log.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use codegen_types::{ErrorCode, Failure, LogSeq};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, Sleep};

use crate::entry::Entry;
use crate::hash::Hash;
use crate::log::{Cadence, Log, Segment, Tip};
use crate::open::{self, OpenError, Opened};
use crate::queue::{New, Queue, Reply, Wish};
use crate::record::{EncodedEvent, Record};
use crate::redact::Redactor;
use crate::sink::MemorySink;
use crate::writer::Writer;
use serde_json::Value;

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory of segments, checkpoints and keys; made if it is not there.
    pub dir: PathBuf,
    /// A segment ends before it would grow beyond so many bytes.
    pub segment_bytes_max: u64,
    /// A checkpoint is made after so many records.
    pub checkpoint_records: u64,
    /// A checkpoint is made so long after the last one, if there is a new record.
    pub checkpoint_interval: Duration,
    /// An append that is not durable after so long is refused.
    pub append_deadline: Duration,
    /// Records waiting to be written; more are refused. Records to be kept in any case may use twice the room.
    pub queue_records_max: usize,
}

impl Options {
    /// The defaults, for a log in this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes_max: 16 << 20,
            checkpoint_records: 1_000,
            checkpoint_interval: Duration::from_secs(60),
            append_deadline: Duration::from_secs(5),
            queue_records_max: 4_096,
        }
    }
}

/// Whether the log can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Writable,
    /// It cannot; nothing that needs a record may be done. The writer goes on trying.
    Unavailable {
        /// Since when.
        since: jiff::Timestamp,
        /// Why, for the operator.
        why: String,
    },
}

impl Health {
    pub(crate) fn unavailable(why: &str) -> Self {
        Self::Unavailable { since: jiff::Timestamp::now(), why: why.to_owned() }
    }
}

/// Why a record is not known to be durable. Nobody may act on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditUnavailable {
    /// The log cannot be written just now.
    #[error("the audit log cannot be written: {0}")]
    Failing(String),
    /// It was not durable in time.
    #[error("the audit log did not take the record in time")]
    Deadline,
    /// Too many records wait already.
    #[error("too many records wait for the audit log")]
    QueueFull,
    /// The log was closed.
    #[error("the audit log is closed")]
    Closed,
}

impl From<AuditUnavailable> for Failure {
    fn from(_: AuditUnavailable) -> Self {
        Self::new(
            ErrorCode::AuditUnavailable,
            "the audit log cannot be written just now; nothing is done without it, try again later",
        )
    }
}

/// A cheap handle on the log. The log closes when the last one is dropped; [`Audit::close`] waits for that.
#[derive(Clone)]
pub struct Audit {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Arc<Queue>,
    redactor: Arc<Redactor>,
    append_deadline: Duration,
    kind: Kind,
}

enum Kind {
    /// A thread writes; the receiver's channel closes when it has ended.
    Thread(watch::Receiver<()>),
    /// The caller writes, at once: no timer and no other thread, so that paused clocks do no harm.
    Memory { writer: Box<Mutex<Writer>>, sink: MemorySink },
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Audit {
    /// Opens the log in `options.dir` as its one writer, or begins a new one there, and starts the writer's thread.
    ///
    /// A torn tail is set aside and cut, and a record says so. What was acknowledged is never cut.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when another writer has it, when it is damaged, or when the directory cannot be used.
    pub async fn open(options: Options) -> Result<(Self, Opened), OpenError> {
        let append_deadline = options.append_deadline;
        let queue = Arc::new(Queue::new(options.queue_records_max));
        let opening = tokio::task::spawn_blocking(move || open::open(&options));
        let prepared =
            opening.await.map_err(|error| OpenError::Io { what: "open the log", source: error.into() })??;
        let audit = Self::start(prepared.log, prepared.redactor, queue, append_deadline)?;
        Ok((audit, prepared.opened))
    }

    /// Starts the writer's thread.
    pub(crate) fn start(
        log: Log,
        redactor: Redactor,
        queue: Arc<Queue>,
        append_deadline: Duration,
    ) -> Result<Self, OpenError> {
        let redactor = Arc::new(redactor);
        let writer = Writer::new(log, queue.clone(), redactor.clone());
        let (running, ended) = watch::channel(());
        std::thread::Builder::new()
            .name("audit-writer".to_owned())
            .spawn(move || {
                writer.run();
                drop(running);
            })
            .map_err(|source| OpenError::Io { what: "start the writer's thread", source })?;
        Ok(Self { inner: Arc::new(Inner { queue, redactor, append_deadline, kind: Kind::Thread(ended) }) })
    }

    /// A log in memory: the same records and chain, no disk, no keys, no checkpoints. It grows without bound.
    pub fn in_memory() -> Self {
        let sink = MemorySink::default();
        let queue = Arc::new(Queue::new(usize::MAX));
        let redactor = Arc::new(Redactor::new([0; 32]));
        let cadence =
            Cadence { segment_bytes_max: u64::MAX, checkpoint_records: u64::MAX, checkpoint_interval: Duration::MAX };
        let segment = Segment { first: LogSeq(1), prev: Hash::GENESIS, durable_bytes: 0 };
        let log = Log::new(Box::new(sink.clone()), "log_memory".to_owned(), None, cadence, Tip::genesis(), segment);
        let writer = Box::new(Mutex::new(Writer::new(log, queue.clone(), redactor.clone())));
        let kind = Kind::Memory { writer, sink };
        Self { inner: Arc::new(Inner { queue, redactor, append_deadline: Duration::MAX, kind }) }
    }

    /// Appends a record on which the caller will act: durable, or not to be counted on.
    ///
    /// When this fails, or is dropped before it is done, the record is kept out of the log; where it had been written
    /// already, a `log.withdrawn` record follows that cites it. While the log is unavailable it fails at once.
    ///
    /// # Errors
    ///
    /// [`AuditUnavailable`]: the caller must not act.
    pub async fn append(&self, entry: Entry) -> Result<LogSeq, AuditUnavailable> {
        self.enqueue(None, &entry, Wish::DurableOrNothing).await
    }

    /// Queues a record of something that has happened, or must not be refused. The order of calls is the order in the
    /// log.
    ///
    /// The result may be awaited or dropped. When it is [`AuditUnavailable::Failing`] or
    /// [`AuditUnavailable::Deadline`], the record is kept and written once the log recovers, before
    /// [`Audit::health`] says [`Health::Writable`] again.
    pub fn queue(&self, entry: Entry) -> Pending {
        self.enqueue(None, &entry, Wish::Kept)
    }

    /// [`queue`](Self::queue) for two records of one thing, which become durable together: `entry` stands right after
    /// `preceding` and cites it. The result is that of `entry`.
    pub fn queue_after(&self, preceding: Entry, entry: Entry) -> Pending {
        self.enqueue(Some(&preceding), &entry, Wish::Kept)
    }

    fn enqueue(&self, preceding: Option<&Entry>, entry: &Entry, wish: Wish) -> Pending {
        let encoded = |entry| EncodedEvent::new(entry, &self.inner.redactor);
        let preceding = preceding.map(encoded);
        let event = if preceding.is_some() { encoded(entry).citing_preceding() } else { encoded(entry) };
        self.inner.drive_memory();
        let put = self.inner.queue.put(New { preceding, event, session: entry.session, task: entry.task, wish });
        self.inner.drive_memory();
        let state = match put {
            Err(unavailable) => PendingState::Refused(unavailable),
            Ok((ticket, answer)) => PendingState::Waiting {
                ticket,
                answer,
                queue: self.inner.queue.clone(),
                deadline: Deadline::NotYet { queued_at: std::time::Instant::now(), after: self.inner.append_deadline },
            },
        };
        Pending { state }
    }

    /// Arguments as a record keeps them: what is long or secret as its length and digest. The same arguments give the same
    /// for as long as the log lives.
    #[must_use]
    pub fn as_kept(&self, args: &Value) -> Value {
        self.inner.redactor.value(args)
    }

    /// Whether the log can be written, now and from now on. A closed log is unavailable for good.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.inner.queue.health()
    }

    /// Whether nothing waits to be written: whoever runs the time itself lets none pass before.
    pub fn is_settled(&self) -> bool {
        self.inner.queue.is_settled()
    }

    /// Writes what waits, a `log.closed` record and a last checkpoint, and lets go of the log. Returns when that is done,
    /// or when the disk has not answered for twice the append deadline.
    pub async fn close(&self) {
        self.inner.queue.close();
        let Kind::Thread(ended) = &self.inner.kind else { return };
        let mut ended = ended.clone();
        if tokio::time::timeout(self.inner.append_deadline.saturating_mul(2), ended.changed()).await.is_err() {
            tracing::error!("the audit log could not be closed in time");
        }
    }

    /// The records of a log in memory; of any other log, none.
    pub fn memory_records(&self) -> Vec<Record> {
        let Kind::Memory { sink, .. } = &self.inner.kind else { return Vec::new() };
        let contents = String::from_utf8(sink.contents()).expect("records are UTF-8");
        contents.lines().map(|line| Record::parse(line).expect("the log wrote it")).collect()
    }

    /// Makes a log in memory fail with this message, as a full disk would, until it is called with `None`. No effect on
    /// any other log.
    pub fn set_memory_fault(&self, why: Option<&str>) {
        if let Kind::Memory { sink, .. } = &self.inner.kind {
            sink.set_fault(why.map(str::to_owned));
            self.inner.drive_memory();
        }
    }
}

impl Inner {
    /// A log in memory is written by whoever appends.
    fn drive_memory(&self) {
        let Kind::Memory { writer, .. } = &self.kind else { return };
        let mut writer = writer.lock();
        if writer.is_failing() {
            writer.try_recover();
        }
        writer.drain();
    }
}

/// A record on its way to the disk: resolves when it is durable, or when that is known not to be, at the latest at the
/// append deadline. Must be polled on a tokio runtime with a clock.
#[must_use = "the record is written anyway, but only this tells whether it is durable"]
pub struct Pending {
    state: PendingState,
}

enum PendingState {
    Refused(AuditUnavailable),
    Waiting { ticket: u64, answer: oneshot::Receiver<Reply>, queue: Arc<Queue>, deadline: Deadline },
}

/// The timer is made only when the first look finds no answer.
enum Deadline {
    NotYet { queued_at: std::time::Instant, after: Duration },
    Running(Pin<Box<Sleep>>),
}

impl Deadline {
    fn running(&mut self) -> Pin<&mut Sleep> {
        if let Self::NotYet { queued_at, after } = self {
            let left = after.saturating_sub(queued_at.elapsed());
            let at = Instant::now().checked_add(left).unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
            *self = Self::Running(Box::pin(tokio::time::sleep_until(at)));
        }
        match self {
            Self::Running(sleep) => sleep.as_mut(),
            Self::NotYet { .. } => unreachable!("it was started above"),
        }
    }
}

impl Future for Pending {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        let (ticket, answer, queue, deadline) = match &mut self.state {
            PendingState::Refused(unavailable) => return Poll::Ready(Err(unavailable.clone())),
            PendingState::Waiting { ticket, answer, queue, deadline } => (*ticket, answer, queue, deadline),
        };
        if let Poll::Ready(reply) = Pin::new(&mut *answer).poll(context) {
            return Poll::Ready(reply.unwrap_or(Err(AuditUnavailable::Closed)));
        }
        if deadline.running().poll(context).is_pending() {
            return Poll::Pending;
        }
        // Closing first settles the race: from here on the writer either has answered or knows that nobody acts.
        answer.close();
        let reply = answer.try_recv().unwrap_or_else(|_| {
            queue.stalled(ticket);
            Err(AuditUnavailable::Deadline)
        });
        let settled = reply.clone();
        self.state = PendingState::Refused(settled.err().unwrap_or(AuditUnavailable::Closed));
        Poll::Ready(reply)
    }
}
