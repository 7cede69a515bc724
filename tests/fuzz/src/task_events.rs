//! What a hostile worker sends: the events of a task, and its registration.

use codegen_proto::{Heartbeat, RegisterWorker, v1};
use codegen_types::{Event, EventBody};
use prost::Message as _;

/// Output and names of one event together, in bytes: what the limits on its fields leave.
const EVENT_BYTES_MAX: usize = 80 << 20;

/// The bytes are events, each with its length before it, as a stream of gRPC has them; and, as a whole, other messages.
///
/// # Panics
/// When a conversion panics, when what was taken is not the same after a way there and back, or is not bounded.
pub fn task_events(data: &[u8]) {
    let mut left = data;
    while !left.is_empty() {
        let Ok(wire) = v1::TaskEvent::decode_length_delimited(&mut left) else { break };
        take(wire);
    }
    drop(v1::TaskEvent::decode(data).map(take));
    drop(v1::RegisterWorkerRequest::decode(data).map(RegisterWorker::try_from));
    drop(v1::HeartbeatRequest::decode(data).map(Heartbeat::try_from));
}

fn take(wire: v1::TaskEvent) {
    let Ok(event) = Event::try_from(wire) else { return };
    assert!(event.seq > 0);
    assert!(size(&event.body) <= EVENT_BYTES_MAX, "an event is not bounded");
    let again = Event::try_from(v1::TaskEvent::from(event.clone()));
    assert_eq!(again.ok().as_ref(), Some(&event), "it is another event there and back");
}

fn size(body: &EventBody) -> usize {
    match body {
        EventBody::Output { bytes, .. } => bytes.len(),
        EventBody::Display(display) => display.data.len() + display.mime.len(),
        EventBody::Progress { message } => message.len(),
        EventBody::FilesChanged(changes) => changes.len(),
        EventBody::Started | EventBody::Finished(_) | EventBody::Failed { .. } => 0,
    }
}
