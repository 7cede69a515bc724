//! Task -> worker -> ordered events: one dispatch drives one task to its end.
//!
//! A task is let begin on a link at most once. Whatever is unclear after that is asked for again (AttachTask) from the
//! same life of the worker, or ends unknown. What happened is judged by the state of the link and by what the worker
//! itself states, never by the status code of a stream that broke.

mod ahead;
mod attempt;
mod incoming;
mod meter;
mod outcome;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use codegen_proto::{AttachTask, CancelTask, ExecuteTask, v1};
use codegen_types::event::TaskTimes;
use codegen_types::{ErrorCode, EventBody, Failure, Lease, SessionId, TaskId, TraceContext};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::metadata::MetadataValue;

use crate::arrivals::Arrival;
use crate::telemetry::traces::{self, Step};
use crate::workers::{DispatchEnd, Inner, Link, LinkWait, TaskAttach, TaskDispatch};

pub use self::ahead::Ahead;
use self::ahead::Way;
use self::attempt::Attempt;
use self::incoming::Incoming;
use self::meter::Meter;

/// Streams that break one after the other on a link that holds, without an event between them.
const STRIKES_MAX: u32 = 4;
/// The rest after the first such stream; it grows with each.
const STRIKE_REST: Duration = Duration::from_millis(50);
/// Streams whose events make no sense: one is borne with.
const FAULTS_MAX: u32 = 1;

/// Runs a task on the worker that holds its session. See [`Fleet::execute`](crate::workers::Fleet::execute).
pub(crate) async fn execute(
    inner: Arc<Inner>,
    task: TaskDispatch,
    events: mpsc::Sender<EventBody>,
    cancel: CancellationToken,
) -> DispatchEnd {
    let mut dispatch = Dispatch::new(inner, Followed::of(&task), events, cancel);
    dispatch.send(task).await
}

/// Follows a task that may have been sent before. See [`Fleet::attach`](crate::workers::Fleet::attach).
pub(crate) async fn attach(
    inner: Arc<Inner>,
    task: TaskAttach,
    events: mpsc::Sender<EventBody>,
    cancel: CancellationToken,
) -> DispatchEnd {
    let mut dispatch = Dispatch::new(inner, Followed::of_attach(task), events, cancel);
    dispatch.take_up().await
}

/// What is known of a task besides what it does.
struct Followed {
    task: TaskId,
    session: SessionId,
    lease: Lease,
    /// The name of its operation.
    operation: Cow<'static, str>,
    timeout: Duration,
    output_bytes_max: u64,
    /// How long its worker is waited for each time that the link is down; absent: as long as the options say.
    patience: Option<Duration>,
}

impl Followed {
    fn of(task: &TaskDispatch) -> Self {
        let TaskDispatch { task, session, lease, operation, timeout, output_bytes_max, .. } = task;
        Self {
            task: *task,
            session: *session,
            lease: lease.clone(),
            operation: operation.name().into(),
            timeout: *timeout,
            output_bytes_max: *output_bytes_max,
            patience: None,
        }
    }

    fn of_attach(task: TaskAttach) -> Self {
        let TaskAttach { task, session, lease, operation, timeout, output_bytes_max, patience } = task;
        let operation = operation.into();
        Self { task, session, lease, operation, timeout, output_bytes_max, patience: Some(patience) }
    }
}

/// One task on its way.
struct Dispatch {
    inner: Arc<Inner>,
    task: Followed,
    events: mpsc::Sender<EventBody>,
    cancel: CancellationToken,
    meter: Meter,
    /// The sequence number of the last event that was taken.
    last_seq: u64,
    /// When the worker should long have ended the task by itself.
    deadline: Instant,
    ending: Option<Ending>,
    /// Nobody takes the events any more, or takes them too slowly; only the last one matters.
    discarding: bool,
    faults: u32,
    strikes: u32,
    /// Until when the link must be back; set while nothing comes.
    reconnect_by: Option<Instant>,
    /// How long the task was with its worker, as that says.
    times: Option<TaskTimes>,
    /// Who waits until its worker has it.
    arrival: Option<Arrival>,
}

/// The task is being ended by the coordinator.
#[derive(Debug, Clone, Copy)]
struct Ending {
    why: EndingWhy,
    /// How long the last event is waited for.
    until: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndingWhy {
    Cancelled,
    Deadline,
    OutputLimit,
}

impl Dispatch {
    fn new(inner: Arc<Inner>, task: Followed, events: mpsc::Sender<EventBody>, cancel: CancellationToken) -> Self {
        let options = &inner.options;
        let meter = Meter::new(task.output_bytes_max, options.display_bytes_max, options.progress_events_max);
        let deadline = Instant::now() + task.timeout + options.deadline_slack;
        Self {
            inner,
            task,
            events,
            cancel,
            meter,
            last_seq: 0,
            deadline,
            ending: None,
            discarding: false,
            faults: 0,
            strikes: 0,
            reconnect_by: None,
            times: None,
            arrival: None,
        }
    }

    async fn send(&mut self, mut task: TaskDispatch) -> DispatchEnd {
        self.arrival = task.arrival.take();
        // What went ahead has no trace.
        let ahead = task.ahead.take().filter(|_| task.trace.is_none());
        let (link, stream, begun) = match ahead.and_then(|ahead| ahead.take()) {
            Some(Way { request, held, stream, link }) => (link, stream, Some((request, held))),
            None => match self.first_link().await {
                Ok((link, stream)) => (link, stream, None),
                Err(failure) => return DispatchEnd::NotStarted(failure),
            },
        };
        let mut span = traces::step(task.trace.as_ref(), Step::Execute);
        span.set_id("codegen.worker.id", Some(&self.task.lease.worker));
        let incoming = match begun {
            Some((begun, true)) => Incoming::follow_up(begun, v1::TaskRequest::default()),
            Some((begun, false)) => Incoming::follow_up(begun, execute_message(task)),
            None => Incoming::execute(&link, traced(execute_message(task), span.context())),
        };
        let end = self.follow(incoming, link, stream).await;
        if let Some(times) = self.times {
            traces::on_behalf(&span, &self.task.lease.worker, times);
        }
        end
    }

    async fn take_up(&mut self) -> DispatchEnd {
        let (link, stream) = match self.next_link(None).await {
            Ok(first) => first,
            Err(end) => return end,
        };
        let incoming = Incoming::attach(&link, self.attach_message());
        self.follow(incoming, link, stream).await
    }

    /// Takes the events of the task, from whichever stream, until its end.
    async fn follow(
        &mut self,
        mut incoming: Incoming,
        mut link: Arc<Link>,
        mut stream: OwnedSemaphorePermit,
    ) -> DispatchEnd {
        loop {
            let broke = match self.attempt(&link, incoming).await {
                Attempt::Ended(end) => return end,
                Attempt::Fault(why) => {
                    self.faults += 1;
                    tracing::error!(task = %self.task.task, worker = %self.task.lease.worker, why, "a worker's events make no sense");
                    if self.faults > FAULTS_MAX {
                        self.give_up(&link);
                        return self.unknown("its worker sends events that make no sense");
                    }
                    link
                }
                Attempt::Broke => link,
            };
            drop(stream);
            (link, stream) = match self.next_link(Some(&broke)).await {
                Ok(next) => next,
                Err(end) => return end,
            };
            incoming = Incoming::attach(&link, self.attach_message());
        }
    }

    /// The link to send the task on, and a stream on it. Nothing was sent when this fails.
    async fn first_link(&self) -> Result<(Arc<Link>, OwnedSemaphorePermit), Failure> {
        let lease = &self.task.lease;
        let until = Instant::now() + self.inner.options.link_wait;
        let found = async {
            let link = self.inner.link(&lease.worker, lease.incarnation, until).await;
            let link = link.map_err(|wait| self.inner.no_link(&lease.worker, wait))?;
            let stream = tokio::time::timeout_at(until, link.streams().acquire_owned()).await;
            let stream = stream.map_err(|_| {
                let why = "the session's worker runs as many tasks as it can; wait for one to end and try again";
                Failure::new(ErrorCode::NoCapacity, why)
            })?;
            Ok((link, stream.expect("it is never closed")))
        };
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(cancelled_unsent()),
            found = found => found,
        }
    }

    /// The link of the same life of the worker, once it is back; `broke` is the one before.
    async fn next_link(&mut self, broke: Option<&Link>) -> Result<(Arc<Link>, OwnedSemaphorePermit), DispatchEnd> {
        let grace = self.task.patience.unwrap_or(self.inner.options.timing.reconnect_grace);
        let until = *self.reconnect_by.get_or_insert_with(|| Instant::now() + grace);
        let lease = &self.task.lease;
        let link = match self.inner.link(&lease.worker, lease.incarnation, until).await {
            Ok(link) => link,
            Err(LinkWait::Over) => return Err(self.unknown("the life of the worker that ran it is over")),
            Err(LinkWait::TimedOut) => return Err(self.unknown("its worker did not come back in time")),
        };
        if broke.is_some_and(|broke| link.number() == broke.number()) {
            self.strikes += 1;
            if self.strikes == STRIKES_MAX {
                self.give_up(&link);
                return Err(self.unknown("its events cannot be had from its worker"));
            }
            tokio::time::sleep(STRIKE_REST * self.strikes).await;
        }
        let stream = tokio::time::timeout_at(until, link.streams().acquire_owned()).await;
        let Ok(stream) = stream else { return Err(self.unknown("its worker is too busy to tell")) };
        // While the link was down the worker could not be heard, so it gets time to say how the task ended.
        let options = &self.inner.options;
        self.deadline = self.deadline.max(Instant::now() + options.deadline_slack);
        if let Some(ending) = &mut self.ending {
            ending.until = Instant::now() + options.cancel_grace + options.cancel_slack;
        }
        Ok((link, stream.expect("it is never closed")))
    }

    /// Asks the worker once to end a task whose end will not be waited for.
    fn give_up(&self, link: &Arc<Link>) {
        let mut client = link.client();
        let (message, limit) = (self.cancel_message(), self.inner.options.cancel_slack);
        self.inner.supervisor.spawn("task abandoned", crate::supervisor::OnEnd::Ignore, async move {
            if tokio::time::timeout(limit, client.cancel_task(message)).await.is_err() {
                tracing::warn!("a worker did not answer a cancellation");
            }
        });
    }

    fn unknown(&self, why: &str) -> DispatchEnd {
        let message = format!("the task was started, and how it ended cannot be known: {why}; it is not run again");
        DispatchEnd::Unknown(Failure::new(ErrorCode::TaskOutcomeUnknown, message))
    }

    fn attach_message(&self) -> v1::AttachTaskRequest {
        let Followed { task, session, lease, .. } = &self.task;
        AttachTask { task: *task, session: *session, lease: lease.clone(), from_seq: self.last_seq + 1 }.into()
    }

    fn cancel_message(&self) -> v1::CancelTaskRequest {
        let Followed { task, session, lease, .. } = &self.task;
        let grace = self.inner.options.cancel_grace;
        CancelTask { task: *task, session: *session, lease: lease.clone(), grace }.into()
    }
}

fn execute_message(task: TaskDispatch) -> v1::TaskRequest {
    let TaskDispatch { task, session, lease, operation, timeout, .. } = task;
    ExecuteTask { task, session, lease, timeout, operation }.into()
}

/// The message with its place in a trace, as the W3C and OpenTelemetry carry it over gRPC.
fn traced(message: v1::TaskRequest, trace: Option<&TraceContext>) -> Request<v1::TaskRequest> {
    let mut request = Request::new(message);
    let Some(trace) = trace else { return request };
    let metadata = request.metadata_mut();
    if let Ok(parent) = MetadataValue::try_from(trace.to_string()) {
        metadata.insert("traceparent", parent);
    }
    if let Some(Ok(state)) = trace.state().map(MetadataValue::try_from) {
        metadata.insert("tracestate", state);
    }
    request
}

fn cancelled_unsent() -> Failure {
    Failure::new(ErrorCode::TaskCancelled, "the task was cancelled before it was sent to a worker; nothing was run")
}
