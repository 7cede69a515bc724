//! One stream of one task, until it ends or breaks.

use std::sync::Arc;

use codegen_proto::status::{self, stated_code};
use codegen_types::event::TaskTimes;
use codegen_types::{ErrorCode, Event, EventBody, Failure};
use futures::future::BoxFuture;
use tokio::time::Instant;
use tonic::Status;

use crate::workers::{DispatchEnd, Link};

use super::incoming::{Came, Incoming};
use super::outcome;
use super::{Dispatch, Ending, EndingWhy};

/// How one stream ended.
#[expect(clippy::large_enum_variant, reason = "most streams end with a task, and each is looked at once")]
pub(super) enum Attempt {
    /// And the task with it, as far as it can be known.
    Ended(DispatchEnd),
    /// The worker is to be asked again.
    Broke,
    /// What came makes no sense.
    Fault(&'static str),
}

/// What happens while a stream is open.
enum Happening {
    Fenced,
    Cancelled,
    LimitPassed,
    CancelAnswered,
    /// An event was passed on, or nobody wants it any more.
    Delivered(bool),
    Came(Came),
}

/// Where the cancellation of a task stands.
enum Cancelling {
    No,
    Sent(BoxFuture<'static, ()>),
    Answered,
}

impl Cancelling {
    /// Resolves when a cancellation that was sent is answered.
    async fn answered(&mut self) {
        match self {
            Self::Sent(call) => call.await,
            Self::No | Self::Answered => std::future::pending().await,
        }
    }
}

impl Dispatch {
    /// Takes the events of one stream. An event is passed on before the next one is read, so that a slow reader slows
    /// the worker down; meanwhile the task can be cancelled as ever.
    pub(super) async fn attempt(&mut self, link: &Arc<Link>, mut incoming: Incoming) -> Attempt {
        let mut undelivered: Option<EventBody> = None;
        let mut cancelling = Cancelling::No;
        loop {
            // A cancellation that overtook its task would find nothing to cancel, so it waits for the stream to open.
            if self.ending.is_some() && incoming.is_open() && matches!(cancelling, Cancelling::No) {
                cancelling = Cancelling::Sent(self.cancel_call(link));
            }
            match self.happening(link, &mut incoming, &mut undelivered, &mut cancelling).await {
                Happening::Fenced => return Attempt::Broke,
                Happening::Cancelled if incoming.is_unsent() => {
                    return Attempt::Ended(DispatchEnd::NotStarted(super::cancelled_unsent()));
                }
                Happening::Cancelled => self.end(EndingWhy::Cancelled),
                Happening::LimitPassed if self.ending.is_none() => self.end(EndingWhy::Deadline),
                Happening::LimitPassed if self.stop_delivering(&mut undelivered) => {}
                Happening::LimitPassed => {
                    self.give_up(link);
                    return Attempt::Ended(self.unknown("its worker did not say in time how it ended"));
                }
                Happening::CancelAnswered => cancelling = Cancelling::Answered,
                Happening::Delivered(wanted) => self.discarding |= !wanted,
                Happening::Came(came) => match self.take(came) {
                    Taken::Pass(body) => undelivered = body,
                    Taken::Done(attempt) => return attempt,
                },
            }
            if self.meter.is_exceeded() && self.ending.is_none() {
                self.end(EndingWhy::OutputLimit);
            }
        }
    }

    async fn happening(
        &self,
        link: &Link,
        incoming: &mut Incoming,
        undelivered: &mut Option<EventBody>,
        cancelling: &mut Cancelling,
    ) -> Happening {
        let limit = self.ending.map_or(self.deadline, |ending| ending.until);
        tokio::select! {
            biased;
            () = link.fenced() => Happening::Fenced,
            () = self.cancel.cancelled(), if self.ending.is_none() => Happening::Cancelled,
            () = cancelling.answered() => Happening::CancelAnswered,
            () = tokio::time::sleep_until(limit) => Happening::LimitPassed,
            room = self.events.reserve(), if undelivered.is_some() => {
                let body = undelivered.take().expect("checked by the guard");
                Happening::Delivered(room.map(|room| room.send(body)).is_ok())
            }
            came = incoming.next(), if undelivered.is_none() => Happening::Came(came),
        }
    }

    /// Begins to end the task. The first reason stands.
    fn end(&mut self, why: EndingWhy) {
        let options = &self.inner.options;
        let until = Instant::now() + options.cancel_grace + options.cancel_slack;
        self.ending = Some(Ending { why, until });
    }

    fn cancel_call(&self, link: &Arc<Link>) -> BoxFuture<'static, ()> {
        let (mut client, message) = (link.client(), self.cancel_message());
        let task = self.task.task;
        Box::pin(async move {
            if let Err(status) = client.cancel_task(message).await {
                tracing::warn!(%task, %status, "a cancellation was not answered");
            }
        })
    }

    /// The last event did not come in time. When that may be due to a reader who does not read, his events are dropped
    /// and the last one is waited for once more.
    fn stop_delivering(&mut self, undelivered: &mut Option<EventBody>) -> bool {
        let stalled = undelivered.take().is_some() && !self.discarding;
        if let Some(ending) = &mut self.ending
            && stalled
        {
            self.discarding = true;
            ending.until = Instant::now() + self.inner.options.cancel_slack;
        }
        stalled
    }

    fn take(&mut self, came: Came) -> Taken {
        match came {
            Came::Opened => {
                if let Some(arrival) = self.arrival.take() {
                    arrival.over();
                }
                Taken::Pass(None)
            }
            Came::Event(event) => self.take_event(*event),
            Came::NotExecuted(status) => Taken::Done(self.not_executed(&status)),
            Came::NotAttached(status) => Taken::Done(self.not_attached(&status)),
            Came::Ended(status) => {
                tracing::debug!(task = %self.task.task, ?status, "a task's stream broke");
                Taken::Done(Attempt::Broke)
            }
        }
    }

    fn take_event(&mut self, event: codegen_proto::v1::TaskEvent) -> Taken {
        self.times = self.times.or(event.times.map(TaskTimes::from));
        let event = match Event::try_from(event) {
            Ok(event) => event,
            Err(invalid) => {
                tracing::error!(task = %self.task.task, %invalid, "a malformed event");
                return Taken::Done(Attempt::Fault("an event is malformed"));
            }
        };
        if event.seq != self.last_seq + 1 {
            return Taken::Done(Attempt::Fault("an event is out of order"));
        }
        self.last_seq = event.seq;
        (self.strikes, self.reconnect_by) = (0, None);
        if event.body.is_last() {
            let why = self.ending.map(|ending| ending.why);
            let end = match outcome::of(event.body, &self.task.operation, self.meter.is_exceeded(), why) {
                Some(last) => DispatchEnd::Answered(last),
                None => self.unknown("its worker answered what was not asked"),
            };
            return Taken::Done(Attempt::Ended(end));
        }
        Taken::Pass(self.meter.pass(event.body).filter(|_| !self.discarding))
    }

    /// ExecuteTask was answered with an error. Only the worker's own word says that the task was not started.
    fn not_executed(&self, status: &Status) -> Attempt {
        match stated_code(status) {
            // These say that the task is known, or that it is not known what became of it.
            None | Some(ErrorCode::AlreadyExists | ErrorCode::Internal) => Attempt::Broke,
            Some(ErrorCode::TaskOutcomeUnknown) => Attempt::Ended(self.unknown("its worker does not know")),
            Some(_) => Attempt::Ended(DispatchEnd::NotStarted(status::to_failure(status))),
        }
    }

    /// AttachTask was answered with an error.
    fn not_attached(&self, status: &Status) -> Attempt {
        match stated_code(status) {
            None => Attempt::Broke,
            Some(ErrorCode::NotFound) if self.last_seq == 0 => Attempt::Ended(DispatchEnd::NotStarted(denied())),
            Some(code) => {
                tracing::warn!(task = %self.task.task, %code, "a worker does not tell of a task that it had started");
                Attempt::Ended(self.unknown("its worker no longer tells of it"))
            }
        }
    }
}

/// What became of something that came.
enum Taken {
    /// It is passed on, or nothing of it is.
    Pass(Option<EventBody>),
    /// The stream is done.
    Done(Attempt),
}

fn denied() -> Failure {
    Failure::new(
        ErrorCode::WorkerUnavailable,
        "the link or the server ended before the worker had the task; nothing was run, try again",
    )
}
