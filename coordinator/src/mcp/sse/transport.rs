//! What rmcp reads from and writes to for one connection, and what the connection owes its client.

use std::collections::HashSet;
use std::sync::Arc;

use codegen_types::{ErrorCode, Failure};
use parking_lot::Mutex;
use rmcp::RoleServer;
use rmcp::model::{ClientJsonRpcMessage, ClientNotification, JsonRpcMessage, RequestId, ServerJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::sync::mpsc;

use crate::arrivals::Arrivals;
use crate::byte_room::{Held, Share};
use crate::mcp::order;
use crate::mcp::unanswered::Unanswered;
use crate::mcp::unread::with_room;

/// Requests of one connection that were taken and whose answers its client has not taken. One more is refused.
const OWED_MAX: usize = 256;

/// What a connection owes its client.
#[derive(Debug, Clone, Default)]
pub(super) struct Owed(Arc<Mutex<Answers>>);

#[derive(Debug, Default)]
struct Answers {
    /// Requests that are being served.
    asked: HashSet<RequestId>,
    /// Answers that wait for the client.
    waiting: usize,
}

/// An answer that waits for the client.
struct Waiting(Owed);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.lock().waiting -= 1;
    }
}

impl Owed {
    /// Takes note of what is about to be handed on.
    ///
    /// # Errors
    /// `RATE_LIMITED` when too much is owed already, `INVALID_ARGUMENT` when a request of that id is being served.
    pub(super) fn take(&self, message: &ClientJsonRpcMessage) -> Result<(), Failure> {
        let mut answers = self.0.lock();
        match message {
            JsonRpcMessage::Request(request) => {
                if answers.asked.len() + answers.waiting >= OWED_MAX {
                    let text =
                        format!("{OWED_MAX} requests of this connection have no answer yet, the most there may be");
                    return Err(Failure::new(ErrorCode::RateLimited, text).retry_soon());
                }
                if !answers.asked.insert(request.id.clone()) {
                    let text = "a request with that id is being served";
                    return Err(Failure::new(ErrorCode::InvalidArgument, text));
                }
            }
            JsonRpcMessage::Notification(notification) => {
                if let ClientNotification::CancelledNotification(cancelled) = &notification.notification
                    && let Some(id) = &cancelled.params.request_id
                {
                    // It gets no answer any more, unless that waits already.
                    answers.asked.remove(id);
                }
            }
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => {}
        }
        Ok(())
    }

    /// The answer to a request begins to wait.
    fn wait(&self, id: &RequestId) -> Waiting {
        let mut answers = self.0.lock();
        answers.asked.remove(id);
        answers.waiting += 1;
        Waiting(self.clone())
    }
}

/// The client is gone.
#[derive(Debug, thiserror::Error)]
#[error("the client is gone")]
pub(super) struct Gone;

/// A message to the client, and the room that an answer has until it is sent. Boxed, as what is in the inbox, since an idle
/// connection holds the places of messages that never come.
pub(super) type Outgoing = Box<(ServerJsonRpcMessage, Option<Held>)>;

/// One connection's transport.
pub(super) struct SseTransport {
    pub(super) inbox: mpsc::Receiver<Box<ClientJsonRpcMessage>>,
    pub(super) outbox: mpsc::Sender<Outgoing>,
    pub(super) owed: Owed,
    pub(super) unread: Share,
    pub(super) arrivals: Arrivals,
}

impl Transport<RoleServer> for SseTransport {
    type Error = Gone;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let answered = Unanswered::answered(&message);
        let waiting = answered.as_ref().map(|id| self.owed.wait(id));
        let outgoing = match &answered {
            Some(id) => with_room(&self.unread, id, message),
            None => (message, None),
        };
        let outbox = self.outbox.clone();
        async move {
            let sent = outbox.send(Box::new(outgoing)).await.map_err(|_| Gone);
            drop(waiting);
            sent
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        let mut message = *self.inbox.recv().await?;
        order::mark(&mut self.arrivals, &mut message);
        Some(message)
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rmcp::model::ServerResult;
    use serde_json::json;

    use super::*;

    fn request(id: i64) -> ClientJsonRpcMessage {
        serde_json::from_value(json!({"jsonrpc": "2.0", "id": id, "method": "ping"})).unwrap()
    }

    fn cancel(id: i64) -> ClientJsonRpcMessage {
        let params = json!({"requestId": id});
        serde_json::from_value(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}))
            .unwrap()
    }

    fn answer(id: i64) -> ServerJsonRpcMessage {
        ServerJsonRpcMessage::response(ServerResult::empty(()), RequestId::Number(id))
    }

    fn transport(outbox: usize) -> (SseTransport, mpsc::Receiver<Outgoing>) {
        let (sender, receiver) = mpsc::channel(outbox);
        let unread = crate::mcp::unread::room().of(&codegen_types::Principal::os_user("ann"));
        (
            SseTransport {
                inbox: mpsc::channel(1).1,
                outbox: sender,
                owed: Owed::default(),
                unread,
                arrivals: Arrivals::default(),
            },
            receiver,
        )
    }

    #[tokio::test]
    async fn the_end_of_a_client_fails_every_answer_that_waits() {
        let (mut transport, outbox) = transport(1);
        let sends: Vec<_> = (0..100).map(|id| tokio::spawn(transport.send(answer(id)))).collect();
        drop(outbox);
        let mut failed = 0;
        for send in sends {
            failed += usize::from(send.await.expect("none panics").is_err());
        }
        assert!(failed >= 99, "{failed}");
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_owed_no_more_than_the_bound() {
        let (mut transport, mut outbox) = transport(1);
        let owed = transport.owed.clone();
        let most = i64::try_from(OWED_MAX).unwrap();
        let mut sends = Vec::new();
        for id in 0..most {
            owed.take(&request(id)).unwrap();
            if id % 2 == 0 {
                sends.push(transport.send(answer(id)));
            }
        }
        let refused = |message: &ClientJsonRpcMessage| owed.take(message).map_err(|failure| failure.code);
        assert_eq!(refused(&request(most)), Err(ErrorCode::RateLimited));
        owed.take(&cancel(0)).unwrap();
        assert_eq!(refused(&request(most)), Err(ErrorCode::RateLimited), "its answer waits all the same");
        owed.take(&cancel(1)).unwrap();
        assert_eq!((refused(&request(most)), refused(&request(1))), (Ok(()), Err(ErrorCode::RateLimited)));
        let count = sends.len();
        let taken = async {
            for _ in 0..count {
                outbox.recv().await.expect("an answer");
            }
        };
        let (sent, ()) = tokio::join!(futures::future::join_all(sends), taken);
        assert!(sent.iter().all(Result::is_ok));
        assert_eq!((refused(&request(1)), refused(&request(3))), (Ok(()), Err(ErrorCode::InvalidArgument)));
    }
}
