//! The events of one stream, from the moment it is asked for.

use codegen_proto::v1;
use codegen_proto::v1::{TaskEvent, TaskRequest};
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, Streaming};

use crate::workers::{LaterTask, Link};

/// A stream of events that was asked for.
pub(super) enum Incoming {
    /// The worker has not answered yet; nothing of the task is written before this is polled.
    Asked { first: bool, polled: bool, held: Option<Box<Held>>, answer: Answer },
    /// Events come.
    Open(Box<Streaming<TaskEvent>>),
}

/// The worker's answer to a request, which is written when this is polled, but for a head that went ahead.
type Answer = BoxFuture<'static, Result<Response<Streaming<TaskEvent>>, Status>>;

/// A task whose request was begun, and where the task is to be put.
pub(super) struct Held {
    task: TaskRequest,
    request: oneshot::Sender<TaskRequest>,
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
        Self::asked(true, None, Box::pin(async move { client.execute_task(message).await }))
    }

    /// Sends the task after the head of its request. This and [`execute`](Self::execute) are the places that send one.
    pub(super) fn follow_up(begun: LaterTask, task: TaskRequest) -> Self {
        let LaterTask { task: request, answer } = begun;
        Self::asked(true, Some(Box::new(Held { task, request })), answer)
    }

    pub(super) fn attach(link: &Link, message: v1::AttachTaskRequest) -> Self {
        let mut client = link.client();
        Self::asked(false, None, Box::pin(async move { client.attach_task(message).await }))
    }

    fn asked(first: bool, held: Option<Box<Held>>, answer: Answer) -> Self {
        Self::Asked { first, polled: false, held, answer }
    }

    /// Whether nothing of the task can have been written by this.
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
            Self::Asked { first, polled, held, answer } => {
                *polled = true;
                if let Some(held) = held.take() {
                    // A request that is over has its answer.
                    let _ = held.request.send(held.task);
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
