//! The requests of one connection that were handed on and have no answer yet.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use rmcp::RoleServer;
use rmcp::model::{ClientJsonRpcMessage, ClientNotification, JsonRpcMessage, RequestId};
use rmcp::service::TxJsonRpcMessage;
use tokio::sync::Notify;

/// Which they are. Bounded by the calls that a connection may have running, since one more is answered at once.
#[derive(Clone, Default)]
pub(super) struct Unanswered(Arc<Inner>);

#[derive(Default)]
struct Inner {
    ids: Mutex<HashSet<RequestId>>,
    fewer: Notify,
}

impl Unanswered {
    /// Takes note of what is handed on: a request awaits its answer, unless its client takes it back.
    pub(super) fn asked(&self, message: &ClientJsonRpcMessage) {
        match message {
            JsonRpcMessage::Request(request) => drop(self.0.ids.lock().insert(request.id.clone())),
            JsonRpcMessage::Notification(notification) => {
                if let ClientNotification::CancelledNotification(cancelled) = &notification.notification
                    && let Some(id) = &cancelled.params.request_id
                {
                    self.settle(id);
                }
            }
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => {}
        }
    }

    /// The request that a message answers, if it is an answer.
    pub(super) fn answered(message: &TxJsonRpcMessage<RoleServer>) -> Option<RequestId> {
        match message {
            JsonRpcMessage::Response(response) => Some(response.id.clone()),
            JsonRpcMessage::Error(error) => error.id.clone(),
            JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
        }
    }

    /// Nothing more is owed for this request.
    pub(super) fn settle(&self, id: &RequestId) {
        if self.0.ids.lock().remove(id) {
            self.0.fewer.notify_waiters();
        }
    }

    /// Ends when every request was answered.
    pub(super) async fn none(&self) {
        loop {
            let fewer = self.0.fewer.notified();
            if self.0.ids.lock().is_empty() {
                return;
            }
            fewer.await;
        }
    }
}
