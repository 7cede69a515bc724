//! Rows of sessions as the log has them.

use std::collections::BTreeMap;

use codegen_audit::{EventKind, Record};
use codegen_types::SessionNetwork;
use coordinator_core::session::{SessionState, Shares};
use serde_json::Value;

use crate::session::creation::CreationKey;
use crate::session::receipt::Receipt;
use crate::session::record::key_of;
use crate::session::repeat::DIGEST_LOST;
use crate::store::{SessionRow, SessionStore, StoreError};

/// The row as the log has it: what it says after the row was written last, applied in order.
pub(super) fn caught_up(row: Option<SessionRow>, records: &[Record]) -> Option<SessionRow> {
    let mut row = row;
    for record in records {
        if row.as_ref().is_some_and(|row| row.audit_seq >= record.seq) {
            continue;
        }
        if record.kind == EventKind::SessionExpired {
            return None;
        }
        row = match row {
            None => rebuilt(record),
            Some(row) => Some(applied(row, record)),
        };
    }
    row
}

fn rebuilt(record: &Record) -> Option<SessionRow> {
    if record.kind != EventKind::SessionCreated {
        return None;
    }
    let created_ms = record.ts.as_millisecond();
    let row = SessionRow {
        id: record.session?,
        principal: record.principal.clone()?,
        shares: Shares::default(),
        name: None,
        metadata: BTreeMap::new(),
        network: SessionNetwork::default(),
        key: key_of(record).map(|key| CreationKey { key, digest: DIGEST_LOST }),
        ttl_ms: 0,
        created_ms,
        last_used_ms: created_ms,
        isolation: None,
        tasks: 0,
        workspace_bytes: None,
        receipt: Receipt::default(),
        state: state_of(record)?,
        revision: 0,
        audit_seq: record.seq,
    };
    Some(applied(row, record))
}

fn applied(mut row: SessionRow, record: &Record) -> SessionRow {
    if let Some(state) = state_of(record) {
        row.state = state;
    }
    if let Some(shares) = shares_of(record) {
        row.shares = shares;
    } else if let Some(Value::Object(description)) = &record.args {
        row.name = description.get("name").and_then(Value::as_str).map(str::to_owned);
        if let Some(Value::Object(metadata)) = description.get("metadata") {
            row.metadata = metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        }
        if let Some(network) = description.get("network") {
            // One that cannot be read is none, which opens nothing.
            row.network = serde_json::from_value(network.clone()).unwrap_or_default();
        }
        row.ttl_ms = description.get("ttl_ms").and_then(Value::as_u64).unwrap_or(row.ttl_ms);
    }
    row.last_used_ms = row.last_used_ms.max(record.ts.as_millisecond());
    row.audit_seq = record.seq;
    row
}

/// The shares after a record that is about them.
fn shares_of(record: &Record) -> Option<Shares> {
    serde_json::from_value(record.detail.as_ref()?.get("shares")?.clone()).ok()
}

fn state_of(record: &Record) -> Option<SessionState> {
    serde_json::from_value(record.detail.as_ref()?.get("state")?.clone()).ok()
}

pub(super) async fn put(sessions: &dyn SessionStore, row: SessionRow) -> Result<SessionRow, StoreError> {
    let row = SessionRow { revision: row.revision + 1, ..row };
    match row.revision {
        1 => sessions.insert_session(row.clone()).await?,
        _ => sessions.put_session(row.clone()).await?,
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use codegen_audit::{Audit, Entry};
    use codegen_types::packages::HostPort;
    use codegen_types::{Epoch, Incarnation, Lease, Principal, SessionId};
    use coordinator_core::session::{Purpose, SessionEvent};
    use serde_json::json;

    use super::*;
    use crate::session::record::of_step;

    #[tokio::test]
    async fn a_row_made_from_the_log_reaches_what_its_session_asked_for() {
        let log = Audit::in_memory();
        let lease = Lease { worker: "w1".parse().unwrap(), incarnation: Incarnation::mint(), epoch: Epoch(1) };
        let state = SessionState::Opening { lease, purpose: Purpose::First };
        let entry = Entry {
            kind: EventKind::SessionCreated,
            principal: Some(Principal::os_user("ann")),
            session: Some(SessionId::mint()),
            detail: Some(json!({ "state": state })),
            ..Entry::default()
        };
        log.queue(entry).await.unwrap();
        let mut row = rebuilt(&log.memory_records().remove(0)).unwrap();
        let longest = ["a"; 125].join(".") + "b";
        row.network = SessionNetwork {
            allow: vec![HostPort::new(&longest, 65_535).unwrap(), HostPort::new("example.org", 443).unwrap()],
            secrets: vec!["deploy".to_owned()],
            approved: true,
        };
        log.queue(of_step(&row, SessionEvent::Created, None)).await.unwrap();
        let again = caught_up(None, &log.memory_records()[1..]).unwrap();
        assert_eq!(again.network, row.network);
    }
}
