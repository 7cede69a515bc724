//! The events of one stream, from the moment it is asked for.

use codegen_proto::v1;
use codegen_proto::v1::{TaskEvent, TaskRequest};
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use crate::workers::{Link, TaskRequests};

/// A stream of events that was asked for.
pub(super) enum Incoming {
    /// The worker has not answered yet; the task cannot begin before this is polled.
    Asked { first: bool, polled: bool, last: Option<Box<Last>>, answer: Answer },
    /// Events come.
    Open(Box<Streaming<TaskEvent>>),
}

/// The worker's answer to a request, which is written when this is polled, but for what went ahead.
type Answer = BoxFuture<'static, Result<Response<Streaming<TaskEvent>>, Status>>;

/// The message by which a task begins whose request was begun, and where it is to be put.
pub(super) struct Last {
    message: TaskRequest,
    messages: mpsc::Sender<TaskRequest>,
}

/// What came of it.
pub(super) enum Came {
    /// The worker has the task.
    Opened,
    /// An event.
    Event(Box<TaskEvent>),
    /// The worker answered no to ExecuteTask.
    NotExecuted(Status),
    /// The worker answered no to AttachTask.
    NotAttached(Status),
    /// The stream is over.
    Ended(Option<Status>),
}

impl Incoming {
    /// Sends the task.
    pub(super) fn execute(link: &Link, message: Request<TaskRequest>) -> Self {
        let mut client = link.client();
        let message = message.map(|message| futures::stream::iter([message]));
        Self::asked(true, None, Box::pin(async move { client.execute_task(message).await }))
    }

    /// Lets the task begin after what went ahead of it: the message is the task itself, or what follows one that is held. This
    /// and [`execute`](Self::execute) are the places that let one begin.
    pub(super) fn follow_up(begun: TaskRequests, message: TaskRequest) -> Self {
        let TaskRequests { messages, answer } = begun;
        Self::asked(true, Some(Box::new(Last { message, messages })), answer)
    }

    pub(super) fn attach(link: &Link, message: v1::AttachTaskRequest) -> Self {
        let mut client = link.client();
        Self::asked(false, None, Box::pin(async move { client.attach_task(message).await }))
    }

    fn asked(first: bool, last: Option<Box<Last>>, answer: Answer) -> Self {
        Self::Asked { first, polled: false, last, answer }
    }

    /// Whether the task cannot have begun by this.
    pub(super) fn is_unsent(&self) -> bool {
        matches!(self, Self::Asked { first: true, polled: false, .. })
    }

    /// Whether the worker knows the task, so that a cancellation finds it.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// The next thing that comes; nothing is lost when this is dropped before.
    pub(super) async fn next(&mut self) -> Came {
        match self {
            Self::Asked { first, polled, last, answer } => {
                *polled = true;
                if let Some(last) = last.take() {
                    // A request that is over has its answer; there is room for one that is not.
                    let _ = last.messages.try_send(last.message);
                }
                match answer.await {
                    Ok(response) => {
                        *self = Self::Open(Box::new(response.into_inner()));
                        Came::Opened
                    }
                    Err(status) if *first => Came::NotExecuted(status),
                    Err(status) => Came::NotAttached(status),
                }
            }
            Self::Open(stream) => match stream.message().await {
                Ok(Some(event)) => Came::Event(Box::new(event)),
                Ok(None) => Came::Ended(None),
                Err(status) => Came::Ended(Some(status)),
            },
        }
    }
}
