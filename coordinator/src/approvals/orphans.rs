//! Requests that an earlier server left behind: denied, and whoever makes their calls again is told so once.
//!
//! The log has the arguments of a request as it keeps all arguments, long and secret ones as digests. The same call gives
//! the same, so that it is known again without anything else being kept of it.

use std::time::Duration;

use codegen_audit::{Audit, Entry, EventKind, Outcome, Record};
use codegen_types::Principal;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::service::Approvals;
use super::table::{DECIDED_KEPT, PENDING_MAX, Table};
use super::waiting::Need;

/// What is said to whoever makes such a call again.
pub(super) const RESTARTED: &str = "the server was restarted before anybody approved of it, which denies it; made once \
                                    more, the call is put to whoever approves again";
/// By what the record of a decision says that the end of the server made it.
pub(crate) const BY_END: &str = "server_ended";

/// A call that an earlier server was asked about.
pub(super) struct Orphan {
    principal: Principal,
    tool: String,
    rule: String,
    /// Its arguments as the log keeps them.
    args: Value,
    /// Until when whoever makes it again is told.
    until: Instant,
}

/// Arguments as the log keeps them, but for the idempotency key.
pub(super) fn kept(audit: &Audit, args: &Value) -> Value {
    unkeyed(audit.as_kept(args))
}

fn unkeyed(mut args: Value) -> Value {
    if let Value::Object(fields) = &mut args {
        fields.remove("idempotency_key");
    }
    args
}

impl Orphan {
    /// The call of a request in the log, unless that is too old to matter to anybody.
    fn of(request: Record) -> Option<Self> {
        let detail = |name: &str| request.detail.as_ref()?.get(name);
        let timeout = Duration::from_millis(detail("timeout_ms")?.as_u64()?);
        let age = Timestamp::now().duration_since(request.ts).unsigned_abs();
        let rule = detail("rule")?.as_str()?.to_owned();
        let (principal, tool, args) = (request.principal?, request.tool?, unkeyed(request.args?));
        let until = Instant::now() + DECIDED_KEPT;
        (age <= timeout + DECIDED_KEPT).then_some(Self { principal, tool, rule, args, until })
    }
}

impl Table {
    /// Whether an earlier server was asked about this call; forgotten once it is told.
    pub(super) fn forget_orphan(&mut self, need: &Need<'_>, kept: &Value) -> bool {
        let now = Instant::now();
        self.orphans.retain(|orphan| orphan.until > now);
        let is_it = |orphan: &Orphan| {
            orphan.principal == *need.principal
                && orphan.tool == need.tool
                && orphan.rule == need.rule
                && orphan.args == *kept
        };
        let place = self.orphans.iter().position(is_it);
        place.map(|place| self.orphans.swap_remove(place)).is_some()
    }
}

impl Approvals {
    /// Records that what was pending when an earlier server ended without a word is denied: nobody waits for it any more.
    /// Whoever makes those calls again is told, and those that `ended` the server denied itself.
    pub(crate) async fn deny_orphans(&self, requested: Vec<Record>, ended: Vec<Record>) {
        let orphans = requested.iter().chain(&ended).rev().cloned().filter_map(Orphan::of);
        self.0.table.lock().orphans = orphans.take(PENDING_MAX).collect();
        for orphan in requested {
            let about = |name: &str| orphan.detail.as_ref().and_then(|detail| detail.get(name).cloned());
            let detail = json!({
                "approval": about("approval"), "decision": "withdrawn", "why": "the server ended without a word",
                "caller": orphan.principal, "rule": about("rule"),
            });
            let entry = Entry {
                kind: EventKind::ApprovalDecided,
                session: orphan.session,
                tool: orphan.tool,
                outcome: Some(Outcome::Refused),
                cites: Some(orphan.seq),
                detail: Some(detail),
                ..Entry::default()
            };
            if let Err(error) = self.0.audit.append(entry).await {
                tracing::warn!(%error, "that a request for approval is over is not in the log");
                return;
            }
        }
    }
}
