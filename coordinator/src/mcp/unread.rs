//! Answers that wait for their clients: how many bytes of them one user may leave unread.

use axum::body::{Body, HttpBody as _};
use axum::response::Response;
use codegen_types::Failure;
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use rmcp::model::{JsonRpcMessage, RequestId, ServerJsonRpcMessage};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::calls::Calls;
use super::resources;
use crate::byte_room::{ByteRoom, Held, Share};

/// Bytes of answers that one principal has not read. A result that would be more is not given.
const OF_ONE_BYTES_MAX: usize = 192 << 20;
/// The same of everybody.
const OF_ALL_BYTES_MAX: usize = 1 << 30;

/// Room for answers that wait for their clients.
pub(super) fn room() -> ByteRoom {
    ByteRoom::new(OF_ALL_BYTES_MAX, OF_ONE_BYTES_MAX)
}

/// An answer with its room; instead of one for which there is none, the refusal that says so. What the call did is done.
pub(super) fn with_room(
    share: &Share,
    id: &RequestId,
    answer: ServerJsonRpcMessage,
) -> (ServerJsonRpcMessage, Option<Held>) {
    match share.hold(Counted::of(&answer)) {
        Ok(held) => (answer, Some(held)),
        Err(full) => {
            let failure = Failure::from(full);
            (JsonRpcMessage::error(resources::error(&failure), Some(id.clone())), None)
        }
    }
}

/// A response whose bytes have their room until they are written.
///
/// # Errors
/// There is none for it.
pub(super) fn response_with_room(response: Response, share: Share, calls: &Calls) -> Result<Response, Failure> {
    let Some(bytes) = response.body().size_hint().exact() else {
        return Ok(response.map(|body| stream_with_room(body, share, calls)));
    };
    let held = share.hold(usize::try_from(bytes).unwrap_or(usize::MAX))?;
    Ok(response.map(|body| {
        Body::new(body.map_err(move |error| {
            let _until_it_is_written = &held;
            error
        }))
    }))
}

/// Takes what comes at once, so that it is counted, and gives it on as it is read. A stream for which there is no room
/// ends.
fn stream_with_room(body: Body, share: Share, calls: &Calls) -> Body {
    // Bounded by the room that each part takes.
    let (sender, parts) = mpsc::unbounded_channel();
    let mut body = body.into_data_stream();
    calls.spawn(async move {
        loop {
            let part = tokio::select! {
                part = body.next() => part,
                () = sender.closed() => return,
            };
            let Some(part) = part else { return };
            let bytes = part.as_ref().map_or(0, axum::body::Bytes::len);
            // Short parts take room, too.
            let Ok(held) = share.hold(bytes.max(1)) else { return };
            if sender.send((part, held)).is_err() {
                return;
            }
        }
    });
    Body::from_stream(UnboundedReceiverStream::new(parts).map(|(part, _held)| part))
}

/// How many bytes a message has on the wire.
pub(super) struct Counted(usize);

impl Counted {
    pub(super) fn of(message: &ServerJsonRpcMessage) -> usize {
        let mut counted = Self(0);
        // What cannot be written cannot be sent either.
        let _unwritable = serde_json::to_writer(&mut counted, message);
        counted.0
    }
}

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use codegen_types::{ErrorCode, Principal};
    use rmcp::model::ServerResult;

    use super::*;

    fn share(bytes: usize) -> Share {
        ByteRoom::new(bytes, bytes).of(&Principal::os_user("ann"))
    }

    #[tokio::test]
    async fn an_answer_has_its_room_until_it_is_read_or_its_client_is_gone() {
        let (share, calls) = (share(16 << 10), Calls::default());
        let answer = |bytes: usize| Response::new(Body::from(vec![b'x'; bytes]));
        let first = response_with_room(answer(16 << 10), share.clone(), &calls).unwrap();
        assert_eq!(first.body().size_hint().exact(), Some(16 << 10), "its length is known still");
        let refused = response_with_room(answer(1), share.clone(), &calls).map_err(|failure| failure.code);
        assert_eq!(refused.err(), Some(ErrorCode::RateLimited));
        drop(first);
        let second = response_with_room(answer(16 << 10), share.clone(), &calls).unwrap();
        assert_eq!(axum::body::to_bytes(second.into_body(), 1 << 20).await.unwrap().len(), 16 << 10);
        assert!(share.hold(16 << 10).is_ok());
    }

    #[tokio::test]
    async fn a_stream_that_nobody_reads_ends_when_its_room_is_used_up() {
        let (share, calls) = (share(16 << 10), Calls::default());
        let parts = |count: usize| {
            let parts = (0..count).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 100])));
            Response::new(Body::from_stream(futures::stream::iter(parts)))
        };
        let unread = response_with_room(parts(100), share.clone(), &calls).unwrap();
        while share.hold(1).is_ok() {
            tokio::task::yield_now().await;
        }
        let read = axum::body::to_bytes(unread.into_body(), 1 << 20).await.unwrap();
        assert_eq!(read.len(), 4 * 100, "a piece for each");
        assert!(share.hold(16 << 10).is_ok());
    }

    #[test]
    fn an_answer_without_room_is_replaced_by_a_refusal_to_the_same_request() {
        let id = RequestId::Number(7);
        let answer = || ServerJsonRpcMessage::response(ServerResult::empty(()), RequestId::Number(7));
        let share = share(4 << 10);
        let (first, held) = with_room(&share, &id, answer());
        assert!(matches!(first, JsonRpcMessage::Response(_)) && held.is_some());
        let (second, none) = with_room(&share, &id, answer());
        let JsonRpcMessage::Error(error) = second else { panic!("{second:?}") };
        assert!(error.id == Some(id) && none.is_none());
    }
}
