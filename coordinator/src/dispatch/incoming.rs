//! The events of one stream, from the moment it is asked for.

use codegen_proto::v1;
use codegen_proto::v1::TaskEvent;
use futures::future::BoxFuture;
use tonic::{Request, Response, Status, Streaming};

use crate::workers::Link;

/// A stream of events that was asked for.
pub(super) enum Incoming {
    /// The worker has not answered yet; nothing is written before this is polled.
    Asked { first: bool, polled: bool, answer: BoxFuture<'static, Result<Response<Streaming<TaskEvent>>, Status>> },
    /// Events come.
    Open(Box<Streaming<TaskEvent>>),
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
    /// Sends the task. This is the one place that does.
    pub(super) fn execute(link: &Link, message: Request<v1::TaskRequest>) -> Self {
        let mut client = link.client();
        Self::Asked { first: true, polled: false, answer: Box::pin(async move { client.execute_task(message).await }) }
    }

    pub(super) fn attach(link: &Link, message: v1::AttachTaskRequest) -> Self {
        let mut client = link.client();
        Self::Asked { first: false, polled: false, answer: Box::pin(async move { client.attach_task(message).await }) }
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
            Self::Asked { first, polled, answer } => {
                *polled = true;
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
