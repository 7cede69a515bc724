//! Requests with their decisions, and the records of both.

use std::sync::Arc;
use std::time::Duration;

use codegen_audit::{Audit, Entry, EventKind, Outcome};
use codegen_types::{ApprovalId, ErrorCode, Failure, Principal};
use coordinator_core::policy::Approvers;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::asking::Said;
use super::orphans;
use super::shown::{ApprovalView, ApprovalWhole};
use super::table::Table;

/// The longest reason for a decision, in characters. A longer one is cut.
const WHY_CHARS_MAX: usize = 500;
/// How long the clock of requests rests before it looks for what it could not record.
const RETRY_RECORD: Duration = Duration::from_secs(5);

/// All requests for approval. Cheap to clone.
#[derive(Clone)]
pub struct Approvals(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) audit: Audit,
    pub(super) table: Mutex<Table>,
    /// Told when something new is due.
    pub(super) due: Notify,
}

/// Who decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decider {
    /// On whose behalf.
    pub principal: Principal,
    /// By which way.
    pub way: Way,
}

/// What is decided about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Approved,
    Denied,
    /// Nobody decided in time.
    Expired,
    /// Nobody waits for it any more; it is as if it had never been made.
    Withdrawn,
    /// The server ends, and denies it to whoever waits.
    Ended,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Withdrawn | Self::Ended => "withdrawn",
        }
    }
}

/// By which way a decision comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The operator's command.
    Command,
    /// The REST interface, with credentials of scope `admin`.
    Rest,
    /// The caller's own user, asked by the client.
    Client,
}

impl Way {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Rest => "rest",
            Self::Client => "client",
        }
    }
}

impl Approvals {
    /// An empty table, recorded in `audit`.
    pub fn new(audit: Audit) -> Self {
        Self(Arc::new(Inner { audit, table: Mutex::default(), due: Notify::new() }))
    }

    /// Every request that is pending, approved and not used, or denied and not heard of; the oldest first.
    pub fn list(&self) -> Vec<ApprovalView> {
        self.0.table.lock().views()
    }

    /// A request with all there is of its arguments.
    ///
    /// # Errors
    /// `NOT_FOUND`: it is not there, or over.
    pub fn show(&self, id: ApprovalId) -> Result<ApprovalWhole, Failure> {
        self.0.table.lock().whole(id).ok_or_else(super::table::no_such_request)
    }

    /// Approves of a call. The decision is in the log when this returns.
    ///
    /// # Errors
    /// `NOT_FOUND`; `PRECONDITION_FAILED` when it is decided; `PERMISSION_DENIED` for a user who may not approve;
    /// `AUDIT_UNAVAILABLE`.
    pub async fn approve(&self, id: ApprovalId, by: &Decider, why: Option<&str>) -> Result<ApprovalView, Failure> {
        self.decide(id, by, &Said { approves: true, why: why.map(str::to_owned) }).await
    }

    /// Denies a call. The decision is in the log when this returns.
    ///
    /// # Errors
    /// As of [`approve`](Self::approve).
    pub async fn deny(&self, id: ApprovalId, by: &Decider, why: Option<&str>) -> Result<ApprovalView, Failure> {
        self.decide(id, by, &Said { approves: false, why: why.map(str::to_owned) }).await
    }

    pub(super) async fn decide(&self, id: ApprovalId, by: &Decider, said: &Said) -> Result<ApprovalView, Failure> {
        if by.way == Way::Client {
            let of = self.0.table.lock().of(id);
            let own = of.filter(|(principal, ..)| *principal == by.principal);
            let (_, _, approvers) = own.ok_or_else(super::table::no_such_request)?;
            if approvers == Approvers::Operator {
                let message = "this call is for the operator to approve";
                return Err(Failure::new(ErrorCode::PermissionDenied, message));
            }
        }
        let why: Option<String> = said.why.as_ref().map(|why| why.chars().take(WHY_CHARS_MAX).collect());
        let decision = if said.approves { Verdict::Approved } else { Verdict::Denied };
        let told = match (said.approves, &why) {
            (true, _) => None,
            (false, Some(why)) => Some(format!("it was denied: {why}")),
            (false, None) => Some("it was denied".to_owned()),
        };
        self.settle(id, decision, Some(by), why, told).await
    }

    /// Records a decision and then lets it hold.
    async fn settle(
        &self,
        id: ApprovalId,
        verdict: Verdict,
        by: Option<&Decider>,
        why: Option<String>,
        denied: Option<String>,
    ) -> Result<ApprovalView, Failure> {
        let undecided = self.0.table.lock().begin(id)?;
        let view = &undecided.view;
        let entry = Entry {
            kind: EventKind::ApprovalDecided,
            principal: by.map(|by| by.principal.clone()),
            session: view.session,
            tool: Some(view.tool.clone()),
            outcome: Some(if denied.is_none() { Outcome::Ok } else { Outcome::Refused }),
            cites: Some(undecided.requested),
            detail: Some(json!({
                "approval": id, "decision": verdict.as_str(), "way": by.map(|by| by.way.as_str()), "why": why,
                "caller": view.principal, "rule": view.rule,
                (orphans::BY_END): (verdict == Verdict::Ended).then_some(true),
            })),
            ..Entry::default()
        };
        // A decision that has begun ends, whatever becomes of whoever made it.
        let (this, withdrawn) = (self.clone(), verdict == Verdict::Withdrawn);
        let recording = tokio::spawn(async move {
            match this.0.audit.append(entry).await {
                Ok(_) => {
                    let mut table = this.0.table.lock();
                    let decided = table.decided(id, denied, Instant::now());
                    if withdrawn {
                        // Whoever makes the same call at this moment is not denied because another one was cancelled.
                        table.remove(id);
                    }
                    decided.ok_or_else(super::table::no_such_request)
                }
                Err(error) => {
                    tracing::error!(%error, "a decision could not be recorded, and does not hold");
                    this.0.table.lock().undo(id);
                    Err(unrecorded())
                }
            }
        });
        let settled = recording.await.unwrap_or_else(|_| Err(unrecorded()));
        self.0.due.notify_one();
        settled
    }

    /// Takes a request back that nobody waits for any more.
    pub(super) async fn withdraw(&self, id: ApprovalId, why: &str) {
        // What is decided stays decided.
        if let Err(failure) =
            self.settle(id, Verdict::Withdrawn, None, Some(why.to_owned()), Some(why.to_owned())).await
        {
            tracing::debug!(%failure, "a request was decided just as its call was cancelled");
        }
    }

    async fn end_overdue(&self) {
        let (silent, lapsed) = self.0.table.lock().overdue(Instant::now());
        for id in silent {
            let told = "nobody approved of it in time".to_owned();
            if let Err(failure) = self.settle(id, Verdict::Expired, None, None, Some(told)).await {
                tracing::debug!(%failure, "a request was decided just as its time was over");
            }
        }
        for unused in lapsed {
            let detail = json!({
                "approval": unused.view.id, "decision": "lapsed", "caller": unused.view.principal, "rule": unused.view.rule,
                "why": "the approved call was not made in time",
            });
            let entry = Entry {
                kind: EventKind::ApprovalDecided,
                session: unused.view.session,
                tool: Some(unused.view.tool),
                outcome: Some(Outcome::Refused),
                cites: Some(unused.requested),
                detail: Some(detail),
                ..Entry::default()
            };
            if let Err(error) = self.0.audit.append(entry).await {
                tracing::warn!(%error, "that an approval was not used is not in the log");
            }
        }
    }

    /// Denies requests when their time is over, also those that no call waits for; for ever. It alone does: calls wait
    /// for what it decides, so that a log that cannot be written is not tried by each of them again and again.
    pub async fn keep_time(self) {
        loop {
            let due = self.0.table.lock().next_due();
            let next = async {
                match due {
                    // What could not be recorded is due still.
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = next => {
                    self.end_overdue().await;
                    let behind = self.0.table.lock().next_due().is_some_and(|at| at <= Instant::now());
                    if behind {
                        tokio::time::sleep(RETRY_RECORD).await;
                    }
                }
                () = self.0.due.notified() => {}
            }
        }
    }

    /// Denies what is pending, since the server ends.
    pub(crate) async fn close(&self) {
        let pending = self.0.table.lock().pending();
        for id in pending {
            let why = "the server ended".to_owned();
            if let Err(failure) = self.settle(id, Verdict::Ended, None, Some(why.clone()), Some(why)).await {
                tracing::debug!(%failure, "a request was decided just as the server ended");
            }
        }
    }
}

pub(super) fn unrecorded() -> Failure {
    let message = "the audit log cannot be written just now, so nothing is asked or decided";
    Failure::new(ErrorCode::AuditUnavailable, message)
}
