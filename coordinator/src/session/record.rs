//! What goes into the audit log about sessions.

use codegen_audit::{Entry, EventKind, Record};
use codegen_types::Principal;
use coordinator_core::session::{CloseReason, Role, SessionEvent, SuspendReason};
use serde_json::{Value, json};

use crate::store::SessionRow;

/// With whom a step shares a session, or shares it no longer.
#[derive(Debug, Clone)]
pub(super) struct Sharing {
    pub(super) with: Principal,
    pub(super) role: Option<Role>,
}

/// The record of a step: enough to make the session's row again from the log alone.
pub(super) fn of_step(row: &SessionRow, event: SessionEvent, sharing: Option<&Sharing>) -> Entry {
    let (kind, reason) = match event {
        SessionEvent::Created => (EventKind::SessionCreated, None),
        SessionEvent::Opening => (EventKind::SessionOpening, None),
        SessionEvent::Opened => (EventKind::SessionOpened, None),
        SessionEvent::Suspended(reason) => (EventKind::SessionSuspended, Some(suspended(reason))),
        SessionEvent::Lost => (EventKind::SessionLost, None),
        SessionEvent::Updated => (EventKind::SessionUpdated, None),
        SessionEvent::Shared => (EventKind::SessionShared, None),
        SessionEvent::Unshared => (EventKind::SessionUnshared, None),
        SessionEvent::Closing(reason) => (EventKind::SessionClosing, Some(closed(reason))),
        SessionEvent::Closed(CloseReason::Expired) => (EventKind::SessionExpired, Some(closed(CloseReason::Expired))),
        SessionEvent::Closed(reason) => (EventKind::SessionClosed, Some(closed(reason))),
    };
    let layers: Option<Value> = row.isolation.as_ref().map(|report| {
        let states = report.layers.iter().map(|l| (l.layer.as_str().to_owned(), json!(l.state)));
        Value::Object(states.collect())
    });
    let description = match event {
        SessionEvent::Created | SessionEvent::Updated => {
            let mut described = json!({"name": row.name, "metadata": row.metadata, "ttl_ms": row.ttl_ms});
            if !row.network.is_none() {
                described["network"] = json!(row.network);
            }
            Some(described)
        }
        SessionEvent::Shared | SessionEvent::Unshared => {
            sharing.map(|sharing| json!({"principal": sharing.with, "role": sharing.role}))
        }
        SessionEvent::Opening
        | SessionEvent::Opened
        | SessionEvent::Suspended(_)
        | SessionEvent::Lost
        | SessionEvent::Closing(_)
        | SessionEvent::Closed(_) => None,
    };
    let mut detail = json!({"state": row.state, "reason": reason, "layers": layers});
    if sharing.is_some() {
        detail["shares"] = json!(row.shares);
    }
    if let (SessionEvent::Created, Some(key)) = (event, &row.key) {
        detail[KEY] = json!(key.key);
    }
    Entry {
        kind,
        principal: Some(row.principal.clone()),
        session: Some(row.id),
        lease: row.state.lease().cloned(),
        level: row.isolation.as_ref().map(|report| report.level),
        args: description,
        detail: Some(detail),
        ..Entry::default()
    }
}

/// Under which name a record has the idempotency key of its call.
const KEY: &str = "idempotency_key";

/// The idempotency key of the call whose attempt this is, or that made the session whose creation it is.
pub(super) fn key_of(record: &Record) -> Option<String> {
    record.detail.as_ref()?.get(KEY)?.as_str().map(str::to_owned)
}

/// Whether the call whose attempt this is changes nothing.
pub(super) fn is_read_only(attempt: &Record) -> bool {
    attempt.detail.as_ref().is_some_and(|detail| detail.get("read_only") == Some(&Value::Bool(true)))
}

const fn suspended(reason: SuspendReason) -> &'static str {
    match reason {
        SuspendReason::Idle => "idle",
        SuspendReason::OpenFailed => "open failed",
        SuspendReason::WorkerGone => "worker gone",
        SuspendReason::Misplaced => "misplaced",
        SuspendReason::WorkerRestarted => "worker restarted",
        SuspendReason::WorkerDrained => "worker drained",
        SuspendReason::ServerStopped => "server stopped",
        SuspendReason::ServerRestarted => "server restarted",
        SuspendReason::FilesFound => "files found",
    }
}

const fn closed(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Requested => "requested",
        CloseReason::OpenFailed => "open failed",
        CloseReason::Expired => "expired",
    }
}

/// Whether the step ends something: that is never refused for want of a log, its record comes when the log is back.
pub(super) const fn ends(event: SessionEvent) -> bool {
    match event {
        SessionEvent::Created
        | SessionEvent::Opening
        | SessionEvent::Opened
        | SessionEvent::Updated
        | SessionEvent::Shared => false,
        SessionEvent::Unshared
        | SessionEvent::Suspended(_)
        | SessionEvent::Lost
        | SessionEvent::Closing(_)
        | SessionEvent::Closed(_) => true,
    }
}
